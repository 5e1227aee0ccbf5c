"""A large panel is forecast in parts of whole series; the result is that of the panel as a whole."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.conftest import Shop, after_a_run
from trendcast import features, ledger, pipeline, shards
from trendcast.features import Features
from trendcast.models import create
from trendcast.models.by_measure import KEYS
from trendcast.pipeline import Workspace
from trendcast.streams import to_stream

EVERY_MODEL = ["analogy", "classical", "ridge", "lightgbm", "lstm", "ensemble"]
WRITTEN = ("forecasts", "backtests", "explanations", "weights", "coefficients")
DAYS = 110
N_SERIES = 5


def shop_of(make_shop: Callable[..., Shop], models: list[str], **vars: Any) -> Shop:
    """A shop after one run: products of which the last two came after the oldest cutoff, the last of all days ago."""
    lines = [
        {
            "order_id": f"{day}-{k}",
            "product_id": f"p{k}",
            "ordered_at": dt.datetime(2026, 1, 1, 12) + dt.timedelta(days=day),
            "quantity": 1 + (day * k + day // 7) % 6,
            "revenue": 2.5 * k * (1 + (day * k + day // 7) % 6),
        }
        for day in range(DAYS)
        for k in range(1, N_SERIES + 1)
        if day >= {N_SERIES - 1: 70, N_SERIES: 104}.get(k, 0)
    ]
    return after_a_run(make_shop, lines, models=models, **vars)


@contextmanager
def opened(shop: Shop) -> Iterator[Workspace]:
    """The shop as the pipeline sees it, its features and marts as they are, in parts of two series."""
    with shop.opened() as workspace, pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "PART_ROWS", 150)
        yield workspace


def written(shop: Shop, run_id: str, table: str) -> list[dict[str, Any]]:
    """Every row that a run wrote into a table, in an order that does not depend on its numbers."""
    rows = shop.query(
        f"select * exclude (run_id) from analytics_trendcast.{table} where run_id = '{run_id}'"
    )
    return sorted(rows, key=lambda row: repr([v for v in row.values() if type(v) is not float]))


def require_same(shop: Shop, one: str, other: str) -> None:
    """Compare what two runs wrote."""
    for table in WRITTEN:
        before, after = written(shop, one, table), written(shop, other, table)
        assert len(before) == len(after), table
        for a, b in zip(before, after, strict=True):
            numbers = [name for name, value in a.items() if type(value) is float]
            assert {k: v for k, v in a.items() if k not in numbers} == {
                k: v for k, v in b.items() if k not in numbers
            }
            # The network rounds a little differently when it is given other series beside a series.
            np.testing.assert_allclose(
                [a[n] for n in numbers],
                [b[n] for n in numbers],
                rtol=1e-4,
                atol=1e-6,
                err_msg=table,
            )


def last_run(shop: Shop) -> dict[str, Any]:
    sql = "select * from analytics_trendcast.runs where status = 'committed' order by finished_at desc limit 1"
    return shop.query(sql)[0]


@pytest.fixture(scope="module")
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return shop_of(make_shop, ["analogy", "ridge", "lightgbm", "ensemble"])


def test_parts_are_all_series_once_in_their_order(shop: Shop) -> None:
    with opened(shop) as workspace, workspace.connect() as warehouse:
        whole = Features(warehouse, workspace.project)
        assert whole.n_parts == 3
        parts = [whole.part(k) for k in range(whole.n_parts)]
        ids = [name for part in parts for name in part.series_id.to_pylist()]
        assert ids == whole.series_id.to_pylist() == sorted(ids)
        assert [part.n_series for part in parts] == [2, 2, 1]
        # What all series have in common is that of all series.
        assert {part.first_t for part in parts} == {whole.first_t}
        early = whole.cutoffs[-1].t
        assert [part.has_history(early) for part in parts] == [True, True, False]


def test_who_reads_every_row_reads_a_sample(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "TRAIN_ROWS", 150)
    with opened(shop) as workspace, workspace.connect() as warehouse:
        whole = Features(warehouse, workspace.project)
        t = whole.last_cutoff.t
        some = whole.sampled(t, 7, whole_history=True)
        assert some.n_series == 1 and some.panel.n_series == 1
        assert (some.first_t, some.cutoffs) == (whole.first_t, whole.cutoffs)
        again, other = (whole.sampled(t, seed, whole_history=True) for seed in (7, 8))
        assert again.series_id == some.series_id
        assert {len(part.panel.y) for part in (some, again, other)} <= {DAYS, 40, 6}
        assert whole.sampled(t, 7) is whole
        # Of a series that had not begun nothing can be learnt.
        early = whole.cutoffs[-1].t
        old = {
            name
            for seed in range(12)
            for name in whole.sampled(early, seed, whole_history=True).series_id.to_pylist()
        }
        assert old == {"p1", "p2", "p3", "p4"}
        # As `trendcast tune` asks, with other settings for each trial.
        tried = whole.with_settings(classical={"origins": 2}).sampled(t, 7, whole_history=True)
        assert tried.series_id == some.series_id
        assert (tried.settings.classical, some.settings.classical) == (
            {"origins": 2},
            whole.settings.classical,
        )


def test_only_what_dbt_computes_is_there_before_a_series_has_begun(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(shop) as workspace, workspace.connect() as warehouse:
        whole = Features(warehouse, workspace.project)
        t, part = whole.last_cutoff.t, whole.part(2)
        monkeypatch.setattr(Features, "has_history", lambda *_: False)
        rows = shards.forecast(create("analogy"), part, t)
        assert set(rows["series_id"].to_pylist()) == {"p5"}
        assert len(shards.forecast(create("ridge"), part, t)) == 0


def test_the_largest_series_of_all_parts_are_explained(shop: Shop) -> None:
    with opened(shop) as workspace, workspace.connect() as warehouse:
        whole = Features(warehouse, workspace.project)
        few = {"explain_rows": 2 * whole.settings.horizon}
        whole = whole.with_settings(lightgbm=whole.settings.lightgbm | few)
        model, t = create("lightgbm"), whole.last_cutoff.t
        model.fit(whole, t, 1, lambda _: None)
        parts = [model.explain(whole.part(k), t) for k in range(whole.n_parts)]
        explained = {name for part in parts if part for name in part["series_id"].to_pylist()}
        assert explained == set(whole.largest(t, 2).to_pylist()) and len(explained) == 2
        assert None in parts


def test_a_panel_in_parts_is_forecast_as_a_whole(shop: Shop) -> None:
    first = last_run(shop)["run_id"]
    with opened(shop) as workspace:
        pipeline.run(workspace)
    again = last_run(shop)
    assert again["run_id"] != first
    require_same(shop, first, again["run_id"])


def test_a_resumed_run_in_parts_is_that_in_one_piece(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    staged: list[tuple[str, int]] = []
    staging = ledger.Run.stage

    def stage(run: ledger.Run, table: str, rows: Any, part: int = 0, **constants: Any) -> None:
        if (table, part, constants.get("model")) == stop_at:
            raise Stop
        staged.append((table, part))
        staging(run, table, rows, part, **constants)

    with opened(shop) as workspace:
        pipeline.run(workspace)
        whole = last_run(shop)
        monkeypatch.setattr(ledger.Run, "stage", stage)
        for stop_at in (
            ("backtests", 1, "ensemble"),
            ("forecasts", 2, "lightgbm"),
            ("explanations", 1, "ensemble"),
        ):
            with pytest.raises(Stop):
                pipeline.run(workspace)
            staged.clear()
            table, part, model = stop_at
            stop_at = ("", 0, "")
            summary = pipeline.run(workspace, resume=True)
            assert staged[0] == (table, part if model != "ensemble" or table != "backtests" else 0)
            found = last_run(shop)
            assert found["run_id"] == summary["run_id"]
            assert found["forecasts_sha256"] == whole["forecasts_sha256"]


def test_a_part_of_the_portfolio_may_be_in_one_part_of_the_panel(shop: Shop) -> None:
    with opened(shop) as workspace:
        pipeline.run(workspace)
        pipeline.forecast(workspace, series={"product_id": "p3"})
    run = last_run(shop)
    rows = written(shop, run["run_id"], "forecasts")
    assert {row["series_id"] for row in rows if row["model"] == "ensemble"} == {"p3"}
    assert len({row["lead"] for row in rows}) * 4 <= len(rows)


@pytest.mark.slow
def test_every_model_and_measure_is_the_same_in_parts(make_shop: Callable[..., Shop]) -> None:
    shop = shop_of(make_shop, EVERY_MODEL, measure=["quantity", "revenue"])
    first = last_run(shop)["run_id"]
    with opened(shop) as workspace:
        pipeline.run(workspace)
    require_same(shop, first, last_run(shop)["run_id"])


@pytest.mark.slow
def test_a_worker_forecasts_every_measure(make_shop: Callable[..., Shop]) -> None:
    shop = shop_of(make_shop, ["ridge"], measure=["quantity", "revenue"])
    with opened(shop) as workspace, workspace.connect() as warehouse:
        whole = Features(warehouse, workspace.project)
        model = create("ridge", whole.settings.measures)
        t = whole.last_cutoff.t
        model.fit(whole, t, 1, lambda _: None)
        shared = {
            name: to_stream(whole.query(f"select * from {whole.relation(name)}"))
            for name in shards.SHARED
        }
        scorer = shards.Scorer("ridge", {t: shards._stored(model)}, shared, whole.project)
        sent = {name: whole.query(sql) for name, sql in shards._queries(whole, [t]).items()}
        found = scorer(sent).sort_by(KEYS)
        assert found.equals(model.forecast(whole, t).cast(found.schema))
