"""Seconds that the checks before a run take, and the doctor's passes over the order lines.

``python -m benchmarks.checks --data DIR [--lines 50000000] [--runs 3] [--json]``. Lines of 30,000 products over 2,000 days are generated in
DIR/checks_LINES.duckdb and kept.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import Report, arguments, median, say
from benchmarks.generated import REPO, VARS
from trendcast.checks import check_freshness, check_orders, check_volume, count_periods
from trendcast.pipeline import Workspace
from trendcast.vars import resolved_vars

LINES = """
create table raw.orders as select
    cast(i // 3 as varchar) as order_id,
    'p' || (i * 7919 % 30000) as product_id,
    timestamp '2020-01-01' + interval (i * 2000 // {lines}) day + interval (i % 86400) second as ordered_at,
    1 + i % 5 as quantity,
    2.5 * (1 + i % 5) as revenue
from range({lines}) as numbers (i)
"""


def main() -> None:
    """Measure and print."""
    parser = arguments("Seconds of the checks before a run.")
    parser.add_argument("--lines", type=int, default=50_000_000)
    args = parser.parse_args()
    path = args.data.resolve() / f"checks_{args.lines}.duckdb"
    if not path.exists():
        say(f"making {args.lines:,} order lines ...")
        with duckdb.connect(path, config={"storage_compatibility_version": "v1.0.0"}) as made:
            made.execute("create schema raw")
            made.execute(LINES.format(lines=args.lines))
    os.environ["TRENDCAST_DUCKDB_PATH"] = str(path)
    workspace = Workspace.open(
        project_dir=REPO / "dbt_project",
        profiles_dir=REPO / "profiles",
        vars=VARS,
        target_path=Path(args.data.resolve() / "checks_target"),
    )
    vars = resolved_vars(REPO / "dbt_project", VARS)
    project = workspace.project
    report = Report("checks")
    with workspace.connect() as warehouse:
        steps: dict[str, Callable[[], Any]] = {
            "check_orders": lambda: check_orders(warehouse, project),
            "check_freshness": lambda: check_freshness(warehouse, project, vars),
            "check_volume": lambda: check_volume(warehouse, project, vars),
            "count_periods": lambda: count_periods(warehouse, project, vars),
        }
        for name, step in steps.items():
            seconds = []
            for _ in range(args.runs):
                start = time.perf_counter()
                step()
                seconds.append(time.perf_counter() - start)
            report.figures[name] = median(seconds)
    report.figures["seconds"] = round(sum(report.figures.values()), 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    report.figures["peak_gb"] = round(peak, 2)
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
