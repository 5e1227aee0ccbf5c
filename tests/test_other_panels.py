"""Another grain, another key: a matter of vars, on the demo shop."""

from __future__ import annotations

import datetime as dt
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
