"""What Spark scans, shuffles, writes and sends to the driver for the features, model by model and in its largest stages.

``python -m benchmarks.spark_volumes --data DIR [--series 300,1000] [--driver-memory 1g] [--folder TMP] [--json]``. Needs the extra `spark` and Java 17. DIR
holds M5 (m5/); the shops are those of benchmarks.scale. A Spark Connect server of the benchmark's own writes its event log, from which the figures come;
the limit on what may be sent to the driver in one job (spark.driver.maxResultSize) is 16 megabytes, so that no stage can collect a large table.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.common import Report, arguments, say
from benchmarks.generated import REPO
from benchmarks.scale import DAYS, SHOP, make, measured
from trendcast.pipeline import Workspace

MASTER, RESULT = "local[2]", "16m"
VARS = SHOP | {"models": ["ridge"]}
# Spark's names of what a stage moves.
METRICS = {
    "scanned": "internal.metrics.input.bytesRead",
    "shuffled": "internal.metrics.shuffle.write.bytesWritten",
    "written": "internal.metrics.output.bytesWritten",
    "to_driver": "internal.metrics.resultSize",
    "spilled": "internal.metrics.diskBytesSpilled",
}
CPU = "internal.metrics.executorCpuTime"


def load(source: Path) -> None:
    """Write the order lines and products of a DuckDB file into Spark's tables."""
    workspace = Workspace.open(
        project_dir=REPO / "dbt_project", profiles_dir=REPO / "profiles", vars=VARS
    )
    with (
        duckdb.connect(source, read_only=True) as connection,
        workspace.connect(read_only=False) as warehouse,
    ):
        for table in ("orders", "products"):
            warehouse.write("raw", table, connection.table(f"raw.{table}").to_arrow_table())


def volumes(log: Path) -> list[dict[str, Any]]:
    """Return what each completed stage moved, with the table that its statement makes."""
    made: dict[str, str] = {}  # by SQL execution
    execution: dict[int, str] = {}  # by stage
    stages = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        kind = event["Event"].rsplit(".", 1)[-1]
        if kind == "SparkListenerSQLExecutionStart":
            text = event.get("description", "") + event.get("physicalPlanDescription", "")
            table = re.search(r"warehouse/\w+\.db/(\w+)", text[text.rfind("InsertInto") :])
            made[str(event["executionId"])] = table[1] if table else "queries"
        elif kind == "SparkListenerJobStart":
            asked = (event.get("Properties") or {}).get("spark.sql.execution.id")
            for stage in event["Stage IDs"]:
                execution[stage] = str(asked)
        elif kind == "SparkListenerStageCompleted":
            about = event["Stage Info"]
            values = {a["Name"]: a["Value"] for a in about["Accumulables"]}
            moved = {name: int(values.get(metric, 0)) for name, metric in METRICS.items()}
            table = made.get(execution.get(about["Stage ID"], ""), "queries")
            stages.append({"table": table, "cpu": int(values.get(CPU, 0)), **moved})
    return stages


def build(data: Path, folder: Path, series: int, driver_memory: str, report: Report) -> None:
    """Build the features of a shop of so many series, and report what moved."""
    logs = folder / "events"
    logs.mkdir(parents=True)
    settings = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file:{logs}",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        "spark.driver.maxResultSize": RESULT,
        # What is read side by side is not counted.
        "spark.hadoop.parquet.hadoop.vectored.io.enabled": "false",
    }
    environment = os.environ | {
        "TRENDCAST_TARGET": "spark",
        "TRENDCAST_SPARK_REMOTE": MASTER,
        "TRENDCAST_SPARK_FOLDER": str(folder / "spark"),
        "TRENDCAST_SPARK_DRIVER_MEMORY": driver_memory,
        "SPARK_LOCAL_CONNECT_DISCOVERY": str(folder / "connect.json"),
        # What the server that the first command starts begins with.
        "PYSPARK_REMOTE_INIT_CONF_LEN": "1",
        "PYSPARK_REMOTE_INIT_CONF_0": json.dumps(settings),
        "PYSPARK_PYTHON": sys.executable,
        "TRENDCAST_ARTIFACTS_DIR": str(folder / "artifacts"),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
    }
    source = folder / "shop.duckdb"
    make(data / "m5", source, series)
    again = [sys.executable, "-m", "benchmarks.spark_volumes", "--data", str(data)]
    steps = [
        [*again, "--load", str(source)],
        [sys.executable, "-m", "trendcast", "prepare", "--json"]
        + ["--project-dir", "dbt_project", "--profiles-dir", "profiles"]
        + ["--vars", json.dumps(VARS)],
        [sys.executable, "-m", "benchmarks.scale", "--data", str(data), "--step", "features"]
        + ["--models", ",".join(VARS["models"])],
    ]
    try:
        for command in steps:
            say(f"{series:,} series: {' '.join(command[2:5])[:60]} ...")
            found, _ = measured(command, environment)
            say(f"{series:,} series: {found}")
    finally:
        subprocess.run(
            [sys.executable, "-m", "pyspark.sql.connect.local_server", "--stop"],
            env=environment,
            check=False,
        )
    time.sleep(5)  # the log is whole when the server is gone
    (log,) = [path for path in logs.iterdir() if path.is_file()]
    stages = [s for s in volumes(log) if s["table"] not in ("orders", "products")]
    figures, rows = report.figures, series * DAYS
    figures[f"{series}_features_seconds"] = found["seconds"]
    figures[f"{series}_stages"] = len(stages)
    for name in METRICS:
        figures[f"{series}_{name}_bytes_a_row"] = round(sum(s[name] for s in stages) / rows, 1)
    figures[f"{series}_cpu_seconds"] = round(sum(s["cpu"] for s in stages) / 1e9, 1)
    figures[f"{series}_largest_to_driver_mb"] = round(max(s["to_driver"] for s in stages) / 1e6, 3)
    figures[f"{series}_largest_shuffle_mb"] = round(max(s["shuffled"] for s in stages) / 1e6, 3)
    by_table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for stage in stages:
        for name in METRICS:
            by_table[stage["table"]][name] += stage[name]
    for table, moved in sorted(by_table.items(), key=lambda item: -item[1]["shuffled"]):
        text = ", ".join(f"{name} {moved[name] / 1e6:.2f}" for name in METRICS)
        figures[f"{series}_{table}_mb"] = text


def main() -> None:
    """Measure and print."""
    parser = arguments("What Spark scans, shuffles and sends to the driver for the features.")
    parser.add_argument("--series", default="300,1000", help="comma-separated, ascending")
    parser.add_argument("--driver-memory", default="1g")
    parser.add_argument("--folder", type=Path, help="where its tables are made; a temporary one")
    parser.add_argument("--load", type=Path, help="write that shop into Spark, in this process")
    args = parser.parse_args()
    if args.load:
        load(args.load)
        return
    report = Report("spark_volumes", figures={"days": DAYS, "driver_memory": args.driver_memory})
    sizes = [int(size) for size in args.series.split(",")]
    for series in sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as text:
            build(args.data.resolve(), Path(text) / "shop", series, args.driver_memory, report)
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        for name in ("scanned", "shuffled", "written", "to_driver"):
            a, b = (report.figures[f"{size}_{name}_bytes_a_row"] for size in (before, after))
            report.ratios[f"{name}_a_row_{after}_to_{before}"] = round(b / max(a, 1e-9), 3)
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
