"""Readers of the published copy while it is published again and again: reads, errors, mixtures of two copies.

``python -m benchmarks.publish --data DIR [--seconds 60] [--json]``. A generated shop is run once, in DIR/publish_shop, and
used again by later calls. Before each publication every row of three marts gets its number. A reader opens
the DuckDB file through the link ``current``, then resolves the link once and opens the file and three Parquet files there. A read that
finds two numbers is a mixture; one that fails is an error; the publisher keeps as many old versions as by default.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import Report, median, say
from benchmarks.generated import generated
from trendcast import pipeline
from trendcast.publish import default_folder, publish

READ = """
import json, os, sys, time, duckdb
folder, until, pause, *marts = sys.argv[1:]
told = {"reads": 0, "errors": [], "mixtures": 0, "numbers": set(), "seconds": []}

def read(at, several):
    with duckdb.connect(at + "/trendcast.duckdb", read_only=True, config={"threads": 1}) as connection:
        found = [connection.execute(f"select distinct published from marts.{m}").fetchall() for m in marts]
        if several:
            found += [connection.execute(f"select distinct published from '{at}/{m}.parquet'").fetchall() for m in marts]
    return {row[0] for rows in found for row in rows}

while time.time() < float(until):
    for several in (False, True):
        began = time.perf_counter()
        try:
            at = os.path.realpath(folder + "/current") if several else folder + "/current"
            numbers = read(at, several)
        except Exception as error:
            told["errors"].append(f"{type(error).__name__}: {error}"[:300])
            continue
        told["reads"] += 1
        told["mixtures"] += len(numbers) != 1
        told["numbers"] |= numbers
        told["seconds"].append(time.perf_counter() - began)
    time.sleep(float(pause))
print(json.dumps(told | {"numbers": sorted(told["numbers"])}))
"""
READ_MARTS = ("fct_forecasts", "rpt_forecast_fan", "dim_series")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="Readers of the copy for BI tools under publishes."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for the generated shop")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument("--seconds", type=float, default=60, help="how long to read and publish")
    parser.add_argument("--readers", type=int, default=20, help="processes that read")
    parser.add_argument(
        "--pause", type=float, default=1, help="seconds a reader rests between reads"
    )
    parser.add_argument("--products", type=int, default=200, help="series of the generated shop")
    args = parser.parse_args()
    workspace = generated(args.data.resolve() / "publish_shop", args.products)
    measure(workspace, args.seconds, args.readers, args.pause).print(as_json=args.json)


def mark(workspace: pipeline.Workspace, number: int) -> None:
    """Have every row of the marts say which publication it is of."""
    relations = [workspace.project.relation(name) for name in READ_MARTS]
    with workspace.connect(read_only=False) as warehouse:
        for relation in relations:
            warehouse.execute(f"alter table {relation} add column if not exists published integer")
            warehouse.execute(f"update {relation} set published = {number}")


def measure(workspace: pipeline.Workspace, seconds: float, readers: int, pause: float) -> Report:
    """Publish in a loop while processes read."""
    mark(workspace, 0)
    first = publish(workspace)
    say(
        f"{readers} readers for {seconds:.0f} s on {first['rows']:,} rows, {first['bytes']:,} bytes ..."
    )
    until = time.time() + seconds
    folder = str(default_folder(workspace.output))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", READ, folder, str(until), str(pause), *READ_MARTS],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(readers)
    ]
    took: list[float] = []
    while time.time() < until:
        mark(workspace, len(took) + 1)
        began = time.perf_counter()
        publish(workspace)
        took.append(time.perf_counter() - began)
    told = [json.loads(process.communicate()[0]) for process in processes]
    errors = collections.Counter(error for each in told for error in each["errors"])
    for error, count in errors.most_common(5):
        say(f"{count} times: {error}")
    return Report(
        "publish",
        figures={
            "readers": readers,
            "seconds": seconds,
            "publishes": len(took),
            "reads": sum(each["reads"] for each in told),
            "errors": sum(errors.values()),
            "mixtures": sum(each["mixtures"] for each in told),
            "versions_seen": len({number for each in told for number in each["numbers"]}),
            "tables": len(first["tables"]),
            "rows": first["rows"],
            "bytes": first["bytes"],
            "publish_seconds_median": median(took),
            "read_seconds_median": median(s for each in told for s in each["seconds"]),
        },
    )


if __name__ == "__main__":
    main()
