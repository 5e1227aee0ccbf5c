"""Time and memory of each step against the number of series: the proof of scale on DuckDB.

``python -m benchmarks.scale --data DIR [--series 1000,10000] [--models seasonal_naive,ridge,lightgbm] [--folder TMP] [--json]``. DIR holds
M5 (m5/). Each size is a shop of so many series of 365 days: a series takes level, spread, share of days without a sale, pattern of the week,
price and department from a series of M5, whose last 52 weeks it has in an order of its own, drawn with replacement. Every step is a process of its own, as an
orchestrator would call it; its peak is that of the largest process in it. Warehouses are removed again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import Report, arguments, say
from benchmarks.generated import REPO, VARS
from trendcast.dbt import BEFORE_LEDGER, FROM_LEDGER
from trendcast.pipeline import Workspace

DAYS, WEEKS = 365, 52
SHOP = VARS | {
    "products_table": "products",
    "product_columns": {c: c for c in ("product_id", "department", "category")},
    "order_columns": {c: c for c in ("product_id", "ordered_at", "quantity", "revenue")},
    "static_attributes": ["department", "category"],
}
# Weeks of the real panel begin on the weekday of the first generated day.
SOURCE = f"""
    create temp table source as
    with days as (select max(date) - {WEEKS} * 7 + 1 as first_ds from read_parquet('{{m5}}/sales_daily.parquet')),
    listed as (
        select *, row_number() over (order by store_id, item_id) - 1 as r from read_parquet('{{m5}}/series.parquet')
    ),
    prices as (
        select store_id, item_id, arg_max(sell_price, wm_yr_wk) as price
        from read_parquet('{{m5}}/sell_prices.parquet') group by all
    )
    select
        listed.r, sales.sales, round(sales.sales * prices.price, 2) as revenue,
        (sales.date - days.first_ds) // 7 as week,
        (sales.date - days.first_ds) % 7 as day,
        first_value(days.first_ds) over () as first_ds
    from read_parquet('{{m5}}/sales_daily.parquet') as sales
    cross join days
    inner join listed using (store_id, item_id)
    inner join prices using (store_id, item_id)
    where sales.date >= days.first_ds and sales.sales > 0
"""
ORDERS = f"""
    create table raw.orders as
    with drawn as (
        select series.i, week.w, hash(series.i) % {{real}} as r, hash(series.i, week.w) % {WEEKS} as source_week
        from range({{series}}) as series (i), range({DAYS // 7 + 1}) as week (w)
    )
    select
        'p' || drawn.i as product_id,
        date '{{begin}}' + cast(drawn.w * 7 + source.day as integer) as ordered_at,
        source.sales as quantity,
        source.revenue
    from drawn
    inner join source on drawn.r = source.r and drawn.source_week = source.week
    where drawn.w * 7 + source.day < {DAYS}
"""
PRODUCTS = """
    create table raw.products as
    select 'p' || series.i as product_id, listed.dept_id as department, listed.cat_id as category
    from range({series}) as series (i)
    inner join (
        select *, row_number() over (order by store_id, item_id) - 1 as r from read_parquet('{m5}/series.parquet')
    ) as listed on hash(series.i) % {real} = listed.r
"""


def make(m5: Path, path: Path, series: int) -> dict[str, Any]:
    """Make the warehouse with the order lines of so many series; return what there is."""
    config = {"storage_compatibility_version": "v1.0.0", "memory_limit": "4GB"}
    with duckdb.connect(path, config=config) as connection:
        connection.execute("set preserve_insertion_order = false")
        connection.execute("create schema raw")
        connection.execute(SOURCE.format(m5=m5))
        real, first = connection.execute("select max(r) + 1, min(first_ds) from source").fetchall()[
            0
        ]
        # The first day from 2025 on with the weekday of the source's weeks.
        begin = connection.execute(
            "select date '2025-01-01' + cast((isodow(?) - isodow(date '2025-01-01') + 7) % 7 as integer)",
            [first],
        ).fetchall()[0][0]
        values = {"m5": m5, "series": series, "real": real, "begin": begin}
        connection.execute(ORDERS.format(**values))
        connection.execute(PRODUCTS.format(**values))
        (lines,) = connection.execute("select count(*) from raw.orders").fetchall()[0]
    return {"order_lines": lines}


def measured(command: list[str], environment: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Run a process; return its seconds, seconds of processors and peak, children among them, and what it printed last."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, cwd=REPO
    )
    assert process.stdout
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    found = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2),
    }
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed after {found}")
    return found, printed.strip().splitlines()[-1] if printed.strip() else ""


def step(name: str, vars: dict[str, Any]) -> None:
    """Do in this process what dbt does of a run, before the ledger or from it on."""
    workspace = Workspace.open(
        project_dir=REPO / "dbt_project", profiles_dir=REPO / "profiles", vars=vars
    )
    workspace.dbt.build({"features": BEFORE_LEDGER, "marts": FROM_LEDGER}[name])


def options(models: list[str]) -> list[str]:
    """Return the options of trendcast's commands."""
    at = ["--project-dir", "dbt_project", "--profiles-dir", "profiles"]
    return [*at, "--vars", json.dumps(SHOP | {"models": models}), "--json"]


def steps(data: Path, models: list[str]) -> dict[str, list[str]]:
    """Return the command of each step of a run, in order."""
    python = [sys.executable, "-m"]
    ours = options(models)
    by_dbt = [*python, "benchmarks.scale", "--data", str(data), "--models", ",".join(models)]
    return {
        "features": [*by_dbt, "--step", "features"],
        "train": [*python, "trendcast", "train", *ours],
        "forecast": [*python, "trendcast", "forecast", *ours],
        "marts": [*by_dbt, "--step", "marts"],
    }


def grow(m5: Path, folder: Path, series: int, models: list[str], report: Report) -> None:
    """Do every step for a shop of so many series."""
    folder.mkdir(parents=True)
    path = folder / "shop.duckdb"
    environment = os.environ | {
        "TRENDCAST_DUCKDB_PATH": str(path),
        "TRENDCAST_ARTIFACTS_DIR": str(folder / "artifacts"),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
    }
    say(f"{series:,} series: order lines ...")
    rows = series * DAYS
    report.figures |= {f"{series}_{name}": value for name, value in make(m5, path, series).items()}
    for name, command in steps(m5.parent, models).items():
        say(f"{series:,} series: {name} ...")
        found, told = measured(command, environment)
        found["cpu_microseconds_a_row"] = round(1e6 * found["cpu_seconds"] / rows, 2)
        found["warehouse_gb"] = round(path.stat().st_size / 1e9, 2)
        say(f"{series:,} series: {name}: {found}")
        report.figures |= {f"{series}_{name}_{what}": value for what, value in found.items()}
        if told.startswith("{"):
            for phase, seconds in json.loads(told).get("timings", {}).items():
                say(f"{series:,} series: {name}: {phase} {seconds} s")
                report.figures[f"{series}_{name}_{phase.replace(' ', '_')}_seconds"] = seconds


def main() -> None:
    """Measure and print."""
    parser = arguments("Time and memory against the number of series.")
    parser.add_argument("--series", default="1000,10000", help="comma-separated, ascending")
    parser.add_argument("--models", default="seasonal_naive,ridge,lightgbm")
    parser.add_argument("--folder", type=Path, help="where warehouses are made; a temporary one")
    parser.add_argument("--step", choices=["features", "marts"], help="do that in this process")
    args = parser.parse_args()
    models = args.models.split(",")
    if args.step:
        step(args.step, SHOP | {"models": models})
        return
    report = Report("scale", figures={"days": DAYS, "models": args.models})
    sizes = [int(size) for size in args.series.split(",")]
    for series in sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as text:
            grow((args.data / "m5").resolve(), Path(text) / "shop", series, models, report)
    figures = report.figures
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        for name in ("features", "train", "forecast", "marts"):
            a, b = (figures[f"{size}_{name}_cpu_seconds"] / size for size in (before, after))
            report.ratios[f"{name}_cpu_seconds_a_series_{after}_to_{before}"] = round(b / a, 3)
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
