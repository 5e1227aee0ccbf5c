"""Several measures in one warehouse and one run: each has series of its own, and none changes another."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.conftest import REPO, Shop
from tests.test_incremental import assert_as_full, rebuilt
from tests.test_leakage import audited
from trendcast.errors import UsageError
from trendcast.pipeline import Workspace
from trendcast.report.content import read
from trendcast.session import Session
from trendcast.summary import print_summary

FIRST = dt.datetime(2025, 1, 1, 9)
DAYS = 120
PRODUCTS = ("coffee", "oat milk", "tea", "tea pot", "water/still")
MEASURES: dict[str, Any] = {
    "measure": ["average_price", "quantity"],
    "windows": [3, 8, 15],
    "static_attributes": ["category"],
    "models": ["classical", "ridge", "ensemble"],
    "backtest_folds": 2,
}


def lines() -> list[dict[str, Any]]:
    """A shop whose prices rise, but for one product that is given away without a price at first."""
    rng = np.random.default_rng(3)
    found = []
    for k, product in enumerate(PRODUCTS):
        for day in range(DAYS):
            if rng.random() < (1.0, 0.9, 0.7, 0.3, 0.9)[k]:
                quantity = int(rng.integers(1, 6))
                price = round((1 + k) * (1 + 0.004 * day) * float(rng.choice([0.8, 1.0, 1.0])), 2)
                free = product == "oat milk" and day < 20
                found.append(line(product, day, quantity, None if free else price))
    return found


def line(
    product: str, day: int, quantity: float, price: float | None, loaded: int | None = None
) -> dict[str, Any]:
    return {
        "order_id": f"{product}-{day}-{loaded}",
        "product_id": product,
        "ordered_at": FIRST + dt.timedelta(days=day),
        "quantity": float(quantity),
        "revenue": None if price is None else round(price * quantity, 2),
        "loaded_at": FIRST + dt.timedelta(days=(day if loaded is None else loaded) + 1),
    }


@pytest.fixture(scope="module")
def both(make_shop: Callable[..., Shop]) -> Shop:
    """The shop after a run of quantity and average price; read it, and leave it as it is."""
    products = [{"product_id": p, "category": p.split()[0]} for p in PRODUCTS]
    shop = make_shop(lines(), products, **MEASURES)
    shop.json("run")
    return shop


def opened(shop: Shop) -> Workspace:
    return Workspace.open(
        project_dir=shop.project_dir, profiles_dir=REPO / "profiles", vars=shop.vars
    )


def newest(shop: Shop, table: str, measure: str) -> list[dict[str, Any]]:
    """Rows of a measure that the newest run wrote."""
    of_measure = (
        f"series_id in (select series_id from analytics_trendcast.int_series where measure = '{measure}')"
        if table == "forecasts"
        else f"measure = '{measure}'"
    )
    return shop.query(
        f"""
        select * exclude (run_id) from analytics_trendcast.{table}
        where run_id = (select max(run_id) from analytics_trendcast.runs) and {of_measure} order by all
        """
    )


def test_a_quantity_is_forecast_as_it_would_be_alone(both: Shop, tmp_path: Any) -> None:
    alone = Shop(tmp_path, both.vars | {"measure": "quantity"}, data_tests=False)
    alone.path.write_bytes(both.path.read_bytes())
    alone.json("run")
    assert len(newest(alone, "forecasts", "quantity")) == len(PRODUCTS) * 7 * 4
    for table in ("forecasts", "weights", "coefficients"):
        assert newest(alone, table, "quantity") == newest(both, table, "quantity") != []


def test_series_of_each_measure(both: Shop) -> None:
    series = both.query(
        "select *, first_sale_date - date '2025-01-01' as first_day from analytics_marts.dim_series order by series_id"
    )
    assert [row["series_id"] for row in series] == sorted(
        [*PRODUCTS, *(f"{p}/average_price" for p in PRODUCTS)]
    )
    by_id = {row["series_id"]: row for row in series}
    price = by_id["oat milk/average_price"]
    assert (price["measure"], price["sales_id"]) == ("average_price", "oat milk")
    assert price["first_day"] >= 20 > by_id["oat milk"]["first_day"]
    assert price["total_quantity"] is None and by_id["oat milk"]["total_quantity"] > 0
    # A price carried forward is never zero, and only a price that was paid is held against a forecast.
    (row,) = both.query(
        """
        select min(history.y) as lowest, count(*) as n, count(history.actual) as observed, sum(sales.quantity) as sold
        from analytics_trendcast.ftr_history as history
        left join analytics_trendcast.int_sales as sales
            on history.series_id = sales.series_id || '/average_price' and history.t = sales.t
        where history.series_id = 'tea pot/average_price'
        """
    )
    assert row["lowest"] > 2 and row["observed"] < row["n"] / 2
    (wrong,) = both.query(
        """
        select count(*) as n from analytics_trendcast.ftr_history as history
        inner join analytics_trendcast.int_sales as sales
            on history.series_id = sales.series_id || '/average_price' and history.t = sales.t
        where history.actual is distinct from sales.revenue / sales.quantity
        """
    )
    assert wrong["n"] == 0


def test_marts_keep_measures_apart(both: Shop) -> None:
    for mart in ("fct_forecasts", "rpt_forecast_fan", "fct_trend_signals", "fct_forecast_health"):
        rows = both.query(
            f"select measure, count(distinct series_id) as n from analytics_marts.{mart} group by 1 order by 1"
        )
        assert rows == [{"measure": "average_price", "n": 5}, {"measure": "quantity", "n": 5}], mart
    for mart in ("fct_champions", "fct_forecast_accuracy", "fct_drift"):
        rows = both.query(f"select distinct measure from analytics_marts.{mart} order by 1")
        assert [row["measure"] for row in rows] == ["average_price", "quantity"], mart
    # What is about units knows of no price.
    for mart in (
        *("fct_reorder_recommendations", "fct_price_response", "fct_promotion_plan", "rpt_budget"),
    ):
        rows = both.query(f"select distinct series_id from analytics_marts.{mart} order by 1")
        assert [row["series_id"] for row in rows] == sorted(PRODUCTS), mart
    (row,) = both.query(
        """
        select sum(mean) as total, (select sum(mean) from analytics_marts.fct_demand_by_group
            where group_by = 'total' and grain = 'month') as grouped
        from analytics_marts.fct_forecasts where measure = 'quantity'
        """
    )
    assert row["total"] == pytest.approx(row["grouped"])
    ids = both.query(
        "select count(distinct (unique_id, ds)) as n, count(*) as every from analytics_marts.nixtla_forecasts"
    )
    assert ids[0]["n"] == ids[0]["every"] == 10 * 7


def test_a_price_has_a_trend_of_its_own(both: Shop) -> None:
    rows = both.query(
        """
        select quantity.price_direction, quantity.expected_price, quantity.last_price, price.direction,
            price.expected_level, price.last_level, price.support, price.last_share, price.measure,
            quantity.last_level as units
        from analytics_marts.fct_trend_signals as quantity
        inner join analytics_marts.fct_trend_signals as price
            on price.series_id = quantity.series_id || '/average_price'
        """
    )
    assert len(rows) == len(PRODUCTS)
    for row in rows:
        assert row["price_direction"] == row["direction"]
        assert row["expected_price"] == row["expected_level"]
        # A mean, and no sum over the week; what was sold at it is what it rests on.
        assert 0.5 < row["last_level"] < 10 and row["last_level"] == row["last_price"]
        assert row["support"] == row["units"] and row["last_share"] is None
    directions = both.query(
        "select distinct direction from analytics_marts.fct_trend_accuracy order by 1"
    )
    assert [row["direction"] for row in directions] == [
        *("falling", "price_falling", "price_rising", "rising"),
    ]


def test_the_summary_and_the_report_say_which_measure(
    both: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    with both.entered():
        workspace = opened(both)
        session = Session(workspace)
        summary = session.summary()
        frame = session.accuracy()
        charts = session.forecast("tea/average_price")
        with workspace.connect() as warehouse:
            content = read(warehouse, workspace.project, limit=100)
    assert summary["measures"] == ["quantity", "average_price"]
    models = {"seasonal_naive", "classical", "ridge", "ensemble"}
    for measure in summary["measures"]:
        assert {r["model"] for r in summary["accuracy"] if r["measure"] == measure} == models
    assert list(frame["measure"].unique()) == ["average_price", "quantity"]
    assert len(charts) == 7
    print_summary(summary)
    told = capsys.readouterr().out
    assert "Backtest of quantity" in told and "Backtest of average price" in told
    about = content.about
    assert [part["measure"] for part in about["measures"]] == ["quantity", "average_price"]
    quantity, price = about["measures"]
    assert about["total"] == quantity["total"] and about["accuracy"] == quantity["accuracy"]
    expected = dict(zip(content.series["series_id"], content.series["expected"], strict=True))
    tea = charts["mean"].mean()
    assert expected["tea/average_price"] == pytest.approx(tea, rel=1e-3)
    # The mean of five prices, and not their sum.
    assert 1 < price["total"]["mean"][-1] < 6
    # Pairs stand together, however many series are shown.
    assert content.series["series_id"][0] + "/average_price" == content.series["series_id"][1]


def test_a_part_can_be_one_measure(both: Shop, copied: Callable[[Shop], Shop]) -> None:
    shop = copied(both)
    told = shop.json("forecast", "--series", "measure=average_price")
    (row,) = shop.query(
        f"""
        select count(*) as n, count(distinct series_id) as series, bool_and(series_id like '%/average_price') as prices
        from analytics_trendcast.forecasts where run_id = '{told["run_id"]}' and model = 'ensemble'
        """
    )
    assert row == {"n": 35, "series": 5, "prices": True}


def test_settings_are_judged_on_each_measure(both: Shop, copied: Callable[[Shop], Shop]) -> None:
    pytest.importorskip("optuna")
    shop = copied(both)
    (trial,) = shop.json("tune", "classical", "--trials", "1")["trials"]
    rows = shop.query(
        "select fold, sum(actual) as sold, measure from analytics_marts.int_backtests where model = 'classical' group by all"
    )
    assert len(rows) == 4
    losses = shop.query(
        """
        select avg(wql) as wql from analytics_marts.fct_forecast_accuracy
        where model = 'classical' and demand_class = 'all' and lead_bucket = 'all'
        """
    )
    # Of two folds one each is searched and judged on; together they are about the backtest's.
    both_folds = (trial["wql"] + trial["newest_wql"]) / 2
    assert both_folds == pytest.approx(losses[0]["wql"], rel=0.1)


@pytest.mark.slow
def test_no_price_knows_the_future(both: Shop) -> None:
    found = audited(both)
    assert {row["variant"] for row in found} == {"cut off", "absurd future", "as loaded"}
    assert [row for row in found if row["differing"]] == []
    (history,) = (r for r in found if (r["model"], r["variant"]) == ("ftr_history", "cut off"))
    assert history["compared"] > 500


@pytest.mark.slow
def test_loads_give_what_a_full_build_gives(
    both: Shop, copied: Callable[[Shop], Shop], tmp_path: Any
) -> None:
    shop = copied(both)
    loads = [
        [line("tea", DAYS, 2, 4.0), line("coffee", DAYS, 1, 1.5)],
        # A late line, a price for what had none, and a product that is new.
        [line("tea", 60, 9, 2.0, loaded=DAYS + 1), line("oat milk", 3, 1, 2.0, loaded=DAYS + 1)]
        + [line("cocoa", DAYS + 1, 3, None), line("coffee", DAYS + 1, 1, 1.6)],
        [line("cocoa", DAYS + 2, 3, 7.0), line("coffee", DAYS + 2, 2, 1.7)],
    ]

    def fresh(of: Shop) -> Shop:
        folder = tmp_path / f"fresh{len(list(tmp_path.iterdir()))}"
        shutil.copytree(of.folder, folder)
        return replace(of, folder=folder)

    for load in loads:
        with duckdb.connect(shop.path) as connection:
            connection.executemany(
                f"insert into raw.order_lines ({', '.join(load[0])}) values (?, ?, ?, ?, ?, ?)",
                [tuple(row.values()) for row in load],
            )
        shop.build(tests=False)
        made, every = rebuilt(shop, "ftr_history")
        assert 0 < made < every
    assert_as_full(shop, fresh)
    begun = shop.query(
        "select first_t from analytics_trendcast.int_series where series_id like '%/average_price' and sales_id in ('cocoa', 'oat milk') order by sales_id"
    )
    assert [row["first_t"] - 20089 for row in begun] == [DAYS + 2, 3]


@pytest.mark.parametrize(
    ("vars", "told"),
    [
        ({"measure": "price"}, "must be one of quantity, revenue, average_price, or a list of several"),
        ({"measure": ["quantity", "sales"]}, "came: ['quantity', 'sales']"),
        ({"measure": ["quantity", "quantity"]}, "each once; came: ['quantity', 'quantity']"),
        ({"measure": []}, "a name or a list of names; came: []"),
        (
            {"measure": ["quantity", "average_price"], "gap_fill": {"price": "zero"}},
            "no sale is no price of 0",
        ),
        (
            {"measure": "average_price", "order_columns": {"product_id": "p", "quantity": "q", "ordered_at": "d"}},
            "maps no revenue",
        ),
    ],
)  # fmt: skip
def test_wrong_measures(both: Shop, vars: dict[str, Any], told: str) -> None:
    shop = replace(both, vars=both.vars | vars)
    with shop.entered(), pytest.raises(UsageError) as raised:
        opened(shop)
    assert told in str(raised.value)


@pytest.mark.slow
def test_a_price_alone(both: Shop, tmp_path: Any) -> None:
    """Nothing leads but the price: its series have the plain ids, and what is about units is empty."""
    shop = Shop(tmp_path, both.vars | {"measure": "average_price", "models": ["ridge"]})
    shop.path.write_bytes(both.path.read_bytes())
    shop.json("run")
    (row,) = shop.query(
        """
        select count(distinct series_id) as n, min(measure) as measure, count(distinct direction) as directions,
            (select count(*) from analytics_marts.fct_reorder_recommendations) as orders
        from analytics_marts.fct_trend_signals where price_direction = direction
        """
    )
    assert (row["n"], row["measure"], row["orders"]) == (5, "average_price", 0)
    done = shop.run("whatif", "--set", "price=-10%", "--preview")
    assert done.returncode == 2 and "must be quantity or revenue" in done.stderr
