"""What-if scenarios: what is read from the command line, the arithmetic on a shop that answers by a known law, the ledger."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trendcast
from tests.conftest import REPO, Shop, held
from trendcast import cli, ledger, whatif
from trendcast.errors import DataError, UsageError, WarehouseError, WarehouseLockedError
from trendcast.project import Project
from trendcast.session import Session
from trendcast.warehouse.duckdb import DuckDBWarehouse


@pytest.mark.parametrize(
    ("price", "expected"),
    [("-10%", (None, 0.9)), ("+5%", (None, 1.05)), ("1.99", (1.99, None)), ("+0%", (None, 1.0))],
)
def test_a_price_is_a_change_or_an_amount(price: str, expected: tuple[float, float]) -> None:
    change = whatif.parse({"price": price})
    assert (change.price, change.factor) == pytest.approx(expected)
    assert change.has_price


@pytest.mark.parametrize(
    "price",
    [
        *(
            "0",
            "0.0",
            "-100%",
            "-250%",
            "-1.99",
            "10%",
            "1,99",
            "nan",
            "inf",
            "free",
            "1e3",
            "",
            "٣",
        ),
        "9" * 400,
    ],
)
def test_a_price_that_is_none_is_refused(price: str) -> None:
    with pytest.raises(UsageError, match="price"):
        whatif.parse({"price": price})


@given(st.text(max_size=12))
def test_whatever_comes_is_a_price_above_zero_or_an_error(text: str) -> None:
    try:
        change = whatif.parse({"price": text})
    except UsageError:
        return
    (value,) = (each for each in (change.price, change.factor) if each is not None)
    assert 0 < value < float("inf")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "sets something"),
        ({"pric": "-10%"}, "Did you mean 'price'"),
        ({"promotion": "displey"}, "Did you mean 'display'"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        whatif.parse(settings)


# --- On the demo, whose marts are built ---


@pytest.fixture(scope="module")
def shop(demo_run: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The demo, to write scenarios into."""
    folder = tmp_path_factory.mktemp("whatif") / "copy"
    shutil.copytree(demo_run.folder, folder)
    return Shop(folder, demo_run.vars)


@pytest.fixture(scope="module")
def session(shop: Shop) -> Session:
    """The demo, opened once."""
    with shop.entered():
        return trendcast.open(shop.project_dir, profiles_dir=REPO / "profiles", vars=shop.vars)


def count(shop: Shop) -> int:
    (row,) = shop.query("select count(*) as n from analytics_trendcast.scenarios")
    return int(row["n"])


def test_a_preview_writes_nothing(shop: Shop, session: Session) -> None:
    before = count(shop), len(shop.query("select * from analytics_trendcast.runs"))
    with shop.entered():
        told = session.whatif({"price": "-10%"}, where={"department": "GROCERY"}, preview=True)
    (row,) = shop.query(
        "select count(*) as n from analytics_marts.dim_series where department = 'GROCERY'"
    )
    assert (told["n_series"], told["n_without_price"], told["run_id"]) == (row["n"], 0, None)
    assert told["scenario"] == "price=-10% where department=GROCERY"
    assert (count(shop), len(shop.query("select * from analytics_trendcast.runs"))) == before


def test_a_scenario_is_compared_with_the_forecast_in_force(shop: Shop) -> None:
    told = shop.json("whatif", "--set", "price=-10%", "--where", "department=GROCERY")
    rows = shop.query(
        f"""
        select scenarios.*, total.mean, response.elasticity as e
        from analytics_marts.fct_scenarios as scenarios
        inner join (
            select series_id, sum(mean) as mean from analytics_marts.fct_forecasts group by 1
        ) as total using (series_id)
        inner join analytics_marts.fct_price_response as response using (series_id)
        where scenario_id = '{told["run_id"]}'
        """
    )
    assert len(rows) == told["n_series"] == told["rows"]["scenarios"]
    for row in rows:
        assert row["base_units"] == pytest.approx(row["mean"])
        assert row["scenario_price"] == pytest.approx(0.9 * row["unit_price"])
        expected = row["base_units"] * 0.9 ** row["e"]
        assert row["scenario_units"] == pytest.approx(
            expected, rel=0.05
        )  # the mean, not the median
        assert row["scenario_units_lower"] < row["scenario_units"] < row["scenario_units_upper"]
        assert row["extra_units"] == pytest.approx(
            row["scenario_units"] - row["base_units"], abs=1e-6
        )
        assert row["base_run_id"] is not None
    totals = told["totals"]
    assert totals["scenario_revenue"] == pytest.approx(sum(r["scenario_revenue"] for r in rows))
    assert len(told["largest"]) == 10
    assert told["notes"] == [whatif.OWN_PRICE_ONLY]
    (run,) = shop.query(f"select * from analytics_trendcast.runs where run_id = '{told['run_id']}'")
    assert (run["command"], run["status"], run["scenarios_rows"]) == (
        *("whatif", "committed"),
        len(rows),
    )
    assert json.loads(run["series_filter"]) == {"department": ["GROCERY"]}
    assert json.loads(run["inputs"])["set"] == {"price": "-10%"}
    # It is no forecast: the run in force is the one before.
    assert told["run_id"] not in {
        r["run_id"] for r in shop.query("select run_id from analytics_marts.fct_forecasts")
    }


def test_a_promotion_and_a_price_of_one_series(shop: Shop, session: Session) -> None:
    (series,) = shop.query(
        """
        select series_id from analytics_marts.fct_promotion_response
        where effect = 'display' and log_effect is not null order by series_id limit 1
        """
    )
    with shop.entered():
        told = session.whatif({"price": 1.99, "promotion": "display"}, where=series)
    (row,) = shop.query(
        f"select * from analytics_marts.fct_scenarios where scenario_id = '{told['run_id']}'"
    )
    assert (row["series_id"], row["scenario_price"]) == (series["series_id"], 1.99)
    assert (row["promotion"], row["is_promotion_unmeasured"]) == ("display", False)
    printed = shop.run("whatif", "--set", "price=1.99", "--where", series["series_id"])
    assert printed.returncode == 0, printed.stderr
    assert "what the series take from each other is not in it" in " ".join(printed.stdout.split())


@pytest.mark.parametrize(
    ("settings", "where", "told"),
    [
        ({"price": "-10%"}, {"departmant": "GROCERY"}, "Did you mean 'department'"),
        ({"price": "-10%"}, {"department": "GROCERIES"}, "Did you mean 'GROCERY'"),
        ({"price": "-10%"}, {"department": "GROCERY", "category": "APPLES"}, "none all"),
        ({"promotion": "discount"}, {}, "Unknown measured promotion"),
        ({"price": "0"}, {}, "above zero"),
    ],
)
def test_what_cannot_be_asked_is_an_error_and_leaves_no_row(
    shop: Shop, session: Session, settings: dict[str, Any], where: dict[str, Any], told: str
) -> None:
    before = count(shop), len(shop.query("select * from analytics_trendcast.runs"))
    with shop.entered(), pytest.raises(UsageError, match=told):
        session.whatif(settings, where=where)
    assert (count(shop), len(shop.query("select * from analytics_trendcast.runs"))) == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["price"], "NAME=VALUE"),
        (["=-10%"], "NAME=VALUE"),
        (["price=-10%", "price=-20%"], "sets price twice"),
    ],
)
def test_options_that_say_nothing_are_refused(options: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        cli._pairs(options, "--set", "price=-10%")


def test_another_writer_is_waited_for_by_nobody(shop: Shop, session: Session) -> None:
    before = count(shop)
    with (
        shop.entered(),
        ledger.run_lock(shop.artifacts_dir),
        pytest.raises(WarehouseLockedError, match="under way"),
    ):
        session.whatif({"price": "-10%"})
    with shop.entered(), held(shop.path), pytest.raises(WarehouseLockedError):
        session.whatif({"price": "-10%"})
    assert count(shop) == before


def test_a_commit_that_fails_leaves_no_row_of_the_scenario(
    shop: Shop, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count(shop)

    def fail(*_: Any) -> None:
        raise WarehouseError("no disk")

    # The scenario's rows are appended before the run's own.
    monkeypatch.setattr(ledger.Run, "_append_row", fail)
    with shop.entered(), pytest.raises(WarehouseError, match="no disk"):
        session.whatif({"price": "-10%"})
    assert count(shop) == before
    assert not list(shop.artifacts_dir.glob("*/uncommitted"))


# --- On tables of its own ---

TABLES = """
create table dim_series as
    select * from (values ('tea', 'food'), ('jam', 'food'), ('mug', 'ware'), ('new', 'ware')) as t (series_id, category);
create table int_cumulated_forecasts as
    select 0 as fold, series_id, date '2024-01-01' as cutoff, date '2024-01-29' as target_date, 28 as lead,
        'smooth' as demand_class, 'quantity' as measure, 50.0::double as cumulated_mean, 25.0::double as cumulated_variance
    from dim_series where series_id <> 'new'
    union all select 0, 'tea', date '2024-01-01', date '2024-01-02', 1, 'smooth', 'quantity', 1, 1
    union all select 1, 'tea', date '2023-01-01', date '2023-01-29', 28, 'smooth', 'quantity', 9, 9;
create table int_sum_spread as
    select *, 'quantity' as measure
    from (values (0, 'smooth', 28, 2.0::double), (0, 'smooth', 1, 9.0), (1, 'smooth', 28, 9.0))
        as t (fold, demand_class, periods, variance_factor);
create table fct_forecasts as
    select series_id, lead, case when series_id <> 'jam' then 'r1' end as run_id, 'ridge' as model
    from int_cumulated_forecasts where fold = 0;
create table int_supply as
    select * from (values ('tea', 10.0::double, 4.0::double, 'pack_size'), ('jam', 0.0, 0.0, ''), ('mug', null, null, 'unit_cost'))
        as t (series_id, unit_price, unit_cost, defaults_used);
create table fct_price_response as
    select series_id, -2.0::double as elasticity, 0.5::double as elasticity_std_error, 'series' as elasticity_source,
        9.5::double as lowest_price, 12.0::double as highest_price
    from dim_series;
create table fct_promotion_response as
    select * from (values ('tea', 'display', 0.8::double, 0.2::double, 0.5::double), ('tea', 'rivals', -1.0, 1.0, 1.0))
        as t (series_id, effect, log_effect, log_effect_std_error, typical_intensity);
create table fct_scenarios (scenario_id varchar);
"""


@pytest.fixture
def warehouse() -> Iterator[DuckDBWarehouse]:
    with DuckDBWarehouse.open({"type": "duckdb", "path": ":memory:"}, read_only=False) as opened:
        for statement in TABLES.split(";\n"):
            if statement.strip():
                opened.execute(statement)
        yield opened


@pytest.fixture
def own(project: Project) -> Callable[..., Project]:
    """Return the project on the tables above, with settings of the test's own."""

    def made(**settings: Any) -> Project:
        relations = {name: name for name in whatif.MARTS}
        return replace(project, relations=relations, settings=replace(project.settings, **settings))

    return made


@pytest.mark.parametrize(
    ("measure", "units", "variance"), [("quantity", 50, 50), ("revenue", 5, 0.5)]
)
def test_the_base_is_in_units_whatever_the_measure(
    warehouse: DuckDBWarehouse,
    own: Callable[..., Project],
    measure: str,
    units: float,
    variance: float,
) -> None:
    planned = whatif.plan(
        warehouse, own(measure=measure, horizon=28), whatif.parse({"price": "-20%"}), {}
    )
    # Nobody knows a price of jam or mug, and there is no forecast of new.
    (row,) = planned.rows.to_pylist()
    assert planned.n_without_price == 2
    assert (row["series_id"], row["unit_price"], row["scenario_price"]) == ("tea", 10, 8)
    assert (row["base_units"], row["base_variance"]) == pytest.approx((units, variance))
    assert (row["base_run_id"], row["promotion"], row["promotion_log_effect"]) == ("r1", None, None)
    told = whatif.described(warehouse, planned)
    assert (told["n_price_unseen"], told["n_elasticity_assumed"]) == (1, 0)
    assert (told["n_unit_cost_assumed"], told["n_elasticity_unsure"]) == (0, 0)


def test_a_promotion_is_of_its_typical_intensity_and_needs_no_price(
    warehouse: DuckDBWarehouse, own: Callable[..., Project]
) -> None:
    planned = whatif.plan(warehouse, own(horizon=28), whatif.parse({"promotion": "display"}), {})
    rows = {row["series_id"]: row for row in planned.rows.to_pylist()}
    assert sorted(rows) == ["jam", "mug", "tea"]
    effect = rows["tea"]["promotion_log_effect"], rows["tea"]["promotion_log_std_error"]
    assert effect == pytest.approx((0.4, 0.1))
    assert rows["mug"]["promotion_log_effect"] is None
    assert whatif.described(warehouse, planned)["n_promotion_unmeasured"] == 2


@pytest.mark.parametrize(
    ("settings", "where", "told"),
    [
        ({"price": "-10%"}, {"category": "ware"}, "None of the 2 series has a price"),
        ({"price": "-10%"}, {"series_id": "new"}, "None of the 1 series has a forecast"),
        ({"promotion": "display"}, {"series_id": "mug"}, "not measured for any of the 1 series"),
    ],
)
def test_what_nothing_is_known_of_is_an_error(
    warehouse: DuckDBWarehouse,
    own: Callable[..., Project],
    settings: dict[str, Any],
    where: dict[str, Any],
    told: str,
) -> None:
    with pytest.raises(DataError, match=told):
        whatif.plan(warehouse, own(horizon=28), whatif.parse(settings), where)
    warehouse.execute("delete from fct_promotion_response")
    with pytest.raises(DataError, match="No effect of promotions is measured"):
        whatif.plan(warehouse, own(horizon=28), whatif.parse({"promotion": "display"}), {})
    warehouse.execute("drop table fct_scenarios")
    with pytest.raises(WarehouseError, match="fct_scenarios does not exist"):
        whatif.plan(warehouse, own(horizon=28), whatif.parse(settings), where)
