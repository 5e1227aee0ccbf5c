"""Checks trendcast against the tools that it says it works with, each in an environment of its own. By hand: half an hour, 5 GB, a network.

    .venv/bin/python scripts/check_integrations.py FOLDER [--only clients|metrics|superset|orchestration]

FOLDER keeps the environments and a warehouse with the demo, which the first call makes with a whole `trendcast run`. A copy of it is published and
read: by older clients of DuckDB, table by table and compared with the Parquet files, and by Apache Superset (check_superset.py). MetricFlow runs
the block of docs/metrics.md; Airflow and Dagster run the files of examples/ (check_orchestration.py).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
#: The first and the last DuckDB before 2.0.
CLIENTS = ("1.0.0", "1.4.4")
METRICFLOW = ("dbt-metricflow==0.15.0", "dbt-core==1.11.16", "dbt-duckdb==1.11.1")
# What MetricFlow draws while it works.
_SPINNER = re.compile("[\u2800-\u28ff][^\u2800-\u28ff\u2714\u2716\\n]*")
READ = """
import sys
from pathlib import Path
import duckdb

copy = Path(sys.argv[1]).resolve()
connection = duckdb.connect(str(copy / "trendcast.duckdb"), read_only=True)
connection.execute("set enable_progress_bar = false")
names = [row[0] for row in connection.execute("select table_name from duckdb_tables() order by 1").fetchall()]
rows = 0
for name in names:
    table, file = f'marts."{name}"', str(copy / f"{name}.parquet").replace("'", "''")
    for one, other in ((table, f"'{file}'"), (f"'{file}'", table)):
        (differing,) = connection.execute(f"select count(*) from (from {one} except all from {other})").fetchone()
        if differing:
            sys.exit(f"{name}: {differing} rows of {one} are not in {other}")
    rows += connection.execute(f"select count(*) from {table}").fetchone()[0]
if len(names) != len(list(copy.glob("*.parquet"))) or not rows:
    sys.exit(f"the file has {len(names)} tables")
print(f"DuckDB {duckdb.__version__} reads {len(names)} tables, {rows:,} rows, equal to those of the Parquet files")
"""


def metrics_commands() -> str:
    """Return the commands of docs/metrics.md."""
    page = (REPO / "docs" / "metrics.md").read_text()
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return str(block)


class Checks:
    """The folder of the environments, and commands that run with the warehouse in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {
            "UV_SYSTEM_CERTS": "true",
            "TRENDCAST_DUCKDB_PATH": str(self.folder / "trendcast.duckdb"),
            "DBT_PROFILES_DIR": str(REPO / "profiles"),
            "DBT_TARGET_PATH": str(self.folder / "target"),
            "DBT_LOG_PATH": str(self.folder / "logs"),
        }

    @property
    def copy(self) -> Path:
        """Where copies are published."""
        return self.folder / "trendcast_published"

    def run(self, *command: str | Path, shown: bool = False, **environment: str) -> None:
        """Run a command; its failure is the script's end. Of its environment, what is given as empty is left out."""
        merged = {k: v for k, v in (self.environment | environment).items() if v}
        done = subprocess.run(
            command, env=merged, cwd=REPO, capture_output=True, text=True, check=False
        )
        if shown:
            lines = _SPINNER.sub("", done.stdout).splitlines()
            print(
                *(line for line in lines if line.strip() and "[info" not in line),
                sep="\n",
                flush=True,
            )
        if done.returncode:
            sys.exit(
                f"{command[:4]}\n{done.stdout or ''}\n{done.stderr or ''}\nexit code {done.returncode}"
            )

    def installed(self, name: str, *packages: str) -> Path:
        """Return the folder of an environment's programs, made where there is none."""
        programs = self.folder / name / "bin"
        if not programs.exists():
            self.run(BIN / "uv", "venv", "--quiet", "--python", sys.executable, self.folder / name)
            self.run(
                BIN / "uv", "pip", "install", "--quiet", "--python", programs / "python", *packages
            )
        return programs

    # --- The checks ---

    def clients(self) -> None:
        """Older clients read the published copy."""
        for version in CLIENTS:
            programs = self.installed(f"duckdb-{version}", f"duckdb=={version}")
            self.run(programs / "python", "-c", READ, self.copy / "current", shown=True)

    def metrics(self) -> None:
        """MetricFlow validates the metrics in the warehouse and answers the queries of docs/metrics.md."""
        programs = self.installed("metricflow", *METRICFLOW)
        # It looks for what dbt parsed in the project's own folder, whatever DBT_TARGET_PATH says.
        path = f"{programs}:{os.environ['PATH']}"
        self.run(
            *("bash", "-euo", "pipefail", "-c", metrics_commands()),
            shown=True,
            PATH=path,
            DBT_TARGET_PATH="",
        )

    def superset(self) -> None:
        """Superset draws the fan chart."""
        script = REPO / "scripts" / "check_superset.py"
        self.run(sys.executable, script, self.folder / "superset", self.copy, shown=True)

    def orchestration(self) -> None:
        """Airflow and Dagster run the examples."""
        script = REPO / "scripts" / "check_orchestration.py"
        self.run(sys.executable, script, self.folder, shown=True)


def main() -> None:
    """Run all checks, or those asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["clients", "metrics", "superset", "orchestration"]
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=names, action="append")
    given = parser.parse_args()
    checks = Checks(given.folder)
    if not (checks.folder / "trendcast.duckdb").exists():
        print("The demo ...", flush=True)
        checks.run(BIN / "trendcast", "run")
    checks.run(BIN / "trendcast", "publish", "--to", checks.copy)
    for name in given.only or names:
        started = time.monotonic()
        print(f"--- {name}", flush=True)
        getattr(checks, name)()
        print(f"--- {name}: as it should be, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
