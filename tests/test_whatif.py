"""What-if scenarios: what is read from the command line, the arithmetic on a shop that answers by a known law, the ledger."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trendcast
from tests.conftest import REPO, Shop, held
from trendcast import cli, ledger, whatif
from trendcast.errors import UsageError, WarehouseError, WarehouseLockedError
from trendcast.session import Session


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
