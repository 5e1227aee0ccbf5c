"""Times each phase of the main job, whole processes, on a shop's order lines.

``python -m benchmarks.run --data dbt_project/demo_shop [--json]``. The folder holds transactions.parquet and
products.parquet as the demo shop has them; promotions.parquet is used where it is condensed in the same way.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import Report, arguments, median, say

REPO = Path(__file__).resolve().parent.parent
TABLES = ("transactions", "products", "promotions")


def load(data: Path, path: Path) -> dict[str, Any]:
    """Load the shop's files into a new warehouse; return the vars that point at them."""
    vars: dict[str, Any] = {"shop_schema": "shop"}
    with duckdb.connect(path, config={"storage_compatibility_version": "v1.0.0"}) as connection:
        connection.execute("create schema shop")
        for table in TABLES:
            file = data / f"{table}.parquet"
            if table == "promotions" and (
                not file.is_file() or not _is_condensed(connection, file)
            ):
                vars["promotions_table"] = None
                continue
            connection.execute(
                f"create table shop.{table} as select *, cast(now() as timestamp) as loaded_at "
                "from read_parquet(?)",
                [str(file)],
            )
    return vars


def _is_condensed(connection: duckdb.DuckDBPyConnection, file: Path) -> bool:
    rows = connection.execute("describe select * from read_parquet(?)", [str(file)]).fetchall()
    return "display_stores" in [row[0] for row in rows]


def measure(data: Path) -> dict[str, Any]:
    """Run the main job once in a new process; return its phases, wall time and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "benchmark.duckdb")
        vars = load(data, path)
        environment = os.environ | {
            "TRENDCAST_DUCKDB_PATH": str(path),
            "DBT_TARGET_PATH": str(Path(folder, "target")),
            "DBT_LOG_PATH": str(Path(folder, "logs")),
        }
        command = [sys.executable, "-m", "trendcast", "run", "--json", "--vars", json.dumps(vars)]
        command += [
            "--project-dir",
            str(REPO / "dbt_project"),
            "--profiles-dir",
            str(REPO / "profiles"),
        ]
        start = time.perf_counter()
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, check=True, text=True
        )
        wall = time.perf_counter() - start
    summary = json.loads(done.stdout.splitlines()[-1])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"summary": summary, "wall": wall, "peak_gb": peak}


def main() -> None:
    """Measure and print."""
    args = arguments("Time each phase of the main job.").parse_args()
    runs = []
    for k in range(args.runs):
        say(f"run {k + 1} of {args.runs} ...")
        runs.append(measure(args.data))
    phases = list(runs[0]["summary"]["timings"])
    seconds = {p: median(r["summary"]["timings"][p] for r in runs) for p in phases}
    wall = median(r["wall"] for r in runs)
    summary = runs[0]["summary"]
    accuracy = {row["model"]: row for row in summary["accuracy"]}
    naive = accuracy["seasonal_naive"]["wape"]
    report = Report("run")
    report.ratios = {
        f"wape_{model}_to_seasonal_naive": round(row["wape"] / naive, 4)
        for model, row in accuracy.items()
        if model != "seasonal_naive"
    }
    report.ratios["dbt_share_of_time"] = round((seconds["features"] + seconds["marts"]) / wall, 3)
    report.figures = {
        "wall_seconds": wall,
        **{f"{phase.replace(' ', '_')}_seconds": value for phase, value in seconds.items()},
        "peak_memory_gb": round(max(r["peak_gb"] for r in runs), 2),
        "series": summary["n_series"],
        "runs": args.runs,
        "same_forecasts_every_run": len({r["summary"]["forecasts_sha256"] for r in runs}) == 1,
    }
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
