"""trendcast as a package in a user's own project: other names, weeks, orders staged by the project, marts on the forecasts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.conftest import REPO, Shop
from tests.test_docs import not_run

# One run of a project of its own serves all of them.
pytestmark = pytest.mark.slow
PROJECT = REPO / "tests" / "second_project"


@dataclass
class Own(Shop):
    """The tea house: its project and profile lie in the shop's folder."""

    def command(self, *args: str) -> list[str]:
        at = ["--project-dir", str(self.folder), "--profiles-dir", str(self.folder)]
        return [sys.executable, "-m", "trendcast", args[0], *at, *args[1:]]

    def dbt(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run dbt as a user does."""
        command = [str(Path(sys.executable).with_name("dbt")), "--quiet", *args]
        return subprocess.run(
            [*command, "--project-dir", ".", "--profiles-dir", "."],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )


def sell(path: Path) -> None:
    """Sixty weeks of receipts; no table or column is called as trendcast calls it."""
    with duckdb.connect(path, config={"storage_compatibility_version": "v1.0.0"}) as connection:
        connection.execute("create schema till")
        connection.execute(
            """
            create table till.receipts as
            select i as receipt_no, 'guest ' || (i % 17) as guest,
                case when i % 3 = 0 then 'East room' else 'West "room"' end as room,
                date '2024-01-01' + cast(i // 4 as integer) as sold_on
            from range(4 * 7 * 60) as numbers(i)
            """
        )
        connection.execute(
            """
            create table till.items as
            select receipt_no, 1 + (receipt_no + k) % 4 as leaf,
                10 * (1 + (receipt_no * 7 + k) % 5) as grams, 120 * (1 + k) as cents
            from till.receipts, range(2) as numbers(k)
            """
        )
        connection.execute(
            """
            create table till."Leaf catalogue" as
            select i as "Leaf no", case when i % 2 = 0 then 'green' else 'black; ''tea''' end as "Kind of leaf"
            from range(1, 5) as numbers(i)
            """
        )


def opened(folder: Path, package: dict[str, Any]) -> Own:
    """A copy of the project that names the package, and its till."""
    shutil.copytree(PROJECT, folder)
    (folder / "packages.yml").write_text(yaml.safe_dump({"packages": [package]}))
    own = Own(folder)
    sell(own.path)
    return own


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """The project after the two commands of the README."""
    made = opened(tmp_path_factory.mktemp("own") / "tea", {"local": str(REPO / "dbt_project")})
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", not_run("README: dbt deps").text],
        env=made.environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=made.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return made


def test_forecasts_of_orders_the_project_stages_itself(own: Own) -> None:
    served = own.query(
        "select series_id, count(*) as n from house_forecasting.fct_forecasts group by 1 order by 1"
    )
    kinds = [(kind, room) for kind in ("black; 'tea'", "green") for room in ("East", "West")]
    assert len(served) == len(kinds) == 4
    assert all(row["n"] == 4 for row in served)
    assert any('West "room"' in row["series_id"] for row in served)
    (sold,) = own.query("select sum(quantity) as grams from house_forecasting.int_order_lines")
    (items,) = own.query("select sum(grams) as grams from till.items")
    assert float(sold["grams"]) == items["grams"]


def test_models_of_the_project_stand_on_the_forecasts(own: Own) -> None:
    done = own.dbt(
        "build", "--select", "next_week", "package:trendcast,test_type:data,tag:trendcast_marts"
    )
    assert done.returncode == 0, done.stderr or done.stdout
    rows = own.query("select category, room, grams from house.next_week order by 1, 2")
    assert [(row["category"], row["room"]) for row in rows] == [
        ("black; 'tea'", "East room"),
        ("black; 'tea'", 'West "room"'),
        ("green", "East room"),
        ("green", 'West "room"'),
    ]
    assert all(row["grams"] > 0 for row in rows)


def test_forecasts_of_another_maker_are_tested(own: Own) -> None:
    done = own.dbt(
        "build", "--select", "their_forecasts", "their_totals", "--indirect-selection", "cautious"
    )
    assert done.returncode == 0, done.stderr or done.stdout
    done = own.dbt("build", "--select", "their_mistakes")
    assert done.returncode == 1
    for test in (
        *("forecast_beats_baseline", "coverage_in_tolerance", "horizon_complete"),
        *("quantiles_ordered", "levels_coherent", "non_negative"),
    ):
        assert f"Failure in test trendcast_{test}_their_mistakes" in done.stdout


def test_marts_that_are_off_are_not_built(own: Own) -> None:
    built = {
        row["table_name"]
        for row in own.query(
            "select table_name from information_schema.tables where table_schema = 'house_forecasting'"
        )
    }
    assert {"fct_forecasts", "fct_forecast_accuracy", "fct_alerts"} <= built
    assert not {"fct_reorder_recommendations", "fct_trend_signals", "fct_price_response"} & built


def test_the_audit_cuts_what_the_project_stages(own: Own, tmp_path: Path) -> None:
    copy = Own(Path(shutil.copytree(own.folder, tmp_path / "copy")))
    done = copy.run("audit")
    assert done.returncode == 0, done.stderr or done.stdout
    # Without the condition the audit would compare a build with itself.
    model = copy.folder / "models" / "staging" / "stg_order_lines.sql"
    model.write_text("\n".join(model.read_text().splitlines()[:-1]) + "\n")
    done = copy.run("audit")
    assert done.returncode == 1
    assert "does not keep to the vars as_of and loaded_before" in done.stderr


def test_installed_from_git(tmp_path: Path) -> None:
    """As `git:` with a subdirectory does; the manifest has the package's models, but for the one that is replaced."""
    source = tmp_path / "trendcast"
    ignore = shutil.ignore_patterns("target", "logs", "dbt_packages", "demo_shop")
    shutil.copytree(REPO / "dbt_project", source / "dbt_project", ignore=ignore)

    def git(*args: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        subprocess.run(["git", *who, *args], cwd=source, check=True, capture_output=True)

    git("init", "-b", "main")
    git("add", "-A")
    git("commit", "-m", "package")
    package = {"git": source.as_uri(), "subdirectory": "dbt_project", "revision": "main"}
    own = opened(tmp_path / "tea", package)
    done = own.dbt("deps")
    assert done.returncode == 0, done.stderr or done.stdout
    done = own.dbt("ls", "--resource-type", "model", "--output", "name")
    assert done.returncode == 0, done.stderr or done.stdout
    names = done.stdout.split()
    assert {"ftr_history", "fct_forecasts", "next_week"} <= set(names)
    assert names.count("stg_order_lines") == 1


def test_a_misspelt_var_of_the_project_is_an_error(own: Own, tmp_path: Path) -> None:
    copy = Own(Path(shutil.copytree(own.folder, tmp_path / "wrong")))
    path = copy.folder / "dbt_project.yml"
    path.write_text(path.read_text().replace("    horizon: 4", "    horzion: 4"))
    done = copy.run("run")
    assert done.returncode == 2
    assert "horzion" in done.stderr and "horizon" in done.stderr
