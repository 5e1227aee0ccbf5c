"""A shop made from nothing, for benchmarks that need no real sales: any number of series of 400 days."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import say
from trendcast import pipeline

REPO = Path(__file__).resolve().parent.parent
VARS = {
    "shop_schema": "raw",
    "orders_table": "orders",
    "products_table": None,
    "promotions_table": None,
    "order_columns": {
        name: name for name in ("order_id", "product_id", "ordered_at", "quantity", "revenue")
    },
    "order_scope": None,
    "order_timezone": None,
    "series_key": ["product_id"],
    "static_attributes": [],
    "holiday_country": None,
    "models": ["ridge"],
}
ORDERS = """
    select
        product || '/' || day as order_id,
        'p' || product as product_id,
        date '2025-01-01' + cast(day as integer) as ordered_at,
        1 + hash(product, day) % 9 as quantity,
        3.0 * (1 + hash(product, day) % 9) as revenue
    from range({products}) as products (product), range(400) as days (day)
    where hash(day, product) % 3 > 0
"""


def made(folder: Path, products: int) -> Path:
    """Return the warehouse with the orders of such a shop, made where there is none."""
    path = folder / "shop.duckdb"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = {"storage_compatibility_version": "v1.0.0"}
        with duckdb.connect(path, config=config) as connection:
            connection.execute("create schema raw")
            connection.execute(f"create table raw.orders as {ORDERS.format(products=products)}")
    return path


def generated(
    folder: Path, products: int, *, backtest: bool = False, **vars: Any
) -> pipeline.Workspace:
    """Return the workspace of such a shop after one run; the folder keeps it for the next call."""
    os.environ["TRENDCAST_DUCKDB_PATH"] = str(made(folder, products))
    workspace = pipeline.Workspace.open(
        project_dir=REPO / "dbt_project",
        profiles_dir=REPO / "profiles",
        vars=VARS | vars,
        target_path=folder / "target",
    )
    if not pipeline.is_current(workspace):
        say("running the generated shop ...")
        pipeline.run(workspace, with_backtest=backtest, data_checks=False)
    return workspace
