"""Another grain, another key: a matter of vars, on the demo shop."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Shop


@pytest.mark.parametrize(
    ("vars", "n_series", "lead_one"),
    [
        pytest.param(
            {"grain": "week", "horizon": 4, "backtest_folds": 2},
            295,
            dt.date(2018, 1, 1),
            id="weeks",
        ),
        pytest.param(
            {
                "series_key": ["product_type"],
                "static_attributes": ["category"],
                "order_scope": "department = 'PRODUCE'",
                "horizon": 14,
            },
            None,
            dt.date(2018, 1, 1),
            id="product types",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "series_key": ["product_id", "location_id"],
                "static_attributes": ["category"],
                "order_scope": "category in ('BANANAS', 'TROPICAL FRUIT', 'SOFT DRINKS')",
                "grain": "week",
                "horizon": 4,
                "backtest_folds": 2,
            },
            None,
            dt.date(2018, 1, 1),
            id="product x store by week",
        ),
    ],
)
def test_a_whole_run_on(
    tmp_path_factory: pytest.TempPathFactory,
    vars: dict[str, Any],
    n_series: int | None,
    lead_one: dt.date,
) -> None:
    shop = Shop(tmp_path_factory.mktemp("other"), vars | {"models": ["ridge"]})
    summary = shop.json("run")
    if n_series:
        assert summary["n_series"] == n_series
    (row,) = shop.query(
        """
        select count(distinct series_id) as series, count(*) as n, min(target_date) as first, count(distinct lead) as leads
        from analytics_marts.fct_forecasts
        """
    )
    assert row["series"] == summary["n_series"] > 20
    assert row["leads"] == vars["horizon"]
    assert row["n"] == row["series"] * row["leads"]
    assert row["first"] == lead_one
    accuracy = {r["model"]: r for r in summary["accuracy"]}
    assert accuracy["ridge"]["wape"] < accuracy["seasonal_naive"]["wape"]
    key = shop.query("select * from analytics_marts.dim_series limit 1")[0]
    assert set(vars.get("series_key", ["category"])) <= set(key)


def test_folds_closer_together_than_the_horizon(make_shop: Callable[..., Shop]) -> None:
    """Leads of the newest folds that have not come to pass are left out of the scores."""
    lines = [
        {"order_id": str(d), "product_id": "p", "ordered_at": dt.date(2025, 1, 1) + dt.timedelta(d)}
        | {"quantity": 1 + d % 4}
        for d in range(100)
    ]
    shop = make_shop(lines, models=["ridge"], horizon=7, backtest_folds=3, backtest_step=3)
    shop.json("run")
    rows = shop.query(
        "select model, fold, count(*) as leads, count(actual) as known from analytics_trendcast.backtests group by 1, 2"
    )
    assert {(r["model"], r["fold"]): (r["leads"], r["known"]) for r in rows} == {
        (model, fold): (leads, leads)
        for model in ("ridge", "seasonal_naive")
        for fold, leads in ((1, 3), (2, 6), (3, 7))
    }
