"""Publishes the marts for BI tools: a copy in a folder of its own, swapped in whole.

DuckDB takes one writer and lets no reader in beside it, so a BI tool that reads the warehouse fails while a run commits, and
stops the run while it reads. It reads the copy instead. The copy of one moment is a version: a folder with one DuckDB file
and one Parquet file per mart. It is written aside and flushed to disk; then the link ``current`` is swapped, which readers see
happen at once. Whatever ends the publisher, ``current`` names a whole version.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trendcast import ledger
from trendcast.errors import TrendcastError, UsageError, WarehouseError
from trendcast.warehouse import connect, literal, quote, require_duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trendcast.pipeline import Workspace
    from trendcast.warehouse import Warehouse

CURRENT = "current"
DATABASE = "trendcast.duckdb"
SCHEMA = "marts"
# Every DuckDB from 1.0 on opens it.
STORAGE_VERSION = "v1.0.0"
# What is being written or removed. Nothing reads it, so whoever holds the lock may sweep it away.
ASIDE = ".aside-"
# The link that becomes `current`; where it is left over, the version it names was never served.
NEXT = ".next"
_NAME = re.compile(r"(?P<run_id>.+)_(?P<time>\d{8}T\d{12})")
_TIME = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class Version:
    """A published copy: whose forecasts it has, and when it was made (UTC)."""

    run_id: str
    published_at: dt.datetime

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.run_id}_{self.published_at:{_TIME}}"

    @classmethod
    def from_name(cls, name: str) -> Version | None:
        """Read a folder's name; None where it is no version's."""
        match = _NAME.fullmatch(name)
        if not match:
            return None
        try:
            return cls(match["run_id"], dt.datetime.strptime(match["time"], _TIME))
        except ValueError:
            return None


def default_folder(output: dict[str, Any]) -> Path:
    """Return ``trendcast_published`` beside the warehouse file."""
    return Path(output["path"]).parent / "trendcast_published"


def served(folder: Path) -> Version | None:
    """Return the version that ``current`` names, or None where nothing was ever published."""
    link = folder / CURRENT
    return Version.from_name(os.readlink(link)) if link.is_symlink() else None


def publish(workspace: Workspace, to: Path | None = None, *, keep: int = 3) -> dict[str, Any]:
    """Copy the marts into a new version and swap it in; keep so many of the versions before it.

    Returns
    -------
    dict
        version, run_id, published_at, ``tables`` (name to rows), rows, bytes, where (the path of ``current``) and
        ``removed``: names of the old versions that went.

    Raises
    ------
    UsageError
        The warehouse is no DuckDB file, or the folder holds something else under the name ``current``.
    WarehouseLockedError
        Another process writes to the warehouse or publishes; the message names it.
    TrendcastError
        No run is committed yet, the marts are not built on the run in force, or the folder cannot be written.
    """
    require_duckdb(
        workspace.output,
        "publish",
        "BI tools can read it while a run is under way, so they need no copy: point them at the marts' schema.",
    )
    path = workspace.output.get("path", ":memory:")
    if path.startswith(":memory:"):
        raise UsageError(f"`trendcast publish` copies a DuckDB file; the target is {path}.")
    folder = to or default_folder(workspace.output)
    # Before anything is made; once more below, for by then the marts may be others.
    with workspace.connect() as warehouse:
        _run_shown(workspace, warehouse)
    with _written(folder), ledger.exclusive(folder, "publish"):
        link = folder / CURRENT
        if link.exists() and not link.is_symlink():
            raise UsageError(
                f"{link} is no link: something else keeps its files here. Choose another folder with --to."
            )
        _sweep(folder)
        aside = folder / f"{ASIDE}{secrets.token_hex(4)}"
        try:
            aside.mkdir()
            run_id, tables = _copy(workspace, path, aside)
            size = _flush(aside)
            version = Version(run_id, dt.datetime.now(dt.UTC).replace(tzinfo=None))
            (folder / NEXT).symlink_to(version.name)
            aside.rename(folder / version.name)
            _sync(folder)
            (folder / NEXT).replace(link)
            _sync(folder)
        finally:
            _sweep(folder)
        removed = _retire(folder, version, keep)
    return {
        "version": version.name,
        "run_id": run_id,
        "published_at": version.published_at,
        "tables": tables,
        "rows": sum(tables.values()),
        "bytes": size,
        "where": str(link),
        "removed": removed,
    }


def _run_shown(workspace: Workspace, warehouse: Warehouse) -> str:
    """Return the run in force, which the marts must be built on."""
    project = workspace.project
    build = "Run `trendcast run`, or `dbt build --select tag:trendcast_marts`, then publish."
    ledger.require_known_version(warehouse, project)
    latest = ledger.run_in_force(warehouse, project)
    missing = [name for name in project.marts if not warehouse.exists(project.relation(name))]
    if missing:
        raise TrendcastError(f"The marts {', '.join(missing)} are not built. {build}")
    shown = warehouse.query(
        f"select 1 from {project.relation('fct_forecasts')} where run_id = ? limit 1",
        [latest["run_id"]],
    )
    if not len(shown):
        raise TrendcastError(f"The marts do not show the run in force, {latest['run_id']}. {build}")
    return str(latest["run_id"])


def _copy(workspace: Workspace, path: str, aside: Path) -> tuple[str, dict[str, int]]:
    """Write the marts, all of one moment, and return whose forecasts they show and how many rows each has."""
    project = workspace.project
    # Views name the warehouse's catalog. It is the file's name, so the copy must not have the same while both are open.
    file = aside / f"copy_{secrets.token_hex(4)}.duckdb"
    config = {
        **(workspace.output.get("config_options") or {}),
        "storage_compatibility_version": STORAGE_VERSION,
    }
    with connect(
        {**workspace.output, "path": str(file), "config_options": config}, read_only=False
    ) as copy:
        copy.attach(path, project.database)
        run_id = _run_shown(workspace, copy)
        copy.execute(f"create schema {SCHEMA}")
        tables = {}
        for name in project.marts:
            table = f"{SCHEMA}.{quote(name)}"
            copy.execute(f"create table {table} as from {project.relation(name)}")
            parquet = literal(str(aside / f"{name}.parquet"))
            copy.execute(f"copy {table} to {parquet} (format parquet, compression zstd)")
            (row,) = copy.query(f"select count(*) as n from {table}").to_pylist()
            tables[name] = row["n"]
    file.rename(aside / DATABASE)
    return run_id, tables


def _flush(folder: Path) -> int:
    """Make a folder's files read-only, bring them to the disk, and return their bytes."""
    size = 0
    for path in sorted(folder.iterdir()):
        path.chmod(path.stat().st_mode & ~0o222)
        _sync(path)
        size += path.stat().st_size
    _sync(folder)
    return size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what a publisher that did not get to its end left; call it while holding the lock."""
    next_link = folder / NEXT
    if next_link.is_symlink():
        never_served = folder / os.readlink(next_link)
        if never_served.is_dir():
            never_served.rename(folder / f"{ASIDE}{secrets.token_hex(4)}")
        next_link.unlink()
    for left in folder.glob(f"{ASIDE}*"):
        shutil.rmtree(left)


def _retire(folder: Path, current: Version, keep: int) -> list[str]:
    """Remove all but the newest versions before the current one, each whole or not at all."""
    found = [Version.from_name(path.name) for path in folder.iterdir() if path.is_dir()]
    old = [version for version in found if version and version != current]
    old.sort(key=lambda version: version.published_at, reverse=True)
    for version in old[keep:]:
        (folder / version.name).rename(folder / f"{ASIDE}{secrets.token_hex(4)}")
    _sweep(folder)
    return [version.name for version in old[keep:]]


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WarehouseError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}. What was published before is still "
            "served; make room (or choose another folder with --to) and publish again."
        ) from error
