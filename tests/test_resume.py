"""Runs that are resumed or repeated: the result is that of a run in one piece, to the last bit."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import duckdb
import pytest

from tests.conftest import Shop, after_a_run
from trendcast import ledger, pipeline
from trendcast.errors import ArtifactError, UsageError
from trendcast.models import ridge
from trendcast.models.lightgbm import LightGBM
from trendcast.models.panel_model import LSTM
from trendcast.pipeline import Workspace
from trendcast.reproduce import _require_repeatable

MODELS = ["ridge", "lightgbm", "ensemble"]
EVERY_MODEL = ["classical", "ridge", "lightgbm", "lstm", "ensemble"]
FOLDS = 2


class Stop(BaseException):
    """What ends a run in these tests."""


def run_of(make_shop: Callable[..., Shop], models: list[str]) -> Shop:
    """A shop after one run of these models."""
    lines = [
        {
            "order_id": f"{day}-{k}",
            "product_id": f"p{k}",
            "ordered_at": dt.datetime(2026, 1, 1, 12) + dt.timedelta(days=day),
            "quantity": 1 + (day * k + day // 7) % 6,
        }
        for day in range(110)
        for k in range(1, 5)
    ]
    return after_a_run(make_shop, lines, models=models)


@pytest.fixture(scope="module")
def whole(make_shop: Callable[..., Shop]) -> Shop:
    return run_of(make_shop, MODELS)


def committed(shop: Shop) -> list[dict[str, Any]]:
    return shop.query(
        "select * from analytics_trendcast.runs where status = 'committed' order by finished_at"
    )


def rows(shop: Shop, run_id: str) -> dict[str, list[str]]:
    """Every row a run wrote, in any order, without its id."""
    return {
        table: sorted(
            map(
                repr,
                shop.query(
                    f"select * exclude (run_id) from analytics_trendcast.{table} where run_id = '{run_id}'"
                ),
            )
        )
        for table in ledger.ROW_TABLES
    }


@pytest.fixture
def workspace(whole: Shop) -> Iterator[Workspace]:
    with whole.opened() as workspace:
        yield workspace
    for folder in ledger.leftovers(whole.artifacts_dir):
        shutil.rmtree(folder.directory)


def stop_at(workspace: Workspace, patch: pytest.MonkeyPatch, step: int) -> bool:
    """Run until the step-th thing would be written down; return whether the run had so many."""
    noted, count = ledger.Run._note, 0

    def note(run: ledger.Run) -> None:
        nonlocal count
        count += 1
        if count > step:
            raise Stop
        noted(run)

    with patch.context() as during:
        during.setattr(ledger.Run, "_note", note)
        try:
            pipeline.run(workspace)
        except Stop:
            return True
    return False


def count_calls(patch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count how often each model is fitted."""
    fitted: dict[str, int] = {}
    for model in (ridge.Ridge, LightGBM, LSTM):

        def fit(self: Any, *args: Any, _fit: Any = model.fit) -> None:
            fitted[self.name] = fitted.get(self.name, 0) + 1
            _fit(self, *args)

        patch.setattr(model, "fit", fit)
    return fitted


def resumes_to_the_same(whole: Shop, workspace: Workspace, step: int) -> dict[str, Any] | None:
    """Stop at a step, resume, and compare with the run in one piece; None where there is no such step."""
    first = committed(whole)[0]
    with pytest.MonkeyPatch.context() as patch:
        if not stop_at(workspace, patch, step):
            return None
        (left,) = ledger.leftovers(whole.artifacts_dir)
        summary = pipeline.run(workspace, resume=True)
    assert summary["resumed"]["run_id"] == left.directory.name
    assert ledger.leftovers(whole.artifacts_dir) == []
    newest = committed(whole)[-1]
    assert newest["run_id"] == summary["run_id"]
    assert newest["forecasts_sha256"] == first["forecasts_sha256"]
    assert rows(whole, newest["run_id"]) == rows(whole, first["run_id"])
    for name in ledger.ROW_TABLES:
        assert newest[f"{name}_rows"] == first[f"{name}_rows"]
    folder = whole.artifacts_dir / newest["run_id"]
    assert not any((folder / name).exists() for name in ("rows", "checkpoints", "journal.json"))
    for model in json.loads(newest["models"]):
        ledger.verified_directory(whole.artifacts_dir, newest, model)
    return summary


@pytest.mark.parametrize("step", [1, 4, 12])
def test_a_resumed_run_is_that_in_one_piece(whole: Shop, workspace: Workspace, step: int) -> None:
    summary = resumes_to_the_same(whole, workspace, step)
    assert summary is not None
    assert len(summary["resumed"]["steps"]) >= step - 2  # a checkpoint is no step


@pytest.fixture(scope="module")
def with_every_model(make_shop: Callable[..., Shop]) -> Shop:
    return run_of(make_shop, EVERY_MODEL)


@pytest.mark.slow
def test_with_every_model_a_resumed_run_is_that_in_one_piece(with_every_model: Shop) -> None:
    with with_every_model.opened() as workspace:
        # In the LSTM's folds, among the ensemble's rows, and in forecasting.
        for step in (9, 14, 25):
            assert resumes_to_the_same(with_every_model, workspace, step), step


def test_what_is_finished_is_not_done_again(
    whole: Shop, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing = ledger.Run.commit

    def stop(*_: Any) -> None:
        raise Stop

    monkeypatch.setattr(ledger.Run, "commit", stop)
    with pytest.raises(Stop) as raised:
        pipeline.run(workspace)
    assert raised.value.__notes__ == ["`trendcast run --resume` goes on from what was finished."]
    monkeypatch.setattr(ledger.Run, "commit", committing)
    fitted = count_calls(monkeypatch)
    pipeline.run(workspace, resume=True)
    assert fitted == {}


def test_an_altered_file_is_not_kept(
    whole: Shop, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ledger.Run, "commit", lambda *_: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            pipeline.run(workspace)
    (left,) = ledger.leftovers(whole.artifacts_dir)
    (left.directory / "ridge" / "ridge.json").write_text("{}")
    first, *_ = sorted((left.directory / "rows").iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    fitted = count_calls(monkeypatch)
    pipeline.run(workspace, resume=True)
    # No row was kept, for what comes after a broken file is not; of the trained, only ridge was not.
    assert fitted == {"ridge": FOLDS + 1}
    before, newest = committed(whole)[0], committed(whole)[-1]
    assert newest["forecasts_sha256"] == before["forecasts_sha256"]


def test_nothing_to_resume(whole: Shop, workspace: Workspace) -> None:
    # The last run is of these features and settings: all there is to go on with are the marts.
    n = len(committed(whole))
    summary = pipeline.run(workspace, resume=True)
    assert summary["resumed"] == {"run_id": committed(whole)[-1]["run_id"], "steps": ["committed"]}
    assert len(committed(whole)) == n
    with pytest.raises(ArtifactError, match=r"nothing to resume in .*without --resume"):
        pipeline.run(workspace, models=["ridge"], resume=True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"models": ["ridge"]}, "other than then are the models"),
        ({"with_backtest": False}, "other than then are whether to backtest"),
    ],
)
def test_a_run_made_otherwise_is_not_resumed(
    whole: Shop,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    told: str,
) -> None:
    assert stop_at(workspace, monkeypatch, 2)
    with pytest.raises(ArtifactError, match=told):
        pipeline.run(workspace, resume=True, **changed)


def test_other_settings_or_data_are_not_resumed(
    whole: Shop, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stop_at(workspace, monkeypatch, 2)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "versions", lambda: {"python": "2.7"})
        with pytest.raises(ArtifactError, match="are the versions of Python or a library"):
            pipeline.run(workspace, resume=True)
    monkeypatch.setattr(pipeline, "data_fingerprint", lambda *_: "other")
    with pytest.raises(ArtifactError, match=r"cannot be resumed: .*lines or plans have changed"):
        pipeline.run(workspace, resume=True)
    # It is still there, for data that come back; any other run sweeps it away.
    assert len(ledger.leftovers(whole.artifacts_dir)) == 1
    pipeline.run(workspace, models=["ridge"], with_backtest=False)
    assert ledger.leftovers(whole.artifacts_dir) == []


# --- Repeating a run ---


def reproduced(shop: Shop, run_id: str) -> tuple[int, dict[str, Any]]:
    done = shop.run("reproduce", run_id, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_run_can_be_repeated_and_writes_nothing(whole: Shop) -> None:
    first, n = committed(whole)[0], len(committed(whole))
    before = sorted(whole.artifacts_dir.iterdir())
    # The run's own vars are used, not those of today.
    today = replace(whole, vars={k: v for k, v in whole.vars.items() if "shop" in k})
    code, found = reproduced(today, first["run_id"])
    assert (code, found["equal"], found["inputs"]) == (0, True, {})
    assert found["forecasts_sha256"]["now"] == first["forecasts_sha256"]
    assert found["rows"] == {"then": first["forecasts_rows"], "now": first["forecasts_rows"]}
    assert (found["differing"], found["largest_difference"]) == (0, 0.0)
    assert len(committed(whole)) == n
    assert sorted(whole.artifacts_dir.iterdir()) == before


@pytest.mark.slow
def test_where_a_repeated_run_differs_it_says_why(
    whole: Shop, copied: Callable[[Shop], Shop]
) -> None:
    shop = copied(whole)
    first = committed(shop)[0]
    # A new order, of after the cutoff, changes nothing; one that came late for a day of the past does.
    lines = "insert into raw.order_lines select * replace ({}) from raw.order_lines where order_id = '109-1'"
    with duckdb.connect(shop.path) as connection:
        new = lines.format("'new' as order_id, ordered_at + interval 9 day as ordered_at")
        connection.execute(new)
    assert reproduced(shop, first["run_id"])[1]["equal"]
    with duckdb.connect(shop.path) as connection:
        connection.execute(lines.format("'late' as order_id"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "versions", lambda: {"python": "2.7"})
        code, found = reproduced(shop, first["run_id"])
    assert (code, found["equal"]) == (1, False)
    assert 0 < found["differing"] <= first["forecasts_rows"]
    assert found["largest_difference"] > 0
    assert set(found["inputs"]) >= {"data_fingerprint", "version of python", "version of keras"}
    assert found["inputs"]["version of python"]["now"] == "2.7"
    assert "config_fingerprint" not in found["inputs"]


def test_what_cannot_be_repeated_says_why(whole: Shop) -> None:
    done = whole.run("reproduce", "20260101T000000-abcdef")
    assert done.returncode == 2
    assert "Unknown run '20260101T000000-abcdef'" in done.stderr
    run = committed(whole)[0]
    with pytest.raises(UsageError, match=r"is a committed `trendcast backtest`\. What can be"):
        _require_repeatable(run | {"command": "backtest"})
    with pytest.raises(UsageError, match="by an older trendcast, which did not record its vars"):
        _require_repeatable(run | {"inputs": None})


@pytest.mark.slow
@pytest.mark.whole
def test_two_processes_and_other_threads_forecast_the_same(with_every_model: Shop) -> None:
    shop = with_every_model
    limits = ("TRENDCAST_THREADS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    for threads in ("1", "2"):
        done = subprocess.run(
            shop.command("run"),
            env=shop.environment | dict.fromkeys(limits, threads),
            cwd=shop.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    first, *others = committed(shop)
    assert {run["forecasts_sha256"] for run in others[-2:]} == {first["forecasts_sha256"]}
    recorded = [json.loads(run["inputs"])["threads"]["OMP_NUM_THREADS"] for run in others[-2:]]
    assert recorded == ["1", "2"]
