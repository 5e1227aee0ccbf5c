"""The memory that a run takes at its peak, beside what `trendcast doctor` says before it.

``python -m benchmarks.memory --data DIR [--products 3000] [--limit 2GB] [--json]``. A generated shop is kept in DIR/memory_PRODUCTS; the models
are all of them, with few steps of training, which take as much memory as many.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

from benchmarks.common import Report, arguments, say
from benchmarks.generated import REPO, VARS, made
from trendcast.doctor import memory_needed
from trendcast.pipeline import Workspace

MODELS = {
    "models": ["seasonal_naive", "classical", "ridge", "lightgbm", "lstm", "ensemble"],
    "lstm": {"steps_per_epoch": 20, "max_epochs": 1},
    "lightgbm": {"max_rounds": 30},
    "backtest_folds": 1,
}


def main() -> None:
    """Measure and print."""
    parser = arguments("Peak memory of a run, beside the doctor's estimate.")
    parser.add_argument("--products", type=int, default=3000)
    parser.add_argument("--limit", default="2GB", help="DuckDB's memory_limit")
    args = parser.parse_args()
    folder = args.data.resolve() / f"memory_{args.products}"
    made(folder, args.products)
    environment = os.environ | {
        "TRENDCAST_DUCKDB_PATH": str(folder / "shop.duckdb"),
        "TRENDCAST_MEMORY_LIMIT": args.limit,
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
    }
    os.environ.update(environment)
    say("running the shop ...")
    where = ["--project-dir", "dbt_project", "--profiles-dir", "profiles"]
    command = [
        sys.executable,
        "-m",
        "trendcast",
        "run",
        *where,
        "--vars",
        json.dumps(VARS | MODELS),
    ]
    done = subprocess.run(
        [*command, "--no-data-checks", "--json"],
        cwd=REPO,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)
    # Of the largest process: dbt's builds, in processes of their own, end before models are trained.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    workspace = Workspace.open(
        project_dir=REPO / "dbt_project", profiles_dir=REPO / "profiles", vars=VARS | MODELS
    )
    with workspace.connect() as warehouse:
        limit = warehouse.about()["memory_limit"] / 1e9
        rows = warehouse.query(
            f"select count(distinct series_id) as n, count(*) as rows from {workspace.project.relation('ftr_history')}"
        ).to_pylist()[0]
    estimate = memory_needed(workspace.project, rows["n"], rows["rows"], limit)
    report = Report("memory", {"estimate over measured": sum(estimate.values()) / peak})
    report.figures = {
        "series": rows["n"],
        "rows": rows["rows"],
        "measured_gb": round(peak, 2),
        "estimate_gb": round(sum(estimate.values()), 2),
    } | {f"{part}_gb": round(size, 2) for part, size in estimate.items()}
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
