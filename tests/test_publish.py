"""The copy for BI tools: it equals the marts, is swapped in whole under any reader, and survives a killed publisher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import REPO, Shop, held
from trendcast import ledger, publish
from trendcast.dbt import Dbt
from trendcast.doctor import _published
from trendcast.errors import TrendcastError, UsageError, WarehouseError, WarehouseLockedError
from trendcast.pipeline import Workspace, default_artifacts_dir
from trendcast.project import Project, read_output
from trendcast.warehouse.duckdb import DuckDBWarehouse

MARTS = "analytics_marts"
# Marts whose rows all say which publication they are of.
MARKED = ("dim_series", "fct_forecasts", "rpt_forecast_fan")


@pytest.fixture
def shop(small_run: Shop, copied: Callable[[Shop], Shop]) -> Shop:
    """A copy of the small shop after its run."""
    return copied(small_run)


@pytest.fixture
def workspace(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The shop's workspace, from the manifest its run left: dbt is not asked again."""
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(shop.path))
    profiles = REPO / "profiles"
    output = read_output(shop.project_dir, profiles, None)
    manifest = json.loads((shop.folder / "target" / "manifest.json").read_text())
    return Workspace(
        Dbt(shop.project_dir, profiles),
        output,
        Project.from_manifest(manifest),
        default_artifacts_dir(output),
    )


@pytest.fixture
def few(workspace: Workspace) -> Workspace:
    """The same with three marts, where many publications are wanted."""
    return replace(workspace, project=replace(workspace.project, marts=MARKED))


@pytest.fixture
def folder(shop: Shop) -> Path:
    """Where the shop's copies go by default."""
    return shop.folder / "trendcast_published"


def change(shop: Shop, *statements: str) -> None:
    with duckdb.connect(shop.path) as connection:
        for sql in statements:
            connection.execute(sql)


def entries(folder: Path) -> set[str]:
    """All there is in the folder but the lock and the link."""
    return {path.name for path in folder.iterdir()} - {".lock", publish.CURRENT}


# --- What is published ---


def test_the_command_publishes_every_mart(shop: Shop, folder: Path) -> None:
    told = shop.json("publish")
    assert set(told) == {
        *("version", "run_id", "published_at", "tables", "rows", "bytes", "where", "removed"),
    }
    (run,) = shop.query("select run_id from analytics_trendcast.runs")
    assert told["run_id"] == run["run_id"]
    assert told["version"].startswith(run["run_id"] + "_")
    marts = {
        row["name"]
        for row in shop.query(
            f"select table_name as name from information_schema.tables where table_schema = '{MARTS}'"
        )
    }
    assert set(told["tables"]) == marts
    assert told["rows"] == sum(told["tables"].values()) > 0
    current = (folder / "current").resolve()
    assert current == folder / told["version"]
    assert entries(folder) == {told["version"]}
    files = {path.name: path for path in current.iterdir()}
    assert set(files) == {"trendcast.duckdb", *(f"{name}.parquet" for name in marts)}
    assert told["bytes"] == sum(path.stat().st_size for path in files.values())
    assert not any(path.stat().st_mode & 0o222 for path in files.values())

    done = shop.run("publish", "--to", "elsewhere")
    assert done.returncode == 0, done.stderr
    assert f"{len(marts)} tables, {told['rows']:,} rows" in done.stdout
    assert "elsewhere/current/trendcast.duckdb" in done.stdout
    assert (shop.folder / "elsewhere" / "current" / "trendcast.duckdb").is_file()


def test_content_equals_the_marts_row_for_row(
    shop: Shop, workspace: Workspace, folder: Path
) -> None:
    before = shop.path.read_bytes()
    told = publish.publish(workspace)
    assert shop.path.read_bytes() == before
    with duckdb.connect(folder / "current" / "trendcast.duckdb", read_only=True) as connection:
        connection.execute(f"attach '{shop.path}' as shop (read_only)")
        for name, n in told["tables"].items():
            mart, copy = f"shop.{MARTS}.{name}", f"marts.{name}"
            parquet = f"'{folder / 'current' / name}.parquet'"
            described = [
                connection.execute(f"describe from {relation}").fetchall()
                for relation in (mart, copy, parquet)
            ]
            columns = [[(row[0], row[1]) for row in rows] for rows in described]
            assert columns[0] == columns[1] == columns[2], name
            for other in (copy, parquet):
                for one, two in ((mart, other), (other, mart)):
                    (differing,) = connection.execute(
                        f"select count(*) from (from {one} except all from {two})"
                    ).fetchone()
                    assert differing == 0, (name, one, two)
            assert connection.execute(f"select count(*) from {copy}").fetchone() == (n,)


def test_older_clients_can_open_it(workspace: Workspace, folder: Path) -> None:
    workspace.output["config_options"] = {"storage_compatibility_version": "latest"}
    publish.publish(workspace)
    file = folder / "current" / "trendcast.duckdb"
    with file.open("rb") as stream:
        header = stream.read(20)
    # The main header: a checksum, DUCK, and the version of the storage, which is 64 from 0.10 to 1.1.
    assert header[8:12] == b"DUCK"
    assert int.from_bytes(header[12:20], "little") == 64
    with duckdb.connect(file, read_only=True) as connection:
        (options,) = connection.execute(
            "select tags from duckdb_databases() where database_name = 'trendcast'"
        ).fetchone()
    assert options["storage_version"].startswith("v1.0.0")


# --- What is refused: before anything is made ---


def test_no_committed_run(shop: Shop, workspace: Workspace, folder: Path) -> None:
    change(shop, "update analytics_trendcast.runs set status = 'failed'")
    with pytest.raises(TrendcastError, match="no committed run yet. Run `trendcast run` first"):
        publish.publish(workspace)
    change(shop, "drop table analytics_trendcast.runs cascade")
    with pytest.raises(TrendcastError, match="no committed run yet. Run `trendcast run` first"):
        publish.publish(workspace)
    assert not folder.exists()


def test_marts_that_are_behind_the_ledger_or_not_built(
    shop: Shop, workspace: Workspace, folder: Path
) -> None:
    change(
        shop,
        "insert into analytics_trendcast.runs by name select * replace ('later' as run_id, "
        "finished_at + interval 1 second as finished_at) from analytics_trendcast.runs",
    )
    with pytest.raises(TrendcastError, match="do not show the run in force, later.*dbt build"):
        publish.publish(workspace)
    change(
        shop,
        "delete from analytics_trendcast.runs where run_id = 'later'",
        f"drop table {MARTS}.fct_alerts",
    )
    with pytest.raises(TrendcastError, match="The marts fct_alerts are not built.*dbt build"):
        publish.publish(workspace)
    assert not folder.exists()


def test_a_locked_warehouse_names_the_process(
    shop: Shop, workspace: Workspace, folder: Path
) -> None:
    with held(shop.path) as holder:
        with pytest.raises(WarehouseLockedError, match=f"in use by process {holder.pid} "):
            publish.publish(workspace)
        assert not folder.exists()
        # Locked in the moment between the first look and the copy.
        (folder / ".aside-1").mkdir(parents=True)
        with pytest.raises(WarehouseLockedError, match=f"in use by process {holder.pid} "):
            publish._copy(workspace, str(shop.path), folder / ".aside-1")


def test_one_publisher_at_a_time(workspace: Workspace, folder: Path) -> None:
    with (
        ledger.exclusive(folder, "publish"),
        pytest.raises(
            WarehouseLockedError, match=rf"trendcast publish is under way \(process {os.getpid()}\)"
        ),
    ):
        publish.publish(workspace)
    assert entries(folder) == set()
    publish.publish(workspace)


def test_a_folder_that_cannot_be_used(workspace: Workspace, folder: Path) -> None:
    (folder / "current").mkdir(parents=True)
    (folder / "current" / "mine").touch()
    with pytest.raises(UsageError, match="is no link.*--to"):
        publish.publish(workspace)
    assert (folder / "current" / "mine").exists()
    file = folder / "file"
    file.touch()
    with pytest.raises(WarehouseError, match="cannot be written.*--to"):
        publish.publish(workspace, file)
    workspace.output["type"] = "postgres"
    with pytest.raises(UsageError, match="runs on duckdb; the target is postgres.*point them at"):
        publish.publish(workspace)


# --- Old versions ---


def test_old_versions_are_kept_and_strangers_left_alone(few: Workspace, folder: Path) -> None:
    folder.mkdir()
    (folder / "notes").mkdir()
    made = [publish.publish(few, keep=2)["version"] for _ in range(4)]
    assert entries(folder) == {"notes", *made[1:]}
    told = publish.publish(few, keep=1)
    assert told["removed"] == [made[2], made[1]]
    assert entries(folder) == {"notes", made[3], told["version"]}
    # Gone back by hand: what `current` names now is a version like any other once it is replaced.
    (folder / "current").unlink()
    (folder / "current").symlink_to(made[3])
    after = publish.publish(few)
    assert os.readlink(folder / "current") == after["version"]
    assert entries(folder) == {"notes", made[3], told["version"], after["version"]}


def test_a_publish_that_fails_leaves_nothing(
    few: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish.publish(few)["version"]

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(publish, "_sync", full)
    with pytest.raises(WarehouseError, match="No space left on device.*still served"):
        publish.publish(few)
    assert entries(folder) == {first}
    assert os.readlink(folder / "current") == first


# --- Readers ---

READ = """
import os, sys, time, duckdb
folder, how, *MARTS = sys.argv[1:]
several = how == "several"
seen = []
while not os.path.exists(f"{folder}/stop_{how}") or len(seen) < 2:
    at = os.path.realpath(folder + "/current") if several else folder + "/current"
    with duckdb.connect(at + "/trendcast.duckdb", read_only=True) as connection:
        found = [connection.execute(f"select published, count(*) from marts.{m} group by all").fetchall() for m in MARTS]
    if several:
        found += [duckdb.sql(f"select published, count(*) from '{at}/{m}.parquet' group by all").fetchall() for m in MARTS]
    assert all(len(rows) == 1 and rows[0][1] > 0 for rows in found), found
    assert len({rows[0][0] for rows in found}) == 1, found
    seen.append(found[0][0][0])
    if len(seen) == 1:
        print("reading", flush=True)
    time.sleep(0.01)
assert seen == sorted(seen), seen
print(len(seen), seen[-1])
"""


def mark(shop: Shop, number: int) -> None:
    """Have every row of the marked marts say which publication it is of."""
    change(
        shop,
        *(
            f"alter table {MARTS}.{mart} add column if not exists published integer"
            for mart in MARKED
        ),
        *(f"update {MARTS}.{mart} set published = {number}" for mart in MARKED),
    )


def test_readers_see_the_old_or_the_new_while_it_is_swapped(
    shop: Shop, few: Workspace, folder: Path
) -> None:
    """Readers of one file go through the link; one of several resolves it once, to a version that is kept."""
    mark(shop, 0)
    publish.publish(few)
    readers = {
        name: subprocess.Popen(
            [sys.executable, "-c", READ, str(folder), how, *MARKED],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, how in (("first", "one"), ("second", "one"), ("third", "several"))
    }
    told = {}
    try:
        for reader in readers.values():
            assert reader.stdout is not None
            assert reader.stdout.readline() == "reading\n"
        for number in range(1, 11):
            mark(shop, number)
            publish.publish(few, keep=15)
        assert len(entries(folder)) == 11
        (folder / "stop_several").touch()
        told["third"] = readers["third"].communicate(timeout=60)
        # A reader of one file needs no version but the one `current` names.
        for number in range(11, 16):
            mark(shop, number)
            publish.publish(few, keep=1)
        assert len(entries(folder) - {"stop_several"}) == 2
    finally:
        (folder / "stop_several").touch()
        (folder / "stop_one").touch()
        for name in readers.keys() - told.keys():
            told[name] = readers[name].communicate(timeout=60)
    for name, reader in readers.items():
        out, err = told[name]
        assert reader.returncode == 0, err
        assert int(out.split()[0]) >= 2


# --- Killed ---


def _events(workspace: Workspace, kill_at: int = 0) -> tuple[int, int]:
    """Publish in a fork, killed before the n-th thing it does to the disk; return its exit code and their number."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def killing(done: Callable[..., Any]) -> Callable[..., Any]:
            def tick(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done(*args, **kwargs)

            return tick

        code = 1
        try:
            for name in ("mkdir", "rename", "replace", "symlink_to", "unlink", "chmod"):
                setattr(Path, name, killing(getattr(Path, name)))
            for name in ("_sync", "_sweep"):
                setattr(publish, name, killing(getattr(publish, name)))
            DuckDBWarehouse.execute = killing(DuckDBWarehouse.execute)  # type: ignore[method-assign]
            publish.publish(workspace, keep=1)
            os.write(write, str(count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    _, status = os.waitpid(child, 0)
    with os.fdopen(read) as told:
        return os.waitstatus_to_exitcode(status), int(told.read() or 0)


def test_killed_at_any_moment_it_serves_what_was_there_and_the_next_sweeps(
    shop: Shop, few: Workspace, folder: Path
) -> None:
    mark(shop, 0)
    publish.publish(few)
    code, total = _events(few)
    assert code == 0
    served = os.readlink(folder / "current")
    swaps = 0
    # Some inside the copy and the flush, and each of the last ones, the swap and the tidying among them.
    moments = {1, 4, total // 4, total // 2, *range(total - 12, total + 1)}
    for number, moment in enumerate(sorted(moments), 1):
        mark(shop, number)
        code, _ = _events(few, moment)
        assert code == -signal.SIGKILL
        now = os.readlink(folder / "current")
        swaps += now != served
        with duckdb.connect(folder / "current" / "trendcast.duckdb", read_only=True) as connection:
            rows = connection.execute(
                "select distinct published from marts.fct_forecasts"
            ).fetchall()
        if now == served:
            assert rows != [(number,)]
        else:
            assert rows == [(number,)]
        if number % 4 == 0 or now != served:
            now = publish.publish(few, keep=1)["version"]
            # The version before is kept, and there is no other: what was never served is gone.
            assert len(entries(folder)) == 2
            assert all(publish.Version.from_name(name) for name in entries(folder))
        served = now
    assert swaps >= 1  # some of these moments come after the swap
    assert publish.publish(few, keep=1)["version"] == os.readlink(folder / "current")
    assert len(entries(folder)) == 2


# --- Doctor ---


def test_the_doctor_compares_the_copy_with_the_run_in_force(
    shop: Shop, workspace: Workspace, folder: Path
) -> None:
    def examined() -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        with workspace.connect() as warehouse:
            _published(workspace, warehouse, lambda *told: found.append(told))
        return found

    assert examined() == []
    version = publish.publish(workspace)
    ((check, status, text),) = examined()
    assert (check, status) == ("published copy", "ok")
    assert f"forecasts of {version['run_id']}, published 0 days ago" in text

    old = publish.Version(version["run_id"], version["published_at"].replace(year=2020))
    (folder / version["version"]).rename(folder / old.name)
    (folder / "current").unlink()
    (folder / "current").symlink_to(old.name)
    ((_, status, text, remedy),) = examined()
    assert status == "warn" and "days ago" in text and "trendcast publish" in remedy

    publish.publish(workspace)
    change(
        shop,
        "insert into analytics_trendcast.runs by name select * replace ('later' as run_id, "
        "finished_at + interval 1 second as finished_at) from analytics_trendcast.runs",
    )
    ((_, status, text, remedy),) = examined()
    assert status == "warn" and "the run in force is later" in text

    (folder / "current").unlink()
    (folder / "current").symlink_to("gone")
    ((_, status, text, remedy),) = examined()
    assert status == "fail" and "names no whole copy" in text
