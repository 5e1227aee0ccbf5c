"""A holiday that was planted is found again: in the ledger, and in what BI reads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import numpy as np
import pytest

from tests.conftest import Shop

FIRST = dt.datetime(2025, 1, 1, 12)
DAYS, HORIZON, LEAD = 300, 7, 3
# Irregular, so that neither weekday nor day of the month gives them away; the last one is yet to come.
GAPS = [9, 11, 16, 13, 8, 19, 12, 17, 10, 21, 14, 9, 18, 15, 11, 23, 16, 12, 14, 20]
HOLIDAYS = np.r_[np.cumsum(GAPS), DAYS - 1 + LEAD]


@pytest.fixture(scope="module")
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """Twelve products that sell twice as much on a holiday, after a run."""
    rng = np.random.default_rng(4)
    factor = np.where(np.isin(np.arange(DAYS), HOLIDAYS), 2.0, 1.0)
    lines = [
        {
            "order_id": f"{k}-{i}",
            "product_id": f"p{k}",
            "ordered_at": FIRST + dt.timedelta(days=i),
            "quantity": int(quantity),
        }
        for k in range(12)
        for i, quantity in enumerate(rng.poisson(20 * factor))
        if quantity
    ]
    shop = make_shop(
        lines,
        models=["classical", "lightgbm", "ensemble"],
        horizon=HORIZON,
        events_table="events",
        holiday_country=None,
        lightgbm={"max_rows": 20_000, "max_rounds": 100, "train_cutoffs": 60},
    )
    days = [(FIRST + dt.timedelta(days=int(h))).date() for h in HOLIDAYS]
    shop.write("events", [{"date": day, "name": "Fair"} for day in days])
    done = shop.run("run")
    assert done.returncode == 0, done.stderr
    return shop


def of_lead(shop: Shop, relation: str, where: str = "true") -> dict[int, dict[str, float]]:
    """Return the parts by lead and component, summed over the series."""
    found: dict[int, dict[str, float]] = {lead: {} for lead in range(1, HORIZON + 1)}
    sql = f"select lead, component, sum(contribution) as v from {relation} where {where} group by 1, 2"
    for row in shop.query(sql):
        found[row["lead"]][row["component"]] = row["v"]
    return found


@pytest.mark.slow
def test_a_planted_holiday_is_found(shop: Shop) -> None:
    parts = of_lead(shop, "analytics_trendcast.explanations", "model = 'lightgbm'")
    mean = sum(parts[LEAD].values())
    assert mean == pytest.approx(12 * 40, rel=0.15)
    # It doubles sales, so half of the day's mean is the holiday's, less what an average day has of it.
    assert 0.35 < parts[LEAD]["holiday"] / mean < 0.55
    for other in set(parts) - {LEAD}:
        assert abs(parts[other]["holiday"]) < 0.08 * sum(parts[other].values())
    # No other component was given what is the holiday's.
    rest = {name: value for name, value in parts[LEAD].items() if name not in ("level", "holiday")}
    assert abs(sum(rest.values())) < 0.15 * mean


@pytest.mark.slow
def test_bi_reads_what_the_forecast_in_force_is_made_of(shop: Shop) -> None:
    served = shop.query(
        """
        select series_id, target_date, model, mean, sum(contribution) as total
        from analytics_marts.fct_forecasts left join analytics_marts.fct_forecast_explanations
            using (series_id, target_date, model)
        group by all
        """
    )
    assert len(served) == 12 * HORIZON
    assert [row["total"] for row in served] == pytest.approx([row["mean"] for row in served])
    assert {row["model"] for row in served} == {"ensemble"}
    # Smoothing knows no holiday, so the ensemble has the trees' part of it by their weight.
    (weight,) = shop.query(
        "select avg(weight) as w from analytics_trendcast.weights where fold = 0 and member = 'lightgbm'"
    )
    mart = of_lead(shop, "analytics_marts.fct_forecast_explanations")[LEAD]
    trees = of_lead(shop, "analytics_trendcast.explanations", "model = 'lightgbm'")[LEAD]
    assert mart["holiday"] == pytest.approx(weight["w"] * trees["holiday"], rel=0.3)
    assert mart["holiday"] > 12 * 5
