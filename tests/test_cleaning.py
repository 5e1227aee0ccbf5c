"""Cleaning: every policy on a mixed shop, and its arithmetic against plain Python that shares no code with it."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from statistics import median_low
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import ORDER_COLUMNS, Shop
from tests.test_leakage import audited
from trendcast.dbt import Dbt
from trendcast.errors import UsageError

FIRST = dt.date(2026, 1, 1)
N_DAYS = 90


# --- A shop with some of everything ---


def line(
    day: int, order_id: str, quantity: float, revenue: float, **columns: Any
) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "customer_id": f"c{day % 11}",
        "product_id": "tea",
        "location_id": "shop",
        "ordered_at": FIRST + dt.timedelta(days=day),
        "quantity": quantity,
        "revenue": revenue,
        "currency": "EUR",
        "status": "shipped",
    } | columns


SOLD = [line(day, f"{day}-{i}", 1 + (day + i) % 3, 4.5) for day in range(N_DAYS) for i in range(3)]
OTHERS = {
    None: [
        line(5, "5-0", -1, -2),  # of its order, on the day
        line(6, "5-0", -1, -2),  # of its order, a day later
        line(7, "r1", 2, 3, customer_id="c7", status="returned"),  # of the customer, on the day
        line(8, "r2", -7, -70, customer_id="somebody else"),
        line(9, "usd", 1, 100, currency="usd "),
        line(20, "gbp", 1, 100, currency="GBP"),
        line(21, "own", 1, 7, currency=None),
        line(70, "bulk", 100, 250),
    ],
    "test_order": [line(3, "t", 5, 5, customer_id="qa"), line(3, "t2", -5, 5, customer_id="qa")],
    "cancelled": [line(3, "x", 5, 5, status="cancelled"), line(3, "x", 5, 5, status="Void")],
    "no_exchange_rate": [line(9, "gbp0", 1, 1, currency="GBP"), line(9, "?", 1, 1, currency="??")],
    "absurd_quantity": [
        line(70, "aq", 201, 450),
        line(3, "aq2", -10001, 1),
        line(71, "aq3", -201, 1),
    ],
    "absurd_price": [line(70, "ap", 1, 600), line(3, "ap2", 1, 100001)],
    "zero_quantity": [line(3, "z", 0, 0)],
    "negative_revenue": [line(3, "n", 1, -1)],
    "duplicate_line": [dict(SOLD[17])],
    "missing_series_key": [line(3, "m", 1, 1, location_id=None)],
}
RATES = [
    {"currency": "USD", "date": FIRST, "rate": 0.5},
    {"currency": "USD", "date": FIRST + dt.timedelta(days=9), "rate": 0.9},
    {"currency": "USD", "date": FIRST + dt.timedelta(days=10), "rate": 2},
    {"currency": "GBP", "date": FIRST + dt.timedelta(days=10), "rate": 1.25},
]
POLICIES = {
    "series_key": ["product_id", "location_id"],
    "test_order_when": "customer_id = 'qa'",
    "cancelled_when": "lower(status) in ('cancelled', 'void')",
    "return_when": "status = 'returned'",
    "currency": "EUR",
    "exchange_rates_table": "rates",
}


@pytest.fixture(scope="module")
def mixed(make_shop: Callable[..., Shop]) -> Shop:
    """The shop, built and tested up to its sales."""
    lines = SOLD + [bad for group in OTHERS.values() for bad in group]
    random.Random(5).shuffle(lines)
    shop = make_shop(lines, **POLICIES)
    shop.write("rates", RATES)
    shop.build("+int_sales", "int_order_lines_rejected")
    return shop


def sales(shop: Shop) -> dict[int, dict[str, Any]]:
    """int_sales by day since the first."""
    rows = shop.query("select * from analytics_trendcast.int_sales")
    return {row["t"] - (FIRST - dt.date(1970, 1, 1)).days: row for row in rows}


def test_each_line_is_accepted_or_refused_for_its_reason(mixed: Shop) -> None:
    rows = mixed.query("select * from analytics_trendcast.int_order_lines_checked")
    found = Counter(row["rejection_reason"] for row in rows)
    expected = {reason: len(lines) for reason, lines in OTHERS.items()}
    assert found == expected | {None: len(SOLD) + len(OTHERS[None])}
    (counts,) = mixed.query(
        "select (select count(*) from raw.order_lines) as raw, "
        "(select count(*) from analytics_trendcast.int_order_lines) as accepted, "
        "(select count(*) from analytics_trendcast.int_order_lines_rejected) as rejected"
    )
    assert counts["accepted"] + counts["rejected"] == counts["raw"] == len(rows)


def test_returns_leave_their_own_period_only(mixed: Shop) -> None:
    plain = {
        day: sum(row["quantity"] for row in SOLD if row["ordered_at"] == FIRST + dt.timedelta(day))
        for day in range(N_DAYS)
    }
    extra = {9: 1, 20: 1, 21: 1, 70: 100}  # sold besides
    taken = {5: (1, 2.0), 7: (2, 3.0)}  # on the day it was sold
    returned = {6: (1, 2.0), 8: (7, 70.0)}
    money = {9: 90.0, 20: 125.0, 21: 7.0, 70: 250.0}
    for day, row in sales(mixed).items():
        units, paid = taken.get(day, (0, 0.0))
        assert row["quantity"] == plain[day] + extra.get(day, 0) - units
        assert row["revenue"] == 3 * 4.5 + money.get(day, 0) - paid
        assert (row["returned_quantity"], row["returned_revenue"]) == returned.get(day, (0, 0.0))


def test_new_customers_are_new_to_the_series(mixed: Shop) -> None:
    rows = sales(mixed)
    # Eleven customers take turns, one a day; who only brings back is none.
    assert [rows[day]["new_customers"] for day in range(N_DAYS)] == [1] * 11 + [0] * (N_DAYS - 11)
    assert {row["customers"] for row in rows.values()} == {1}


def test_what_was_known_at_a_cut_stays(mixed: Shop, copied: Callable[[Shop], Shop]) -> None:
    """Also of what was sold by then and came back after, and whatever the policy."""
    shop, cut = copied(mixed), FIRST + dt.timedelta(days=7)
    late = line(60, "0-0", -3, -9)  # of the first day's order
    shop.write("order_lines", [*shop.query("select * from raw.order_lines"), late])
    # The days, and the weeks that were over.
    for grain, n_known in (("day", 8), ("week", 1)):
        shop.vars = mixed.vars | {"grain": grain}
        shop.build("+int_sales", tests=False)
        lines = shop.query(
            "select * exclude (built_at, built_with) from analytics_trendcast.int_order_lines_checked "
            f"where order_date <= '{cut}' order by all"
        )
        later = shop.query(
            "select * exclude (built_at, built_with) from analytics_trendcast.int_sales order by t"
        )
        shop.vars |= {"as_of": str(cut), "cutoff": str(cut)}
        shop.build("+int_sales", tests=False)
        known = shop.query(
            "select * exclude (built_at, built_with) from analytics_trendcast.int_sales order by t"
        )
        assert len(known) == n_known
        assert later[:n_known] == known
        checked = shop.query(
            "select * exclude (built_at, built_with) from analytics_trendcast.int_order_lines_checked "
            "order by all"
        )
        assert checked == lines


@pytest.mark.slow
def test_the_audit_finds_no_leak(mixed: Shop) -> None:
    found = audited(mixed)
    assert [row for row in found if row["differing"]] == []


# --- The SQL of the models, run on tables in memory ---


@pytest.fixture(scope="module")
def compiled(make_shop: Callable[..., Shop]) -> Callable[[str], str]:
    """Return ``sql(model)`` of a shop with every column, New York's clock and a low robust bound."""
    names = {name: name for name in ORDER_COLUMNS}
    shop = make_shop(
        [line(0, "1", 1, 1)],
        order_columns=names,
        order_timezone="America/New_York",
        currency="EUR",
        robust_bound_lines=2,
    )
    folder = shop.compiled("+int_sales")

    def sql(model: str) -> str:
        (path,) = folder.rglob(f"{model}.sql")
        return path.read_text()

    return sql


@contextmanager
def in_memory(**tables: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse in memory that has these models' tables."""
    with duckdb.connect() as connection:
        connection.execute("attach ':memory:' as shop; create schema shop.analytics_trendcast")
        for name, table in tables.items():
            connection.register("rows", table)
            connection.execute(f"create table shop.analytics_trendcast.{name} as from rows")
        yield connection


def rows_of(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
    return rows


CUTOFFS = pa.table({"fold": [0], "cutoff_t": pa.array([19_733], pa.int32())})  # 2024-01-11
LINE_TYPES = {
    "series_id": pa.string(),
    "product_id": pa.string(),
    "customer_id": pa.string(),
    "location_id": pa.string(),
    "order_id": pa.string(),
    "order_date": pa.date32(),
    "is_return": pa.bool_(),
    "quantity": pa.decimal128(18, 6),
    "revenue": pa.decimal128(18, 6),
    "discount": pa.decimal128(18, 6),
}


def as_lines(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, pa.schema(list(LINE_TYPES.items())))


@st.composite
def order_line(draw: st.DrawFn) -> dict[str, Any]:
    product = draw(st.sampled_from("pq"))
    back = draw(st.booleans())
    sign = -1 if back else 1
    return {
        "series_id": draw(st.sampled_from([product, "both"])),
        "product_id": product,
        "customer_id": draw(st.sampled_from(["c", "d", None])),
        "location_id": draw(st.sampled_from(["l", None])),
        "order_id": draw(st.sampled_from(["1", "2", "3", None])),
        "order_date": dt.date(2024, 1, draw(st.integers(1, 4))),
        "is_return": back,
        "quantity": sign * Decimal(draw(st.integers(1, 50))) / 10,
        "revenue": sign * Decimal(draw(st.integers(0, 900))) / 100,
        "discount": None,
    }


def netted(lines: list[dict[str, Any]]) -> dict[tuple[str, dt.date], list[Decimal]]:
    """Units and money taken back by series and date, one return after the other."""
    amounts = ("quantity", "revenue")
    left: dict[Any, dict[Any, list[Decimal]]] = defaultdict(
        lambda: defaultdict(lambda: [Decimal(0)] * 2)
    )

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(
            row[c] for c in ("series_id", "product_id", "customer_id", "location_id", "order_date")
        )

    for row in lines:
        if not row["is_return"]:
            kept = left[key(row)][row["order_id"]]
            left[key(row)][row["order_id"]] = [
                k + row[a] for k, a in zip(kept, amounts, strict=True)
            ]
    taken: dict[tuple[str, dt.date], list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 2)

    def is_named(row: dict[str, Any]) -> bool:
        return row["order_id"] is not None and any(
            not sale["is_return"]
            and sale["order_id"] == row["order_id"]
            and sale["product_id"] == row["product_id"]
            and sale["order_date"] <= row["order_date"]
            for sale in lines
        )

    returns = [row for row in lines if row["is_return"]]
    for row in sorted(returns, key=lambda row: not is_named(row)):
        orders = left.get(key(row), {})
        for at, amount in enumerate(amounts):
            wanted = -row[amount]
            for order_id, kept in orders.items():
                if is_named(row) and order_id != row["order_id"]:
                    continue
                gone = min(kept[at], wanted)
                kept[at] -= gone
                wanted -= gone
                taken[row["series_id"], row["order_date"]][at] += gone
    return {where: amounts for where, amounts in taken.items() if any(amounts)}


@given(st.lists(order_line(), max_size=14), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_netting_is_what_plain_python_does(
    compiled: Callable[[str], str], lines: list[dict[str, Any]], cut: int
) -> None:
    def found(lines: list[dict[str, Any]]) -> dict[tuple[str, dt.date], list[Decimal]]:
        with in_memory(int_order_lines=as_lines(lines), int_cutoffs=CUTOFFS) as connection:
            rows = rows_of(connection, compiled("int_netted_returns"))
        return {
            (row["series_id"], dt.date(1970, 1, 1) + dt.timedelta(row["t"])): [
                row["quantity"],
                row["revenue"],
            ]
            for row in rows
            if row["quantity"] or row["revenue"]
        }

    result = found(lines)
    assert result == netted(lines)
    # Without what came later, the same.
    known = found([row for row in lines if row["order_date"].day <= cut])
    assert known == {where: row for where, row in result.items() if where[1].day <= cut}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("pq"),
            st.integers(0, 20),
            st.integers(1, 2000),
            st.integers(0, 500),
            st.booleans(),
        ),
        max_size=40,
    )
)
@settings(max_examples=25, deadline=None)
def test_bounds_are_what_plain_python_finds_in_the_past(
    compiled: Callable[[str], str], lines: list[tuple[str, int, int, int, bool]]
) -> None:
    table = pa.table(
        {
            "product_id": pa.array([row[0] for row in lines], pa.string()),
            "series_id": pa.array([row[0] for row in lines], pa.string()),
            "order_date": pa.array(
                [dt.date(2020 + row[1] // 12, 1 + row[1] % 12, 28) for row in lines], pa.date32()
            ),
            "quantity": pa.array([Decimal(row[2]) for row in lines], pa.decimal128(18, 6)),
            "revenue": pa.array([Decimal(row[3]) for row in lines], pa.decimal128(18, 6)),
            "is_return": pa.array([row[4] for row in lines], pa.bool_()),
            "is_in_scope": [True] * len(lines),
            "is_test_order": [False] * len(lines),
            "is_cancelled": [False] * len(lines),
        }
    )
    with in_memory(int_order_lines_described=table) as connection:
        rows = rows_of(connection, compiled("int_line_bounds"))
    expected = {}
    for product, month in {row[:2] for row in lines}:
        medians, prices, n = [], [], 0
        for earlier in range(month - 12, month):
            there = [row for row in lines if row[:2] == (product, earlier) and not row[4]]
            if there:
                medians.append(median_low([row[2] for row in there]))
            if paid := [row[3] / row[2] for row in there if row[3]]:
                prices.append(median_low(paid))
            n += len(there)
        if n >= 2:
            price = median_low(prices) * 100 if prices else None
            expected[product, month] = (
                n,
                median_low(medians) * 100,
                price and pytest.approx(price),
            )
    assert {
        (row["series_id"], row["month_number"] - 12 * 2020): (
            row["lines_before"],
            row["max_quantity"],
            row["max_unit_price"],
        )
        for row in rows
    } == expected


# --- Time zones ---

MOMENTS = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2029, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0)
)


@given(st.lists(MOMENTS, min_size=1), st.sampled_from(["UTC", "Asia/Tokyo", "America/Los_Angeles"]))
@example(
    [dt.datetime(2026, 3, 8, 4, 59, 59), dt.datetime(2026, 3, 8, 5), dt.datetime(2026, 3, 9, 4)],
    "UTC",
)
@example([dt.datetime(2026, 11, 1, 4), dt.datetime(2026, 11, 2, 4, 59, 59)], "Asia/Tokyo")
@settings(max_examples=10, deadline=None)
def test_the_local_date_is_that_of_the_moment(
    compiled: Callable[[str], str], moments: list[dt.datetime], session: str
) -> None:
    """Whatever the type of the raw column and the time zone of the session."""
    shop, elsewhere = ZoneInfo("America/New_York"), ZoneInfo("Europe/Berlin")
    aware = [moment.replace(tzinfo=dt.UTC) for moment in moments]
    expected = [moment.astimezone(shop).date() for moment in aware]
    columns = {
        "timestamp": pa.array(moments, pa.timestamp("us")),
        "timestamp with time zone": pa.array(aware, pa.timestamp("us", "UTC")),
        "text": pa.array([moment.isoformat() for moment in moments]),
        "text in UTC": pa.array([moment.isoformat() + "Z" for moment in moments]),
        "text with offset": pa.array([m.astimezone(elsewhere).isoformat() for m in aware]),
    }
    for kind, column in columns.items():
        n = len(moments)
        others = {
            name: pa.array([str(i) for i in range(n)] if name == "order_id" else ["1"] * n)
            for name in ORDER_COLUMNS
            if name not in ("ordered_at", "loaded_at")
        }
        table = pa.table(others | {"ordered_at": column, "loaded_at": column})
        with in_memory() as connection:
            connection.execute(f"set timezone = '{session}'; create schema shop.raw")
            connection.register("rows", table)
            connection.execute("create table shop.raw.order_lines as from rows")
            for model in ("stg_order_lines", "int_order_lines_described"):
                connection.execute(
                    f"create view shop.analytics_trendcast.{model} as {compiled(model)}"
                )
            rows = rows_of(
                connection,
                "select order_date, cast(loaded_at as timestamp) as loaded_at "
                "from shop.analytics_trendcast.int_order_lines_described order by cast(order_id as integer)",
            )
        assert [row["order_date"] for row in rows] == expected, kind
        assert [row["loaded_at"] for row in rows] == moments, kind


# --- Vars that do not fit ---


@pytest.mark.parametrize(
    ("vars", "told"),
    [
        ({"returns": "ignore"}, "var 'returns' must be one of net, count, reject; came: ignore"),
        ({"robust_bound": 1}, "var 'robust_bound' must be a number above 1, or null"),
        ({"max_quantity": "many"}, "var 'max_quantity' must be a number above 0; came: many"),
        ({"cancelled_when": ["void"]}, "var 'cancelled_when' must be an SQL condition or null"),
        ({"order_columns": {"curency": "c"}}, "var 'order_columns' must be a mapping of order_id,"),
        ({"order_columns": {"currency": "c"}}, "var 'currency' must be the shop's own currency"),
        ({"exchange_rates_table": "rates"}, "var 'exchange_rates_table' must be null where"),
    ],
    ids=str,
)
def test_a_policy_that_is_none_is_refused(dbt: Dbt, vars: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        replace(dbt, vars=vars).parse()
    assert told in str(raised.value)
