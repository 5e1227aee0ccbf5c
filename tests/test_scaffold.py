"""`trendcast init`: tables of different shape, guessed, written, and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from trendcast import scaffold
from trendcast.errors import DataError, TrendcastError, UsageError

REPO = Path(__file__).resolve().parent.parent

INVOICES = """
    select
        '5' || (36000 + i // 3) as "InvoiceNo",
        'SKU00' || (i % 7) as "StockCode",
        'Thing, no. ' || (i % 7) as "Description",
        1 + (i * i) % 5 as "Quantity",
        strftime(timestamp '2010-12-01 08:26:00' + interval (i // 10) day, '%m/%d/%Y %H:%M') as "InvoiceDate",
        round(2.5 + (i % 7) * 0.3, 2) as "UnitPrice",
        17850 + (i % 20) as "CustomerID",
        'United Kingdom' as "Country"
    from range(4000) as numbers(i)
"""
WEEKS = """
    select
        strftime(date '2021-01-04' + interval (i // 6) week, '%d.%m.%Y') as date,
        '00' || (i % 6) as store_nbr,
        case when i % 2 = 0 then 'FOOD' else 'TOYS' end as family,
        3.5 * (i % 6) + i % 4 as sales
    from range(900) as numbers(i)
"""
# Decimal commas, umlauts, quotes, spaces and words that SQL keeps for itself.
GERMAN = """
    select
        strftime(date '2021-01-04' + interval (i // 6) week, '%d.%m.%Y') as "Bestelldatum",
        'Käse, "' || (i % 6) || '"' as "Artikel ""Nr"" (neu)",
        case when i % 100 = 0 then '1.000,50' else (i % 6 + 1) || ',5' end as "Menge (Stück)",
        '€ ' || (2 + i % 6) || ',25' as "Preis",
        'Straße ' || i % 3 as "select",
        'R-' || i // 2 as "Beleg-Nr."
    from range(900) as numbers(i)
"""


def csv(path: Path, sql: str, options: str = "header") -> Path:
    duckdb.sql(f"copy ({sql}) to '{path}' ({options})")
    return path


def proposed(*sources: Path, **chosen: str) -> dict[str, Any]:
    return scaffold.propose(sources, chosen).told()["vars"]


def test_invoices_with_american_dates(tmp_path: Path) -> None:
    found = proposed(csv(tmp_path / "Online Retail.csv", INVOICES))
    assert found["orders_table"] == "online_retail"
    assert found["order_columns"] == {
        "ordered_at": "try_strptime(cast(\"InvoiceDate\" as varchar), '%m/%d/%Y %H:%M')",
        "quantity": '"Quantity"',
        "product_id": '"StockCode"',
        "order_id": '"InvoiceNo"',
        "customer_id": '"CustomerID"',
        "location_id": '"Country"',
        "revenue": 'try_cast("Quantity" as double) * try_cast("UnitPrice" as double)',
    }
    assert (found["grain"], found["horizon"], found["series_key"]) == ("day", 28, ["product_id"])


def test_a_panel_of_weeks_with_german_dates_and_semicolons(tmp_path: Path) -> None:
    found = proposed(csv(tmp_path / "train.csv", WEEKS, "header, delimiter ';'"))
    assert found["order_columns"] == {
        "ordered_at": "try_strptime(cast(\"date\" as varchar), '%d.%m.%Y')",
        "quantity": '"sales"',
        "product_id": '"family"',
        "location_id": '"store_nbr"',
    }
    assert (found["grain"], found["horizon"]) == ("week", 8)


def test_a_german_csv_with_decimal_commas_and_hostile_names(tmp_path: Path) -> None:
    path = csv(tmp_path / "Verkäufe.csv", GERMAN, "header, delimiter ';'")
    guess = scaffold.propose([path], {})
    columns = guess.vars["order_columns"]
    assert columns["product_id"] == '"Artikel ""Nr"" (neu)"'
    assert columns["ordered_at"] == "try_strptime(cast(\"Bestelldatum\" as varchar), '%d.%m.%Y')"
    assert columns["order_id"] == '"Beleg-Nr."'
    assert guess.vars["grain"] == "week"
    (read,) = duckdb.sql(
        f"select sum(cast({columns['quantity']} as double)), sum({columns['revenue']}) from ({guess.orders.reads})"
    ).fetchall()
    quantities = [1000.5 if i % 100 == 0 else i % 6 + 1.5 for i in range(900)]
    assert read == (sum(quantities), sum(q * (2.25 + i % 6) for i, q in enumerate(quantities)))
    # The same, written by an old spreadsheet; and a column the user names is read in the same way.
    old = tmp_path / "alt.csv"
    old.write_bytes(path.read_text().replace("€", "EUR").encode("latin-1"))
    assert scaffold.propose([old], {}).vars["order_columns"] == columns
    assert (
        proposed(path, quantity="menge (stück)")["order_columns"]["quantity"] == columns["quantity"]
    )


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["1,234.50", "2", "3"], 1234.5),
        (["1.234,50", "2", "3"], 1234.5),
        (["$ 1,234", "$2", "$3"], 1234.0),
        (["-0,5 EUR", "2 EUR", "3 EUR"], -0.5),
    ],
)
def test_numbers_as_people_write_them(tmp_path: Path, values: list[str], first: float) -> None:
    rows = ", ".join(f"(date '2024-01-01' + {i}, 'p', '{v}')" for i, v in enumerate(values))
    path = csv(
        tmp_path / "o.csv",
        f"select * from (values {rows}) as t(day, sku, qty)",
        "header, delimiter ';'",
    )
    guess = scaffold.propose([path], {})
    (read,) = duckdb.sql(
        f"select list(try_cast({guess.vars['order_columns']['quantity']} as double)) from ({guess.orders.reads})"
    ).fetchall()
    assert read[0] == [first, 2, 3]


def test_dates_and_quantities_alone_are_one_series(tmp_path: Path) -> None:
    sql = "select date '2024-01-01' + cast(i as int) as date, 5 + i % 7 as quantity from range(99) as n(i)"
    found = proposed(csv(tmp_path / "total.csv", sql))
    assert found["order_columns"]["product_id"] == "'all'"
    # But where a column may be the product, it is asked for.
    path = csv(
        tmp_path / "which.csv", sql.replace("as quantity", "as quantity, 'c' || i % 4 as colour")
    )
    with pytest.raises(DataError, match="--map product_id=COLUMN"):
        proposed(path)
    assert proposed(path, product_id="colour")["order_columns"]["product_id"] == '"colour"'


def test_the_only_times_of_a_csv_are_when_it_was_ordered(tmp_path: Path) -> None:
    sql = "select timestamp '2024-01-01 08:00:00' + interval (i) hour as bought_at, 'a' as sku, 1 + i % 7 as qty from range(99) as n(i)"
    assert (
        proposed(csv(tmp_path / "orders.csv", sql))["order_columns"]["ordered_at"] == '"bought_at"'
    )


def test_files_that_are_parts_of_one_table(tmp_path: Path) -> None:
    for month in range(3):
        rows = f"select date '2024-01-01' + cast(i as int) as sold_on, 'p' || i % 4 as sku, 1 as units from range({40 * month}, {40 * month + 40}) as n(i)"
        csv(tmp_path / f"sales_2024_0{month + 1}.parquet", rows, "format parquet")
    csv(tmp_path / "items.csv", "select 'p' || i as sku, 'c' as category from range(4) as n(i)")
    guess = scaffold.propose([tmp_path], {})
    assert (guess.orders.name, guess.orders.rows) == ("sales", 120)
    assert guess.products is not None and guess.products.name == "items"


def test_a_warehouse_with_a_catalogue(tmp_path: Path) -> None:
    """The orders are the table with date, quantity and product; the catalogue lists the products, none twice."""
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("create schema sales")
        connection.execute(
            """
            create table sales.order_items as
            select i as order_id, 'p' || (i % 9) as sku, timestamp '2025-01-01' + interval (i) hour as created_at,
                1 + i % 3 as qty, 9.5 as line_total, now() as loaded_at
            from range(5000) as numbers(i)
            """
        )
        connection.execute(
            "create table sales.items as select 'p' || i as sku, 'x' as \"Brand Name\", 'c' || i % 2 as category "
            "from range(9) as numbers(i)"
        )
        connection.execute("create table sales.staff as select 1 as id, date '2020-01-01' as hired")
    found = proposed(path)
    assert (found["shop_schema"], found["orders_table"]) == ("sales", "order_items")
    columns = found["order_columns"]
    assert (columns["product_id"], columns["quantity"]) == ('"sku"', '"qty"')
    assert (columns["ordered_at"], columns["loaded_at"]) == ('"created_at"', '"loaded_at"')
    assert (columns["revenue"], columns["order_id"]) == ('"line_total"', '"order_id"')
    assert found["products_table"] == "items"
    assert found["product_columns"] == {
        "product_id": '"sku"',
        "category": '"category"',
        "brand": '"Brand Name"',
    }


def test_what_the_user_says_wins(tmp_path: Path) -> None:
    path = csv(tmp_path / "train.csv", WEEKS)
    found = proposed(path, product_id="STORE_NBR", quantity="sales * 2")
    assert found["order_columns"]["product_id"] == '"store_nbr"'
    assert found["order_columns"]["quantity"] == "sales * 2"
    assert "location_id" not in found["order_columns"]


@pytest.mark.parametrize(
    ("sql", "chosen", "error", "said"),
    [
        (
            "select '01/02/2024' as date, 'p' as product, 1 as qty",
            {},
            DataError,
            ["2 ways", "%m/%d/%Y", "%d/%m/%Y", "--map"],
        ),
        (
            "select 'someday' as order_date, 'p' as product, 1 as qty",
            {},
            DataError,
            ["'someday'", "--map"],
        ),
        (
            "select 'x' as colour, 2 as weight",
            {},
            DataError,
            ["ordered_at", "colour, weight", "--map ordered_at=COLUMN"],
        ),
        (
            "select date '2024-01-01' as date, 'p' as sku, 1 as qty",
            {"product": "sku"},
            UsageError,
            ["cannot set 'product'", "product_id"],
        ),
        (
            "select date '2024-01-01' as date, 'p' as sku, 1 as qty",
            {"orders_table": "x"},
            UsageError,
            ["no table 'x'", "orders"],
        ),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(
    tmp_path: Path, sql: str, chosen: dict[str, str], error: type[TrendcastError], said: list[str]
) -> None:
    path = csv(tmp_path / "orders.csv", sql)
    with pytest.raises(error) as raised:
        scaffold.propose([path], chosen)
    for text in said:
        assert text in str(raised.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("date,sku,qty\n")
    with pytest.raises(DataError, match="no rows in empty"):
        scaffold.propose([tmp_path / "empty.csv"], {})
    with pytest.raises(UsageError, match="There is no file"):
        scaffold.propose([tmp_path / "none.csv"], {})
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(UsageError, match="Valid endings: .csv"):
        scaffold.propose([tmp_path / "a.xlsx"], {})


def trendcast(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRENDCAST_", "DBT_"))}
    return subprocess.run(
        [sys.executable, "-m", "trendcast", *args],
        cwd=folder,
        env=kept,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_is_written_unasked_and_nothing_overwritten(tmp_path: Path) -> None:
    csv(tmp_path / "train.csv", WEEKS)
    done = trendcast("init", "train.csv", folder=tmp_path)
    assert done.returncode == 2
    assert "family" in done.stdout and "--yes" in done.stderr
    assert not (tmp_path / "shop").exists()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("kept")
    done = trendcast("init", "train.csv", "--yes", folder=tmp_path)
    assert done.returncode == 2 and "is not empty" in done.stderr
    assert [p.name for p in (tmp_path / "shop").iterdir()] == ["mine.txt"]


def test_the_warehouse_is_set_as_the_one_of_the_repository(tmp_path: Path) -> None:
    """A project that `trendcast init` writes is as fast, and its file as readable, as what is measured and tested here."""
    found = scaffold.propose([csv(tmp_path / "train.csv", WEEKS)], {})
    scaffold.write(found, tmp_path / "shop")
    theirs = yaml.safe_load((tmp_path / "shop" / "profiles.yml").read_text())["shop"]["outputs"][
        "dev"
    ]
    ours = yaml.safe_load((REPO / "profiles" / "profiles.yml").read_text())["trendcast"]["outputs"][
        "duckdb"
    ]
    assert theirs["config_options"] == ours["config_options"]
    # Whose machine it is, is not known here: DuckDB takes its own share of the memory.
    del ours["settings"]["memory_limit"]
    assert theirs["settings"] == ours["settings"]
    assert "checkpoint_threshold" in theirs["settings"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sql", "options", "grain"),
    [(INVOICES, "header", "day"), (GERMAN, "header, delimiter ';'", "week")],
)
def test_from_a_csv_to_forecasts_in_two_commands(
    tmp_path: Path, sql: str, options: str, grain: str
) -> None:
    csv(tmp_path / "orders.csv", sql, options)
    done = trendcast("init", "orders.csv", "--yes", "--dir", "shop", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    shop = tmp_path / "shop"
    workflow = yaml.safe_load((shop / ".github/workflows/forecast.yml").read_text())
    assert workflow["jobs"]["forecast"]["steps"][-1] == {"run": "trendcast run"}
    vars = json.dumps({"models": ["ridge"]})
    done = trendcast("run", "--json", "--vars", vars, folder=shop)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["grain"] == grain
    with duckdb.connect(shop / "shop.duckdb", read_only=True) as connection:
        lines = connection.sql("select count(*) from raw.orders").fetchall()
        accepted = connection.sql(
            "select count(*) from analytics_trendcast.int_order_lines"
        ).fetchall()
        assert lines[0][0] > 0 and accepted[0][0] >= 0.9 * lines[0][0]
        ids = connection.sql(
            "select distinct series_id from analytics_marts.fct_forecasts"
        ).fetchall()
        own = connection.sql("select count(*) from analytics.expected_demand").fetchall()
        assert own[0][0] == len(ids) > 1
