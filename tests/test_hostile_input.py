"""A corpus of hostile input: each case gives the right rows or a clear reason, and never a traceback or a wrong number.

The cases lie in ``tests/corpus``. They are loaded into one warehouse whose columns are named to do harm too, built once,
and looked at one by one. Wrong vars, some 300 of them, are in `tests.test_vars`.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import REPO, Shop
from trendcast.checks import check_orders
from trendcast.errors import TrendcastError
from trendcast.project import Project
from trendcast.warehouse import literal, quote
from trendcast.warehouse.duckdb import DuckDBWarehouse

CORPUS = REPO / "tests" / "corpus"
IDS: list[str] = json.loads((CORPUS / "ids.json").read_text())
# Field, the text it came with, and what is right: a reason, or quantity, time and revenue as they are read.
VALUES: list[list[Any]] = json.loads((CORPUS / "values.json").read_text())
COLUMNS = {
    "order_id": '"order"',
    "product_id": '"select ""x"";"',
    "ordered_at": '"Größe\n日"',
    "quantity": '"group"',
    "revenue": '"it\'s"',
}
FIRST, N_DAYS = dt.date(2026, 1, 1), 40
ODD = "odd values"
# Series that are peculiar as a whole: what is sold on each day.
SERIES: dict[str, list[str]] = {
    "constant": ["3"] * N_DAYS,
    "huge": ["9999.999999"] * N_DAYS,
    "tiny": ["0.000001"] * N_DAYS,
    "returns alone": ["-2"] * N_DAYS,
    "all zero": ["0"] * N_DAYS,
    "once": ["5"],
    "sold and brought back": [text for _ in range(N_DAYS // 2) for text in ("4", "-4")],
}


def line(product_id: str, order_id: str, day: int, **columns: str) -> dict[str, str]:
    ordered_at = (FIRST + dt.timedelta(days=day)).isoformat()
    base = {"order_id": order_id, "product_id": product_id, "ordered_at": ordered_at}
    return base | {"quantity": "2", "revenue": "0.000002"} | columns


def order_lines() -> list[dict[str, str]]:
    lines = [
        line(name, f"i{i}-{day}", day, quantity=str(1 + (i + day) % 4))
        for i, name in enumerate(IDS)
        for day in range(N_DAYS)
    ]
    lines += [line(ODD, f"v{k}", 4, **{field: text}) for k, (field, text, _) in enumerate(VALUES)]
    lines += [
        line(name, f"s-{name}-{day}", day, quantity=text)
        for name, days in SERIES.items()
        for day, text in enumerate(days)
    ]
    # Duplicate keys: the same line thrice, and one order of two products.
    lines += [line("twice", "d", 3)] * 3 + [line("twice", "d", 3, quantity="1")]
    return lines


@pytest.fixture(scope="module")
def built(make_shop: Callable[..., Shop]) -> Shop:
    """The corpus after a build of the features."""
    names = {canonical: text[1:-1].replace('""', '"') for canonical, text in COLUMNS.items()}
    lines = [{names[key]: value for key, value in row.items()} for row in order_lines()]
    shop = make_shop(lines, order_columns=COLUMNS, robust_bound=None, models=["ridge"])
    shop.build()
    return shop


@pytest.fixture(scope="module")
def series(built: Shop) -> dict[str, dict[str, Any]]:
    rows = built.query("select * from analytics_trendcast.int_series")
    return {row["series_id"]: row for row in rows}


@pytest.fixture(scope="module")
def checked(built: Shop) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    rows = built.query(
        "select order_id, product_id, quantity, cast(ordered_at as varchar) as ordered_at, revenue, "
        "rejection_reason from analytics_trendcast.int_order_lines_checked"
    )
    for row in rows:
        found.setdefault(row["order_id"], []).append(row)
    return found


def test_the_corpus_is_large() -> None:
    assert len(set(IDS)) == len(IDS) >= 100
    assert len(VALUES) >= 120
    assert len(IDS) + len(VALUES) >= 200


def test_no_line_is_lost(checked: dict[str, list[dict[str, Any]]]) -> None:
    came = Counter(row["order_id"] for row in order_lines())
    assert {order_id: len(rows) for order_id, rows in checked.items()} == came


@pytest.mark.parametrize("name", IDS, ids=ascii)
def test_an_id_is_what_it_was(series: dict[str, dict[str, Any]], name: str) -> None:
    i = IDS.index(name)
    assert series[name]["total_quantity"] == sum(1 + (i + day) % 4 for day in range(N_DAYS))


def test_no_series_but_those_that_came(series: dict[str, dict[str, Any]]) -> None:
    # Returns and zeros alone make no series.
    some = {name for name in SERIES if name not in ("returns alone", "all zero")}
    assert set(series) == {*IDS, *some, ODD, "twice"}


@pytest.mark.parametrize("k", range(len(VALUES)), ids=lambda k: ascii(":".join(VALUES[k][:2])))
def test_a_value_is_read_right_or_refused_with_its_reason(
    checked: dict[str, list[dict[str, Any]]], k: int
) -> None:
    (row,) = checked[f"v{k}"]
    came = row["rejection_reason"] or [
        str(row["quantity"]),
        row["ordered_at"],
        None if row["revenue"] is None else str(row["revenue"]),
    ]
    assert came == VALUES[k][2]


def test_duplicates_count_once(checked: dict[str, list[dict[str, Any]]]) -> None:
    reasons = sorted(str(row["rejection_reason"]) for row in checked["d"])
    assert reasons == ["None", "None", "duplicate_line", "duplicate_line"]


def test_sums_of_peculiar_series(series: dict[str, dict[str, Any]]) -> None:
    totals = {name: series[name]["total_quantity"] for name in SERIES if name in series}
    assert totals["constant"] == 3 * N_DAYS
    assert totals["huge"] == 399_999.99996
    assert totals["tiny"] == 0.00004
    assert totals["once"] == 5
    assert totals["sold and brought back"] == 4 * N_DAYS / 2  # returned on another day: apart
    assert series["twice"]["total_quantity"] == 3


@pytest.mark.slow
def test_the_corpus_is_forecast(built: Shop, copied: Callable[[Shop], Shop]) -> None:
    shop = copied(built)
    done = shop.run("run")
    assert done.returncode == 0, done.stderr or done.stdout
    assert "Traceback" not in done.stderr
    rows = shop.query("select series_id, lead, mean, q50 from analytics_marts.fct_forecasts")
    some = {name for name in SERIES if name not in ("returns alone", "all zero")}
    assert {row["series_id"] for row in rows} == {*IDS, *some, ODD, "twice"}
    assert len(rows) == 7 * len({row["series_id"] for row in rows})
    assert all(math.isfinite(row["mean"]) and 0 <= row["mean"] < 100_000 for row in rows)
    # The panel ends with the latest odd date, by which a constant series had long stopped.
    assert {row["mean"] for row in rows if row["series_id"] == "constant"} == {0}


@pytest.mark.slow
@pytest.mark.whole
def test_a_million_series_of_one_row_are_summed_right(make_shop: Callable[..., Shop]) -> None:
    import numpy as np

    n = 1_000_000
    days = np.datetime64("2026-01-01") + np.arange(n) % 60
    lines = {
        "product_id": pa.array(np.arange(n).astype(str)),
        "ordered_at": pa.array(days.astype("datetime64[D]")),
        "quantity": pa.array(1 + np.arange(n) % 5),
    }
    shop = make_shop(pa.table(lines), horizon=2, robust_bound=None)
    shop.build("+int_series")
    (row,) = shop.query(
        "select count(*) as n, sum(total_quantity) as total from analytics_trendcast.int_series"
    )
    assert (row["n"], row["total"]) == (n, 3 * n)


@pytest.mark.slow
@pytest.mark.whole
def test_one_series_of_ten_million_rows_is_summed_right(make_shop: Callable[..., Shop]) -> None:
    import numpy as np

    n = 10_000_000
    days = np.datetime64("2025-01-01") + np.arange(n) % 400
    lines = {
        "product_id": pa.repeat(pa.scalar("tea"), n),
        "ordered_at": pa.array(days.astype("datetime64[D]")),
        "quantity": pa.array((1 + np.arange(n) % 5).astype(np.int16)),
    }
    shop = make_shop(pa.table(lines), robust_bound=None)
    shop.build("+int_series")
    (row,) = shop.query("select * from analytics_trendcast.int_series")
    assert row["total_quantity"] == 3 * n


# --- What Python writes into SQL ---


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_name_and_any_text_can_be_written(text: str) -> None:
    with DuckDBWarehouse.open({"path": ":memory:"}, read_only=False) as warehouse:
        row = warehouse.query(f"select {literal(text)} as {quote(text)}, ? as bound", [text])
        assert row.column(0).to_pylist() == [text]
        assert row.column("bound").to_pylist() == [text] or text.lower() == "bound"
        warehouse.execute(f"create table {quote(text)} ({quote(text)} varchar)")
        assert warehouse.append(quote(text), pa.table({text: [text]})) == 1
        assert len(warehouse.fingerprint(quote(text), [text])) == 64


CELLS = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    st.sampled_from(["NaN", "-inf", "2026-01-31", "9999-12-31", "0001-01-01", "1e400", "-5", "3"]),
)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_order_lines_pass_or_are_refused_in_words(project: Project, rows: list[Any]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    table = pa.table(
        {
            name: pa.array(column, pa.string())
            for name, column in zip(("sku", "sold_at", "qty"), columns, strict=True)
        }
    )
    chosen = replace(
        project.settings,
        order_columns={"product_id": "sku", "ordered_at": "sold_at", "quantity": "qty"},
        order_timezone=None,
    )
    ours = replace(project, orders="sales", orders_schema="raw", settings=chosen)
    with DuckDBWarehouse.open({"path": ":memory:"}, read_only=False) as warehouse:
        warehouse.lookup("sales", table)
        try:
            check_orders(warehouse, ours)
        except TrendcastError as error:
            assert "order" in str(error) or "sales" in str(error)
