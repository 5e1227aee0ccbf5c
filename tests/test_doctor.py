"""The doctor: finds what would stop a run, names the remedy, and changes nothing."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import REPO, Shop, held
from trendcast import doctor, features, ledger
from trendcast.dbt import Dbt
from trendcast.features import Features
from trendcast.pipeline import Workspace
from trendcast.project import Project, read_output
from trendcast.warehouse import connect

Findings = dict[str, dict[str, str]]
Examine = Callable[..., Findings]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Return an examination of a shop by check; with ``settings`` of the project changed, and dbt not asked again."""

    def run(shop: Shop, vars: dict[str, Any] | None = None, **settings: Any) -> Findings:
        monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(shop.path))
        project_changes = {
            k: settings.pop(k) for k in ("sources", "stages_orders_itself") if k in settings
        }

        def opened(**given: Any) -> Workspace:
            manifest = json.loads((shop.folder / "target" / "manifest.json").read_text())
            project = Project.from_manifest(manifest)
            return Workspace(
                Dbt(given["project_dir"], given["profiles_dir"]),
                read_output(given["project_dir"], given["profiles_dir"], given["target"]),
                replace(project, **project_changes, settings=replace(project.settings, **settings)),
                given["artifacts_dir"],
            )

        monkeypatch.setattr(Workspace, "open", opened)
        found = doctor.examine(
            project_dir=REPO / "dbt_project",
            profiles_dir=REPO / "profiles",
            target=None,
            vars=shop.vars | (vars or {}),
            artifacts_dir=None,
        )
        for finding in found:
            assert (finding["status"] == "ok") == (finding["remedy"] == ""), finding
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
        "storage version",
        "orders",
        "freshness",
        "grain",
        "series",
        "products",
        "promotions",
        "runs",
        "model files",
    ]
    assert "tensorflow" in found["versions"]["found"]
    assert "horizon 28" in found["dbt project"]["found"]
    assert "410,466 lines" in found["orders"]["found"]
    assert "365 days from 2017-01-01 to 2017-12-31, 1 of them without" in found["grain"]["found"]
    assert found["series"]["found"].startswith("295 series and 104,003 rows")
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


# --- What a run would not stop at ---


def test_a_library_that_does_not_fit(
    shop: Shop, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requires = ["numpy>=99", "duckdb>=2.0,<3", "altair>=6; extra == 'plot'"]
    monkeypatch.setattr(metadata, "requires", lambda _: requires)
    found = examine(shop)["versions"]
    assert found["status"] == "warn"
    assert "numpy is " in found["found"] and "duckdb" not in found["found"]
    assert "pip install 'numpy>=99'" in found["remedy"]
    requires.append("no-such-library>=1")
    found = examine(shop)
    assert list(found) == ["versions"] and found["versions"]["status"] == "fail"
    assert "no-such-library is not installed" in found["versions"]["found"]


def test_a_file_that_is_no_warehouse(examine: Examine, tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.path.write_bytes(b"no database" * 1000)
    found = examine(shop)
    assert list(found)[-1] == "warehouse" and found["warehouse"]["status"] == "fail"
    assert "not a valid DuckDB database" in found["warehouse"]["found"]


def test_a_file_that_older_clients_cannot_open(shop: Shop, examine: Examine) -> None:
    assert examine(shop)["storage version"]["found"].startswith("v1.0.0: ")
    newer = shop.path.with_name("newer.duckdb")
    with duckdb.connect() as connection:
        connection.execute(f"attach '{newer}' as newer (storage_version 'latest')")
        connection.execute(f"attach '{shop.path}' as shop; copy from database shop to newer")
    newer.replace(shop.path)
    found = examine(shop)["storage version"]
    assert found["status"] == "warn"
    assert "storage_version 'v1.0.0'" in found["remedy"]


def test_old_orders(shop: Shop, examine: Examine) -> None:
    found = examine(shop)["freshness"]
    assert found["status"] == "ok" and "of 2026-03-21" in found["found"]
    found = examine(shop, {"freshness_days": 3})["freshness"]
    assert found["status"] == "fail" and "freshness_days allows 3" in found["found"]
    assert "freshness_days" in found["remedy"]
    assert (
        examine(shop, {"freshness_days": 3, "cutoff": "2026-03-01"})["freshness"]["status"] == "ok"
    )


def test_lines_of_the_last_day_loaded_twice(shop: Shop, examine: Examine) -> None:
    change(
        shop,
        "insert into raw.order_lines select l.* from raw.order_lines l, range(40) where ordered_at::date = '2026-03-21'",
    )
    found = examine(shop, {"volume_lines": 1})["freshness"]
    assert found["status"] == "fail" and "2026-03-21" in found["found"]


def test_a_column_of_which_some_is_unreadable(shop: Shop, examine: Examine) -> None:
    change(shop, "alter table raw.order_lines alter quantity type varchar using quantity || ',5'")
    assert examine(shop)["orders"]["status"] == "fail"  # nothing reads
    change(
        shop,
        "update raw.order_lines set quantity = replace(quantity, ',', '.') where order_id < '7'",
    )
    found = examine(shop)["orders"]
    assert found["status"] == "warn"
    assert "order_columns.quantity cannot be read" in found["found"]
    assert "replace(" in found["remedy"]


def test_days_without_a_line(shop: Shop, examine: Examine) -> None:
    assert "80 days from 2026-01-01 to 2026-03-21, 0 of them" in examine(shop)["grain"]["found"]
    change(
        shop,
        "delete from raw.order_lines where ordered_at::date between '2026-02-03' and '2026-02-08'",
    )
    found = examine(shop)["grain"]
    assert found["status"] == "ok" and "80 days" in found["found"] and "6 of them" in found["found"]
    change(shop, "delete from raw.order_lines where ordered_at::date = '2026-02-09'")
    found = examine(shop)["grain"]
    assert found["status"] == "warn"
    assert "the longest gap is of 7 days after 2026-02-02" in found["found"]
    assert "--full-refresh" in found["remedy"]


def test_a_grain_that_is_too_fine(shop: Shop, examine: Examine) -> None:
    change(shop, "delete from raw.order_lines where dayofweek(ordered_at) <> 1")
    found = examine(shop)["grain"]
    assert found["status"] == "warn"
    assert "7 days apart" in found["found"] and "grain to week" in found["remedy"]
    assert examine(shop, grain="week", horizon=2)["grain"]["status"] == "ok"


def test_lines_dated_ahead(shop: Shop, examine: Examine) -> None:
    change(
        shop,
        "insert into raw.order_lines by name select * replace (timestamp '2999-01-01' as ordered_at) "
        "from raw.order_lines limit 3",
    )
    found = examine(shop)["grain"]
    assert found["status"] == "warn" and "3 lines are dated after" in found["found"]
    assert "80 days" in found["found"]
    found = examine(shop, {"min_order_date": "2026-07-01"})["grain"]
    assert found["status"] == "fail" and "no line is dated from 2026-07-01" in found["found"]


def test_more_memory_than_there_is(
    shop: Shop, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "1 series and 80 rows" in examine(shop)["series"]["found"]
    monkeypatch.setattr(doctor, "machine_memory", lambda: 1.0)
    found = examine(shop)["series"]
    assert found["status"] == "warn"
    assert "of this machine's 1.0" in found["found"]
    assert "TRENDCAST_MEMORY_LIMIT" in found["remedy"]


def test_the_panel_takes_what_is_said(small_run: Shop) -> None:
    manifest = json.loads((small_run.folder / "target" / "manifest.json").read_text())
    project = Project.from_manifest(manifest)
    with connect({"type": "duckdb", "path": str(small_run.path)}, read_only=True) as warehouse:
        panel = Features(warehouse, project).panel
    arrays = (panel.y, panel.history, panel.season, panel.known)
    assert doctor.panel_bytes(project, 1, 80) == sum(array.nbytes for array in arrays)
    more = doctor.memory_needed(project, 30_000, 50_000_000, 4.0)
    assert more["DuckDB"] == 4.0 and set(more) == {
        "libraries",
        "DuckDB",
    }  # the shop's model is a regression
    every = replace(project, settings=replace(project.settings, models=("lightgbm", "lstm")))
    whole, large = (doctor.memory_needed(every, n, 400 * n, 4.0) for n in (30_000, 300_000))
    assert whole["panel"] > 2
    # Of more than is held at once the rest is not: neither what is learnt from nor what is forecast.
    assert large["panel"] == pytest.approx(whole["panel"] * features.PART_ROWS / (400 * 30_000))


def test_the_series_before_anything_is_built(shop: Shop, examine: Examine) -> None:
    """By order columns and attributes of the catalogue; a line of a product that it does not list is a series too."""
    change(
        shop,
        """
        drop table analytics_trendcast.ftr_history;
        create or replace table raw.order_lines as
        select product_id, location_id, timestamp '2026-01-01' + interval (i) day as ordered_at, 1 as quantity
        from (values ('a'), ('b'), ('new')) as products(product_id), (values ('x'), ('y')) as stores(location_id), range(40) as days(i)
        where product_id <> 'new' or i >= 30;
        create table raw.products as
        select * from (values ('a', 'tea'), ('b', 'tea')) as products(product_id, category)
        """,
    )
    shared = {
        "series_key": ("category", "location_id"),
        "order_columns": {
            name: name for name in ("product_id", "location_id", "ordered_at", "quantity")
        },
        "sources": {"order_lines": "raw.order_lines", "products": "raw.products"},
    }
    vars = {"product_columns": {"product_id": "product_id", "category": "category"}}
    found = examine(shop, vars, **shared)
    assert found["series"]["found"].startswith("about 4 series and 100 rows")
    assert found["products"]["status"] == "ok"
    change(shop, "drop table raw.products")
    found = examine(shop, vars, **shared)
    assert found["products"]["status"] == "fail"
    assert "products_table" in found["products"]["remedy"]
    assert found["series"]["found"].startswith("about 3 series")


INVENTORY = {
    "inventory_table": "stock",
    "inventory_columns": {"product_id": "sku", "date": "day", "on_hand": "pieces"},
}


TABLES = {
    "select 'tea' as sku, date '2026-03-20' as day, 4 as pieces": (
        "ok",
        "1 rows, the last of 2026-03-20",
    ),
    "select 'tea' as sku, date '2026-03-01' as day, 4 as pieces": (
        "warn",
        "20 days before the last order",
    ),
    "select 'tea' as sku, 'someday' as day, 4 as pieces": (
        "warn",
        "no inventory_columns.date reads",
    ),
    "select 'tea' as sku, date '2026-03-20' as day, null as pieces": (
        "warn",
        "no value of inventory_columns.on_hand",
    ),
    "select 'tea' as sku, date '2026-03-20' as day, 4 as pieces limit 0": ("warn", "is empty"),
    "select 'tea' as sku, date '2026-03-20' as day": ("fail", "pieces"),
}


def test_other_tables(shop: Shop, examine: Examine) -> None:
    sources = {"order_lines": "raw.order_lines", "inventory": "raw.stock"}
    found = examine(shop, INVENTORY, sources=sources)["inventory"]
    assert found["status"] == "fail" and "does not exist" in found["found"]
    for sql, (status, said) in TABLES.items():
        change(shop, f"create or replace table raw.stock as {sql}")
        found = examine(shop, INVENTORY, sources=sources)["inventory"]
        assert found["status"] == status
        assert said in found["found"]


def test_a_project_that_stages_its_orders_itself(shop: Shop, examine: Examine) -> None:
    change(shop, "drop table raw.order_lines")
    found = examine(shop, stages_orders_itself=True)
    assert "80 days from 2026-01-01 to 2026-03-21" in found["grain"]["found"]
    assert "orders" not in found and "freshness" not in found
    change(shop, "drop view analytics_trendcast.int_order_lines")
    found = examine(shop, stages_orders_itself=True)["orders"]
    assert found["status"] == "warn" and "not built yet" in found["found"]


def test_a_run_under_way_and_one_that_can_be_resumed(shop: Shop, examine: Examine) -> None:
    with ledger.run_lock(shop.artifacts_dir):
        found = examine(shop)["run under way"]
    assert found["status"] == "warn" and f"process {os.getpid()}" in found["found"]
    left = shop.artifacts_dir / "20260101T000000-abcdef"
    left.mkdir()
    (left / ledger.UNCOMMITTED).touch()
    assert "left over" not in examine(shop)
    (left / ledger.JOURNAL).write_text(f'{{"format": {ledger.JOURNAL_FORMAT}}}')
    found = examine(shop)["left over"]
    assert found["status"] == "warn" and left.name in found["found"]
    assert "--resume" in found["remedy"]
