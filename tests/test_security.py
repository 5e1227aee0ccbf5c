"""Nobody in and nothing out: no secret is written down, no connection opened, no file open to all, no code in a model."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPO, SMALL_LSTM, Shop
from trendcast.ensemble import Ensemble
from trendcast.errors import ArtifactError
from trendcast.models import create

SECRET = "correct-horse-battery-staple"
# Python runs it at the start of every process: this one's, dbt's and whatever they start.
NO_NETWORK = """
import os, socket

def refuse(self, address, *_):
    if self.family != socket.AF_UNIX:
        with open(os.environ["CONNECTIONS"], "a") as file:
            print(address, file=file)
        raise OSError("no network in this test")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.socket.sendto = lambda self, data, *address: refuse(self, address)
socket.getaddrinfo = lambda *address, **_: refuse(socket.socket(), address)
"""


@pytest.mark.slow
def test_a_run_tells_no_secret_opens_no_connection_and_no_file_to_others(
    make_shop: Callable[..., Shop],
) -> None:
    lines = [
        {
            "order_id": f"{day}-{k}",
            "product_id": f"p{k}",
            "ordered_at": f"2026-{1 + day // 28:02}-{1 + day % 28:02}",
            "quantity": 1 + (day * k) % 5,
        }
        for day in range(84)
        for k in range(1, 4)
    ]
    shop = make_shop(
        lines, models=["ridge", "lstm"], lstm=SMALL_LSTM | {"steps_per_epoch": 2, "max_epochs": 1}
    )
    outside = shop.folder.parent / f"{shop.folder.name}_outside"
    outside.mkdir()
    (outside / "sitecustomize.py").write_text(NO_NETWORK)
    profiles = yaml.safe_load((REPO / "profiles" / "profiles.yml").read_text())
    output = profiles["trendcast"]["outputs"]["duckdb"]
    # A password of the target in use, one of another, and one from the environment.
    output["settings"]["http_proxy_password"] = SECRET
    login = {"user": "me", "schema": "x", "dbname": "x", "port": 5432, "host": "db"}
    profiles["trendcast"]["outputs"]["prod"] = login | {"type": "postgres", "password": SECRET}
    output["settings"]["http_proxy_username"] = "{{ env_var('DBT_ENV_SECRET_USER') }}"
    (outside / "profiles.yml").write_text(yaml.safe_dump(profiles))
    environment = shop.environment | {
        "PYTHONPATH": f"{outside}:{REPO}",
        "CONNECTIONS": str(outside / "connections"),
        "DBT_ENV_SECRET_USER": SECRET + "-too",
        "DBT_LOG_LEVEL_FILE": "debug",
    }

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shop.command(*args, "--profiles-dir", str(outside)),
            env=environment,
            cwd=shop.folder,
            capture_output=True,
            text=True,
            check=False,
            umask=0o027,
        )

    done = run("run")
    assert done.returncode == 0, done.stderr
    assert not (outside / "connections").exists(), (outside / "connections").read_text()
    runs = run("runs", "--json")
    assert SECRET not in done.stdout + done.stderr + runs.stdout + runs.stderr
    searched = [path for path in shop.folder.rglob("*") if path.is_file()]
    assert {"dbt.log", "manifest.json", "ridge.json", "lstm_0.keras", "shop.duckdb"} <= {
        path.name for path in searched
    }
    assert [path for path in searched if SECRET.encode() in path.read_bytes()] == []
    rows = shop.query("select * from analytics_trendcast.runs")
    assert SECRET not in json.dumps(rows, default=str)
    # Made under umask 027: nothing for others, nothing for the group to write.
    written = [p for p in shop.artifacts_dir.rglob("*") if not p.is_symlink()]
    assert written
    assert [p for p in written if stat.S_IMODE(p.stat().st_mode) & 0o027] == []


def test_the_block_of_connections_blocks(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    connections = tmp_path / "connections"
    code = textwrap.dedent(
        """
        import urllib.request
        try:
            urllib.request.urlopen("http://127.0.0.1:9/", timeout=1)
        except OSError:
            pass
        """
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CONNECTIONS": str(connections)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "127.0.0.1" in connections.read_text()


def test_dbt_sends_no_usage_statistics(manifest: dict[str, Any]) -> None:
    assert manifest["metadata"]["send_anonymous_usage_stats"] is False
    flags = yaml.safe_load((REPO / "dbt_project" / "dbt_project.yml").read_text())["flags"]
    assert flags["send_anonymous_usage_stats"] is False


FILES = {
    **{"ridge": "ridge.json", "classical": "classical.json", "lightgbm": "lightgbm.json"},
    **{"lstm": "lstm.json", "ensemble": "ensemble.json"},
}


@pytest.mark.parametrize("model", FILES)
@pytest.mark.parametrize("stamp", [{"format": 99}, {"format": None}, {}])
def test_a_model_file_of_another_version_is_refused(
    tmp_path: Path, model: str, stamp: dict[str, Any]
) -> None:
    (tmp_path / FILES[model]).write_text(json.dumps(stamp))
    came = stamp.get("format")
    with pytest.raises(ArtifactError, match=rf"has format {came}, this version reads \d.* Train"):
        Ensemble.load(tmp_path) if model == "ensemble" else create(model).load(tmp_path)


def test_no_model_is_a_pickle() -> None:
    """Nothing that runs code is imported to read or write a file."""
    refused = {"pickle", "cloudpickle", "joblib", "shelve", "marshal", "dill"}
    for path in (REPO / "trendcast").rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        for node in tree:
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module).split(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id} & {"eval", "exec"}
                assert not names, f"{names} in {path}"
            else:
                continue
            assert not names & refused, f"{names} in {path}"
