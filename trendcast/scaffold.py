"""Guesses how a shop's tables map onto trendcast's names, and writes a dbt project that is ready to run.

A guess is made of a column's name, its type and what is in it, and says why. Nothing is written before the user has
seen it. A mapping is only ever a start: it lies in ``dbt_project.yml`` as vars, to be corrected there.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import yaml

from trendcast.dbt import Dbt
from trendcast.errors import DataError, UsageError, WarehouseError
from trendcast.project import PACKAGED_PROJECT
from trendcast.warehouse import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SAMPLE_ROWS = 200_000
READERS = {".csv": "read_csv", ".tsv": "read_csv", ".parquet": "read_parquet", ".gz": "read_csv"}
WAREHOUSES = (".duckdb", ".db")
#: Of the values of a text column, so many must read as a date or a number for it to be one.
READABLE = 0.95
# Canonical order column to patterns of names, English and German, the surest first; all are matched on the name in snake case.
NAMES: dict[str, tuple[str, ...]] = {
    "ordered_at": (
        r"(order(ed)?|invoice|purchase[d]?|sale|sold|transaction|trans|basket|receipt)_?(date|time|day|at|on|ts|timestamp|datetime).*",
        r"(date|ds|day|datetime|timestamp|order_?dt|time)|(bestell|rechnungs|verkaufs|auftrags|beleg|buchungs)?_?(datum|tag)",
        r"(created|placed)_?(at|on|date)|week|month|.*_date|.*datum",
    ),
    "quantity": (
        r"quantit(y|ies)|qty|units|units_sold|.*_(qty|quantity)|quantity_.*|order_?qty",
        r"(bestell|verkaufs)?_?(menge|anzahl|stueckzahl|stueck)(_.*)?|absatz|pieces|sold|item_?count|volume|demand|unit_sales|cnt|count|nr_?of_?items",
        r"sales|y|amount_?sold|grams|weight|(n|num|number_of)_.*",
    ),
    "product_id": (
        r"(product|sku|item|article|stock|asin|isbn|style|part|material)_?(id|no|nr|num|number|code|key|sku)?"
        r"|(artikel|produkt|material)_?(nr|nummer|id|code)?",
        r"(product|item|article|artikel|produkt)_?(name|title|description|bezeichnung)|bezeichnung|description|.*_sku|upc|ean|unique_id|series(_id)?",
        r"family|category|(product|artikel|produkt)_.*|type|group|warengruppe|kategorie",
    ),
    "price": (
        r"(unit|selling|sell|sales|item|list|product)_?price|price(_each|_per_unit)?|(einzel|stueck|verkaufs)_?preis",
        r"preis(_.*)?|rate|.*_price|price_.*",
    ),
    "revenue": (
        r"revenue|turnover|(sales|line|order_line)_?(value|amount|total|revenue)|extended_?price",
        r"(total|net|gross)(_?(price|amount|sales|value))?|amount|value"
        r"|umsatz|erloes|gesamtpreis|(positions|gesamt|zeilen)?_?(betrag|wert|summe)",
        r"sales",
    ),
    "order_id": (
        r"(order|invoice|basket|transaction|receipt|ticket|bill|cart)(_?(id|no|nr|num|number|code|key))?"
        r"|(bestell|rechnungs|auftrags|beleg|bon)_?(nr|nummer|id)",
    ),
    "customer_id": (
        r"(customer|client|buyer|member|household|account|shopper|guest)(_?(id|no|nr|num|number|code|key))?",
        r"user(_?id)?|kunden?(_?(nr|nummer|id))?",
    ),
    "location_id": (
        r"(store|shop|location|warehouse|branch|site|outlet)(_?(id|no|nr|num|nbr|number|code|key|name))?",
        r"(market|channel|region|country|city)(_?(id|code|name))?|(filiale?|standort|laden)(_?(nr|nummer|id))?",
    ),
    "discount": (r"discount(_?amount|_?value)?|.*_disc|markdown|rebate|coupon_?value|rabatt",),
    "currency": (r"currency(_?code)?|waehrung",),
    "status": (r"(order_?)?status",),
    "loaded_at": (
        r"_?(loaded|ingested|inserted|synced|etl_loaded)_?(at|on|time)|_fivetran_synced",
    ),
}
ORDER = (
    *("ordered_at", "quantity", "product_id", "price", "revenue", "order_id", "customer_id"),
    *("location_id", "discount", "currency", "status", "loaded_at"),
)
REQUIRED = ("product_id", "ordered_at", "quantity")
TIMES, NUMBERS = ("ordered_at", "loaded_at"), ("quantity", "price", "revenue", "discount")
ATTRIBUTES = {
    "category": (
        r"(product_?)?category(_?name)?|family|commodity",
        r"cat(_?id)?|class|group|type|warengruppe|kategorie",
    ),
    "department": (r"department(_?name)?|dept(_?id)?|division|abteilung",),
    "brand": (r"brand(_?name)?|manufacturer(_?id|_?name)?|vendor|marke|hersteller",),
}
# How dates are written that no engine reads by itself.
FORMATS = (
    *("%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%Y%m%d", "%Y/%m/%d"),
    *("%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%y", "%m/%d/%y %H:%M"),
    *("%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d/%m/%y", "%d-%m-%Y", "%b %d, %Y"),
)
# How numbers are written that no engine reads by itself: what a whole value looks like, and the SQL that reads it.
_UMLAUTS = {ord("ä"): "ae", ord("ö"): "oe", ord("ü"): "ue", ord("ß"): "ss"}
_ROUND = r"([ €$£+-]|EUR|USD|GBP|CHF)*"
# Of 1,234 alone both are true; three digits after every comma are rarer as decimals, so thousands come first.
WRITTEN = {
    "1,234.5": (rf"{_ROUND}[0-9]{{1,3}}(,?[0-9]{{3}})*([.][0-9]+)?{_ROUND}", ("[^0-9.+-]", "", "")),
    "1.234,5": (
        rf"{_ROUND}[0-9]{{1,3}}([. ]?[0-9]{{3}})*(,[0-9]+)?{_ROUND}",
        ("[^0-9,+-]", ",", "."),
    ),
}
HORIZONS = {"day": 28, "week": 8, "month": 6}
DAYS = {"day": 1.0, "week": 7.0, "month": 30.44}


def _snake(text: str) -> str:
    """Return a name in snake case, umlauts spelt out and accents left away."""
    text = text.lower().translate(_UMLAUTS)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_")


@dataclass(frozen=True)
class Column:
    """What a sample of a column shows.

    Parameters
    ----------
    name, kind
        As the table has them.
    distinct
        Different values, about.
    share_null
        0 to 1.
    as_time, as_number
        Shares of the values that read as one, 0 to 1.
    written
        How its numbers are written, where no engine reads them by itself: a key of WRITTEN.
    whole
        Whether all that read as numbers are whole.
    least
        The smallest of them.
    """

    name: str
    kind: str
    distinct: int
    share_null: float
    as_time: float
    as_number: float
    whole: bool
    least: float | None
    written: str | None = None

    @property
    def snake(self) -> str:
        """The name in snake case."""
        return _snake(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name))

    @property
    def number(self) -> str:
        """SQL that reads its values as numbers, as staging will cast them."""
        if self.written is None:
            return quote(self.name)
        others, point, by = WRITTEN[self.written][1]
        bare = f"regexp_replace(cast({quote(self.name)} as varchar), {literal(others)}, '', 'g')"
        return f"replace({bare}, {literal(point)}, {literal(by)})" if point else bare

    @property
    def is_time(self) -> bool:
        """Whether it has dates or times."""
        return self.kind.startswith(("DATE", "TIMESTAMP"))

    @property
    def is_number(self) -> bool:
        """Whether it has numbers."""
        name = self.kind.split("(")[0]
        return name in ("DECIMAL", "FLOAT", "DOUBLE") or name.endswith("INT") or name == "INTEGER"


@dataclass(frozen=True)
class Table:
    """A table of the shop, or a file that is read as one."""

    name: str
    relation: str
    schema: str
    rows: int
    columns: tuple[Column, ...]
    #: The query that reads the file; None for a table of a warehouse.
    reads: str | None = None


@dataclass
class Guess:
    """What trendcast made of the tables: vars, and for each a reason."""

    orders: Table
    products: Table | None
    vars: dict[str, Any]
    reasons: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: The DuckDB file that has the tables; None where they are files.
    warehouse: Path | None = None

    def told(self) -> dict[str, Any]:
        """Return what a user is shown before anything is written."""
        return {
            "orders": self.orders.name,
            "rows": self.orders.rows,
            "guesses": self.reasons,
            "notes": self.notes,
            "vars": self.vars,
        }


def propose(sources: Sequence[Path], chosen: Mapping[str, str]) -> Guess:
    """Look at files or a warehouse and guess; ``chosen`` is what the user has said of single columns."""
    with duckdb.connect() as connection:
        found = guess(look(sources, connection), connection, chosen)
    if sources[0].suffix.lower() in WAREHOUSES:
        found.warehouse = sources[0].resolve()
    return found


# --- Looking ---


def look(sources: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> list[Table]:
    """Return the tables of files, or of one warehouse that is attached as ``shop``.

    Raises
    ------
    UsageError
        A source does not exist, is of no kind that can be read, or warehouses and files are mixed.
    """
    files = [file for path in sources for file in _files(path)]
    for path in files:
        if path.suffix.lower() not in (*READERS, *WAREHOUSES):
            valid = ", ".join(sorted((*READERS, *WAREHOUSES)))
            raise UsageError(f"{path} is of no kind that can be read here. Valid endings: {valid}.")
    warehouses = [p for p in files if p.suffix.lower() in WAREHOUSES]
    if warehouses and len(files) > 1:
        raise UsageError("Pass either one DuckDB file or CSV and Parquet files, not both.")
    if warehouses:
        return _tables_of(warehouses[0], connection)
    found = []
    for paths in _parts(files, connection):
        name = _name(paths)
        reads = f"select * from {_reader(paths, connection)}"
        found.append(_table(connection, name, f"({reads})", "raw", reads))
    names = [table.name for table in found]
    if len(set(names)) < len(names):
        raise UsageError(
            f"Two of the files would be the same table: {', '.join(names)}. Rename one."
        )
    return found


def _files(path: Path) -> list[Path]:
    """Return a file, or those in a folder that can be read."""
    if path.is_file():
        return [path]
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in READERS and p.is_file())
    if not found:
        raise UsageError(
            f"There is no file {path}. Pass CSV or Parquet files, a folder of them, or a DuckDB file."
        )
    return found


def _parts(files: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> list[list[Path]]:
    """Put files together that are parts of one table: those of one kind with the same columns."""
    parts: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        try:
            described = connection.execute(
                f"describe select * from {_reader([path], connection)}"
            ).fetchall()
        except duckdb.Error as error:
            raise DataError(
                f"{path} cannot be read: {' '.join(str(error).split())[:300]}"
            ) from error
        kind = READERS[path.suffix.lower()]
        parts.setdefault((kind, *(row[0] for row in described)), []).append(path)
    return list(parts.values())


def _reader(paths: Sequence[Path], connection: duckdb.DuckDBPyConnection) -> str:
    """Return SQL that reads files as one table."""
    listed = ", ".join(literal(str(path.resolve())) for path in paths)
    if READERS[paths[0].suffix.lower()] == "read_parquet":
        return f"read_parquet([{listed}])"
    # A CSV's columns stay text: 007 stays 007, and a date is read by a format that is written down, not guessed anew
    # with each new file. Staging reads the numbers.
    reader = f"read_csv([{listed}], all_varchar = true)"
    try:
        connection.execute(f"select count(*) from {reader}").fetchall()
    except duckdb.Error as error:
        if "utf-8" not in str(error).lower() and "unicode" not in str(error).lower():
            raise
        return f"read_csv([{listed}], all_varchar = true, encoding = 'latin-1')"
    return reader


def _name(paths: Sequence[Path]) -> str:
    """Return the name of the table that files are: what their names begin with, without a number at its end."""
    names = [path.name.split(".")[0].lower() for path in paths]
    name = names[0]
    if len(names) > 1:
        name = os.path.commonprefix(names).rstrip("0123456789_- ") or paths[0].resolve().parent.name
    return _snake(name) or "orders"


def _tables_of(path: Path, connection: duckdb.DuckDBPyConnection) -> list[Table]:
    try:
        connection.execute(f"attach {literal(str(path))} as shop (read_only)")
    except duckdb.Error as error:
        raise WarehouseError(f"{path} cannot be opened: {str(error).splitlines()[0]}") from error
    rows = connection.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = 'shop' and not internal "
        "union select schema_name, view_name from duckdb_views() where database_name = 'shop' and not internal "
        "order by 1, 2"
    ).fetchall()
    if not rows:
        raise DataError(f"{path} has no tables.")
    return [
        _table(connection, name, f"shop.{quote(schema)}.{quote(name)}", schema)
        for schema, name in rows
    ]


def _table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    relation: str,
    schema: str,
    reads: str | None = None,
) -> Table:
    """Look at a sample of a table, drawn over all of it."""
    try:
        described = connection.execute(f"describe select * from {relation}").fetchall()
        (rows,) = connection.execute(f"select count(*) from {relation}").fetchone() or (0,)
        connection.execute(
            f"create or replace temp table sampled as select * from {relation} "
            f"using sample reservoir({SAMPLE_ROWS} rows) repeatable (7)"
        )
    except duckdb.Error as error:
        raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}") from error
    if not rows:
        return Table(name, relation, schema, rows, (), reads)
    columns = []
    for column, kind, *_ in described:
        value, text = quote(column), f"cast({quote(column)} as varchar)"
        patterns = ", ".join(
            f"count(*) filter (where regexp_full_match({text}, {literal(pattern)})) / greatest(count({value}), 1)"
            for pattern, _ in WRITTEN.values()
        )
        distinct, share_null, as_time, as_number, whole, least, *written = connection.execute(
            f"""
            select
                approx_count_distinct({value}),
                1 - count({value}) / greatest(count(*), 1),
                -- 1/3/26 reads as a day of the year 1.
                count(*) filter (where try_cast({text} as timestamp) between '1900-01-01' and '2200-01-01')
                    / greatest(count({value}), 1),
                count(try_cast({text} as double)) / greatest(count({value}), 1),
                coalesce(bool_and(try_cast({text} as double) = floor(try_cast({text} as double))), false),
                min(try_cast({text} as double)),
                {patterns}
            from sampled
            """
        ).fetchone() or (0, 1, 0, 0, False, None, 0, 0)
        found = Column(column, kind.upper(), distinct, share_null, as_time, as_number, whole, least)
        if as_number < READABLE and not (found.is_time or found.is_number):
            how = max(zip(written, WRITTEN, strict=True), key=lambda pair: pair[0])
            if how[0] >= READABLE:
                found = replace(found, as_number=how[0], whole=False, written=how[1])
        columns.append(found)
    return Table(name, relation, schema, rows, tuple(columns), reads)


# --- Guessing ---


def guess(
    tables: Sequence[Table],
    connection: duckdb.DuckDBPyConnection,
    chosen: Mapping[str, str] | None = None,
) -> Guess:
    """Guess which table has the order lines, what its columns are, and the grain.

    Parameters
    ----------
    chosen
        Canonical order column to an SQL expression that the user has given; ``orders_table`` names the table.

    Raises
    ------
    DataError
        No table has a date, a quantity and a product, or a date can be read in two ways.
    """
    chosen = dict(chosen or {})
    wanted = chosen.pop("orders_table", None)
    valid = [*NAMES]
    for name in chosen:
        if name not in valid or name == "price":
            raise UsageError(
                f"--map cannot set {name!r}. Valid: orders_table, {', '.join(n for n in valid if n != 'price')}."
            )
    if not any(table.rows for table in tables):
        raise DataError(f"There are no rows in {', '.join(table.name for table in tables)}.")
    among = [table for table in tables if wanted in (None, table.name) and table.rows]
    if not among:
        names = ", ".join(table.name for table in tables)
        raise UsageError(f"There is no table {wanted!r}. There are: {names}.")
    mapped = [(_mapping(table, connection, chosen), table) for table in among]
    best, orders = max(mapped, key=lambda pair: (_sureness(pair[0]), pair[1].rows))
    missing = [name for name in REQUIRED if name not in best]
    if missing:
        has = ", ".join(column.name for column in orders.columns)
        raise DataError(
            f"No column of {orders.name} looks like {' or '.join(missing)}. It has: {has}. Say which it is: "
            + " ".join(f"--map {name}=COLUMN" for name in missing)
        )
    reasons = [
        {"what": name, "is": expression, "why": why} for name, (expression, why, _) in best.items()
    ]
    columns = {name: expression for name, (expression, _, _) in best.items()}
    found = Guess(orders, None, {}, reasons)
    products = _products(orders, columns["product_id"], tables, connection)
    attributes: dict[str, str] = {}
    if products:
        found.products, attributes, why = products
        reasons.append({"what": "products", "is": found.products.name, "why": why})
    _panel(found, columns, attributes, connection)
    return found


def _sureness(mapping: Mapping[str, tuple[str, str, float]]) -> float:
    return sum(score for name, (_, _, score) in mapping.items() if name in REQUIRED) + 0.1 * len(
        mapping
    )


def _mapping(
    table: Table, connection: duckdb.DuckDBPyConnection, chosen: Mapping[str, str]
) -> dict[str, tuple[str, str, float]]:
    """Return canonical column to SQL expression, reason and score; a column is used once."""
    found: dict[str, tuple[str, str, float]] = {}
    names = {column.name.lower(): column for column in table.columns}
    free = {column.name: column for column in table.columns}
    for name, text in chosen.items():
        column = names.get(text.lower())
        if column is None:
            found[name] = (text, "you said so", 4.0)
            continue
        expression, _ = _expression(name, column, table, connection)
        found[name] = (expression, "you said so", 4.0)
        free.pop(column.name, None)
    for name in ORDER:
        if name in found:
            continue
        scored = [(_score(name, column, table), column) for column in free.values()]
        scored = [(score, column) for score, column in scored if score > 0]
        if not scored:
            continue
        score, column = max(scored, key=lambda pair: pair[0])
        expression, why = _expression(name, column, table, connection)
        found[name] = (expression, why, score)
        del free[column.name]
    price = found.pop("price", None)
    if price and "revenue" not in found and "quantity" in found:
        found["revenue"] = (
            f"try_cast({found['quantity'][0]} as double) * try_cast({price[0]} as double)",
            "quantity times unit price",
            price[2],
        )
    if "quantity" not in found and "revenue" in found and "product_id" in found:
        found["quantity"] = ("1", "no column counts units: every line is one", 0.5)
    if (
        "product_id" not in found
        and "quantity" in found
        and not any(map(_may_be_key, free.values()))
    ):
        found["product_id"] = ("'all'", "no column names a product: all is one series", 0.5)
    return found


def _expression(
    name: str, column: Column, table: Table, connection: duckdb.DuckDBPyConnection
) -> tuple[str, str]:
    """Return SQL that reads a column as the canonical one, and what it shows."""
    if name in TIMES and not column.is_time:
        return _as_time(column, table, connection)
    if name in NUMBERS and column.written:
        return column.number, f"its name, and its numbers are written like {column.written}"
    return quote(column.name), f"its name, and it has {_described(column)}"


def _may_be_key(column: Column) -> bool:
    """Whether a column could tell products apart."""
    number = column.is_number or column.as_number >= READABLE
    return column.distinct > 1 and not column.is_time and not (number and not column.whole)


def _score(name: str, column: Column, table: Table) -> float:
    """Return how much a column looks like a canonical one; 0 where it cannot be."""
    if column.share_null > 0.9 and table.rows:
        return 0
    text = not (column.is_time or column.is_number)
    if name in TIMES and not (column.is_time or (text and column.as_time >= READABLE)):
        # A date no engine reads by itself is tried with formats later; whole numbers like 20260131 too.
        if not _may_be_written_date(column):
            return 0
    if name in NUMBERS and not column.is_number and not (text and column.as_number >= READABLE):
        return 0
    if name not in TIMES and column.is_time:
        return 0
    if name in ("product_id", "order_id", "customer_id", "location_id") and column.distinct == 0:
        return 0
    for rank, pattern in enumerate(NAMES[name]):
        if re.fullmatch(pattern, column.snake):
            sure = 3.0 - rank
            if name == "quantity" and not column.whole:
                sure -= 0.5
            return sure
    # Whatever its name is; in a CSV file all is text.
    if name == "ordered_at" and (column.is_time or (text and column.as_time >= READABLE)):
        return 0.5
    return 0


def _may_be_written_date(column: Column) -> bool:
    return bool(
        re.search(r"date|day|time|dt$|_at$|datum|tag$", column.snake)
        and (not column.is_number or (column.least or 0) > 19_000_000)
    )


def _as_time(
    column: Column, table: Table, connection: duckdb.DuckDBPyConnection
) -> tuple[str, str]:
    """Return an expression that reads a text as a time.

    Raises
    ------
    DataError
        No format reads it, or two do and give different dates.
    """
    value = quote(column.name)
    if column.as_time >= READABLE and not column.is_number:
        return value, "its name, and its text reads as a date"
    text = f"cast({value} as varchar)"
    counts = ", ".join(f"count(try_strptime({text}, {literal(f)}))" for f in FORMATS)
    row = connection.execute(
        f"select count({value}), {counts}, any_value({text}) from (select * from {table.relation} "
        f"using sample reservoir({SAMPLE_ROWS} rows) repeatable (7))"
    ).fetchone() or (0,)
    reads = [
        f for f, n in zip(FORMATS, row[1:-1], strict=True) if row[0] and n >= READABLE * row[0]
    ]
    if not reads:
        raise DataError(
            f"{table.name}.{column.name} looks like the date of an order, but its values, such as {row[-1]!r}, are "
            "written in no way known here. Say how to read it: --map \"ordered_at=strptime(column, '%d.%m.%Y')\""
        )
    if len(reads) > 1:
        shown = ", ".join(f"--map \"ordered_at=try_strptime({text}, '{f}')\"" for f in reads[:2])
        raise DataError(
            f"{table.name}.{column.name} has dates such as {row[-1]!r} that can be read in {len(reads)} ways: "
            f"{' or '.join(reads)}. Say which: {shown}"
        )
    return (
        f"try_strptime({text}, {literal(reads[0])})",
        f"its name, and its text is like {reads[0]}",
    )


def _described(column: Column) -> str:
    number = column.is_number or column.as_number >= READABLE
    what = "times" if column.is_time else "numbers" if number else "text"
    return f"{what}, {column.distinct:,} different"


def _products(
    orders: Table,
    product: str,
    tables: Iterable[Table],
    connection: duckdb.DuckDBPyConnection,
) -> tuple[Table, dict[str, str], str] | None:
    """Find a catalogue: a table whose product column has no value twice and most of the ordered products."""
    for table in tables:
        if table is orders or not table.rows:
            continue
        for column in table.columns:
            if not any(re.fullmatch(p, column.snake) for p in NAMES["product_id"][:2]):
                continue
            key = quote(column.name)
            known, ordered, rows, distinct = connection.execute(
                f"""
                with ordered as (select distinct cast({product} as varchar) as id from {orders.relation}),
                listed as (select cast({key} as varchar) as id from {table.relation})
                select
                    (select count(*) from ordered where id in (select id from listed)),
                    (select count(*) from ordered),
                    (select count(*) from listed),
                    (select count(distinct id) from listed)
                """
            ).fetchone() or (0, 1, 0, 0)
            if rows != distinct or known < ordered / 2:
                continue
            attributes: dict[str, str] = {}
            for attribute, patterns in ATTRIBUTES.items():
                for pattern in patterns:
                    match = next(
                        (
                            c
                            for c in table.columns
                            if re.fullmatch(pattern, c.snake) and c is not column
                        ),
                        None,
                    )
                    if match and quote(match.name) not in attributes.values():
                        attributes[attribute] = quote(match.name)
                        break
            why = f"it lists {known:,} of the {ordered:,} products ordered, none twice"
            return table, {"product_id": key} | attributes, why
    return None


def _panel(
    found: Guess,
    columns: dict[str, str],
    attributes: dict[str, str],
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Choose grain, series and horizon by how often products sell, and write the vars."""
    at = f"try_cast({columns['ordered_at']} as date)"
    product = f"cast({columns['product_id']} as varchar)"
    n_dates, span, products, dense, apart = connection.execute(
        f"""
        with sold as (select distinct {product} as id, {at} as d from {found.orders.relation}),
        dates as (select distinct d from sold where d is not null),
        gaps as (select d - lag(d) over (order by d) as days from dates)
        select
            (select count(*) from dates),
            (select max(d) - min(d) + 1 from dates),
            (select count(distinct id) from sold),
            (select median(n) from (select count(*) as n from sold group by id)),
            (select median(days) from gaps)
        """
    ).fetchone() or (0, 0, 0, 0, 0)
    if not n_dates:
        raise DataError(
            f"No value of {columns['ordered_at']} in {found.orders.name} can be read as a date. Say how: "
            "--map \"ordered_at=strptime(column, '%d.%m.%Y')\""
        )
    if (apart or 1) >= 27:
        grain, why = "month", "dates are a month apart"
    elif (apart or 1) >= 6:
        grain, why = "week", "dates are a week apart"
    elif dense / span < 0.1 and span >= 26 * 7:
        grain, why = "week", f"half of the products sold on less than {dense:.0f} of {span:,} days"
    else:
        grain, why = "day", f"half of the products sold on {dense:.0f} of {span:,} days or more"
    periods = int(span / DAYS[grain])
    horizon = max(1, min(HORIZONS[grain], periods // 5))
    folds = max(1, min(3, (periods // 2) // horizon - 1))
    found.reasons += [
        {"what": "grain", "is": grain, "why": why},
        {"what": "horizon", "is": str(horizon), "why": f"the history has {periods:,} {grain}s"},
        {
            "what": "series_key",
            "is": "product_id",
            "why": f"{products:,} product{'s' * (products != 1)}",
        },
    ]
    if products > 30_000:
        found.notes.append(
            f"{products:,} products make many series: a coarser series_key, such as a category, is faster and surer."
        )
    if found.products is None:
        found.notes.append("No catalogue was found; forecasts need none, but categories help them.")
    found.vars = {
        "shop_schema": found.orders.schema,
        "orders_table": found.orders.name,
        "products_table": found.products.name if found.products else None,
        **({"product_columns": attributes} if attributes else {}),
        "promotions_table": None,
        "order_columns": columns,
        "order_timezone": None,
        "order_scope": None,
        "holiday_country": None,
        "series_key": ["product_id"],
        "static_attributes": [name for name in attributes if name != "product_id"],
        "grain": grain,
        "horizon": horizon,
        "backtest_folds": folds,
    }


# --- Writing ---

WORKFLOW = """\
# Runs every morning. Before it can: the warehouse or the files must be where profiles.yml and dbt_project.yml say, the package
# where packages.yml says (git instead of a folder, see trendcast's docs/own-project.md), and trendcast where pip finds it.
name: forecast
on:
  schedule: [{cron: "0 5 * * *"}]
  workflow_dispatch:
jobs:
  forecast:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.11"}
      - run: pip install trendcast
      - run: dbt deps
      - run: trendcast doctor
      - run: trendcast run
"""
MODEL = """\
-- What is expected of each product over the horizon. A model of your own: change it, or write others like it.
select
    series_id,
    sum(mean) as expected,
    min(target_date) as first_date,
    max(target_date) as last_date
from {{ ref('trendcast', 'fct_forecasts') }}
group by series_id
"""


def write(found: Guess, folder: Path) -> None:
    """Write the project into a new folder, install the package in it, and make files readable in its warehouse.

    Raises
    ------
    UsageError
        The folder has something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty. Pass another with --dir, so that nothing is lost."
        )
    name = _snake(folder.resolve().name) or "shop"
    name = name if name[0].isalpha() else f"shop_{name}"
    used = [table for table in (found.orders, found.products) if table]
    warehouse = found.warehouse or Path(f"{name}.duckdb")
    views = [
        f"create or replace view raw.{quote(table.name)} as {table.reads}"
        for table in used
        if table.reads
    ]
    hooks = ["create schema if not exists raw", *views] if views else []
    project = {
        "name": name,
        "version": "1.0.0",
        "config-version": 2,
        "profile": name,
        "model-paths": ["models"],
        **({"on-run-start": hooks} if hooks else {}),
        "vars": {"trendcast": found.vars},
    }
    profile = {
        name: {
            "target": "dev",
            "outputs": {
                "dev": {
                    "type": "duckdb",
                    "path": str(warehouse),
                    "schema": "analytics",
                    "threads": os.cpu_count() or 1,
                    "config_options": {"storage_compatibility_version": "v1.0.0"},
                    "settings": {
                        "preserve_insertion_order": False,
                        "checkpoint_threshold": "256MB",
                    },
                }
            },
        }
    }
    files = {
        "dbt_project.yml": _yaml(project),
        "profiles.yml": _yaml(profile),
        "packages.yml": _yaml({"packages": [{"local": str(_package())}]}),
        "models/expected_demand.sql": MODEL,
        ".github/workflows/forecast.yml": WORKFLOW,
        ".gitignore": "target/\nlogs/\ndbt_packages/\n*.duckdb\n*.duckdb.wal\ntrendcast_artifacts/\ntrendcast_published/\n",
    }
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if views:
        # So that checks and doctor find the tables before dbt has run for the first time.
        options = {"storage_compatibility_version": "v1.0.0"}
        with duckdb.connect(folder / warehouse, config=options) as connection:
            for statement in hooks:
                connection.execute(statement)
    Dbt(folder, folder).install()


def _package() -> Path:
    """Return where the dbt package is: in the wheel, or in the repository that trendcast is installed from."""
    if PACKAGED_PROJECT.is_dir():
        return PACKAGED_PROJECT / "dbt_project"
    return Path(__file__).resolve().parent.parent / "dbt_project"


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
