"""Runs without training, of all series or a part: what is new is forecast, and every series keeps a forecast."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

import trendcast
from tests.conftest import REPO, Shop, made_small

PRODUCTS = {"green tea": "tea", "black tea": "tea", "beans": "coffee"}
FIRST = dt.datetime(2026, 1, 1, 12)


def lines(days: range) -> list[dict[str, Any]]:
    return [
        {
            "order_id": f"{product}-{i}",
            "product_id": product,
            "ordered_at": FIRST + dt.timedelta(days=i),
            "loaded_at": FIRST + dt.timedelta(days=i, hours=6),
            "quantity": 1 + (i * i + 3 * k) % (4 + k),
        }
        for k, product in enumerate(PRODUCTS)
        for i in days
    ]


@pytest.fixture(scope="module")
def trained(make_shop: Callable[..., Shop]) -> Shop:
    """A shop of three products after a run; each test works on a copy."""
    products = [{"product_id": p, "category": c} for p, c in PRODUCTS.items()]
    shop = make_shop(
        lines(range(80)),
        products,
        models=["classical", "ridge", "ensemble"],
        static_attributes=["category"],
    )
    made_small(shop)
    done = shop.run("run")
    assert done.returncode == 0, done.stderr
    return shop


@pytest.fixture
def shop(trained: Shop, tmp_path: Path) -> Shop:
    shutil.copytree(trained.folder, tmp_path / "copy")
    return replace(trained, folder=tmp_path / "copy")


def land(shop: Shop, days: range) -> None:
    """Have new orders land."""
    with duckdb.connect(shop.path) as connection:
        for line in lines(days):
            names = ", ".join(line)
            connection.execute(
                f"insert into raw.order_lines ({names}) values ({', '.join('?' * len(line))})",
                list(line.values()),
            )


def in_force(shop: Shop) -> dict[str, tuple[str, dt.date]]:
    rows = shop.query(
        "select distinct series_id, run_id, cutoff from analytics_marts.fct_forecasts"
    )
    found = {row["series_id"]: (row["run_id"], row["cutoff"]) for row in rows}
    assert len(rows) == len(found) == 3
    return found


@pytest.mark.slow
def test_without_training_new_orders_are_forecast_from(shop: Shop) -> None:
    (first,) = shop.query("select * from analytics_trendcast.runs")
    land(shop, range(80, 82))
    told = shop.json("run", "--no-train")
    assert (told["cutoff"], told["n_series"]) == ("2026-03-23", 3)
    assert not [p for p in told["timings"] if p.startswith(("train", "backtest"))]
    assert {"features", "forecast ridge", "forecast ensemble", "marts"} <= set(told["timings"])
    assert [w["member"] for w in told["weights"]] and told["backtest"]["folds"] == 1
    newest = shop.query("select * from analytics_trendcast.runs order by finished_at")[-1]
    assert (newest["command"], newest["trained_run_id"]) == ("forecast", first["run_id"])
    assert set(in_force(shop).values()) == {(told["run_id"], dt.date(2026, 3, 23))}
    # And the next run of all trains on from there.
    assert shop.json("run")["cutoff"] == "2026-03-23"


@pytest.mark.slow
def test_a_part_is_forecast_as_among_all_and_the_rest_keeps_its_forecast(shop: Shop) -> None:
    before = in_force(shop)
    land(shop, range(80, 83))
    part = shop.json("run", "--no-train", "--series", "category=tea")
    assert (part["n_series"], part["series_filter"]) == (2, {"category": ["tea"]})
    assert in_force(shop) == {
        "green tea": (part["run_id"], dt.date(2026, 3, 24)),
        "black tea": (part["run_id"], dt.date(2026, 3, 24)),
        "beans": before["beans"],
    }
    whole = shop.json("forecast")
    for table in ("forecasts", "explanations"):
        same = (
            f"select * exclude (run_id) from analytics_trendcast.{table} where run_id = '{{}}' "
            "and series_id in ('green tea', 'black tea')"
        )
        ours, theirs = same.format(part["run_id"]), same.format(whole["run_id"])
        assert len(shop.query(ours)) > 20
        assert shop.query(f"({ours}) except ({theirs})") == []
        assert shop.query(f"({theirs}) except ({ours})") == []
        kept = f"select 1 from analytics_trendcast.{table} where run_id = '{part['run_id']}' and series_id = 'beans'"
        assert shop.query(kept) == []
    # A run of all is in force for all, once the marts are built on it.
    shop.build("fct_forecasts")
    assert {run_id for run_id, _ in in_force(shop).values()} == {whole["run_id"]}


@pytest.mark.slow
def test_what_reads_the_forecast_reads_it_by_series(shop: Shop) -> None:
    before = in_force(shop)["beans"][0]
    land(shop, range(80, 82))
    part = shop.json("run", "--no-train", "--series", "green tea", "--series", "black tea")[
        "run_id"
    ]
    with shop.entered():
        session = trendcast.open(shop.project_dir, profiles_dir=REPO / "profiles", vars=shop.vars)
        ridge = session.forecast(model="ridge").groupby("series_id")["run_id"].unique()
        assert {name: list(ids) for name, ids in ridge.items()} == {
            "beans": [before],
            "black tea": [part],
            "green tea": [part],
        }
        assert session.publish()["run_id"] == part
        page = session.report(shop.folder / "page.html")
        assert (page["run_id"], page["n_series"]) == (part, 3)
        # The alert is about the oldest forecast that is served.
        land(shop, range(82, 100))
        session.run(train=False, series={"category": "tea"})
    (stale,) = shop.query(
        "select value from analytics_marts.fct_alerts where alert = 'stale' and subject = 'forecast'"
    )
    assert stale["value"] == 20


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["forecast", "--series", "locaton_id=only"], "Unknown column 'locaton_id'. Did you mean 'location_id'?"),
        (["forecast", "--series", "location_id=onli"], "Unknown value of location_id 'onli'. Did you mean 'only'?"),
        (["forecast", "--series", "onli"], "Unknown series 'onli'. Did you mean 'only'?"),
        (["run", "--series", "location_id=only"], "add --no-train"),
        (["run", "--select", "location_id=only"], "add --no-train"),
        (["run", "--no-train", "--resume"], "Only a run that trains can be resumed"),
    ],
)  # fmt: skip
def test_a_part_that_is_none_is_an_error(
    small_run: Shop, copied: Callable[[Shop], Shop], args: list[str], told: str
) -> None:
    shop = copied(small_run)
    done = shop.run(*args)
    assert done.returncode == 2 and told in done.stderr
    runs = shop.query("select status from analytics_trendcast.runs")
    assert [run["status"] for run in runs].count("committed") == 1


@pytest.mark.slow
def test_a_part_without_series_is_an_error(shop: Shop) -> None:
    done = shop.run("forecast", "--series", "category=tea", "--series", "beans")
    assert done.returncode == 2
    assert (
        "No series has all of category=tea, series_id=beans; each of them has some." in done.stderr
    )


@pytest.mark.slow
def test_models_of_other_sql_are_told(shop: Shop) -> None:
    shop.vars["lookback_days"] = 4  # no setting that models have
    assert "notes" not in shop.json("run", "--no-train")
    shop.vars["windows"] = [3, 14, 60]
    told = shop.json("run", "--no-train")
    assert "other SQL or settings than there are now" in told["notes"][0]
    assert json.loads(json.dumps(told["notes"])) == told["notes"]


@pytest.mark.slow
def test_untrained_it_says_so(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(lines(range(80)), models=["ridge"])
    done = shop.run("run", "--no-train")
    assert done.returncode == 1
    assert "trendcast" in done.stderr and "train" in done.stderr
