"""A day's new order lines against a full build: time, and that both give the same rows.

``python -m benchmarks.incremental --data DIR [--json]``. DIR holds M5's sales_daily.parquet, sell_prices.parquet,
calendar.parquet and series.parquet. M5's sales become order lines, one a series and day, loaded the morning after. The
project's dbt models are built on all days but the last ``--days``; then, day after day, that day's lines and some late ones
arrive, and the models are built again. At the end a full build on the same lines is compared row by row.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import Report, arguments, median, say
from trendcast.dbt import Dbt

REPO = Path(__file__).resolve().parent.parent
PANEL = ("+ftr_category", "+ftr_known")
COMPARED = ("int_order_lines_checked", "int_sales", "int_sales_filled", "ftr_history")
VARS = {
    "shop_schema": "raw",
    "orders_table": "orders",
    "products_table": "products",
    "promotions_table": None,
    "promotion_columns": {},
    "order_columns": {
        name: name
        for name in (
            *("order_id", "product_id", "location_id", "ordered_at"),
            *("quantity", "revenue", "loaded_at"),
        )
    },
    "product_columns": {"product_id": "product_id", "department": "department"},
    "order_scope": None,
    "order_timezone": None,
    "series_key": ["product_id", "location_id"],
    "static_attributes": ["department"],
}
# A thousandth of each day's lines come ten days late.
LINES = """
    select
        date || '/' || item_id || '/' || store_id as order_id,
        item_id as product_id,
        store_id as location_id,
        cast(date as timestamp) + interval 12 hours as ordered_at,
        cast(sales as double) as quantity,
        round(sales * sell_price, 2) as revenue,
        cast(date as timestamp) + interval 30 hours
            + case when hash(item_id, store_id, date) % 1000 = 0 then interval 10 days else interval 0 days end
            as loaded_at
    from read_parquet('{data}/sales_daily.parquet') as sales
    inner join read_parquet('{data}/calendar.parquet') as calendar using (date)
    inner join read_parquet('{data}/sell_prices.parquet') as prices using (store_id, item_id, wm_yr_wk)
    where sales > 0 and hash(item_id, store_id) % {keep} = 0
"""


def build(path: Path, folder: Path, *, full_refresh: bool = False) -> dict[str, float]:
    """Build the panel; return seconds in all, of the models alone, and of all cores."""
    os.environ["TRENDCAST_DUCKDB_PATH"] = str(path)
    dbt = Dbt(REPO / "dbt_project", REPO / "profiles", vars=VARS, target_path=folder / "target")
    start, cpu = time.perf_counter(), cpu_seconds()
    dbt.build(PANEL, tests=False, full_refresh=full_refresh)
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    results = json.loads((folder / "target" / "run_results.json").read_text())["results"]
    slowest = sorted(results, key=lambda r: -r["execution_time"])[:6]
    for result in slowest:
        say(f"    {result['unique_id'].split('.')[-1]} {result['execution_time']:.1f} s")
    return {"seconds": seconds, "models": results_span(results), "cpu": cpu}


def cpu_seconds() -> float:
    """CPU seconds of this process's children and theirs so far, whether they have ended or not (Linux)."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since
            # After the name, which may hold anything: the parent is the 2nd, user and system time of it and of what it waited for.
            fields = stat.read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15])) if int(fields[1]) == os.getpid() else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def results_span(results: list[dict[str, Any]]) -> float:
    """Seconds from the first model's start to the last one's end: without dbt's own start."""
    marks = [t for r in results for t in r["timing"] if t["name"] == "execute"]
    first = min(dt.datetime.fromisoformat(m["started_at"]) for m in marks)
    last = max(dt.datetime.fromisoformat(m["completed_at"]) for m in marks)
    return (last - first).total_seconds()


def differing(path: Path, other: Path) -> dict[str, int]:
    """Rows that only one of two warehouses has, by table."""
    found = {}
    with duckdb.connect(path, read_only=True) as connection:
        connection.execute("set memory_limit = '4GB'")
        connection.execute(f"attach '{other}' as other (read_only)")
        for name in COMPARED:
            sides = [
                f"select columns(lambda c: c not in ('built_at', 'built_with')) from {s}analytics_trendcast.{name}"
                for s in ("", "other.")
            ]
            # By hash, because a set difference of twelve million wide rows takes all memory.
            digest = "select count(*) as n, bit_xor(hash(rows)) as x from ({}) as rows"
            mine, theirs = (connection.execute(digest.format(s)).fetchone() for s in sides)
            found[name] = 0 if mine == theirs else 1 + abs(mine[0] - theirs[0])
    return found


def main() -> None:
    """Measure and print."""
    parser = arguments("A day's new order lines against a full build.")
    parser.add_argument("--days", type=int, default=3, help="days that arrive one after another")
    parser.add_argument("--keep", type=int, default=1, help="take every so many-th series")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trendcast_incremental_") as folder:
        report = measure(args, Path(folder))
    report.print(as_json=args.json)


def measure(args: Any, folder: Path) -> Report:
    """Build in full, then day by day, then in full again on the same lines."""
    path = folder / "shop.duckdb"
    config = {"storage_compatibility_version": "v1.0.0", "memory_limit": "4GB"}
    with duckdb.connect(path, config=config) as connection:
        connection.execute("create schema raw")
        connection.execute(
            f"create table raw.arriving as {LINES.format(data=args.data, keep=args.keep)}"
        )
        connection.execute(
            "create table raw.products as select distinct item_id as product_id, dept_id as department "
            f"from read_parquet('{args.data}/series.parquet')"
        )
        (last,) = connection.execute("select max(ordered_at) from raw.arriving").fetchone() or ()
        mornings = [
            f"timestamp '{last}' - interval '{k} days' + interval 1 day"
            for k in range(args.days, -1, -1)
        ]
        connection.execute(
            f"create table raw.orders as select * from raw.arriving where loaded_at <= {mornings[0]} order by loaded_at"
        )
        (lines,) = connection.execute("select count(*) from raw.orders").fetchone() or ()
    say(f"full build on {lines:,} order lines ...")
    first = build(path, folder)
    runs = []
    for before, morning in zip(mornings, mornings[1:], strict=False):
        with duckdb.connect(path, config=config) as connection:
            connection.execute(
                f"insert into raw.orders select * from raw.arriving "
                f"where loaded_at > {before} and loaded_at <= {morning}"
            )
        say("a day's lines arrive ...")
        runs.append(build(path, folder))
    full = Path(shutil.copy(path, folder / "full.duckdb"))
    say("full build on the same lines ...")
    again = build(full, folder, full_refresh=True)
    report = Report("incremental")
    day = {k: median(r[k] for r in runs) for k in ("seconds", "models", "cpu")}
    report.ratios = {
        "day_to_full": round(day["seconds"] / again["seconds"], 3),
        "day_to_full_models": round(day["models"] / again["models"], 3),
        "day_to_full_cpu": round(day["cpu"] / again["cpu"], 3),
    }
    with duckdb.connect(path, read_only=True) as connection:
        (rows,) = connection.execute(
            "select count(*) from analytics_trendcast.ftr_history"
        ).fetchone() or (0,)
        (made,) = connection.execute(
            "select count(*) from analytics_trendcast.ftr_history "
            "where built_at = (select max(built_at) from analytics_trendcast.ftr_history)"
        ).fetchone() or (0,)
    report.figures = {
        "order_lines": lines,
        "panel_rows": rows,
        "panel_rows_made_by_the_last_day": made,
        "first_full_seconds": round(first["seconds"], 1),
        "full_seconds": round(again["seconds"], 1),
        "full_models_seconds": round(again["models"], 1),
        "day_seconds": round(day["seconds"], 1),
        "day_models_seconds": round(day["models"], 1),
        "full_cpu_seconds": round(again["cpu"], 1),
        "day_cpu_seconds": round(day["cpu"], 1),
        "tables_that_differ": sum(n > 0 for n in differing(path, full).values()),
    }
    return report


if __name__ == "__main__":
    main()
