"""What is shipped: a wheel that works on its own, typed, with versions that were tested and hashes to check them by."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPO

LOCK = (REPO / "requirements.lock").read_text()


def pinned(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[.*?\])?==([^\s\\;]+)", text, re.MULTILINE))


def test_the_lock_has_the_versions_that_are_tested() -> None:
    """After a change of constraints.txt: `make lock`."""
    tested = pinned((REPO / "constraints.txt").read_text())
    locked = pinned(LOCK)
    assert {name: tested.get(name) for name in locked} == locked
    text = (REPO / "pyproject.toml").read_text()
    needed = text[text.index("dependencies = [") : text.index("[project.optional-dependencies]")]
    names = set(re.findall(r'^ +"([a-z0-9-]+)', needed, re.MULTILINE))
    assert len(names) > 10 and names <= set(locked)


def test_the_lock_has_hashes_and_no_address() -> None:
    for entry in re.split(r"\n(?=\S)", LOCK.strip()):
        assert "--hash=sha256:" in entry, entry
    assert not re.search(r"://|--index|--extra|--find|--trusted", LOCK)


def test_the_package_says_it_is_typed() -> None:
    assert (REPO / "trendcast" / "py.typed").is_file()


@pytest.mark.slow
def test_the_wheel_and_the_sdist_install_and_work(tmp_path: Path) -> None:
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("uv is not installed: the wheel was NOT built")
    environment = os.environ | {"UV_SYSTEM_CERTS": "true"}

    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run(
            command, env=environment, cwd=cwd, capture_output=True, text=True, check=False
        )
        if done.returncode and re.search(r"[Cc]onnect|resolve host|dns|timed out", done.stderr):
            pytest.skip(f"no package index: the wheel was NOT tested: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    # The wheel is built from the sdist, so both are whole.
    run(uv, "build", "--quiet", "--out-dir", tmp_path / "dist", REPO)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (_,) = (tmp_path / "dist").glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "py.typed",
        *(f"report/report.{kind}" for kind in ("html", "css", "js")),
        *(
            f"report/vendor/{name}"
            for name in ("uPlot.iife.min.js", "uPlot.min.css", "LICENSE-uPlot")
        ),
        "_project/dbt_project/dbt_project.yml",
        "_project/profiles/profiles.yml",
    ):
        assert f"trendcast/{name}" in names
    assert not [name for name in names if re.search(r"\.(duckdb|keras|log|pyc)$|/target/", name)]
    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "clean")
    python = tmp_path / "clean" / "bin" / "python"
    install = (uv, "pip", "install", "--quiet", "--python", python)
    if sys.version_info[:2] == (3, 11) and sys.platform == "linux":
        run(*install, "--require-hashes", "-r", REPO / "requirements.lock")
        run(*install, "--no-deps", wheel)
    else:
        run(*install, "-c", REPO / "constraints.txt", wheel)
    assert run(python.parent / "trendcast", "--version").startswith("trendcast ")
    found = run(python, "-c", "import trendcast.project as p; print(p.PACKAGED_PROJECT.is_dir())")
    assert found == "True\n"
    at = tmp_path / "clean" / "lib"
    (project,) = at.glob("python3*/site-packages/trendcast/_project")
    options = ["--project-dir", project / "dbt_project", "--profiles-dir", project / "profiles"]
    environment |= {"DBT_TARGET_PATH": str(tmp_path / "t"), "DBT_LOG_PATH": str(tmp_path / "l")}
    told = run(python.parent / "trendcast", "doctor", *map(str, options))
    assert "trendcast 0." in told
