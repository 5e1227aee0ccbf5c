"""The same shop on two engines, and what differs between them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPO, Shop, shared, shop_vars

if TYPE_CHECKING:
    from tests.postgres import PostgresShop
    from tests.spark import SparkShop
    from trendcast.warehouse import Warehouse

# Relative to the size of a number, or to one.
TOLERANCE = 1e-6
# When a row was made, by which run; and the number of a series, which follows the order of text.
OF_ITS_OWN = (
    *("built_at", "built_with", "loaded_at", "series_no"),
    *("scenario_id", "base_run_id", "created_at"),
)


# Commands that other engines refuse, with what to do instead.
DUCKDB_ONLY = ("publish", "audit", "reproduce")
NOT_ON = {"postgres": {*DUCKDB_ONLY}, "spark": {*DUCKDB_ONLY, "prune"}}


def lines_of(days: int) -> pa.Table:
    """Order lines of four products at two stores: gaps, returns, promotions by price, and some that nobody can read."""
    rng = np.random.default_rng(7)
    rows = []
    for day in range(days):
        at = dt.datetime(2025, 9, 1, 15) + dt.timedelta(days=day)
        for p, product in enumerate(("tea", "Mug", "jam jar", "éclair")):
            for store in ("north", "South"):
                for n in range(rng.poisson(0.7 + p * 0.6)):
                    price = (2 + 3 * p) * (0.8 if day % 30 < 6 else 1)
                    quantity = int(rng.integers(1, 4)) * (-1 if rng.random() < 0.05 else 1)
                    rows.append(
                        {
                            "order_id": f"{day}-{store}-{n}",
                            "customer_id": f"c{rng.integers(0, 25)}",
                            "product_id": product,
                            "location_id": store,
                            "ordered_at": at.isoformat() + ("" if n else "+02:00"),
                            "quantity": str(quantity),
                            "revenue": f"{quantity * price:.2f}",
                            "discount": "0.25" if day % 30 < 6 else None,
                            "loaded_at": at + dt.timedelta(days=1),
                        }
                    )
    bad = (
        {"ordered_at": "2025-02-30"},
        {"quantity": "two"},
        {"revenue": "a lot"},
        {"product_id": None},
    )
    rows += [rows[0] | {"order_id": f"bad {i}"} | wrong for i, wrong in enumerate(bad)]
    rows += [rows[5]]  # a copy
    return pa.Table.from_pylist(rows)


PRODUCTS = pa.table(
    {
        "product_id": ["tea", "Mug", "jam jar", "éclair"],
        "category": ["food", "Ware", "food", "food"],
    }
)


def every_source() -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Return tables and vars of a shop with every optional source, and the policies that take windows no other shop has."""
    lines = lines_of(130)
    days = [dt.date(2025, 9, 1) + dt.timedelta(days=i) for i in range(150)]
    tables = {
        "order_lines": lines,
        "products": PRODUCTS,
        "promotions": pa.table(
            {
                "product_id": ["tea", "Mug"] * 5,
                "start_date": [days[30 * (i // 2)] for i in range(10)],
                "end_date": [days[30 * (i // 2) + 5] for i in range(10)],
                "display": [1.0, 0.5] * 5,
                "feature": [0.0, 1.0] * 5,
            }
        ),
        "inventory": pa.table(
            {
                "product_id": [p for p in PRODUCTS["product_id"].to_pylist() for _ in days[:130]],
                "date": days[:130] * 4,
                "on_hand": [float(i * 7 % 23) for i in range(4 * 130)],
            }
        ),
        "reviews": pa.table(
            {
                "product_id": ["tea", "Mug", "tea"],
                "reviewed_at": ["2025-09-03", "2025-10-01 10:00", "2025-12-24"],
                "rating": [5, 3, 4],
            }
        ),
        "supply": pa.table(
            {
                "product_id": ["tea", "Mug"],
                "supplier": ["Ems & Co.", "Öst"],
                "lead_time_days": [3.0, 10.0],
                "unit_cost": [1.1, None],
                "pack_size": [6.0, 1.0],
            }
        ),
        "events": pa.table({"date": [days[10], days[140]], "name": ["fair", None]}),
    }
    vars = shop_vars(
        lines,
        PRODUCTS,
        static_attributes=["category"],
        series_key=["product_id", "location_id"],
        order_timezone="Europe/Berlin",
        holiday_country="DE",
        models=["seasonal_naive", "classical"],
        features={"quantiles": True},
        gap_fill={"quantity": "median", "price": "linear", "revenue": "seasonal"},
        outliers="hampel",
        stockout_chance=0.001,
        robust_bound=10,
        robust_bound_lines=5,
        promotions_table="promotions",
        promotion_columns={
            name: name for name in ("product_id", "start_date", "end_date", "display", "feature")
        },
        inventory_table="inventory",
        inventory_columns={name: name for name in ("product_id", "date", "on_hand")},
        reviews_table="reviews",
        supply_table="supply",
        supply_columns={
            name: name
            for name in ("product_id", "supplier", "lead_time_days", "unit_cost", "pack_size")
        },
        events_table="events",
    )
    return tables, vars


def done(shop: Shop, *args: str, apart: bool = True) -> str:
    """Run a command as a user does, or in this process, which is faster; it must succeed. Return what it printed."""
    ran = shop.run_apart(*args) if apart else shop.run(*args)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


def require_held(reader: Warehouse) -> None:
    """What is held, of this process or of a query, is there inside and gone after, whatever happens; reading is enough."""
    with reader.held("weights", pa.table({"w": [0.5, None]})):
        with reader.held("doubled", "select 2 * w as w from weights where w is not null"):
            assert reader.query("select w from doubled").column("w").to_pylist() == [1.0]
        assert not reader.exists("doubled")
        with pytest.raises(KeyError), reader.held("doubled", "select w from weights"):
            raise KeyError
        assert not reader.exists("doubled")
        assert len(reader.query("select w from weights")) == 2
    assert not reader.exists("weights")


class Reader(Protocol):
    """A shop on another engine."""

    def table(self, sql: str) -> pa.Table: ...


def differences(duck: Shop, other: Reader) -> dict[str, str]:
    """Compare every model's rows, but for the ledger's, and say of each that differs what does."""
    found = {}
    with duckdb.connect(duck.path, read_only=True) as connection:
        names = connection.execute(
            "select table_schema, table_name from information_schema.tables "
            "where table_schema in ('analytics_trendcast', 'analytics_marts') order by 1, 2"
        ).fetchall()
        assert len(names) > 100
        for schema, name in names:
            described = connection.execute(f'describe "{schema}"."{name}"').fetchall()
            columns = [row[0] for row in described if row[0] not in OF_ITS_OWN]
            # The ledger's, and what is made of it: runs have names of their own. And a model in Python, which DuckDB alone runs.
            if "run_id" in columns or not columns or name == "int_public_holidays":
                continue
            at = f'from "{schema}"."{name}"'
            if name in (
                "ftr_design",
                "ftr_cutoff",
            ):  # of every period they are the joins of all else
                t = "cutoff_t" if name == "ftr_design" else "t"
                at += f" where {t} in (select cutoff_t from analytics_trendcast.int_cutoffs)"
            sql = f"select {', '.join(quoted(c) for c in columns)} {at}"
            difference = compared(connection.sql(sql).to_arrow_table(), other.table(sql))
            if difference:
                found[name] = difference
    return found


# Without generated code Spark takes two minutes for a thousand items of a next purchase, and Postgres ten seconds a fold for
# the sums of a million rows.
DEMO = {
    "models": ["seasonal_naive", "classical", "ridge", "ensemble"],
    "customer_items": 50,
    "train_rows": 100_000,
}


def require_same_demo(
    other: PostgresShop | SparkShop,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Run the demo, with the vars of `DEMO`, and compare it with DuckDB's row for row, and that nothing of it is lost."""

    def ran(shop: Shop) -> Shop:
        with pytest.MonkeyPatch.context() as patch:
            # What the network learns is no engine's matter.
            patch.setattr("trendcast.next_purchase.EPOCHS", 1)
            patch.setattr("trendcast.next_purchase.MAX_EXAMPLES", 1000)
            for command in ("demo", "customers", "whatif --set price=-10%"):
                done(shop, *command.split(), apart=False)
        return shop

    def of_duckdb() -> Shop:
        return ran(Shop(tmp_path_factory.mktemp("duckdb"), DEMO))

    duck = shared(tmp_path_factory, "duckdb_demo", of_duckdb)
    ran(other)
    assert differences(duck, other) == {}
    (counted,) = duck.query("select count(*) as n from analytics_trendcast.int_series")
    n_series = counted["n"]
    assert n_series == 295
    # Models read features in single precision, and what they learn is as near as that.
    sql = "select {} from analytics_marts.fct_forecasts order by series_id, target_date"
    for columns, tolerance in ((["mean"], 1e-3), (["q10", "q50", "q90"], 1.0)):
        asked = sql.format(", ".join(columns))
        with duckdb.connect(duck.path, read_only=True) as connection:
            ours = connection.sql(asked).to_arrow_table()
        theirs = other.table(asked)
        assert len(ours) == len(theirs) == n_series * 28
        for column in columns:
            off = max(abs(ours[column].to_numpy() - theirs[column].to_numpy()))
            assert off <= tolerance, (column, off)
    raw = pq.read_metadata(REPO / "dbt_project" / "demo_shop" / "transactions.parquet").num_rows
    counted = other.table("select count(*) as n from analytics_trendcast.int_order_lines_checked")
    assert counted["n"].to_pylist() == [raw]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def is_number(column: pa.ChunkedArray) -> bool:
    return pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)


def compared(ours: pa.Table, theirs: pa.Table) -> str | None:
    """Say how two tables differ beyond the tolerance; rows are matched by all that is not a fraction."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, {len(theirs)} on the other"
    numbers = [c for c in ours.column_names if is_number(ours[c]) or is_number(theirs[c])]
    keys = [c for c in ours.column_names if c not in numbers]

    def ordered(table: pa.Table) -> pa.Table:
        with duckdb.connect() as connection:
            connection.register("rows", table)
            rounded = [f"round(cast({quoted(c)} as double), 3)" for c in numbers]
            listed = [f"cast({quoted(c)} as varchar) as {quoted(c)}" for c in keys]
            listed += [f"cast({quoted(c)} as double) as {quoted(c)}" for c in numbers]
            order = ", ".join([*map(quoted, keys), *rounded])
            sql = f"select {', '.join(listed)} from rows order by {order}"
            return connection.sql(sql).to_arrow_table()

    ours, theirs = ordered(ours), ordered(theirs)
    for name in keys:
        if not ours[name].equals(theirs[name]):
            pairs = zip(ours[name].to_pylist(), theirs[name].to_pylist(), strict=True)
            a, b = next((a, b) for a, b in pairs if a != b)
            return f"{name}: {a!r}, {b!r} on the other"
    for name in numbers:
        a, b = (t[name].to_numpy(zero_copy_only=False).astype(float) for t in (ours, theirs))
        if (np.isnan(a) != np.isnan(b)).any():
            return f"{name}: null on one of them"
        off = np.nan_to_num(np.abs(a - b) / np.maximum(1, np.abs(a)))
        if off.max(initial=0) > TOLERANCE:
            row = int(off.argmax())
            return f"{name}: {a[row]!r}, {b[row]!r} on the other"
    return None
