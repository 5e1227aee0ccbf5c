"""Tuning: trials are scored as the backtest scores, kept whatever happens, and judged on a fold they were not chosen on."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import SMALL_LIGHTGBM, Shop
from trendcast import ledger, pipeline, tune
from trendcast.errors import DataError, Stopped, UsageError
from trendcast.features import Features
from trendcast.models import config_class
from trendcast.models.base import Choice
from trendcast.pipeline import Workspace

FOLDS = 3


@pytest.fixture(scope="module")
def shop(make_shop: Callable[..., Shop]) -> Shop:
    lines = [
        {
            "order_id": f"{day}-{k}",
            "product_id": f"p{k}",
            "ordered_at": dt.datetime(2026, 1, 1, 12) + dt.timedelta(days=day),
            "quantity": 1 + (day * day * k + day // 7) % 6,
        }
        for day in range(110)
        for k in range(1, 5)
    ]
    made = make_shop(
        lines, models=["classical"], lightgbm=SMALL_LIGHTGBM, backtest_folds=FOLDS, backtest_step=3
    )
    done = made.run("run")
    assert done.returncode == 0, done.stderr or done.stdout
    return made


@contextmanager
def opened(shop: Shop, **vars: Any) -> Iterator[Workspace]:
    project_dir = shop.project_dir
    with shop.entered():
        yield Workspace.open(
            project_dir=project_dir,
            profiles_dir=project_dir.parent / "profiles",
            vars=shop.vars | vars,
        )
        for left in ledger.leftovers(shop.artifacts_dir):
            for path in sorted(left.directory.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            left.directory.rmdir()


def table(shop: Shop, study_id: str) -> list[dict[str, Any]]:
    return shop.query(
        f"select * from analytics_trendcast.tuning_trials where study_id = '{study_id}' order by trial"
    )


def test_a_study_is_gone_on_with_and_scores_as_the_backtest_does(shop: Shop) -> None:
    done = shop.run("tune", "classical", "--trials", "3", "--json")
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert (first["made"], len(first["trials"]), first["stopped"]) == (3, 3, False)
    assert first["current"]["trial"] == 0 and first["current"]["settings"] == "{}"

    # The project's settings have the losses that the run's backtest had, by the SQL of the marts.
    levels = {"q025": 0.025, "q05": 0.05, "q10": 0.1, "q25": 0.25, "q50": 0.5}
    levels |= {"q75": 0.75, "q90": 0.9, "q95": 0.95, "q975": 0.975}
    pinball = " + ".join(
        f"greatest({p} * (actual - {q}), {1 - p} * ({q} - actual))" for q, p in levels.items()
    )
    (was,) = shop.query(
        f"""
        select
            sum({pinball}) filter (fold > 1) * 2 / 9 / sum(actual) filter (fold > 1) as wql,
            sum({pinball}) filter (fold = 1) * 2 / 9 / sum(actual) filter (fold = 1) as newest_wql
        from analytics_trendcast.backtests where model = 'classical'
        """
    )
    assert first["current"]["wql"] == pytest.approx(was["wql"], rel=1e-9)
    assert first["current"]["newest_wql"] == pytest.approx(was["newest_wql"], rel=1e-9)

    second = json.loads(shop.run("tune", "classical", "--trials", "4", "--json").stdout)
    assert (second["study_id"], second["made"]) == (first["study_id"], 4)
    rows = table(shop, first["study_id"])
    assert [row["trial"] for row in rows] == list(range(7))
    assert [row["wql"] for row in rows] == [trial["wql"] for trial in second["trials"]]
    assert [row["settings"] for row in rows[:3]] == [t["settings"] for t in first["trials"]]
    assert len({row["settings"] for row in rows}) == 7
    assert second["best"]["wql"] == min(row["wql"] for row in rows)
    assert {row["n_folds"] for row in rows} == {FOLDS - 1}
    # Forecasts in force are those of the run.
    (run,) = shop.query(
        "select command, tuning_trials_rows as n, forecasts_rows as f from analytics_trendcast.runs "
        "where command = 'tune' order by finished_at desc limit 1"
    )
    assert (run["n"], run["f"]) == (4, 0)


def test_what_a_terminal_gets(shop: Shop) -> None:
    with opened(shop, classical={"origins": 5}) as workspace:
        told = pipeline.tune(workspace, "classical", trials=1)
    assert told["best"] == told["current"]  # another study, whose trial 0 are the settings given
    done = shop.run("tune", "classical", "--trials", "2")
    assert "older folds, searched on" in done.stdout
    assert "The same command goes on with it." in done.stdout


def killed_at(workspace: Workspace, patch: pytest.MonkeyPatch, trial: int, by: type) -> Any:
    """Tune until a trial is under way when something ends it."""
    scored, count = tune.Search._score, 0

    def score(self: tune.Search, settings: dict[str, Any]) -> tuple[float, float]:
        nonlocal count
        count += 1
        if count > trial:
            raise by
        return scored(self, settings)

    with patch.context() as during:
        during.setattr(tune.Search, "_score", score)
        return pipeline.tune(workspace, "classical", trials=9)


class Crash(BaseException):
    """Ends a process without a word to the ledger."""


def test_a_crash_loses_no_trial_that_was_done(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(shop, seed=11) as workspace:
        with pytest.raises(Crash) as raised:
            killed_at(workspace, monkeypatch, 2, Crash)
        assert raised.value.__notes__ == [
            "`trendcast tune classical` goes on from what was finished."
        ]
        (left,) = ledger.leftovers(shop.artifacts_dir)
        # No run is gone on from with it, and it is not swept away by asking.
        with pytest.raises(Exception, match="nothing to resume"):
            pipeline.run(workspace, models=["ridge"], resume=True)
        told = pipeline.tune(workspace, "classical", trials=1)
    assert (told["made"], len(told["trials"]), left.directory.exists()) == (1, 3, False)
    assert [row["trial"] for row in table(shop, told["study_id"])] == [0, 1, 2]


def test_told_to_stop_it_keeps_what_is_done(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(shop, seed=12) as workspace:
        told = killed_at(workspace, monkeypatch, 2, Stopped)
        assert (told["stopped"], told["made"]) == (True, 2)
        assert len(table(shop, told["study_id"])) == 2
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(pipeline, "versions", lambda: {"python": "2.7"})  # a study of its own
            killed_at(workspace, patch, 0, Stopped)


def test_time_bounds_the_trials_but_for_the_first(shop: Shop) -> None:
    with opened(shop, seed=13) as workspace:
        told = pipeline.tune(workspace, "classical", minutes=0)
        assert len(told["trials"]) == 1
        assert pipeline.tune(workspace, "classical", minutes=0)["made"] == 0


def test_settings_that_cannot_be_trained_with_are_a_failed_trial(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = tune.Search._score

    def score(self: tune.Search, settings: dict[str, Any]) -> tuple[float, float]:
        if settings:
            raise DataError("too few rows")
        return scored(self, settings)

    with opened(shop, seed=14) as workspace, monkeypatch.context() as patch:
        patch.setattr(tune.Search, "_score", score)
        told = pipeline.tune(workspace, "classical", trials=2)
    rows = table(shop, told["study_id"])
    assert [(row["status"], row["error"]) for row in rows] == [
        ("complete", None),
        ("failed", "DataError: too few rows"),
    ]
    assert told["best"]["trial"] == 0


def test_trees_are_tuned(shop: Shop) -> None:
    with opened(shop) as workspace:
        told = pipeline.tune(workspace, "lightgbm", trials=2)
    assert [trial["status"] for trial in told["trials"]] == ["complete", "complete"]
    tried = json.loads(told["trials"][1]["settings"])
    assert set(tried) == set(config_class("lightgbm").SPACE)


@pytest.mark.parametrize("model", ["classical", "lightgbm", "lstm"])
def test_every_corner_of_the_space_is_a_valid_setting(model: str) -> None:
    config, space = config_class(model), tune.space_of(model)
    default = config()
    for name, allowed in space.items():
        values = allowed.values if isinstance(allowed, Choice) else (allowed.low, allowed.high)
        for value in values:
            assert getattr(config.from_settings({name: value}), name) == value
            assert allowed.allows(value)
        if getattr(default, name) is not None:
            assert allowed.allows(getattr(default, name)), name


def test_what_cannot_be_tuned_says_why(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    done = shop.run("tune", "ridge")
    assert done.returncode == 2
    assert "ridge has no settings to search" in done.stderr
    assert "Models that can be tuned: classical, lightgbm, lstm" in done.stderr
    assert "Did you mean 'lightgbm'" in shop.run("tune", "lightgmb").stderr
    with opened(shop, backtest_folds=1) as workspace:
        with pytest.raises(DataError, match="built with 3 folds .* backtest_folds is 1 now"):
            pipeline.tune(workspace, "classical")
        with workspace.connect() as warehouse:
            features = Features(warehouse, workspace.project)
            features.cutoffs = features.cutoffs[:2]  # as after a build with one fold
            with pytest.raises(DataError, match="needs two folds of the backtest or more"):
                tune.Search(features, "classical", "", [], lambda trial: None, print)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'trendcast\[tune\]'"):
        tune.require_optuna()
