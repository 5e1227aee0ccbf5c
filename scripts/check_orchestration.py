"""Installs Dagster and Airflow aside and runs the files of examples/ in them, on the demo shop. By hand: minutes, 1 GB, a network.

    .venv/bin/python scripts/check_orchestration.py FOLDER

FOLDER keeps the two environments and a warehouse, which the first call makes with a whole `trendcast run`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
VERSIONS = {
    "dagster": ["dagster==1.13.29"],
    "airflow": ["apache-airflow==3.3.2", "astronomer-cosmos==1.15.1"],
}
DAGS = """
from airflow.dag_processing.dagbag import DagBag
bag = DagBag({folder!r})
assert not bag.import_errors, bag.import_errors
print("Airflow parses", *(f"{{name}} ({{len(dag.tasks)}} tasks)" for name, dag in sorted(bag.dags.items())))
"""


def main(folder: Path) -> None:
    """Install what is missing, parse every file and run the jobs."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "UV_SYSTEM_CERTS": "true",
        "TRENDCAST_PROJECT": str(REPO),
        "TRENDCAST_BIN": str(BIN / "trendcast"),
        "TRENDCAST_DUCKDB_PATH": str(folder / "trendcast.duckdb"),
        "TRENDCAST_MANIFEST": str(folder / "target" / "manifest.json"),
        "DBT_PROFILES_DIR": str(REPO / "profiles"),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
        "AIRFLOW_HOME": str(folder / "airflow_home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPO / "examples" / "airflow"),
        "DAGSTER_HOME": str(folder / "dagster_home"),
    }
    (folder / "dagster_home").mkdir(exist_ok=True)

    def run(*command: str | Path, quiet: bool = True) -> None:
        print("$", *command, flush=True)
        done = subprocess.run(
            command, env=environment, cwd=REPO, capture_output=quiet, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{done.stdout or ''}\n{done.stderr or ''}\nexit code {done.returncode}")

    for name, packages in VERSIONS.items():
        if not (folder / name).exists():
            run(BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder / name)
            python = folder / name / "bin" / "python"
            run(BIN / "uv", "pip", "install", "--quiet", "--python", python, *packages)
    if not (folder / "trendcast.duckdb").exists():
        run(BIN / "trendcast", "run")
    # In REPO the project is ./dbt_project; Cosmos wants the folder itself.
    run(BIN / "dbt", "--quiet", "parse", "--project-dir", "dbt_project")
    dagster = folder / "dagster" / "bin" / "dagster"
    definitions = REPO / "examples" / "dagster" / "definitions.py"
    run(dagster, "job", "execute", "-f", definitions, "-j", "daily")
    run(folder / "airflow" / "bin" / "airflow", "db", "migrate")
    parse = DAGS.format(folder=str(REPO / "examples" / "airflow"))
    environment["TRENDCAST_PROJECT"] = str(REPO / "dbt_project")
    run(folder / "airflow" / "bin" / "python", "-c", parse, quiet=False)
    environment["TRENDCAST_PROJECT"] = str(REPO)
    run(folder / "airflow" / "bin" / "airflow", "dags", "test", "trendcast_daily", "2026-11-24")
    print("Dagster ran `daily`, Airflow ran `trendcast_daily` and parses both files.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
