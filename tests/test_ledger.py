"""The ledger: all of a run or nothing of it, one run at a time, and model files that are what they were."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPO
from trendcast import ledger, pipeline
from trendcast.dbt import Dbt
from trendcast.errors import ArtifactError, UsageError, WarehouseError, WarehouseLockedError
from trendcast.pipeline import Workspace
from trendcast.project import Project
from trendcast.warehouse.duckdb import DuckDBWarehouse

TABLES = ("runs", *ledger.ROW_TABLES)


@pytest.fixture
def ledger_project(project: Project) -> Project:
    """The project with ledger tables of plain names."""
    return replace(project, relations=dict(project.relations) | {name: name for name in TABLES})


@pytest.fixture
def path(tmp_path: Path, manifest: dict[str, Any]) -> Path:
    """A warehouse with the ledger's tables, as their contracts declare them."""
    path = tmp_path / "shop.duckdb"
    with DuckDBWarehouse.open({"path": path}, read_only=False) as warehouse:
        for name in TABLES:
            columns = manifest["nodes"][f"model.trendcast.{name}"]["columns"].values()
            declared = ", ".join(
                f"{c['name']} {c['data_type']}"
                + (" not null" if any(k["type"] == "not_null" for k in c["constraints"]) else "")
                for c in columns
            )
            warehouse.execute(f"create table {name} ({declared})")
    return path


@pytest.fixture
def warehouse(path: Path) -> Iterator[DuckDBWarehouse]:
    with DuckDBWarehouse.open({"path": path}, read_only=False) as opened:
        yield opened


@pytest.fixture
def artifacts_dir(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


def forecasts(mean: float = 1.5) -> pa.Table:
    import datetime as dt

    return pa.table(
        {
            "series_id": ["a", "b"],
            "cutoff": [dt.date(2026, 1, 1)] * 2,
            "target_date": [dt.date(2026, 1, 2)] * 2,
            "lead": pa.array([1, 1], pa.int32()),
            "mean": [mean, 2.5],
        }
    )


def coefficients() -> pa.Table:
    return pa.table(
        {
            "lead_bucket": pa.array([1], pa.int32()),
            "feature": ["intercept"],
            "component": ["level"],
            "coefficient": [0.5],
        }
    )


def count(warehouse: DuckDBWarehouse, table: str) -> int:
    return int(warehouse.query(f"select count(*) as n from {table}").column("n")[0].as_py())


def new_run(artifacts_dir: Path, command: str = "train", **header: Any) -> ledger.Run:
    run = ledger.Run(command, artifacts_dir)
    ours = {"models": json.dumps(["seasonal_naive", "ridge"]), "panel": "day quantity category"}
    run.header |= ours | header
    return run


def with_files(run: ledger.Run, text: str = "weights") -> ledger.Run:
    with run.model_directory("ridge") as directory:
        (directory / "ridge.json").write_text(text)
        run.add_artifacts("ridge", [directory / "ridge.json"])
    return run


# --- Commit ---


def test_commit_writes_every_row_and_the_run(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    run = with_files(new_run(artifacts_dir, horizon=1, cutoff=None))
    run.stage("forecasts", forecasts(), model="ridge")
    run.stage("forecasts", forecasts(), model="seasonal_naive")
    run.stage("backtests", forecasts(), fold=2, model="ridge")
    run.stage("coefficients", coefficients(), model="ridge")
    assert count(warehouse, "forecasts") == 0
    run.commit(warehouse, ledger_project)

    for table, n in {
        "forecasts": 4,
        "backtests": 2,
        "coefficients": 1,
        "explanations": 0,
        "weights": 0,
        "next_purchases": 0,
        "scenarios": 0,
        "tuning_trials": 0,
    }.items():
        assert count(warehouse, table) == n
        keys = warehouse.query(f"select distinct run_id from {table}").to_pylist()
        assert keys == ([{"run_id": run.run_id}] if n else [])
    assert warehouse.query("select distinct model, fold from backtests").to_pylist() == [
        {"model": "ridge", "fold": 2}
    ]
    (row,) = ledger.runs(warehouse, ledger_project)
    assert (row["run_id"], row["command"], row["status"]) == (run.run_id, "train", "committed")
    told = [row[f"{table}_rows"] for table in ledger.ROW_TABLES]
    assert told == [4, 2, 1, 0, 0, 0, 0, 0]
    assert (row["horizon"], row["cutoff"], row["error"]) == (1, None, None)
    assert row["started_at"] <= row["finished_at"]
    (artifact,) = json.loads(row["artifacts"])
    assert artifact["sha256"] == ledger.sha256(artifacts_dir / artifact["path"])
    # Only the model's files stay.
    assert [p.name for p in run.directory.iterdir()] == ["ridge"]


def test_a_run_without_model_files_leaves_no_folder(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    run = new_run(artifacts_dir, "forecast")
    run.stage("forecasts", forecasts(), model="ridge")
    run.commit(warehouse, ledger_project)
    assert list(artifacts_dir.iterdir()) == []


def test_the_row_of_the_run_is_the_last(ledger_project: Project, artifacts_dir: Path) -> None:
    written: list[str] = []

    class Recorder:
        def transaction(self) -> Any:
            from contextlib import nullcontext

            return nullcontext()

        def append(self, relation: str, rows: pa.Table | pa.RecordBatchReader) -> int:
            written.append(relation)
            return 0

    run = new_run(artifacts_dir)
    run.stage("forecasts", forecasts(), model="ridge")
    run.stage("coefficients", coefficients(), model="ridge")
    run.commit(Recorder(), ledger_project)  # type: ignore[arg-type]
    assert written == ["forecasts", "coefficients", "runs"]


def test_a_commit_reads_a_batch_at_a_time(
    warehouse: DuckDBWarehouse,
    ledger_project: Project,
    artifacts_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The explanations of a large panel do not fit into memory beside the warehouse."""
    read: list[int] = []
    append = DuckDBWarehouse.append

    def watched(self: DuckDBWarehouse, relation: str, rows: Any) -> int:
        if isinstance(rows, pa.Table):  # the row of the run
            return append(self, relation, rows)

        def counted() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                read.append(len(batch))
                yield batch

        return append(self, relation, pa.RecordBatchReader.from_batches(rows.schema, counted()))

    monkeypatch.setattr(DuckDBWarehouse, "append", watched)
    monkeypatch.setattr(ledger, "COMMIT_ROWS", 1)
    run, rows = new_run(artifacts_dir), forecasts()
    run.stage("forecasts", rows, model="ridge")
    run.commit(warehouse, ledger_project)
    assert read == [1, 1]
    assert count(warehouse, "forecasts") == len(rows) == 2


@pytest.mark.parametrize("at", ["a row table", "the runs table"])
def test_a_commit_that_fails_leaves_nothing(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path, at: str
) -> None:
    run = new_run(artifacts_dir)
    run.stage("forecasts", forecasts(), model="ridge")
    if at == "a row table":
        run.stage("coefficients", pa.table({"no_such_column": [1]}), model="ridge")
    else:
        run.header["no_such_column"] = 1
    with pytest.raises(WarehouseError, match="no_such_column"):
        run.commit(warehouse, ledger_project)
    assert [count(warehouse, table) for table in TABLES] == [0] * len(TABLES)


def test_a_failed_run_says_why_and_keeps_no_rows(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    run = with_files(new_run(artifacts_dir))
    run.stage("forecasts", forecasts(), model="ridge")
    run.discard()
    run.fail(warehouse, ledger_project, ValueError("the dog ate it" + "!" * 9000))
    (row,) = ledger.runs(warehouse, ledger_project)
    assert row["status"] == "failed"
    assert row["error"].startswith("ValueError: the dog ate it!")
    assert len(row["error"]) == 4000
    assert (row["forecasts_rows"], row["forecasts_sha256"], row["artifacts"]) == (0, None, "[]")
    assert count(warehouse, "forecasts") == 0
    assert not run.directory.exists()


def test_runs_are_newest_first_and_limited(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    made = [new_run(artifacts_dir) for _ in range(3)]
    for run in made:
        run.commit(warehouse, ledger_project)
    listed = [row["run_id"] for row in ledger.runs(warehouse, ledger_project, 2)]
    assert listed == [made[2].run_id, made[1].run_id]
    warehouse.execute("drop table runs")
    assert ledger.runs(warehouse, ledger_project) == []


KILLED_INSIDE_COMMIT = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from trendcast.ledger import ROW_TABLES, Run
from trendcast.project import Project
from trendcast.warehouse.duckdb import DuckDBWarehouse

path, artifacts_dir = map(Path, sys.argv[1:])
project = Project({name: name for name in ("runs", *ROW_TABLES)}, None, (), "", "", "")
run = Run("run", artifacts_dir)
rows = pa.table({
    "series_id": ["a"] * 9999, "lead": [1] * 9999, "cutoff": ["2026-01-01"] * 9999, "target_date": ["2026-01-02"] * 9999
})
run.stage("forecasts", rows, model="ridge")
run._append_row = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
run.commit(DuckDBWarehouse.open({"path": path}, read_only=False), project)
"""


def test_a_process_killed_inside_a_commit_leaves_nothing(
    path: Path, ledger_project: Project, artifacts_dir: Path
) -> None:
    command = [sys.executable, "-c", KILLED_INSIDE_COMMIT, str(path), str(artifacts_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (orphan,) = artifacts_dir.iterdir()
    with DuckDBWarehouse.open({"path": path}, read_only=False) as warehouse:
        assert [count(warehouse, table) for table in TABLES] == [0] * len(TABLES)
        assert ledger.sweep(artifacts_dir, warehouse, ledger_project) == [orphan.name]
    assert not orphan.exists()


# --- Digest ---


def digest(artifacts_dir: Path, rows: pa.Table) -> str:
    run = new_run(artifacts_dir)
    run.stage("forecasts", rows, model="ridge")
    return str(run.forecasts_sha256)


def test_digest_is_of_the_content(artifacts_dir: Path) -> None:
    base = digest(artifacts_dir, forecasts())
    assert base == digest(artifacts_dir, forecasts())
    chunked = pa.concat_tables([forecasts().slice(0, 1), forecasts().slice(1)])
    assert base == digest(artifacts_dir, chunked)
    assert base != digest(artifacts_dir, forecasts(mean=1.5000000000000002))
    assert base != digest(artifacts_dir, forecasts().slice(0, 1))


# --- Sweep ---


def test_sweep_removes_orphans_and_nothing_else(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    kept = with_files(new_run(artifacts_dir))
    kept.commit(warehouse, ledger_project)
    elsewhere = with_files(new_run(artifacts_dir))  # committed to another warehouse's ledger
    ledger._tidy(elsewhere.directory)
    orphan = with_files(new_run(artifacts_dir))
    orphan.stage("forecasts", forecasts(), model="ridge")
    (artifacts_dir / "notes").mkdir()
    (artifacts_dir / "notes" / "mine.txt").write_text("a user's own file")
    (artifacts_dir / ".git").mkdir()

    assert ledger.sweep(artifacts_dir, warehouse, ledger_project) == [orphan.run_id]
    left = {p.name for p in artifacts_dir.iterdir()}
    assert left == {kept.run_id, elsewhere.run_id, "notes", ".git"}
    assert (kept.directory / "ridge" / "ridge.json").is_file()
    assert (artifacts_dir / "notes" / "mine.txt").is_file()


def test_sweep_finishes_what_a_commit_began(
    warehouse: DuckDBWarehouse,
    ledger_project: Project,
    artifacts_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = with_files(new_run(artifacts_dir))
    run.stage("forecasts", forecasts(), model="ridge")
    with monkeypatch.context() as died:
        died.setattr(ledger, "_tidy", lambda _: None)
        run.commit(warehouse, ledger_project)
    assert (run.directory / "rows").is_dir()
    assert ledger.sweep(artifacts_dir, warehouse, ledger_project) == []
    assert [p.name for p in run.directory.iterdir()] == ["ridge"]


def test_sweep_of_no_folder(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    assert ledger.sweep(artifacts_dir, warehouse, ledger_project) == []
    assert not artifacts_dir.exists()


# --- Lock ---

HOLD = """
import sys, time
from pathlib import Path
from trendcast.ledger import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_run_at_a_time_and_a_dead_one_does_not_count(artifacts_dir: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(artifacts_dir)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(WarehouseLockedError, match=f"process {holder.pid}\\)"),
                ledger.run_lock(artifacts_dir),
            ):
                pass
        finally:
            os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with ledger.run_lock(artifacts_dir):
            assert (artifacts_dir / ".lock").read_text() == str(os.getpid())


def test_the_lock_is_freed_by_leaving_and_by_failing(artifacts_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError), ledger.run_lock(artifacts_dir):
        raise ZeroDivisionError
    with (
        ledger.run_lock(artifacts_dir),
        pytest.raises(WarehouseLockedError, match=str(os.getpid())),
    ):
        ledger.run_lock(artifacts_dir).__enter__()
    with ledger.run_lock(artifacts_dir):
        pass


# --- Model files ---


@pytest.fixture
def trained(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> dict[str, Any]:
    run = with_files(new_run(artifacts_dir))
    run.commit(warehouse, ledger_project)
    return ledger.trained_run(warehouse, ledger_project, ["seasonal_naive", "ridge"])


def test_untouched_model_files_are_found(trained: dict[str, Any], artifacts_dir: Path) -> None:
    directory = ledger.verified_directory(artifacts_dir, trained, "ridge")
    assert (directory / "ridge.json").read_text() == "weights"


def test_an_altered_model_file_is_refused(trained: dict[str, Any], artifacts_dir: Path) -> None:
    file = artifacts_dir / trained["run_id"] / "ridge" / "ridge.json"
    file.write_text("weightz")
    with pytest.raises(ArtifactError, match=r"ridge\.json was altered.*not loaded"):
        ledger.verified_directory(artifacts_dir, trained, "ridge")


def test_a_missing_model_file_is_named(trained: dict[str, Any], artifacts_dir: Path) -> None:
    file = artifacts_dir / trained["run_id"] / "ridge" / "ridge.json"
    file.unlink()
    with pytest.raises(ArtifactError, match=f"{file} of run {trained['run_id']} is missing"):
        ledger.verified_directory(artifacts_dir, trained, "ridge")


def test_forecasting_takes_the_newest_training_that_has_the_models(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    old, new, backtest, failed = (
        new_run(artifacts_dir, "run", models='["seasonal_naive", "ridge", "lstm"]'),
        new_run(artifacts_dir, "train", models='["seasonal_naive", "ridge"]'),
        new_run(artifacts_dir, "backtest", models='["seasonal_naive", "ridge", "lstm"]'),
        new_run(artifacts_dir, "run", models='["seasonal_naive", "ridge", "lstm"]'),
    )
    for run in (old, new, backtest):
        run.commit(warehouse, ledger_project)
    failed.fail(warehouse, ledger_project, ValueError())

    def found(*models: str) -> str:
        return str(ledger.trained_run(warehouse, ledger_project, list(models))["run_id"])

    assert found("ridge") == new.run_id
    assert found("ridge", "lstm") == old.run_id
    with pytest.raises(ArtifactError, match=r"has trained ridge, gru.*trendcast train"):
        found("ridge", "gru")


def test_missing_tables_are_named(warehouse: DuckDBWarehouse, ledger_project: Project) -> None:
    ledger.require_tables(warehouse, ledger_project)
    warehouse.execute("drop table explanations")
    with pytest.raises(WarehouseError, match=r"explanations does not exist.*dbt build"):
        ledger.require_tables(warehouse, ledger_project)


# --- Full disk ---


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_told(artifacts_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(artifacts_dir)
    with (
        pytest.raises(ArtifactError, match=r"ridge cannot be written: No space left"),
        run.model_directory("ridge"),
    ):
        full()
    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(ArtifactError, match=r"forecasts\.parquet cannot be written: No space left"):
        run.stage("forecasts", forecasts(), model="ridge")


@pytest.fixture
def workspace(path: Path, ledger_project: Project, artifacts_dir: Path) -> Workspace:
    """A workspace on the warehouse; no dbt is run."""
    dbt = SimpleNamespace(project_dir=artifacts_dir.parent, vars={})
    output = {"type": "duckdb", "path": str(path)}
    return Workspace(dbt, output, ledger_project, artifacts_dir)  # type: ignore[arg-type]


def test_nothing_is_committed_on_a_full_disk(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(ArtifactError, match="No space left"),
        pipeline._run(workspace, "train", ["ridge"]) as (run, _),
    ):
        with_files(run)
        run.stage("forecasts", forecasts(), model="ridge")
        monkeypatch.setattr(pq, "write_table", full)
        run.stage("coefficients", coefficients(), model="ridge")
    assert not run.directory.exists()
    with workspace.connect() as warehouse:
        assert [count(warehouse, table) for table in ledger.ROW_TABLES] == [0] * len(
            ledger.ROW_TABLES
        )
        (row,) = ledger.runs(warehouse, workspace.project)
    assert (row["status"], row["run_id"]) == ("failed", run.run_id)
    assert "No space left" in row["error"]
    # And the next run has the lock and can write again.
    monkeypatch.undo()
    with pipeline._run(workspace, "train", ["ridge"]) as (run, _):
        run.stage("forecasts", forecasts(), model="ridge")
    with workspace.connect() as warehouse:
        assert count(warehouse, "forecasts") == 2
        assert [r["status"] for r in ledger.runs(warehouse, workspace.project)] == [
            "committed",
            "failed",
        ]


def test_an_interrupted_run_keeps_nothing(workspace: Workspace) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        pipeline._run(workspace, "backtest", ["ridge"]) as (run, _),
    ):
        run.stage("backtests", forecasts(), fold=1, model="ridge")
        raise KeyboardInterrupt
    with workspace.connect() as warehouse:
        assert count(warehouse, "backtests") == 0
        assert [r["status"] for r in ledger.runs(warehouse, workspace.project)] == ["failed"]


def test_what_is_committed_stays_so_when_interrupted_after(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as during:
        with pipeline._run(workspace, "train", ["ridge"]) as (run, _):
            with_files(run)
            run.stage("forecasts", forecasts(), model="ridge")
            during.setattr(ledger, "_tidy", interrupted)
    with workspace.connect() as warehouse:
        assert [r["status"] for r in ledger.runs(warehouse, workspace.project)] == ["committed"]
        assert count(warehouse, "forecasts") == 2
    assert (run.directory / "ridge" / "ridge.json").is_file()


def test_a_model_of_another_panel_is_not_used(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    """After a change of the key or the grain, what was trained before does not fit."""
    run = new_run(artifacts_dir, panel="week quantity category")
    run.commit(warehouse, ledger_project)
    with pytest.raises(ArtifactError, match="on day quantity category"):
        ledger.trained_run(warehouse, ledger_project, ["ridge"])


# --- Ledgers of other versions ---

# As 0.1.0 made it. It never changes: what was written with it must stay readable.
FIRST_SHAPE = """
create schema analytics_trendcast;
create table analytics_trendcast.runs (
    run_id varchar not null, command varchar not null, status varchar not null, started_at timestamp
    not null, finished_at timestamp not null, cutoff date, panel varchar, grain varchar, horizon
    integer, n_series bigint, models varchar, seed bigint, trained_run_id varchar, forecasts_rows
    bigint, backtests_rows bigint, coefficients_rows bigint, explanations_rows bigint, weights_rows
    bigint, forecasts_sha256 varchar, data_fingerprint varchar, config_fingerprint varchar,
    git_commit varchar, settings varchar, versions varchar, timings varchar, artifacts varchar,
    error varchar
);
create table analytics_trendcast.forecasts (
    run_id varchar not null, model varchar not null, series_id varchar not null, cutoff date not
    null, target_date date not null, lead integer not null, mean double precision, q025 double
    precision, q05 double precision, q10 double precision, q25 double precision, q50 double
    precision, q75 double precision, q90 double precision, q95 double precision, q975 double
    precision
);
create table analytics_trendcast.backtests (
    run_id varchar not null, model varchar not null, fold integer not null, series_id varchar not
    null, cutoff date not null, target_date date not null, lead integer not null, demand_class
    varchar, error_scale double precision, actual double precision, mean double precision, q025
    double precision, q05 double precision, q10 double precision, q25 double precision, q50 double
    precision, q75 double precision, q90 double precision, q95 double precision, q975 double
    precision
);
create table analytics_trendcast.coefficients (
    run_id varchar not null, model varchar not null, lead_bucket integer not null, feature varchar
    not null, component varchar, coefficient double precision, feature_mean double precision,
    feature_std double precision, is_dropped boolean, penalty double precision
);
create table analytics_trendcast.explanations (
    run_id varchar not null, model varchar not null, series_id varchar not null, cutoff date not
    null, target_date date not null, lead integer not null, component varchar not null, contribution
    double precision
);
create table analytics_trendcast.weights (
    run_id varchar not null, model varchar not null, fold integer not null, demand_class varchar not
    null, lead_bucket integer not null, member varchar not null, weight double precision, n_rows
    bigint
);
insert into analytics_trendcast.runs by name select
    '20260101T000000-abcdef' as run_id, 'run' as command, 'committed' as status, timestamp '2026-01-01' as started_at,
    timestamp '2026-01-01 00:01:00' as finished_at, date '2025-12-31' as cutoff,
    'day quantity category' as panel, 'day' as grain, 1 as horizon, 1 as n_series,
    '["seasonal_naive", "ridge"]' as models, 7 as seed, 1 as forecasts_rows, '{}' as timings, '[]' as artifacts;
insert into analytics_trendcast.forecasts by name select
    '20260101T000000-abcdef' as run_id, 'ridge' as model, 'a' as series_id, date '2025-12-31' as cutoff,
    date '2026-01-01' as target_date, 1 as lead, 1.5 as mean, 0.1 as q025, 0.2 as q05, 0.3 as q10, 0.4 as q25,
    1.0 as q50, 2.0 as q75, 3.0 as q90, 4.0 as q95, 5.0 as q975;
"""


def test_a_ledger_of_the_first_version_is_upgraded_and_keeps_its_rows(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.duckdb"
    config = {"storage_compatibility_version": "v1.0.0"}
    output = {"type": "duckdb", "path": str(path), "config_options": config}
    relations = {name: f'"old"."analytics_trendcast"."{name}"' for name in TABLES}
    old = replace(project, relations=relations)
    with DuckDBWarehouse.open(output, read_only=False) as warehouse:
        warehouse.execute(FIRST_SHAPE)
        before = warehouse.query("select * from analytics_trendcast.forecasts")
        with pytest.raises(
            WarehouseError,
            match=r"older trendcast.* has no inputs, ledger_version, next_purchases_rows, scenarios_rows, series_filter, tuning_trials_rows",
        ):
            ledger.require_tables(warehouse, old)
        # Read as it is, and a run that fails before dbt has upgraded it says so in it.
        latest = ledger.latest_run(warehouse, old)
        assert latest is not None and latest["run_id"] == "20260101T000000-abcdef"
        new_run(tmp_path / "artifacts").fail(warehouse, old, ValueError("no disk"))
        assert [r["status"] for r in ledger.runs(warehouse, old)] == ["failed", "committed"]
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(path))
    monkeypatch.setenv("DBT_LOG_PATH", str(tmp_path / "logs"))
    vars = {"shop_schema": "raw"}
    dbt = Dbt(REPO / "dbt_project", REPO / "profiles", vars=vars, target_path=tmp_path / "target")
    dbt.build(["tag:trendcast_ledger"])
    with DuckDBWarehouse.open(output, read_only=False) as warehouse:
        ledger.require_tables(warehouse, old)
        assert warehouse.query("select * from analytics_trendcast.forecasts") == before
        newest, first = ledger.runs(warehouse, old)
        assert (first["run_id"], first["ledger_version"]) == ("20260101T000000-abcdef", None)
        run = new_run(tmp_path / "artifacts", inputs="{}")
        run.stage("forecasts", forecasts(), model="ridge")
        run.commit(warehouse, old)
        newest = ledger.runs(warehouse, old)[0]
        assert (newest["run_id"], newest["ledger_version"]) == (run.run_id, ledger.LEDGER_VERSION)


def test_a_newer_ledger_is_left_alone(
    workspace: Workspace, warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    new_run(artifacts_dir).commit(warehouse, ledger_project)
    warehouse.execute("update runs set ledger_version = 99")
    told = rf"newer trendcast \(ledger version 99; this one, trendcast .*, knows {ledger.LEDGER_VERSION}\)"
    with pytest.raises(WarehouseError, match=told):
        ledger.require_tables(warehouse, ledger_project)
    warehouse.close()
    with (
        pytest.raises(WarehouseError, match=told),
        pipeline._run(workspace, "train", ["ridge"]),
    ):
        raise AssertionError("it must not begin")


def test_a_run_is_found_by_its_id(
    warehouse: DuckDBWarehouse, ledger_project: Project, artifacts_dir: Path
) -> None:
    run = new_run(artifacts_dir)
    run.commit(warehouse, ledger_project)
    assert ledger.find_run(warehouse, ledger_project, run.run_id)["command"] == "train"
    misspelt = run.run_id[:-1] + "x"
    with pytest.raises(UsageError, match=f"Unknown run '{misspelt}'. Did you mean '{run.run_id}'"):
        ledger.find_run(warehouse, ledger_project, misspelt)
