"""The docs do what they say: every block of commands and Python runs, in order, on the demo; links and pages are whole.

A block that cannot run there has `<!-- not run: reason -->` above it, and is listed below with the test or script that runs it.
"""

from __future__ import annotations

import csv
import datetime as dt
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import typer
import yaml
from typer.core import TyperGroup

from tests.conftest import REPO, SMALL_LIGHTGBM, SMALL_LSTM, with_part_of_the_demo
from tests.engines import NOT_ON
from trendcast import cli
from trendcast.vars import declared_vars

DOCS = REPO / "docs"
PAGES = [REPO / "README.md", *sorted(DOCS.glob("*.md"))]
# In this order, for what one makes the next one reads.
RUN = (
    *("tutorial", "README", "python", "orchestration", "bi", "report", "decision-marts", "metrics"),
    *("new-model", "new-feature"),
)
# Pages of many long commands that other tests run, too: in `make test-whole`.
LONG = {"orchestration", "bi", "decision-marts", "new-feature"}
NOT_RUN = {
    "README: make demo": "they install, and the second one runs the tests that would run this",
    "tutorial: make demo": "installs into the clone; the test has trendcast installed and runs what follows",
    "README: dbt deps": "needs the project above; tests/test_second_project.py runs these two lines in such a one",
    "metrics: cd dbt_project": "MetricFlow is no dependency; `make check-integrations` installs it aside and runs this",
}
_BLOCK = re.compile(
    r"(?m)^(?:[ ]*<!-- not run: (?P<reason>.*?) -->\n)?(?P<indent>[ ]*)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL,
)
COMMANDS = re.compile(r"(?m)^    (trendcast|dbt|make|pip|python|\.venv/bin/\w+|cd|git) [a-z-]")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        """Page and first two words."""
        return f"{self.page}: {' '.join(self.text.split()[:2])}"


def blocks(page: Path) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(page.read_text()):
        lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines()]
        found.append(Block(page.stem, match["language"], "\n".join(lines), match["reason"]))
    return found


def test_what_is_not_run_is_listed() -> None:
    marked = {b.name: b.reason for page in PAGES for b in blocks(page) if b.reason}
    assert marked == NOT_RUN


def module(name: str):
    """Import a script."""
    spec = importlib.util.spec_from_file_location(name, REPO / "scripts" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def not_run(name: str) -> Block:
    """Return a block that is not run here."""
    (block,) = [b for page in PAGES for b in blocks(page) if b.name == name and b.reason]
    return block


def test_make_has_what_the_docs_call() -> None:
    """Without doing it: what make would do, which is to install and call what is tested elsewhere."""
    lines = [
        line
        for page in ("README", "tutorial")
        for line in not_run(f"{page}: make demo").text.splitlines()
    ]
    told = subprocess.run(
        ["bash", "-euc", "\n".join(line.replace("make ", "make -n ", 1) for line in lines)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("/trendcast demo") == 2
    for part in ("ruff check", "mypy", "sqlfluff lint", "dbt --quiet build", "pytest -n logical"):
        assert part in told.stdout
    makefile = (REPO / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`make ([a-z-]+)`", page.read_text()):
            assert re.search(rf"(?m)^{target}:", makefile), f"{page.name}: make {target}"


def test_a_script_runs_the_block_of_metricflow() -> None:
    script = module("check_integrations")
    assert script.metrics_commands().strip() == not_run("metrics: cd dbt_project").text


def test_every_block_that_can_run_is_on_a_page_that_is_run() -> None:
    runnable = {b.page for page in PAGES for b in blocks(page) if b.language in ("bash", "python")}
    assert runnable == set(RUN)
    assert sum(len(blocks(page)) for page in PAGES) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_commands_stand_in_fences_that_are_run(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text())
    assert not COMMANDS.search(text), (
        "indented commands are not run: put them between ```bash and ```"
    )
    assert text.count("```") == 0
    assert {b.language for b in blocks(page)} <= {"bash", "python", "yaml", "sql", "text"}


@pytest.mark.parametrize(
    "block",
    [b for page in PAGES for b in blocks(page) if b.language == "yaml"],
    ids=lambda b: b.name,
)
def test_yaml_is_yaml_and_its_vars_exist(block: Block) -> None:
    declared = declared_vars(REPO / "dbt_project")
    for document in yaml.safe_load_all(block.text.replace("{...,", "{")):
        for name in ((document or {}).get("vars") or {}).get("trendcast", {}):
            assert name in declared


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((DOCS / "decisions").glob("*.md"))], ids=lambda p: p.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", _BLOCK.sub("", page.read_text())):
        if not target.startswith("#"):
            assert (page.parent / target).exists(), target


# --- The generated pages ---


@pytest.fixture(scope="module")
def hook():
    return module("docs_hook")


def test_the_reference_has_every_command_and_option(hook) -> None:
    page = hook.commands()
    for command in cli.app.registered_commands:
        assert f"## trendcast {command.callback.__name__}\n" in page
    assert "## trendcast simulate inventory" in page
    for option in (
        "--no-train",
        "--series",
        "--data-checks",
        "--keep",
        "--artifacts-dir",
        "--cover-days",
    ):
        assert f"`{option}`" in page


def test_the_reference_has_every_var_with_its_default(hook) -> None:
    page = hook.vars()
    for name, default in declared_vars(REPO / "dbt_project").items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        if isinstance(default, int | float | str) and not isinstance(default, bool):
            assert str(default) in row
    assert "share of replenishment cycles that should end without a stockout" in page


def test_the_reference_has_every_described_table(hook, manifest: dict) -> None:
    page = hook.tables()
    described = [
        node["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["description"]
    ]
    assert len(described) > 60
    assert [name for name in described if f"\n### {name}\n" not in page] == []
    assert "doc(" not in page


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=REPO,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = [
        path.relative_to(tmp_path / "site").as_posix()
        for path in (tmp_path / "site").rglob("*.html")
    ]
    assert {"index.html", "reference/cli.html", "reference/tables.html", "comparison.html"} <= set(
        pages
    )
    # Nothing is fetched from elsewhere.
    for page in pages:
        text = (tmp_path / "site" / page).read_text()
        assert not re.search(r'<(script|link|img)[^>]+(src|href)="https?://', text), page


# --- Running them ---


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a clone: the dbt project with small models and a quarter of the demo, the profile, somebody's orders."""
    folder = tmp_path_factory.mktemp("clone")
    project = with_part_of_the_demo(folder)
    (folder / "profiles").symlink_to(REPO / "profiles")
    (folder / ".venv").symlink_to(sys.prefix)
    settings = project / "dbt_project.yml"
    text = settings.read_text()
    for name, small in (("lstm", SMALL_LSTM), ("lightgbm", SMALL_LIGHTGBM)):
        text, n = re.subn(rf"(?m)^    {name}: {{}}", f"    {name}: {json.dumps(small)}", text)
        assert n == 1
    text, n = re.subn(r"(?m)^    train_rows: \d+", "    train_rows: 100000", text)
    assert n == 1
    settings.write_text(text)
    with (folder / "orders.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["order_no", "day", "sku", "units", "amount"])
        for i in range(130):
            for sku in range(4):
                day = dt.date(2025, 1, 1) + dt.timedelta(days=i)
                writer.writerow([f"{i}-{sku}", day, f"sku {sku}", 1 + (i * i + sku) % 5, 9.5])
    return folder


@pytest.fixture(scope="module")
def ran() -> set[str]:
    """Commands that were run in the clone."""
    return set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.whole] * (p in LONG)) for p in RUN]
)
def test_the_blocks_of_a_page_run(page: str, clone: Path, ran: set[str]) -> None:
    (path,) = [p for p in PAGES if p.stem == page]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TRENDCAST_", "DBT_"))}
    environment |= {"PATH": f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1"}
    environment["DBT_LOG_LEVEL_FILE"] = "none"  # a tenth of the time
    before: list[str] = []
    commands = blocks(path)
    if page != "tutorial" and not (clone / "trendcast.duckdb").exists():
        commands.insert(0, Block(page, "bash", "trendcast demo", None))  # it was read first
    for block in commands:
        if block.reason or block.language not in ("bash", "python"):
            continue
        if block.text in ran:  # another page has the same, which takes a minute
            continue
        if block.language == "bash":
            ran.add(block.text)
            command = ["bash", "-euo", "pipefail", "-c", block.text]
        else:  # a page's Python goes on from block to block, as in a notebook
            before.append(block.text)
            command = [sys.executable, "-c", "\n".join(before)]
        done = subprocess.run(
            command,
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, f"{block.name}\n{block.text}\n{done.stdout}\n{done.stderr}"


def test_the_matrix_of_engines_is_whole() -> None:
    """Every command has a row, and what is not there on another engine are the commands its tests say so of."""
    rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in (REPO / "docs" / "engines.md").read_text().splitlines()
        if line.startswith("| `trendcast ")
    ]
    names = set(cast(TyperGroup, typer.main.get_command(cli.app)).commands)
    for column, engine in ((2, "postgres"), (3, "spark")):
        cells = {row[0].strip("`").removeprefix("trendcast "): row[column] for row in rows}
        assert set(cells) == names
        assert {name for name, cell in cells.items() if cell == "no"} == NOT_ON[engine]
        assert set(cells.values()) <= {"works", "differs", "no", "untested"}
