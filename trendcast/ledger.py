"""Atomic writes to the ledger: a run's rows appear all at once, its row in ``runs`` last.

While a run is under way its rows lie as Parquet files in its own folder beside its model files. One
transaction then appends them all. A process that dies at any moment leaves either nothing in the warehouse or
a whole run; the folder it leaves behind is swept away by the next run.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trendcast.errors import ArtifactError, WarehouseError, WarehouseLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

ROW_TABLES = ("forecasts", "backtests", "coefficients", "explanations", "weights", "next_purchases")
# Marks the folder of a run under way. Only folders with it are ever swept away: the folder of model files
# may hold other things, another warehouse's runs among them.
UNCOMMITTED = "uncommitted"


@dataclass
class Run:
    """A run under way: where its files are and what its row in ``runs`` will say.

    Parameters
    ----------
    command
        ``run``, ``train``, ``forecast``, ``backtest`` or ``customers``.
    artifacts_dir
        Parent of the runs' folders.
    """

    command: str
    artifacts_dir: Path
    run_id: str = ""
    started_at: dt.datetime = field(default_factory=lambda: _now())
    header: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    _staged: list[tuple[str, Path, dict[str, str | int]]] = field(default_factory=list)
    _rows: dict[str, int] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)
    _is_committed: bool = False

    def __post_init__(self) -> None:
        """Name the run by its start, so that ids sort in time."""
        if not self.run_id:
            self.run_id = f"{self.started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"

    @property
    def directory(self) -> Path:
        """The run's own folder."""
        return self.artifacts_dir / self.run_id

    def stage(self, table: str, rows: pa.Table, **constants: str | int) -> None:
        """Keep rows for the commit, with constant columns (model, fold) added in front."""
        for name, value in constants.items():
            kind = pa.int32() if isinstance(value, int) else pa.string()
            rows = rows.add_column(0, name, pa.repeat(pa.scalar(value, kind), len(rows)))
        folder = self.directory / "rows"
        path = folder / f"{len(self._staged):04d}-{table}.parquet"
        with _disk(path):
            self._make(folder)
            pq.write_table(rows, path, compression="zstd")
        self._staged.append((table, path, constants))
        self._rows[table] = self._rows.get(table, 0) + len(rows)
        if table == "forecasts":
            self._digests[str(constants.get("model"))] = _digest(rows)

    def staged(self, table: str, **constants: str | int) -> pa.Table:
        """Return the rows staged with these constants."""
        (path,) = [path for name, path, c in self._staged if (name, c) == (table, constants)]
        return pq.read_table(path)

    @contextmanager
    def model_directory(self, model: str) -> Iterator[Path]:
        """Return a folder for a model's files; a full disk is an error that says so."""
        path = self.directory / model
        with _disk(path):
            self._make(path)
            yield path

    def add_artifacts(self, model: str, files: list[Path]) -> None:
        """Note a model's files with their hashes."""
        for path in files:
            self.artifacts.append(
                {
                    "model": model,
                    "path": path.relative_to(self.artifacts_dir).as_posix(),
                    "sha256": sha256(path),
                    "bytes": path.stat().st_size,
                }
            )

    def commit(self, warehouse: Warehouse, project: Project) -> None:
        """Append all staged rows and the run's own row, in one transaction."""
        with warehouse.transaction():
            for table, path, _ in self._staged:
                rows = pq.read_table(path)
                run_id = pa.repeat(pa.scalar(self.run_id), len(rows))
                warehouse.append(project.relation(table), rows.add_column(0, "run_id", run_id))
            self._append_row(warehouse, project, "committed")
        self._is_committed = True
        _tidy(self.directory)

    def fail(self, warehouse: Warehouse, project: Project, error: BaseException) -> None:
        """Record that the run failed; none of its rows are kept. What is committed stays committed."""
        if self._is_committed:
            return
        self.header["error"] = f"{type(error).__name__}: {error}"[:4000]
        self._rows, self._digests, self.artifacts = {}, {}, []
        self._append_row(warehouse, project, "failed")

    def discard(self) -> None:
        """Remove the folder of a run that did not commit."""
        if not self._is_committed:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _make(self, folder: Path) -> None:
        """Make a folder inside the run's own, which is marked as uncommitted."""
        folder.mkdir(parents=True, exist_ok=True)
        (self.directory / UNCOMMITTED).touch()

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows staged per ledger table."""
        return dict(self._rows)

    def _append_row(self, warehouse: Warehouse, project: Project, status: str) -> None:
        digests = json.dumps(self._digests, sort_keys=True)
        row = {
            "run_id": self.run_id,
            "command": self.command,
            "status": status,
            "started_at": self.started_at,
            "finished_at": _now(),
            "artifacts": json.dumps(self.artifacts),
            "forecasts_sha256": digest_text(digests) if self._digests else None,
            **{f"{table}_rows": self._rows.get(table, 0) for table in ROW_TABLES},
            **self.header,
        }
        present = {name: [value] for name, value in row.items() if value is not None}
        warehouse.append(project.relation("runs"), pa.table(present))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def _digest(rows: pa.Table) -> str:
    """Hash of a table's content, column by column."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def digest_text(text: str) -> str:
    """Return the hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be written: {error.strerror or error}. Nothing was committed; make room (or choose "
            "another folder with --artifacts-dir) and run again."
        ) from error


@contextmanager
def run_lock(artifacts_dir: Path) -> Iterator[None]:
    """Hold the lock that lets one run write at a time; the operating system frees it when a process dies.

    Raises
    ------
    WarehouseLockedError
        Another run is under way; names its process.
    """
    with _disk(artifacts_dir):
        artifacts_dir.mkdir(parents=True, exist_ok=True)
        file = (artifacts_dir / ".lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise WarehouseLockedError(
                f"Another trendcast run is under way (process {holder}). Wait for it or stop it, then run again."
            ) from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def sweep(artifacts_dir: Path, warehouse: Warehouse, project: Project) -> list[str]:
    """Remove the folders of runs that never committed; call it while holding the lock."""
    if not artifacts_dir.is_dir():
        return []
    rows = warehouse.query(
        f"select run_id from {project.relation('runs')} where status = 'committed'"
    )
    committed = set(rows.column("run_id").to_pylist())
    orphans = []
    for marker in artifacts_dir.glob(f"*/{UNCOMMITTED}"):
        folder = marker.parent
        if folder.name in committed:
            _tidy(folder)  # it died between the commit and this
        else:
            shutil.rmtree(folder, ignore_errors=True)
            orphans.append(folder.name)
    return orphans


def _tidy(folder: Path) -> None:
    """Leave only the model files in a committed run's folder, and no folder where there are none."""
    shutil.rmtree(folder / "rows", ignore_errors=True)
    with suppress(OSError):
        (folder / UNCOMMITTED).unlink(missing_ok=True)
        folder.rmdir()


def runs(warehouse: Warehouse, project: Project, limit: int = 20) -> list[dict[str, Any]]:
    """Return the newest rows of ``runs``, newest first."""
    relation = project.relation("runs")
    if not warehouse.exists(relation):
        return []
    rows: list[dict[str, Any]] = warehouse.query(
        f"select * from {relation} order by finished_at desc, run_id desc limit ?", [limit]
    ).to_pylist()
    return rows


def latest_run(warehouse: Warehouse, project: Project) -> dict[str, Any] | None:
    """Return the run whose forecasts are in force, as the macro ``latest_run`` has it for the marts."""
    rows: list[dict[str, Any]] = warehouse.query(
        f"select * from {project.relation('runs')} where status = 'committed' and forecasts_rows > 0 "
        "and panel = ? order by finished_at desc, run_id desc limit 1",
        [project.settings.panel],
    ).to_pylist()
    return rows[0] if rows else None


def trained_run(warehouse: Warehouse, project: Project, models: list[str]) -> dict[str, Any]:
    """Return the newest committed run of this panel that has artefacts of all these models.

    Raises
    ------
    ArtifactError
        There is none.
    """
    rows = warehouse.query(
        f"select run_id, artifacts, models from {project.relation('runs')} "
        "where status = 'committed' and command in ('run', 'train') and panel = ? "
        "order by finished_at desc, run_id desc",
        [project.settings.panel],
    ).to_pylist()
    for row in rows:
        if set(models) <= set(json.loads(row["models"])):
            return dict(row)
    raise ArtifactError(
        f"No committed run has trained {', '.join(models)} on {project.settings.panel}. Run `trendcast train` (or `trendcast run`) first."
    )


def verified_directory(artifacts_dir: Path, run: dict[str, Any], model: str) -> Path:
    """Return the folder of a model's files after checking every hash.

    Raises
    ------
    ArtifactError
        A file is missing or its content is not what was committed.
    """
    for artifact in json.loads(run["artifacts"]):
        if artifact["model"] != model:
            continue
        path = artifacts_dir / artifact["path"]
        if not path.is_file():
            raise ArtifactError(
                f"The model file {path} of run {run['run_id']} is missing. Train again."
            )
        came = sha256(path)
        if came != artifact["sha256"]:
            raise ArtifactError(
                f"The model file {path} was altered after run {run['run_id']}: its SHA-256 is {came[:12]}..., "
                f"committed was {artifact['sha256'][:12]}... It is not loaded. Train again."
            )
    return artifacts_dir / str(run["run_id"]) / model


def require_tables(warehouse: Warehouse, project: Project) -> None:
    """Raise where dbt has not built the ledger yet."""
    for name in ("runs", *ROW_TABLES):
        if not warehouse.exists(project.relation(name)):
            raise WarehouseError(
                f"The ledger table {project.relation(name)} does not exist. Run `dbt build` or `trendcast run` first."
            )
