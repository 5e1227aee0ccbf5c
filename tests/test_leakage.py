"""Point in time: what the features say of a day does not depend on anything that came after it."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import REPO, Shop
from trendcast.audit import AS_LOADED, COMPARED, FORECASTS, audit
from trendcast.pipeline import Workspace


def audited(shop: Shop) -> list[dict[str, object]]:
    with shop.entered():
        workspace = Workspace.open(
            project_dir=shop.project_dir, profiles_dir=REPO / "profiles", vars=shop.vars
        )
        return audit(workspace, cuts=1, seed=3)


def test_no_row_known_at_a_cut_depends_on_what_follows(demo_run: Shop) -> None:
    found = audited(demo_run)
    features = [row for row in found if row["model"] not in FORECASTS]
    assert {(row["variant"], row["model"]) for row in features} == {
        (variant, model) for variant in ("cut off", "absurd future") for model in COMPARED
    }
    assert all(row["compared"] > 200 for row in features)
    assert [row for row in found if row["differing"]] == []


def test_text_columns_and_refused_lines_can_be_audited(make_shop: Callable[..., Shop]) -> None:
    """What cleaning refuses in one build it refuses in all; a line above the limit is no leak."""
    lines = [
        {
            "order_id": str(d),
            "product_id": "p",
            "ordered_at": f"2025-{1 + d // 28:02}-{1 + d % 28:02}",
        }
        | {"quantity": str(1 + d % 4)}
        for d in range(84)
    ]
    lines += [lines[9] | {"order_id": "a", "quantity": "20000"}]
    lines += [lines[9] | {"order_id": "b", "quantity": "many"}]
    lines += [lines[9] | {"order_id": "c", "ordered_at": "soon"}]
    shop = make_shop(lines)
    found = audited(shop)
    assert len([row for row in found if row["model"] not in FORECASTS]) == 2 * len(COMPARED)
    assert [row for row in found if row["differing"]] == []


def test_what_had_been_loaded_at_a_cut_gives_the_same(make_shop: Callable[..., Shop]) -> None:
    """A line that came late changes the history of its own series alone."""
    first = dt.datetime(2025, 1, 1, 9)
    lines = [
        {
            "order_id": f"{product}{day}",
            "product_id": product,
            "ordered_at": first + dt.timedelta(days=day),
            "quantity": 1.0 + (day * len(product)) % 4,
            # Of `late`, the lines of one day came at the end of all.
            "loaded_at": first
            + dt.timedelta(days=90 if product == "late" and day == 9 else day + 1),
        }
        for product in ("on time", "late")
        for day in range(84)
    ]
    found = audited(make_shop(lines))
    loaded = {row["model"]: row for row in found if row["variant"] == AS_LOADED}
    assert set(loaded) - set(FORECASTS) == {
        *("int_sales_filled", "ftr_history", "ftr_known", "ftr_static")
    }
    assert loaded["ftr_static"]["compared"] == 1
    assert [row for row in found if row["differing"]] == []


@pytest.mark.slow
def test_a_frame_that_sees_one_row_ahead_is_caught(demo_run: Shop, tmp_path: Path) -> None:
    """Test the test: with leaking windows in the macros, the audit must name the columns."""
    leaking = tmp_path / "dbt_project"
    shutil.copytree(REPO / "dbt_project", leaking, ignore=shutil.ignore_patterns("target", "logs"))
    macro = leaking / "macros" / "windows.sql"
    text = macro.read_text()
    leaks = {
        "preceding and current row": "preceding and 1 following",
        "lag({{ column }}, {{ k }}) over ()": "lead({{ column }}, 1) over ()",
    }
    for ours, leak in leaks.items():
        assert ours in text
        text = text.replace(ours, leak)
    macro.write_text(text)
    found = audited(replace(demo_run, project_dir=leaking))
    by_model = {row["model"]: row for row in found if row["variant"] == "absurd future"}
    assert by_model["ftr_history"]["differing"] > 0
    framed, laddered = {"season_error_sum"}, {"mean_short", "std_medium", "lag_1"}
    assert framed | laddered | {"season_mean_4", "ewm_short"} <= set(
        by_model["ftr_history"]["columns"]
    )
    assert by_model["ftr_known"]["differing"] == 0
    assert by_model["int_sales_filled"]["differing"] == 0
