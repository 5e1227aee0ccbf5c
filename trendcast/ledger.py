"""Atomic writes to the ledger: a run's rows appear all at once, its row in ``runs`` last.

While a run is under way its rows lie as Parquet files in its own folder beside its model files. One
transaction then appends them all. A process that dies at any moment leaves either nothing in the warehouse or
a whole run. The folder it leaves behind has a journal of what was finished, hashes included: `trendcast run --resume`
goes on from it, and any other run sweeps it away.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trendcast import __version__
from trendcast.errors import (
    ArtifactError,
    TrendcastError,
    WarehouseError,
    WarehouseLockedError,
    one_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

ROW_TABLES = (
    *("forecasts", "backtests", "coefficients", "explanations", "weights", "next_purchases"),
    *("scenarios", "tuning_trials"),
)
# Shape of the ledger. 2 added ledger_version and inputs to runs, 3 series_filter, 4 the table scenarios and its count, 5 the same of
# tuning_trials, 6 the measure to coefficients and weights; dbt adds tables and columns to a ledger that lacks them.
LEDGER_VERSION = 6
# Tables whose rows are of no series, and so say themselves what measure they are of.
MEASURED = ("coefficients", "weights")
_OLDER = (
    "The ledger was made by an older trendcast: {relation} has no {missing}. "
    "Run `dbt build --select tag:trendcast_ledger` or `trendcast run`, which add them and keep every row."
)
# Marks the folder of a run under way. Only folders with it are ever swept away: the folder of model files
# may hold other things, another warehouse's runs among them.
UNCOMMITTED = "uncommitted"
JOURNAL = "journal.json"
JOURNAL_FORMAT = 2
# Models a backtest trains once for all folds, kept until the commit.
CHECKPOINTS = "checkpoints"
COMMIT_ROWS = 1 << 18  # read at once


@dataclass(frozen=True)
class Staged:
    """Rows that wait for the commit: of which table, in which file, what is the same in all of them, how many.

    Parameters
    ----------
    part
        Rows of one kind may come in parts, from 0.
    digest
        Hash of their content, of forecasts alone.
    """

    table: str
    path: Path
    constants: dict[str, str | int]
    part: int
    rows: int
    digest: str | None


@dataclass
class Run:
    """A run under way: where its files are and what its row in ``runs`` will say.

    Parameters
    ----------
    command
        ``run``, ``train``, ``forecast``, ``backtest``, ``tune``, ``customers`` or ``whatif``.
    artifacts_dir
        Parent of the runs' folders.
    """

    command: str
    artifacts_dir: Path
    run_id: str = ""
    started_at: dt.datetime = field(default_factory=lambda: _now())
    header: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    _staged: list[Staged] = field(default_factory=list)
    _trained: list[str] = field(default_factory=list)
    _checkpoints: list[str] = field(default_factory=list)
    _hashes: dict[str, str] = field(default_factory=dict)
    _identity: dict[str, Any] | None = None
    _is_committed: bool = False

    def __post_init__(self) -> None:
        """Name the run by its start, so that ids sort in time."""
        if not self.run_id:
            self.run_id = f"{self.started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"

    @property
    def directory(self) -> Path:
        """The run's own folder."""
        return self.artifacts_dir / self.run_id

    def stage(self, table: str, rows: pa.Table, part: int = 0, **constants: str | int) -> None:
        """Keep rows for the commit, with constant columns (model, fold) added in front; parts of them one after the other."""
        for name, value in constants.items():
            kind = pa.int32() if isinstance(value, int) else pa.string()
            rows = rows.add_column(0, name, pa.repeat(pa.scalar(value, kind), len(rows)))
        folder = self.directory / "rows"
        path = folder / f"{len(self._staged):04d}-{table}.parquet"
        with _disk(path):
            self._make(folder)
            pq.write_table(rows, path, compression="zstd")
        digest = _digest(rows) if table == "forecasts" else None
        self._staged.append(Staged(table, path, constants, part, len(rows), digest))
        self._hashes.pop(path.relative_to(self.directory).as_posix(), None)
        self._note()

    def has(self, table: str, part: int = 0, **constants: str | int) -> bool:
        """Whether rows with these constants are staged, by this process or the one it goes on from."""
        return self._find(table, part, constants) is not None

    def _find(self, table: str, part: int, constants: dict[str, str | int]) -> Path | None:
        key = (table, part, constants)
        found = [s.path for s in self._staged if (s.table, s.part, s.constants) == key]
        return found[0] if found else None

    def drop_from(self, model: str) -> None:
        """Forget the rows staged from the first of a model on; for one whose rows only make sense together."""
        first = [staged.constants.get("model") for staged in self._staged].index(model)
        for staged in self._staged[first:]:
            self._hashes.pop(staged.path.relative_to(self.directory).as_posix(), None)
        del self._staged[first:]
        self._note()

    def has_trained(self, model: str) -> bool:
        """Whether the model's files are in the run's folder."""
        return model in self._trained

    def staged(self, table: str, part: int = 0, **constants: str | int) -> pa.Table:
        """Return the rows staged with these constants; a KeyError where there are none."""
        path = self._find(table, part, constants)
        if path is None:
            raise KeyError((table, part, constants))
        return pq.read_table(path)

    def every(self, table: str) -> list[pa.Table]:
        """Return all rows staged of a table, as they were staged."""
        return [pq.read_table(staged.path) for staged in self._staged if staged.table == table]

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
        self._trained.append(model)
        self._note()

    def checkpoint(self, name: str) -> Path | None:
        """Return the folder of a checkpoint that is whole, or None."""
        return self.directory / CHECKPOINTS / name if name in self._checkpoints else None

    def keep_checkpoint(self, name: str, save: Callable[[Path], object]) -> None:
        """Write what only a run that goes on from this one needs; it is removed at the commit."""
        if self._identity is None:
            return
        path = self.directory / CHECKPOINTS / name
        with _disk(path):
            self._make(path)
            save(path)
        self._checkpoints.append(name)
        self._note()

    def can_be_resumed_as(self, identity: dict[str, Any]) -> None:
        """From now on keep a journal, under what must be the same for another process to go on from here."""
        self._identity = identity

    @property
    def is_resumable(self) -> bool:
        """Whether something is finished that another process could go on from."""
        has_any = bool(self._staged or self._trained)
        return self._identity is not None and has_any and not self._is_committed

    def adopt(self, left: Leftover) -> list[str]:
        """Take over what another run finished, as far as its hashes hold, and return the names of its steps."""
        with _disk(self.directory):
            left.directory.rename(self.directory)
        journal = left.journal
        checked = {entry["path"]: entry["sha256"] for entry in journal["files"]}

        def is_whole(path: str) -> bool:
            file = self.directory / path
            return file.is_file() and sha256(file) == checked[path]

        for entry in journal["staged"]:
            if not is_whole(entry["path"]):
                break  # files are numbered, so that what comes later cannot be kept without it
            self._staged.append(Staged(**(entry | {"path": self.directory / entry["path"]})))
        for model in journal["trained"]:
            files = [path for path in checked if path.startswith(f"{model}/")]
            if all(map(is_whole, files)):
                self.add_artifacts(model, [self.directory / path for path in files])
        for name in journal["checkpoints"]:
            files = [path for path in checked if path.startswith(f"{CHECKPOINTS}/{name}/")]
            if files and all(map(is_whole, files)):
                self._checkpoints.append(name)
        self._note()
        staged = [" ".join([s.table, *map(str, s.constants.values())]) for s in self._staged]
        return [*dict.fromkeys(staged), *(f"trained {model}" for model in self._trained)]

    def commit(self, warehouse: Warehouse, project: Project) -> None:
        """Append all staged rows and the run's own row, in one transaction."""
        with warehouse.transaction():
            for staged in self._staged:
                with pq.ParquetFile(staged.path) as file:
                    warehouse.append(project.relation(staged.table), self._of_this_run(file))
            self._append_row(warehouse, project, "committed")
        self._is_committed = True
        _tidy(self.directory)

    def _of_this_run(self, staged: pq.ParquetFile) -> pa.RecordBatchReader:
        """Return the rows of a staged file with the run's id in front, read a batch at a time."""
        schema = staged.schema_arrow.insert(0, pa.field("run_id", pa.string()))

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in staged.iter_batches(COMMIT_ROWS):
                run_id = pa.repeat(pa.scalar(self.run_id), len(batch))
                yield pa.RecordBatch.from_arrays([run_id, *batch.columns], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def fail(self, warehouse: Warehouse, project: Project, error: BaseException) -> None:
        """Record that the run failed; none of its rows are kept. What is committed stays committed."""
        if self._is_committed:
            return
        self.header["error"] = f"{type(error).__name__}: {error}"[:4000]
        self._staged, self.artifacts = [], []
        self._append_row(warehouse, project, "failed")

    def discard(self) -> None:
        """Remove the folder of a run that did not commit."""
        if not self._is_committed:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _note(self) -> None:
        """Write the journal anew: aside, then in its place, so that it is never half-written."""
        if self._identity is None:
            return
        files = [staged.path for staged in self._staged]
        files += [self.artifacts_dir / artifact["path"] for artifact in self.artifacts]
        for name in self._checkpoints:
            files += (
                p for p in sorted((self.directory / CHECKPOINTS / name).rglob("*")) if p.is_file()
            )
        for path in files:
            name = path.relative_to(self.directory).as_posix()
            if name not in self._hashes:
                self._hashes[name] = sha256(path)
        journal = {
            "format": JOURNAL_FORMAT,
            "identity": self._identity,
            "staged": [
                asdict(staged) | {"path": staged.path.relative_to(self.directory).as_posix()}
                for staged in self._staged
            ],
            "trained": self._trained,
            "checkpoints": self._checkpoints,
            "files": [{"path": path, "sha256": hash} for path, hash in self._hashes.items()],
        }
        path = self.directory / JOURNAL
        with _disk(path):
            self._make(self.directory)
            path.with_suffix(".new").write_text(json.dumps(journal))
            path.with_suffix(".new").replace(path)

    def _make(self, folder: Path) -> None:
        """Make a folder inside the run's own, which is marked as uncommitted."""
        folder.mkdir(parents=True, exist_ok=True)
        (self.directory / UNCOMMITTED).touch()

    @property
    def row_counts(self) -> dict[str, int]:
        """Rows staged per ledger table."""
        counts: dict[str, int] = {}
        for staged in self._staged:
            counts[staged.table] = counts.get(staged.table, 0) + staged.rows
        return counts

    @property
    def forecasts_sha256(self) -> str | None:
        """Hash of the forecast rows staged, without the run's id."""
        digests: dict[str, str] = {}
        for staged in self._staged:
            if staged.digest is not None:
                model = str(staged.constants.get("model"))
                before = digests.get(model)
                digests[model] = digest_text(before + staged.digest) if before else staged.digest
        return digest_text(json.dumps(digests, sort_keys=True)) if digests else None

    def _append_row(self, warehouse: Warehouse, project: Project, status: str) -> None:
        row = {
            "run_id": self.run_id,
            "command": self.command,
            "status": status,
            "started_at": self.started_at,
            "finished_at": _now(),
            "artifacts": json.dumps(self.artifacts),
            "forecasts_sha256": self.forecasts_sha256,
            "ledger_version": LEDGER_VERSION,
            **{f"{table}_rows": self.row_counts.get(table, 0) for table in ROW_TABLES},
            **self.header,
        }
        present = {name: [value] for name, value in row.items() if value is not None}
        if (
            status == "failed"
        ):  # also where dbt failed before it could add columns to an older ledger
            has = warehouse.columns(project.relation("runs"))
            present = {name: value for name, value in present.items() if name in has}
        warehouse.append(project.relation("runs"), pa.table(present))


@dataclass(frozen=True)
class Leftover:
    """What a run that did not commit left behind."""

    directory: Path
    journal: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for another run to go on from it."""
        return dict(self.journal["identity"])


def leftovers(artifacts_dir: Path) -> list[Leftover]:
    """Return what runs that did not commit left behind, newest first; call it while holding the lock."""
    found = []
    for marker in sorted(artifacts_dir.glob(f"*/{UNCOMMITTED}"), reverse=True):
        path = marker.parent / JOURNAL
        try:
            journal = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # it died before anything was finished
        if journal.get("format") == JOURNAL_FORMAT:
            found.append(Leftover(marker.parent, journal))
    return found


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
    with ExitStack() as held:
        with _disk(artifacts_dir):
            held.enter_context(exclusive(artifacts_dir, "run"))
        yield


@contextmanager
def exclusive(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder's lock, for one process at a time to do what the command does there.

    Raises
    ------
    WarehouseLockedError
        Another process holds it; names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise WarehouseLockedError(
                f"Another trendcast {command} is under way (process {holder}). Wait for it or stop it, then {command} again."
            ) from error
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def sweep(
    artifacts_dir: Path, warehouse: Warehouse, project: Project, *, but: str | None = None
) -> list[str]:
    """Remove the folders of runs that never committed, but for one; call it while holding the lock."""
    if not artifacts_dir.is_dir():
        return []
    rows = warehouse.query(
        f"select run_id from {project.relation('runs')} where status = 'committed'"
    )
    committed = set(rows.column("run_id").to_pylist())
    orphans = []
    for marker in artifacts_dir.glob(f"*/{UNCOMMITTED}"):
        folder = marker.parent
        if folder.name == but:
            continue
        if folder.name in committed:
            _tidy(folder)  # it died between the commit and this
        else:
            shutil.rmtree(folder, ignore_errors=True)
            orphans.append(folder.name)
    return orphans


def _tidy(folder: Path) -> None:
    """Leave only the model files in a committed run's folder, and no folder where there are none."""
    for name in ("rows", CHECKPOINTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        (folder / JOURNAL).unlink(missing_ok=True)
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


def find_run(warehouse: Warehouse, project: Project, run_id: str) -> dict[str, Any]:
    """Return a run's row.

    Raises
    ------
    UsageError
        There is no such run; names the nearest and the newest.
    """
    relation = project.relation("runs")
    if warehouse.exists(relation):
        rows = warehouse.query(f"select * from {relation} where run_id = ?", [run_id]).to_pylist()
        if rows:
            return dict(rows[0])
    raise one_of("run", run_id, [row["run_id"] for row in runs(warehouse, project)])


def latest_run(warehouse: Warehouse, project: Project) -> dict[str, Any] | None:
    """Return the newest run that forecast, as the macro ``latest_run`` has it for the marts.

    Its forecasts are in force for all series it has; where it is one of a part of the portfolio, the other series keep theirs.
    """
    rows: list[dict[str, Any]] = warehouse.query(
        f"select * from {project.relation('runs')} where status = 'committed' and forecasts_rows > 0 "
        "and panel = ? order by finished_at desc, run_id desc limit 1",
        [project.settings.panel],
    ).to_pylist()
    return rows[0] if rows else None


def run_in_force(warehouse: Warehouse, project: Project) -> dict[str, Any]:
    """Return the latest run, or raise TrendcastError where there is none yet."""
    exists = warehouse.exists(project.relation("runs"))
    latest = latest_run(warehouse, project) if exists else None
    if latest is None:
        raise TrendcastError("There is no committed run yet. Run `trendcast run` first.")
    return latest


def trained_run(warehouse: Warehouse, project: Project, models: list[str]) -> dict[str, Any]:
    """Return the newest committed run of this panel that has artefacts of all these models.

    Raises
    ------
    ArtifactError
        There is none.
    """
    rows = warehouse.query(
        f"select run_id, artifacts, models, config_fingerprint from {project.relation('runs')} "
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
    """Raise where dbt has not built the ledger yet, or built it for another version of trendcast."""

    def require(name: str) -> None:
        if not warehouse.exists(project.relation(name)):
            raise WarehouseError(
                f"The ledger table {project.relation(name)} does not exist. Run `dbt build` or `trendcast run` first."
            )

    require("runs")
    require_known_version(warehouse, project)
    needed = {
        "ledger_version",
        "inputs",
        "series_filter",
        *(f"{table}_rows" for table in ROW_TABLES),
    }
    missing = needed - set(warehouse.columns(project.relation("runs")))
    if missing:
        raise WarehouseError(
            _OLDER.format(relation=project.relation("runs"), missing=", ".join(sorted(missing)))
        )
    for table in ROW_TABLES:
        require(table)
    for table in MEASURED:
        relation = project.relation(table)
        if "measure" not in warehouse.columns(relation):
            raise WarehouseError(_OLDER.format(relation=relation, missing="measure"))


def require_known_version(warehouse: Warehouse, project: Project) -> None:
    """Raise where a newer trendcast has written to the ledger: this one could misread it."""
    relation = project.relation("runs")
    if not warehouse.exists(relation) or "ledger_version" not in warehouse.columns(relation):
        return
    newest = warehouse.query(f"select max(ledger_version) as version from {relation}")
    version = newest.column("version")[0].as_py() or 1
    if version > LEDGER_VERSION:
        raise WarehouseError(
            f"The ledger {relation} was written by a newer trendcast (ledger version {version}; this one, trendcast "
            f"{__version__}, knows {LEDGER_VERSION}). Upgrade trendcast, or use the warehouse of this version."
        )
