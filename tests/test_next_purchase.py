"""Who buys what next: the network's inputs, the blend, and the command on a shop of habits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import Shop
from trendcast.next_purchase import VISITS, Visits, blend_weights, blended, ndcg

DAYS = 140


def visits() -> Visits:
    """Two customers: the first bought 1 and 2 on day 10 and 2 on day 40, the second 3 on day 50."""
    return Visits(
        ["ann", "bob"],
        ["jam", "mug", "tea"],
        np.array([0, 0, 0, 1], np.int32),
        np.array([10, 10, 40, 50], np.int32),
        np.array([1, 2, 2, 3], np.int32),
    )


def test_inputs_hold_the_newest_visits_last_and_nothing_after_the_cutoff() -> None:
    read = visits().inputs(45)
    items, times = read["items"], read["times"]
    assert items[0, -2, :3].tolist() == [1, 2, 0]
    assert items[0, -1, :2].tolist() == [2, 0]
    assert not items[0, : VISITS - 2].any()
    assert not items[1].any()  # bob comes on day 50
    np.testing.assert_allclose(times[0, -2:], np.log1p([[35, 0], [5, 30]]), rtol=1e-6)
    # Of the last 28, 91 and 364 days.
    np.testing.assert_allclose(read["counts"][0, 1], np.log1p([1, 2, 2]), rtol=1e-6)
    assert visits().known(45).tolist() == [True, False]


def test_only_the_newest_visits_are_kept() -> None:
    n = VISITS + 3
    many = Visits(
        ["ann"], ["tea"], np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.ones(n, np.int32)
    )
    read = many.inputs(n - 1)
    assert read["items"][0, :, 0].tolist() == [1] * VISITS
    assert read["times"][0, -1, 0] == 0


def test_ndcg_is_that_of_the_textbook() -> None:
    # Hits at ranks 1 and 3 of two: (1 + 1 / 2) / (1 + 1 / log2(3)), Järvelin & Kekäläinen 2002.
    scores = np.array([[0.9, 0.8, 0.7, 0.1]], np.float32)
    truth = np.array([[True, False, True, False]])
    assert ndcg(scores, truth) == pytest.approx(1.5 / (1 + 1 / np.log2(3)))


def test_the_blend_trusts_who_was_right() -> None:
    truth = np.eye(30, dtype=bool)
    wrong = np.ones((30, 30), np.float32) * np.arange(30, dtype=np.float32)
    scores = {name: wrong for name in ("gru", "popularity", "together")}
    scores["repeat"] = truth.astype(np.float32) * 5
    weights = blend_weights(scores, truth, np.ones(30, bool), seed=1)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["repeat"] > 0
    assert ndcg(blended(scores, weights), truth) == 1.0


def habits() -> list[dict[str, Any]]:
    """Forty customers who each buy two things of their own every week; six who stop coming after a while."""
    lines = []
    for customer in range(46):
        for week in range(DAYS // 7):
            if customer >= 40 and week > 8 + customer - 40:
                break
            day = dt.date(2026, 1, 1) + dt.timedelta(days=7 * week + customer % 7)
            for item in (customer % 12, (customer * 5 + 3) % 12):
                line = {"order_id": f"{customer}-{week}", "customer_id": f"c{customer:02}"}
                lines.append(
                    line
                    | {"product_id": f"p{item:02}", "ordered_at": day, "quantity": 1, "revenue": 2}
                )
    return lines


@pytest.mark.slow
def test_the_command_ranks_judges_and_serves(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(habits())
    shop.build("+tag:trendcast_ledger", "+tag:trendcast_marts", tests=False)
    before = shop.query("select distinct model from analytics_marts.fct_next_purchase")
    assert before == [{"model": "repeat"}]
    forecasts = shop.query("select * from analytics_marts.fct_forecasts order by 1, 2")

    told = shop.json("customers")
    assert sum(told["weights"].values()) == pytest.approx(1)
    reported = {row["method"]: row for row in told["accuracy"] if row["is_report"]}
    assert set(reported) == {"popularity", "repeat", "together", "gru", "blend"}
    assert reported["blend"]["ndcg"] >= reported["popularity"]["ndcg"]
    assert reported["blend"]["hit_rate"] == 1.0
    served = shop.query("select * from analytics_marts.fct_next_purchase where item_rank = 1")
    assert len(served) == 46
    assert {(row["model"], row["run_id"]) for row in served} == {("blend", told["run_id"])}
    # The forecast in force is what it was.
    assert shop.query("select * from analytics_marts.fct_forecasts order by 1, 2") == forecasts
    # Those who stopped long ago are called lost with more chance than those who come each week.
    chances = shop.query(
        """
        select customer_id >= 'c40' as stopped, avg(churn_probability) as chance
        from analytics_marts.dim_customer_segments group by 1 order by 1
        """
    )
    assert chances[0]["chance"] < 0.1
    assert chances[1]["chance"] > 0.9


def test_a_shop_that_does_not_know_its_customers_is_told_why(small_run: Shop) -> None:
    done = small_run.run("customers")
    assert done.returncode == 1
    assert "maps no customer_id" in done.stderr
    for table in (
        *("dim_customer_segments", "fct_churn_accuracy", "fct_order_accuracy"),
        *("fct_next_purchase", "fct_next_purchase_accuracy"),
    ):
        assert small_run.query(f"select * from analytics_marts.{table}") == []
