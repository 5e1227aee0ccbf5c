"""Launches and young series: forecast by their neighbours, flagged, stocked, and without a look at the future."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import REPO, Shop
from trendcast.audit import audit
from trendcast.ensemble import PRIOR_SHARE
from trendcast.pipeline import Workspace

FIRST, DAYS, HORIZON = dt.date(2025, 1, 1), 120, 14
CUTOFF = FIRST + dt.timedelta(days=DAYS - 1)
#: Products that sell about so many a day at each of two stores.
LEVELS = {f"mug{k}": 4 + k for k in range(6)} | {f"bed{k}": 0.1 for k in range(6)}
LAUNCHES = (
    ("new mug", "north", CUTOFF + dt.timedelta(days=4)),
    ("mug0", "harbour", CUTOFF + dt.timedelta(days=1)),  # a store that sells nothing yet
    ("far mug", "north", CUTOFF + dt.timedelta(days=99)),
    ("young mug", "north", CUTOFF - dt.timedelta(days=9)),
)
MART = "analytics_marts"


@pytest.fixture(scope="module")
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """Two stores after a run; `young mug` is planned and has sold for ten days, `surprise` for 20 without a plan."""
    draw = random.Random(1)
    begun = {"young mug": DAYS - 10, "surprise": DAYS - 20, "earlier": DAYS - 24}
    levels = LEVELS | dict.fromkeys(begun, 6.0)
    lines = [
        {
            "order_id": f"{product}{store}{day}",
            "product_id": product,
            "location_id": store,
            "ordered_at": FIRST + dt.timedelta(days=day),
            "quantity": float(quantity),
            "revenue": 2.0 * quantity,
        }
        for product, level in levels.items()
        for store in ("north", "south")
        for day in range(begun.get(product, 0), DAYS)
        if (product not in begun or store == "north")
        and (quantity := sum(draw.random() < level / 10 for _ in range(10)) or not day)
    ]
    named = [*levels, "new mug", "far mug"]
    products = [
        {"product_id": name, "category": "beds" if name.startswith("bed") else "mugs"}
        for name in named
    ]
    shop = make_shop(
        lines,
        products,
        series_key=["location_id", "product_id"],
        static_attributes=["category"],
        horizon=HORIZON,
        backtest_folds=2,
        models=["seasonal_naive", "analogy", "classical", "ridge", "ensemble"],
        launches_table="launches",
        launch_columns={c: c for c in ("product_id", "location_id", "launch_date", "planned_on")},
    )
    plan = [
        {
            "product_id": p,
            "location_id": s,
            "launch_date": d,
            "planned_on": CUTOFF - dt.timedelta(days=30),
        }
        for p, s, d in LAUNCHES
    ]
    shop.write("launches", plan)
    done = shop.run("run")
    assert done.returncode == 0, done.stderr or done.stdout
    return shop


def forecasts(shop: Shop, series: str) -> list[dict[str, Any]]:
    return shop.query(
        f"select * from {MART}.fct_forecasts where series_id = '{series}' order by lead"
    )


def test_a_launch_is_forecast_from_its_first_day_and_flagged(shop: Shop) -> None:
    rows = forecasts(shop, "north/new mug")
    assert len(rows) == HORIZON
    assert [row["mean"] > 0 for row in rows] == [row["lead"] >= 4 for row in rows]
    # Mugs sell four to nine a day and beds next to none: it is a mug, and as wide as mugs differ.
    assert all(3 < row["mean"] < 8 for row in rows[3:])
    assert all(row["q025"] <= 4 and row["q975"] >= 8 for row in rows[3:])
    assert {(r["model"], r["is_new"], r["evidence_periods"]) for r in rows} == {
        ("analogy", True, 0)
    }
    assert {r["demand_class"] for r in rows} == {"launch"}
    assert all(r["run_id"] for r in rows)  # in the ledger, to be held against what comes


def test_a_product_in_a_new_store_sells_what_it_does_elsewhere(shop: Shop) -> None:
    (first, *_) = forecasts(shop, "harbour/mug0")
    assert first["mean"] == pytest.approx(4, abs=1)


def test_old_series_are_not_flagged_and_launches_beyond_the_horizon_wait(shop: Shop) -> None:
    rows = forecasts(shop, "north/mug0")
    assert {(r["is_new"], r["evidence_periods"]) for r in rows} == {(False, DAYS)}
    assert forecasts(shop, "north/far mug") == []


def test_every_new_series_was_compared_in_the_backtest(shop: Shop) -> None:
    """At each fold analogy competes for class `new` on the rows of the others, and alone has launches the plan knew."""
    rows = shop.query(
        """
        select fold, demand_class, model, count(distinct series_id) as n, sum(actual) as actual
        from analytics_trendcast.backtests where demand_class in ('new', 'launch') group by all
        """
    )
    found = {(r["fold"], r["demand_class"], r["model"]): (r["n"], r["actual"]) for r in rows}
    assert found[1, "new", "analogy"] == found[1, "new", "classical"]
    assert found[1, "new", "analogy"][0] == 2  # `surprise` and `earlier`
    assert found[1, "launch", "analogy"][0] == 1  # `young mug`, five days before its first sale
    # At fold 2, 28 days before, nobody had sold, and nothing was planned to begin within the horizon.
    assert {fold for fold, *_ in found} == {1}
    ranked = shop.query(f"select * from {MART}.fct_champions where model = 'analogy'")
    assert {r["demand_class"] for r in ranked} == {"new", "launch"}
    total = shop.query(f"select model from {MART}.fct_forecast_accuracy where demand_class = 'all'")
    assert "analogy" not in {r["model"] for r in total}


def test_what_new_series_lost_is_learnt_from(shop: Shop) -> None:
    """The folds had new series with sales to come, so the run did not keep the usual share."""
    (file,) = shop.artifacts_dir.glob("*/ensemble/ensemble.json")
    assert json.loads(file.read_text())["prior_share"] != PRIOR_SHARE


def test_evidence_counts_from_the_planned_launch(shop: Shop) -> None:
    rows = shop.query(
        """
        select series_id, max(evidence_periods) as n from analytics_trendcast.ftr_analogy
        where fold = 0 group by 1
        """
    )
    assert {r["series_id"]: r["n"] for r in rows} == {
        "north/new mug": 0,
        "harbour/mug0": 0,
        "north/young mug": 10,
        "north/surprise": 19,
        "north/earlier": 23,
    }


def test_what_to_order_for_a_launch_and_the_report(shop: Shop) -> None:
    rows = shop.query(
        f"select * from {MART}.fct_reorder_recommendations where series_id = 'harbour/mug0'"
    )
    (row,) = rows
    assert row["reorder_point"] >= row["protection_demand"] > 14 * 3
    (listed,) = shop.query(f"select * from {MART}.dim_series where series_id = 'harbour/mug0'")
    assert (listed["demand_class"], listed["first_sale_date"]) == ("launch", None)
    done = shop.run("report", "--out", str(shop.folder / "report.html"))
    assert done.returncode == 0, done.stderr
    assert (shop.folder / "report.html").stat().st_size > 100_000


def test_the_marts_pass_their_tests(shop: Shop) -> None:
    """Groups add up, horizons are complete, quantiles are ordered: with launches too."""
    shop.build("tag:trendcast_marts")


def test_neighbours_are_read_up_to_the_cutoff_only(shop: Shop) -> None:
    """A fold's forecast is that of a build on what was there at its cutoff, and an absurd future changes nothing."""
    fold = CUTOFF - dt.timedelta(days=HORIZON)
    columns = "series_id, lead, mean, q025, q50, q975, evidence_periods, n_neighbours"
    sql = f"select {columns} from analytics_trendcast.ftr_analogy where fold = {{}} order by all"
    expected = shop.query(sql.format(1))
    assert {r["series_id"] for r in expected} >= {"north/surprise", "north/young mug"}
    raw = shop.query("select * from raw.order_lines")
    for vars, absurd, number in (({"as_of": str(fold)}, 1, 0), ({}, 997, 1)):
        other = replace(shop, folder=shop.folder.parent / f"again{number}", vars=shop.vars | vars)
        other.folder.mkdir()
        other.write(
            "order_lines",
            [
                r | {"quantity": r["quantity"] * (absurd if r["ordered_at"] > fold else 1)}
                for r in raw
            ],
        )
        for table in ("products", "launches"):
            other.write(table, shop.query(f"select * from raw.{table}"))
        other.build(tests=False)
        assert other.query(sql.format(number)) == expected


@pytest.mark.slow
def test_the_audit_holds_with_launches(shop: Shop) -> None:
    with shop.entered():
        workspace = Workspace.open(
            project_dir=shop.project_dir, profiles_dir=REPO / "profiles", vars=shop.vars
        )
        found = audit(workspace, cuts=1, seed=0)
    # The seed's cut is after the backtest's newest cutoff, so that there are forecasts by analogy to compare.
    assert {row["model"] for row in found} >= {"ftr_history", "ftr_static", "ftr_analogy"}
    assert [row for row in found if row["differing"]] == []


def test_a_plan_that_names_no_series_is_an_error(shop: Shop) -> None:
    vars = shop.vars | {
        "launch_columns": {"product_id": "product_id", "launch_date": "launch_date"}
    }
    done = replace(shop, vars=vars).run("run")
    assert done.returncode == 1
    assert "launch_columns" in done.stderr and "location_id" in done.stderr
    vars = shop.vars | {"neighbour_groups": [["colour"]]}
    done = replace(shop, vars=vars).run("run")
    assert done.returncode == 2
    assert "neighbour_groups" in done.stderr and "colour" in done.stderr
