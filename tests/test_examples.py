"""The orchestration examples: they parse, call commands that exist with options that exist, and the script of cron runs.

Dagster and Airflow are not installed here; scripts/check_orchestration.py installs them aside and runs these files in them.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import trendcast
from tests.conftest import REPO, Shop
from trendcast import cli

EXAMPLES = REPO / "examples"
PYTHON = sorted(EXAMPLES.rglob("*.py"))
WORKFLOW = EXAMPLES / "github-actions" / "forecast.yml"
NIGHTLY = EXAMPLES / "cron" / "nightly.sh"


class OpenedError(Exception):
    """The options were good."""


def commands() -> list[tuple[str, str]]:
    """Every call of trendcast in the examples: the file's name, and the arguments."""
    found = []
    for path in [NIGHTLY, WORKFLOW]:
        text = "\n".join(
            line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")
        )
        found += [
            (path.name, match)
            for match in re.findall(r"(?m)(?:^|[;&]|then)\s+trendcast ([^|;&}\n]+)", text)
        ]
    for path in PYTHON:
        for call in (
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
        ):
            if getattr(call.func, "id", "") != "trendcast":
                continue
            texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
            line = " ".join(texts[1:] if "airflow" in path.parts else texts)
            # A template that gives an option or nothing.
            found += [
                (path.name, re.sub(r"{{.*?'(--[a-z-]+)'.*?}}", option, line))
                for option in (r"\1", "")
            ]
        found += [(path.name, c) for c in re.findall(r"'trendcast'} ([a-z -]+)", path.read_text())]
    return sorted(set(found))


def test_commands_are_found() -> None:
    by_file = {name for name, _ in commands()}
    assert by_file == {"nightly.sh", "forecast.yml", "trendcast_daily.py", "definitions.py"} | {
        "trendcast_cosmos.py"
    }
    assert ("trendcast_daily.py", "run --no-train") in commands()


@pytest.mark.parametrize(("file", "arguments"), commands())
def test_commands_and_options_exist(
    file: str, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*args: object, **options: object) -> None:
        raise OpenedError

    monkeypatch.setattr(trendcast, "open", opened)
    result = CliRunner().invoke(cli.app, arguments.split())
    assert isinstance(result.exception, OpenedError), (
        f"{file}: trendcast {arguments}: {result.output}"
    )


@pytest.mark.parametrize("path", PYTHON, ids=lambda p: p.name)
def test_python_compiles_and_is_typed_enough_to_read(path: Path) -> None:
    compile(path.read_text(), path, "exec")
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_the_workflow_is_one() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    on = workflow[True]  # YAML reads `on` so
    times = [entry["cron"] for entry in on["schedule"]]
    assert all(re.fullmatch(r"[\d*,/-]+( [\d*,/-]+){4}", time) for time in times)
    (job,) = workflow["jobs"].values()
    steps = job["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    (forecast,) = [step for step in steps if step.get("name") == "Forecast"]
    assert times[1] in forecast["env"]["TRAIN"]  # the one with training
    for step in steps:
        if "run" in step:
            done = subprocess.run(
                ["bash", "-n"], input=step["run"], text=True, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr
    assert workflow["concurrency"]


def test_the_script_can_be_run() -> None:
    assert NIGHTLY.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["bash", "-n", NIGHTLY], check=False).returncode == 0
    done = subprocess.run([NIGHTLY], capture_output=True, text=True, check=False)
    assert done.returncode and "the folder with dbt_project.yml" in done.stderr


def test_the_dashboard_of_superset_reads_columns_that_exist(manifest: dict[str, Any]) -> None:
    """It is made, compared with the copy and imported again by scripts/check_superset.py."""
    export = zipfile.ZipFile(EXAMPLES / "superset" / "trendcast_dashboard.zip")
    read = {name.split("/", 1)[1]: yaml.safe_load(export.read(name)) for name in export.namelist()}
    models = {node["name"]: node for node in manifest["nodes"].values()}
    datasets = [content for name, content in read.items() if name.startswith("datasets/")]
    assert {d["table_name"] for d in datasets} == {"rpt_forecast_fan", "fct_forecast_accuracy"}
    for dataset in datasets:
        columns = {column["column_name"] for column in dataset["columns"]}
        assert dataset["schema"] == "marts" and columns == set(
            models[dataset["table_name"]]["columns"]
        )
    (database,) = [content for name, content in read.items() if name.startswith("databases/")]
    assert database["extra"]["engine_params"]["connect_args"] == {"read_only": True}
    assert (
        database["sqlalchemy_uri"] == "duckdb:////data/trendcast_published/current/trendcast.duckdb"
    )
    charts = [content["params"] for name, content in read.items() if name.startswith("charts/")]
    labels = {m["label"] for params in charts for m in params.get("metrics", [])}
    assert labels == {"demand", "demand__yhat", "demand__yhat_lower", "demand__yhat_upper"}


@pytest.mark.slow
@pytest.mark.whole
def test_cron_runs_it(small_run: Shop, copied: Callable[[Shop], Shop], tmp_path: Path) -> None:
    """In a project of its own, as a user has one: `trendcast init`, a night with training, one without."""
    orders = tmp_path / "orders.csv"
    lines = small_run.query("select * from raw.order_lines where location_id is not null")
    header = list(lines[0])
    rows = [",".join("" if line[c] is None else str(line[c]) for c in header) for line in lines]
    orders.write_text("\n".join([",".join(header), *rows]) + "\n")
    project = tmp_path / "shop"
    binaries = Path(sys.executable).parent
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TRENDCAST_BIN_DIR": str(binaries),
    }

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    done = run(binaries / "trendcast", "init", orders, "--dir", project, "--yes")
    assert done.returncode == 0, done.stderr
    settings = project / "dbt_project.yml"
    settings.write_text(
        re.sub(r"(?m)^(    horizon: ).*$", r"\1 7\n    models: [ridge]", settings.read_text())
    )
    before = run(NIGHTLY, project)
    assert before.returncode != 0  # nothing is trained yet, and nothing published
    trained = run(NIGHTLY, project, "--train")
    assert trained.returncode == 0, trained.stderr
    assert "Published" in trained.stdout and "\x1b" not in trained.stdout
    quick = run(NIGHTLY, project)
    assert quick.returncode == 0, quick.stderr
    assert "Published" in quick.stdout and "train" not in quick.stdout.split("Seconds:")[1]
    shutil.rmtree(project)
    wrong = run(NIGHTLY, project, "--train")
    assert wrong.returncode != 0
