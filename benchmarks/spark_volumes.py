"""What Spark scans, shuffles, writes and sends to the driver in each step of a run, table by table and in its largest stages.

``python -m benchmarks.spark_volumes --data DIR [--series 300,1000] [--steps features,train,forecast,marts] [--driver-memory 1g] [--folder TMP] [--json]``.
Needs the extra `spark` and Java 17. DIR holds M5 (m5/); the shops are those of benchmarks.scale. A Spark Connect server of the benchmark's own writes its
event log, from which the figures come; what may be sent to the driver in one job (spark.driver.maxResultSize) is 128 megabytes, in which a million rows fit as
trendcast asks for them, and no large table. What was measured before a step failed is printed.
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
from benchmarks.scale import DAYS, SHOP, make, measured, options, steps
from trendcast.pipeline import Workspace

MASTER, RESULT = "local[2]", "128m"
MODELS = ["seasonal_naive", "ridge"]
VARS = SHOP | {"models": MODELS}
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
            moved["cpu"] = int(values.get(CPU, 0))
            into = made.get(execution.get(about["Stage ID"], ""), "queries")
            stages.append({"table": into, "at": about["Submission Time"] / 1000, **moved})
    return stages


def build(
    data: Path, folder: Path, series: int, wanted: list[str], driver_memory: str, report: Report
) -> None:
    """Do the steps for a shop of so many series, and report what moved in each."""
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
    commands = {
        "load": [*again, "--load", str(source)],
        "prepare": [sys.executable, "-m", "trendcast", "prepare", *options(MODELS)],
        **{name: command for name, command in steps(data, MODELS).items() if name in wanted},
    }
    began: dict[str, float] = {}
    try:
        for name, command in commands.items():
            say(f"{series:,} series: {name} ...")
            began[name] = time.time()
            found, _ = measured(command, environment)
            say(f"{series:,} series: {name}: {found}")
            if name in wanted:
                report.figures[f"{series}_{name}_seconds"] = found["seconds"]
                report.figures[f"{series}_{name}_client_peak_gb"] = found["peak_gb"]
    finally:
        subprocess.run(
            [sys.executable, "-m", "pyspark.sql.connect.local_server", "--stop"],
            env=environment,
            check=False,
        )
    time.sleep(5)  # the log is whole when the server is gone
    (log,) = [path for path in logs.iterdir() if path.is_file()]
    by_step: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for stage in volumes(log):
        by_step[max((n for n in began if began[n] <= stage["at"]), key=began.__getitem__)].append(
            stage
        )
    for name in wanted:
        _figures(f"{series}_{name}", by_step[name], series * DAYS, report.figures)


def _figures(prefix: str, stages: list[dict[str, Any]], rows: int, figures: dict[str, Any]) -> None:
    """Add the figures of a step."""
    figures[f"{prefix}_stages"] = len(stages)
    for name in METRICS:
        figures[f"{prefix}_{name}_bytes_a_row"] = round(sum(s[name] for s in stages) / rows, 1)
    figures[f"{prefix}_cpu_seconds"] = round(sum(s["cpu"] for s in stages) / 1e9, 1)
    figures[f"{prefix}_largest_to_driver_mb"] = round(max(s["to_driver"] for s in stages) / 1e6, 3)
    figures[f"{prefix}_largest_shuffle_mb"] = round(max(s["shuffled"] for s in stages) / 1e6, 3)
    by_table: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for stage in stages:
        for name in METRICS:
            by_table[stage["table"]][name] += stage[name]
    for table, moved in sorted(by_table.items(), key=lambda item: -item[1]["shuffled"]):
        text = ", ".join(f"{name} {moved[name] / 1e6:.2f}" for name in METRICS)
        figures[f"{prefix}_{table}_mb"] = text


def main() -> None:
    """Measure and print."""
    parser = arguments("What Spark scans, shuffles and sends to the driver in a run.")
    parser.add_argument("--series", default="300,1000", help="comma-separated, ascending")
    parser.add_argument(
        "--steps", default="features,train,forecast,marts", help="comma-separated, in order"
    )
    parser.add_argument("--driver-memory", default="1g")
    parser.add_argument("--folder", type=Path, help="where its tables are made; a temporary one")
    parser.add_argument("--load", type=Path, help="write that shop into Spark, in this process")
    args = parser.parse_args()
    if args.load:
        load(args.load)
        return
    report = Report("spark_volumes", figures={"days": DAYS, "driver_memory": args.driver_memory})
    sizes, wanted = [int(size) for size in args.series.split(",")], args.steps.split(",")
    if unknown := set(wanted) - set(steps(args.data, MODELS)):
        raise SystemExit(f"Unknown steps {sorted(unknown)}. Valid: {parser.get_default('steps')}.")
    try:
        for series in sizes:
            with tempfile.TemporaryDirectory(dir=args.folder) as text:
                folder = Path(text) / "shop"
                build(args.data.resolve(), folder, series, wanted, args.driver_memory, report)
    except SystemExit:
        report.print(as_json=args.json)
        raise
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        for step in wanted:
            for name in ("scanned", "shuffled", "written", "to_driver"):
                what = f"{step}_{name}_bytes_a_row"
                a, b = (report.figures[f"{size}_{what}"] for size in (before, after))
                report.ratios[f"{step}_{name}_a_row_{after}_to_{before}"] = round(
                    b / max(a, 1e-9), 3
                )
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
