"""What a process that is killed leaves behind: nothing half-written, and a next run that just works."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import duckdb
import pytest

from tests.conftest import REPO, SMALL_LSTM, Shop, made_small
from trendcast import ledger, pipeline
from trendcast.errors import ArtifactError
from trendcast.pipeline import Workspace
from trendcast.progress import Progress

TINY_LSTM = SMALL_LSTM | {"steps_per_epoch": 2, "max_epochs": 1, "units": 8, "hidden": 8}

# Shares of a whole run: parsing, building features, training, committing, building marts.
MOMENTS = (0.15, 0.4, 0.9)


def lines() -> list[dict[str, object]]:
    return [
        {
            "order_id": f"{day}-{k}",
            "product_id": f"p{k}",
            "ordered_at": f"2025-{1 + day // 28:02}-{1 + day % 28:02}",
            "quantity": 1 + (day * k) % 5,
            "revenue": 3.0,
        }
        for day in range(140)
        for k in range(1, 6)
    ]


def wait_until_free(shop: Shop) -> None:
    """Give the kernel a moment to end dbt and to drop its lock."""
    for _ in range(100):
        try:
            duckdb.connect(shop.path, read_only=True).close()
        except duckdb.IOException:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the warehouse is still locked ten seconds after the kill")


def counted(shop: Shop) -> dict[str, int]:
    """Rows per run in the ledger, which must be those the run says it wrote; and what the mart serves."""
    for table in ledger.ROW_TABLES:
        wrong = shop.query(
            f"""
            select coalesce(rows.run_id, runs.run_id) as run_id
            from (select run_id, count(*) as n from analytics_trendcast.{table} group by 1) as rows
            full join (
                select run_id, {table}_rows as n from analytics_trendcast.runs
                where status = 'committed' and {table}_rows > 0
            ) as runs using (run_id)
            where rows.n is distinct from runs.n
            """
        )
        assert wrong == [], f"{table} of {wrong}"
    served = shop.query("select count(*) as n from analytics_marts.fct_forecasts")
    runs = shop.query(
        "select count(*) as n from analytics_trendcast.runs where status = 'committed'"
    )
    return {"served": served[0]["n"], "runs": runs[0]["n"]}


def is_whole(shop: Shop) -> dict[str, int]:
    """What a run that was ended leaves: the ledger consistent, the forecasts served, nothing else."""
    after = counted(shop)
    wrong = shop.query(
        "select count(*) as n from analytics_marts.fct_forecasts where run_id not in "
        "(select run_id from analytics_trendcast.runs where status = 'committed')"
    )
    assert wrong == [{"n": 0}]
    return after


def no_orphans(shop: Shop) -> None:
    """Model files are those of committed runs, and only they."""
    rows = shop.query("select run_id from analytics_trendcast.runs where status = 'committed'")
    folders = {p.name for p in shop.artifacts_dir.iterdir() if p.is_dir()}
    assert folders == {row["run_id"] for row in rows}
    assert [p for p in shop.artifacts_dir.rglob("*") if p.name in ("rows", "checkpoints")] == []


def start(shop: Shop, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        shop.command("run", *args),
        env=shop.environment,
        cwd=shop.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """A shop after one run."""
    made = made_small(make_shop(lines(), models=["ridge", "lstm"], lstm=TINY_LSTM))
    done = made.run("run")
    assert done.returncode == 0, done.stderr or done.stdout
    return made


@pytest.mark.slow
def test_killed_at_every_phase_and_at_any_moment_the_ledger_is_whole(shop: Shop) -> None:
    """Forks of a process that has parsed the project, each killed where the test says."""
    random = Random(20261125)
    with shop.entered():
        project_dir = shop.project_dir
        workspace = Workspace.open(
            project_dir=project_dir, profiles_dir=project_dir.parent / "profiles", vars=shop.vars
        )
        # Features and marts are built, and stay as they are: what is left of a run is Python's part.
        before = is_whole(shop)
        ended = 0
        boundary = 1
        while True:
            status = _forked(workspace, boundary=boundary)
            after = is_whole(shop)
            assert after["served"] == before["served"]
            if status == 0:
                break
            assert status == -signal.SIGKILL
            ended, boundary, before = ended + 1, boundary + 1, after
        # The beginning and the end of three phases of three models, and of the commit.
        assert ended == 2 * (3 * 3 + 1)
        began = time.monotonic()
        assert _forked(workspace) == 0
        duration = time.monotonic() - began
        for _ in range(10):
            _forked(workspace, after=random.random() * duration)
            after = is_whole(shop)
            assert after["served"] == before["served"] and after["runs"] >= before["runs"]
            before = after
        assert _forked(workspace) == 0
    assert is_whole(shop)["runs"] == before["runs"] + 1
    no_orphans(shop)


def _forked(
    workspace: Workspace, *, boundary: int | None = None, after: float | None = None
) -> int:
    """Run in a fork, which is killed at the n-th boundary of a phase or after so many seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            pipeline._build = lambda *_, **__: None
            if boundary:
                _kill_at(boundary)
            # TensorFlow takes longer to import than the rest to run; processes of their own have it below.
            pipeline.run(workspace, models=["ridge", "classical"])
            code = 0
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _kill_at(boundary: int) -> None:
    phase, count = Progress.phase, 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def ticking(self: Progress, name: str) -> Iterator[None]:
        tick()
        with phase(self, name):
            yield
        tick()

    Progress.phase = ticking  # type: ignore[method-assign]


LSTM_PHASES = ("backtest lstm", "train lstm", "forecast lstm")
# Runs a command line of trendcast without dbt, killed so long after a phase has begun; tells how long the phases took.
KILLED_IN_A_PHASE = """
import json, os, signal, sys, threading, time
from contextlib import contextmanager
from trendcast import cli, pipeline
from trendcast.progress import Progress

asked, seconds = sys.argv.pop(1), float(sys.argv.pop(1))
phase, took = Progress.phase, {}

@contextmanager
def timed(self, name):
    if name == asked:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    began = time.monotonic()
    with phase(self, name):
        yield
    took[name] = time.monotonic() - began

Progress.phase = timed
pipeline._build = lambda *_, **__: None
try:
    cli.main()
finally:
    print("took", json.dumps(took))
"""


def _killed_in(shop: Shop, phase: str, seconds: float) -> subprocess.CompletedProcess[str]:
    arguments = shop.command("run")[3:]
    return subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_PHASE, phase, str(seconds), *arguments],
        env=shop.environment | {"PYTHONPATH": str(REPO)},
        cwd=shop.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_killed_while_the_network_learns_the_ledger_is_whole(shop: Shop) -> None:
    """TensorFlow's threads and files too: inside each thing the LSTM does in a run, early or late."""
    done = _killed_in(shop, "none", 0)
    assert done.returncode == 0, done.stderr
    took = json.loads(done.stdout.rsplit("took", 1)[1])
    before = is_whole(shop)
    killed = 0
    for phase, share in zip(LSTM_PHASES, (0.7, 0.4, 0.1), strict=True):
        done = _killed_in(shop, phase, share * took[phase])
        killed += done.returncode == -signal.SIGKILL
        after = is_whole(shop)
        assert after["served"] == before["served"] and after["runs"] >= before["runs"]
        before = after
    # The end of a short phase may come first: then the run goes on, and the kill hits what follows, or nothing.
    assert killed >= 2
    done = shop.run("run")
    assert done.returncode == 0, done.stderr
    assert is_whole(shop)["runs"] == before["runs"] + 1
    no_orphans(shop)


@pytest.mark.slow
def test_killed_inside_dbt_the_ledger_is_whole_and_the_next_run_succeeds(shop: Shop) -> None:
    began = time.monotonic()
    assert shop.run_apart("run").returncode == 0
    duration = time.monotonic() - began
    before = is_whole(shop)
    for moment in MOMENTS:
        process = start(shop)
        time.sleep(moment * duration)
        process.kill()  # SIGKILL, and to trendcast alone: a dbt under way has to notice by itself
        process.communicate()
        wait_until_free(shop)
        after = is_whole(shop)
        assert after["served"] == before["served"] and after["runs"] >= before["runs"]
        before = after
    done = shop.run("run")
    assert done.returncode == 0, done.stderr
    assert is_whole(shop)["runs"] == before["runs"] + 1
    no_orphans(shop)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_tidies_up_and_says_so(shop: Shop, how: signal.Signals) -> None:
    before = is_whole(shop)
    process = start(shop)
    for _ in range(600):  # until it holds the lock, which it does from before dbt on
        lock = shop.artifacts_dir / ".lock"
        if lock.read_text() == str(process.pid):
            break
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, how) if how == signal.SIGINT else process.send_signal(how)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "trendcast: stopped." in told and "Traceback" not in told
    wait_until_free(shop)
    assert is_whole(shop) == before
    rows = shop.query(
        "select status, error from analytics_trendcast.runs order by finished_at desc limit 1"
    )
    assert rows[0]["status"] == "failed"


# --- Disks and memory ---


def newest_failed(shop: Shop) -> str:
    rows = shop.query(
        "select status, error from analytics_trendcast.runs order by finished_at desc limit 1"
    )
    assert rows[0]["status"] == "failed"
    return str(rows[0]["error"])


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_next_run_succeeds(shop: Shop, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs root and mount: the full disk was NOT tested")
    try:
        before = is_whole(shop)
        done = shop.run("run", "--artifacts-dir", str(disk))
        assert done.returncode == 1
        assert "cannot be written: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert is_whole(shop) == before
        assert "No space left" in newest_failed(shop)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert shop.run("run").returncode == 0


@pytest.mark.slow
def test_a_folder_that_is_read_only_is_told_and_the_forecasts_stay(shop: Shop) -> None:
    # A mount, for root may write whatever a mode says.
    folder = str(shop.artifacts_dir)
    if subprocess.run(
        ["mount", "--bind", folder, folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("a read-only folder needs root and mount: it was NOT tested")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (shop.artifacts_dir / "new").touch()
        before = is_whole(shop)
        done = shop.run("run")
        assert done.returncode == 1
        assert "cannot be written: Read-only file system" in done.stderr
        assert "--artifacts-dir" in done.stderr and "Traceback" not in done.stderr
        assert is_whole(shop) == before
    finally:
        subprocess.run(["umount", folder], check=True)
    assert shop.run("run").returncode == 0
    no_orphans(shop)


def test_a_folder_that_cannot_be_written_is_told_before_anything(tmp_path: Path) -> None:
    # Not a mode, for root may write anywhere: a file where the folder should be.
    (tmp_path / "artifacts").write_text("a file")
    with (
        pytest.raises(ArtifactError, match=r"artifacts cannot be written: .*--artifacts-dir"),
        ledger.run_lock(tmp_path / "artifacts"),
    ):
        raise AssertionError("it must not begin")


@pytest.mark.slow
def test_out_of_memory_with_no_room_to_spill_is_told(
    shop: Shop, tmp_path: Path, copied: Callable[[Shop], Shop]
) -> None:
    poor = copied(shop)
    with duckdb.connect(poor.path) as connection:
        connection.execute(
            "insert into raw.order_lines select 'x' || i, 'p' || (i % 40000), date '2025-03-01' + cast(i % 50 as "
            "integer), 2, 3.0 from range(1200000) as r(i)"
        )
    before = is_whole(poor)
    (poor.folder / "shop.duckdb.tmp").write_text("where DuckDB would spill to")
    process = subprocess.run(
        poor.command("run"),
        env=poor.environment | {"TRENDCAST_MEMORY_LIMIT": "60MB"},
        cwd=poor.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert re.search(
        r"[Oo]ut of [Mm]emory|memory limit|could not allocate|[Ff]ailed to create directory",
        process.stderr,
    ), process.stderr
    assert is_whole(poor) == before
