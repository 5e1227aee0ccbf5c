"""The doctor: finds what would stop a run, names the remedy, and changes nothing."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import REPO, Shop, held
from trendcast import doctor
from trendcast.dbt import Dbt
from trendcast.pipeline import Workspace
from trendcast.project import Project, read_output

Findings = dict[str, dict[str, str]]
Examine = Callable[..., Findings]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Return an examination of a shop by check; with ``settings`` of the project changed, and dbt not asked again."""

    def run(shop: Shop, **settings: Any) -> Findings:
        monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(shop.path))

        def opened(**given: Any) -> Workspace:
            manifest = json.loads((shop.folder / "target" / "manifest.json").read_text())
            project = Project.from_manifest(manifest)
            return Workspace(
                Dbt(given["project_dir"], given["profiles_dir"]),
                read_output(given["project_dir"], given["profiles_dir"], given["target"]),
                replace(project, settings=replace(project.settings, **settings)),
                given["artifacts_dir"],
            )

        monkeypatch.setattr(doctor.Workspace, "open", opened)
        found = doctor.examine(
            project_dir=REPO / "dbt_project",
            profiles_dir=REPO / "profiles",
            target=None,
            vars=shop.vars,
            artifacts_dir=None,
        )
        return {finding["check"]: finding for finding in found}

    return run


def change(shop: Shop, sql: str) -> None:
    with duckdb.connect(shop.path) as connection:
        connection.execute(sql)


def test_a_healthy_shop(demo_run: Shop) -> None:
    before = demo_run.path.read_bytes()
    done = demo_run.run("doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert {finding["status"] for finding in found.values()} == {"ok"}
    assert list(found) == [
        "versions",
        "profile",
        "warehouse",
        "dbt project",
        "orders",
        "runs",
        "model files",
    ]
    assert "tensorflow" in found["versions"]["found"]
    assert "horizon 28" in found["dbt project"]["found"]
    assert "410,466 lines" in found["orders"]["found"]
    assert demo_run.path.read_bytes() == before


def test_no_warehouse_yet(examine: Examine, tmp_path: Path) -> None:
    found = examine(Shop(tmp_path))
    assert found["warehouse"]["status"] == "warn"
    assert "trendcast run" in found["warehouse"]["remedy"]
    assert not (tmp_path / "shop.duckdb").exists()


def test_a_profile_that_cannot_be_read(
    small_run: Shop, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRENDCAST_TARGET", "oracle")
    found = examine(small_run)
    assert found["profile"]["status"] == "fail"
    assert "'oracle'" in found["profile"]["found"]


def test_a_locked_warehouse_names_the_process(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with held(shop.path) as holder:
        done = shop.run("doctor")
    assert done.returncode == 1
    assert "fail warehouse: " in done.stdout
    assert f"process {holder.pid} " in done.stdout


def test_orders_that_cannot_be_read(small_run: Shop, examine: Examine) -> None:
    columns = {"product_id": "product_id", "ordered_at": "ordered_at", "quantity": "units"}
    found = examine(small_run, order_columns=columns)
    assert found["orders"]["status"] == "fail"
    assert "'units'" in found["orders"]["found"]
    assert found["runs"]["status"] == "ok"  # the rest is examined all the same


def test_a_warehouse_without_a_ledger(make_shop: Callable[..., Shop]) -> None:
    days = [dt.datetime(2026, 1, 1) + dt.timedelta(days=i) for i in range(40)]
    shop = make_shop([{"product_id": "a", "ordered_at": day, "quantity": 1} for day in days])
    found = {finding["check"]: finding for finding in shop.json("doctor")}
    assert found["orders"]["status"] == "ok"
    assert found["ledger"]["status"] == "warn"
    assert "dbt build" in found["ledger"]["found"]


@pytest.fixture
def shop(small_run: Shop, copied: Callable[[Shop], Shop]) -> Shop:
    """A copy of the small shop, to be damaged."""
    return copied(small_run)


def test_no_run_yet(shop: Shop, examine: Examine) -> None:
    change(shop, "delete from analytics_trendcast.runs")
    found = examine(shop)
    assert found["runs"]["status"] == "warn"
    assert "SQL baseline" in found["runs"]["found"]


def test_age_of_the_forecast(shop: Shop, examine: Examine) -> None:
    assert examine(shop)["runs"]["status"] == "ok"
    change(shop, "update analytics_trendcast.runs set finished_at = finished_at - interval 9 days")
    found = examine(shop)["runs"]
    assert found["status"] == "warn"
    assert "9 days ago" in found["found"]
    assert "Schedule" in found["remedy"]


def test_a_failed_last_run(shop: Shop, examine: Examine) -> None:
    change(
        shop,
        "insert into analytics_trendcast.runs by name select * replace ('later' as run_id, 'failed' as status, "
        "finished_at + interval 1 second as finished_at, 'DataError: too short' as error) "
        "from analytics_trendcast.runs",
    )
    found = examine(shop)
    assert found["last run"]["status"] == "warn"
    assert "DataError: too short" in found["last run"]["found"]
    assert found["runs"]["status"] == "ok"


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damaged_model_files(shop: Shop, examine: Examine, damage: str) -> None:
    assert examine(shop)["model files"]["status"] == "ok"
    (file,) = [p for p in shop.artifacts_dir.glob("*/ridge/*") if p.is_file()]
    if damage == "altered":
        file.write_bytes(file.read_bytes() + b" ")
    else:
        file.unlink()
    found = examine(shop)["model files"]
    assert found["status"] == "fail"
    assert damage in found["found"]
    assert "trendcast train" in found["remedy"]


def test_orders_that_are_gone(shop: Shop, examine: Examine) -> None:
    change(shop, "delete from raw.order_lines")
    found = examine(shop)["orders"]
    assert found["status"] == "fail"
    assert "is empty" in found["found"]
