"""Hostile shops, end to end: what can be forecast is, what cannot is refused with its reason, nothing is lost."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from tests.conftest import Shop, held

FIRST = dt.date(2026, 1, 1)
N_DAYS, HORIZON = 60, 7
NEWCOMER = "first sold on the last day"
IDS = (
    "it's",
    'say "hi"',
    "semi;colon",
    "'; drop table raw.order_lines; --",
    "1 or 1=1 --",
    "line\nbreak",
    "tab\tand\\backslash",
    " spaces around ",
    "a/b",
    "100%25",
    "{{ env_var('HOME') }}",
    "$1 ? :name",
    "Größe-Ω",
    "日本語",
    "🛒 trolley",
    "e\u0301 is not \u00e9",
    "x" * 300,
)


def line(product_id: str | None, day: int, order_id: str, **columns: Any) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "product_id": product_id,
        "location_id": "shop",
        "ordered_at": (FIRST + dt.timedelta(days=day)).isoformat(),
        "quantity": str(1 + (day + len(product_id or "")) % 4),
        "revenue": "4.5",
        "discount": "0.5",
    } | columns


GOOD = [
    *(line(name, day, f"{i}-{day}") for i, name in enumerate(IDS) for day in range(N_DAYS)),
    line(NEWCOMER, N_DAYS - 1, "new", revenue="", discount=" "),  # a blank states none
]
BAD: dict[str, list[dict[str, Any]]] = {
    "missing_date": [line("it's", 3, f"md{i}", ordered_at=None) for i in range(2)],
    "unreadable_date": [
        line("it's", 3, f"ud{i}", ordered_at=text)
        for i, text in enumerate(["yesterday", "2026-02-30", "", "31.12.2025", "99999999999"])
    ],
    "missing_product": [line(None, 3, f"mp{i}") for i in range(3)],
    "missing_quantity": [line("it's", 3, "mq", quantity=None)],
    "unreadable_quantity": [
        line("it's", 3, f"uq{i}", quantity=text)
        for i, text in enumerate(["three", "", "NaN", "inf", "1e300", "1,5"])
    ],
    "unreadable_revenue": [
        line("it's", 3, f"ur{i}", revenue=text)
        for i, text in enumerate(["free", "NaN", "-inf", "1e300", "4,5"])
    ],
    "unreadable_discount": [line("it's", 3, "ud", discount="10%")],
    "out_of_scope": [line("it's", 3, f"os{i}", location_id="warehouse") for i in range(4)],
    "duplicate_line": [dict(GOOD[i]) for i in (0, 0, 100, 200, 300)],
    "zero_quantity": [line("it's", 3, f"zq{i}", quantity=text) for i, text in enumerate("00")],
    "absurd_quantity": [
        line("it's", 3, f"aq{i}", quantity=text)
        for i, text in enumerate(["10000.5", "99999999", "-1000000"])
    ],
    "negative_revenue": [line("it's", 3, "nr", revenue="-0.01")],
    "absurd_price": [line("it's", 3, "ap", quantity="0.5", revenue="999999")],
}


@pytest.fixture(scope="module")
def hostile(make_shop: Callable[..., Shop]) -> Shop:
    """The shop after a run that must succeed."""
    lines = GOOD + [bad for group in BAD.values() for bad in group]
    shop = make_shop(lines, order_scope="location_id <> 'warehouse'", models=["ridge"])
    done = shop.run("run")
    assert done.returncode == 0, done.stderr or done.stdout
    return shop


def ids(shop: Shop, relation: str) -> set[str]:
    return {row["id"] for row in shop.query(f"select distinct series_id as id from {relation}")}


def test_every_refused_line_is_kept_with_its_reason(hostile: Shop) -> None:
    found = hostile.query(
        "select rejection_reason from analytics_trendcast.int_order_lines_rejected"
    )
    expected = {reason: len(lines) for reason, lines in BAD.items()}
    assert Counter(row["rejection_reason"] for row in found) == expected
    unreadable = hostile.query(
        "select quantity_text from analytics_trendcast.int_order_lines_rejected "
        "where rejection_reason = 'unreadable_quantity'"
    )
    assert {r["quantity_text"] for r in unreadable} == {
        r["quantity"] for r in BAD["unreadable_quantity"]
    }


def test_accepted_and_refused_add_up_to_raw(hostile: Shop) -> None:
    (counts,) = hostile.query(
        "select (select count(*) from raw.order_lines) as raw, "
        "(select count(*) from analytics_trendcast.int_order_lines) as accepted, "
        "(select count(*) from analytics_trendcast.int_order_lines_rejected) as rejected"
    )
    assert counts["accepted"] == len(GOOD)
    assert counts["accepted"] + counts["rejected"] == counts["raw"]
    # What was accepted is all in the panel.
    (sums,) = hostile.query("select sum(quantity) as n from analytics_trendcast.int_sales_filled")
    assert sums["n"] == sum(int(row["quantity"]) for row in GOOD)


def test_every_series_is_forecast_under_its_own_id(hostile: Shop) -> None:
    expected = {*IDS, NEWCOMER}
    assert ids(hostile, "analytics_marts.fct_forecasts") == expected
    for model in ("seasonal_naive", "ridge"):
        got = ids(hostile, f"analytics_trendcast.forecasts where model = '{model}'")
        assert got == expected
    rows = hostile.query("select * from analytics_marts.fct_forecasts")
    assert len(rows) == len(expected) * HORIZON
    last = FIRST + dt.timedelta(days=N_DAYS - 1)
    assert {row["cutoff"] for row in rows} == {last}
    for row in rows:
        assert row["target_date"] == last + dt.timedelta(days=row["lead"])
        assert 0 <= row["mean"] < 100  # no absurd quantity has got through
        assert 0 <= row["q05"] <= row["q50"] <= row["q95"] < 1000


def test_a_series_of_one_day_is_forecast(hostile: Shop) -> None:
    rows = hostile.query(
        f"select mean, q50 from analytics_trendcast.forecasts where series_id = '{NEWCOMER}'"
    )
    assert len(rows) == 2 * HORIZON
    (sale,) = [int(row["quantity"]) for row in GOOD if row["product_id"] == NEWCOMER]
    assert all(0 <= row["mean"] <= 3 * sale for row in rows)


def test_one_series_is_enough(small_run: Shop) -> None:
    rows = small_run.query("select series_id, lead, mean from analytics_marts.fct_forecasts")
    assert {row["series_id"] for row in rows} == {"only"}
    assert sorted(row["lead"] for row in rows) == list(range(1, HORIZON + 1))
    refused = small_run.query(
        "select order_id, rejection_reason as reason from analytics_trendcast.int_order_lines_rejected"
    )
    assert refused == [{"order_id": "nowhere", "reason": "missing_series_key"}]


# --- Runs that fail change nothing ---


def marts(shop: Shop) -> dict[str, str]:
    """Hash of each mart's content, and of the ledger's rows but for the runs themselves."""
    tables = shop.query(
        "select table_schema || '.' || table_name as name from information_schema.tables "
        "where table_schema = 'analytics_marts' "
        "or table_name in ('forecasts', 'backtests', 'coefficients', 'explanations', 'weights')"
    )
    names = sorted(row["name"] for row in tables)
    assert "analytics_marts.fct_forecasts" in names
    content = {}
    for name in names:
        rows = sorted(map(repr, shop.query(f"select * from {name}")))
        content[name] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return content


def test_a_locked_warehouse_is_left_alone(hostile: Shop) -> None:
    before = hashlib.sha256(hostile.path.read_bytes()).hexdigest()
    with held(hostile.path) as holder:
        done = hostile.run("run")
    assert done.returncode == 1
    assert f"in use by process {holder.pid} " in done.stderr
    assert "Traceback" not in done.stderr
    assert hashlib.sha256(hostile.path.read_bytes()).hexdigest() == before


def change(shop: Shop, sql: str) -> None:
    with duckdb.connect(shop.path) as connection:
        connection.execute(sql)


def test_a_renamed_column_leaves_the_marts_as_they_were(
    hostile: Shop, copied: Callable[[Shop], Shop]
) -> None:
    shop = copied(hostile)
    before = marts(shop)
    change(shop, "alter table raw.order_lines rename quantity to units")
    done = shop.run("run")
    assert done.returncode == 1
    assert "order_columns.quantity is 'quantity'" in done.stderr
    assert "It has the columns: order_id, product_id, location_id, ordered_at, units" in done.stderr
    assert marts(shop) == before


def test_a_failure_halfway_leaves_the_marts_as_they_were(
    hostile: Shop, copied: Callable[[Shop], Shop]
) -> None:
    shop = copied(hostile)
    before, n_runs = marts(shop), len(shop.query("select * from analytics_trendcast.runs"))
    # A view that binds but cannot be read: only dbt's own queries find out.
    change(
        shop,
        "alter table raw.order_lines rename to lines; create view raw.order_lines as "
        "select * replace (cast(error('the disk of ' || location_id || ' is gone') as varchar) as location_id) "
        "from raw.lines",
    )
    done = shop.run("run")
    assert done.returncode == 1
    assert "int_line_bounds" in done.stderr
    assert "is gone" in done.stderr
    assert "Traceback" not in done.stderr
    assert marts(shop) == before
    newest, *others = shop.query(
        "select status, error from analytics_trendcast.runs order by finished_at desc"
    )
    assert newest["status"] == "failed"
    assert "is gone" in newest["error"]
    assert len(others) == n_runs
    folders = [p.name for p in shop.artifacts_dir.iterdir() if p.is_dir()]
    assert len(folders) == n_runs  # the failed run's is gone
