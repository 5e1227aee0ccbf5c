"""A day's new orders on the demo: how long until they are forecast from, with stored models.

``python -m benchmarks.new_orders --data DIR [--runs 3] [--json]``. The demo is run once, in DIR/new_orders; each run then copies the orders of the
same weekday a year before as the next day's, and times ``trendcast run --no-train`` as a user starts it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import duckdb

from benchmarks.common import Report, arguments, median, say

REPO = Path(__file__).resolve().parent.parent
# The shop's clock is five hours behind UTC in winter.
NEXT_DAY = """
insert into demo_shop.transactions by name
select * replace (
    basket_id + 1000000000000 as basket_id,
    transaction_timestamp + interval 364 day as transaction_timestamp,
    cast(now() at time zone 'UTC' as timestamp) as loaded_at
)
from demo_shop.transactions
where cast(transaction_timestamp - interval 5 hour as date) = (
    select max(cast(transaction_timestamp - interval 5 hour as date)) from demo_shop.transactions
) + 1 - 364
"""


def cpu_seconds() -> float:
    """Return the CPU time of all processes started and ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    args = arguments("Seconds until a day's new orders are forecast from.").parse_args()
    folder = args.data.resolve() / "new_orders"
    folder.mkdir(parents=True, exist_ok=True)
    warehouse = folder / "trendcast.duckdb"
    environment = os.environ | {
        "TRENDCAST_DUCKDB_PATH": str(warehouse),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
    }

    def run(*arguments: str) -> dict:
        command = [sys.executable, "-m", "trendcast", *arguments, "--json"]
        done = subprocess.run(
            command, cwd=REPO, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        return dict(json.loads(done.stdout))

    say("the demo ...")
    run("demo")
    seconds, cpu, lines, phases = [], [], [], []
    for i in range(args.runs):
        with duckdb.connect(str(warehouse)) as connection:
            (added,) = connection.execute(NEXT_DAY).fetchone() or (0,)
        say(f"{i + 1} of {args.runs}: {added} new lines ...")
        start, before = time.perf_counter(), cpu_seconds()
        told = run("run", "--no-train")
        seconds.append(time.perf_counter() - start)
        cpu.append(cpu_seconds() - before)
        lines.append(added)
        phases.append(told["timings"])
    report = Report("new_orders")
    report.figures = {
        "lines": int(median(lines)),
        "seconds": round(median(seconds), 1),
        "cpu_seconds": round(median(cpu), 1),
        "parse": round(median([p["parse"] for p in phases]), 1),
        "features": round(median([p["features"] for p in phases]), 1),
        "forecast": round(
            median([sum(s for n, s in p.items() if n.startswith("forecast")) for p in phases]), 1
        ),
        "marts": round(median([p["marts"] for p in phases]), 1),
    }
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
