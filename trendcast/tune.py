"""Searches a model's settings on the folds of the backtest, and judges what it found on the fold that it left alone.

A tree-structured Parzen estimator (Bergstra et al., Algorithms for hyper-parameter optimization, NeurIPS 2011; Optuna: Akiba et al.,
KDD 2019) proposes settings; each is trained and scored as the backtest does it. The newest fold is scored too but never
searched on: settings that win among many trials have been lucky as well, and only a fold they were not chosen on says how much.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trendcast.errors import DataError, TrendcastError, UsageError
from trendcast.models import config_class, create, with_settings
from trendcast.models.base import QUANTILES, Choice, Range, pinball, quantile_name

if TYPE_CHECKING:
    from trendcast.features import Cutoff, Features

EXTRA = (
    "Tuning needs Optuna, which is not installed. Install the extra: pip install 'trendcast[tune]'."
)
FIRST_RANDOM = 8  # trials before the sampler trusts what it has seen


@dataclass(frozen=True)
class Trial:
    """Settings tried and how they did, a row of ``tuning_trials``.

    Parameters
    ----------
    trial
        0 are the project's settings as they are.
    settings
        What the trial set beside them, JSON.
    wql, newest_wql
        Weighted quantile loss on the folds searched on, and on the newest, which is left alone; None where it failed.
    """

    study_id: str
    trial: int
    settings: str
    status: str
    wql: float | None
    newest_wql: float | None
    n_folds: int
    seconds: float
    started_at: dt.datetime
    error: str | None = None

    def table(self) -> pa.Table:
        """Return it as a row of the ledger, but for its number."""
        return pa.table({k: [v] for k, v in asdict(self).items() if v is not None and k != "trial"})


def space_of(model: str) -> dict[str, Range | Choice]:
    """Return what may be searched of a model's settings.

    Raises
    ------
    UsageError
        The model has no settings to search.
    """
    config = config_class(model)
    space: dict[str, Range | Choice] = getattr(config, "SPACE", {})
    if not space:
        raise UsageError(
            f"The model {model} has no settings to search: it chooses what there is to choose while it trains. "
            f"Models that can be tuned: {', '.join(with_settings())}."
        )
    return space


def require_optuna() -> Any:
    """Return Optuna, told to be quiet; UsageError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UsageError(EXTRA) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Search:
    """The trials of one study: a model, features and settings that do not change.

    Parameters
    ----------
    features
        With the folds of the backtest, two at least.
    model
        Its name.
    study_id
        The same for trials that can be compared.
    past
        Trials of the study that were made before.
    keep
        Called with each trial when it is done.
    say
        Called with what is being done.
    """

    def __init__(
        self,
        features: Features,
        model: str,
        study_id: str,
        past: Sequence[Trial],
        keep: Callable[[Trial], None],
        say: Callable[[str], None],
    ) -> None:
        self._features, self._model, self._study_id = features, model, study_id
        self.trials = sorted(past, key=lambda trial: trial.trial)
        self._keep, self._say = keep, say
        self._space = space_of(model)
        self._newest, *self._folds = features.cutoffs[1:]
        if not self._folds:
            raise DataError(
                "Tuning needs two folds of the backtest or more: it searches on the older and judges on the newest. "
                f"The var `backtest_folds` is {features.settings.backtest_folds}."
            )
        self._optuna = require_optuna()
        # The same for every trial, so read once.
        self._actuals = {
            (measure, fold.fold): features.of(measure).actuals(fold.t).column("actual")
            for measure in features.settings.measures
            for fold in (self._newest, *self._folds)
        }

    def go(self, seconds: float, most: int | None) -> None:
        """Try settings until the next trial would probably end too late, or so many have been made.

        A study that has no trial yet begins with the project's settings, whatever the time.
        """
        optuna = self._optuna
        until = time.monotonic() + seconds
        # Another seed than the trials before, or the sampler would begin with the same ones again.
        seed = self._features.settings.seed + len(self.trials)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST_RANDOM)
        study = optuna.create_study(sampler=sampler)
        for trial in self.trials:
            self._teach(study, trial)
        made = 0
        while most is None or made < most:
            took = [trial.seconds for trial in self.trials]
            if took and time.monotonic() + statistics.median(took) > until:
                break
            if not self.trials:
                self._teach(study, self._try({}))
            else:
                asked = study.ask()
                tried = self._try({name: self._suggest(asked, name) for name in self._space})
                state = "COMPLETE" if tried.wql is not None else "FAIL"
                study.tell(asked, tried.wql, state=optuna.trial.TrialState[state])
            made += 1

    @property
    def current(self) -> Trial | None:
        """The project's own settings."""
        return next((t for t in self.trials if t.trial == 0 and t.wql is not None), None)

    @property
    def best(self) -> Trial | None:
        """The trial with the least loss on the folds searched on, the earliest of equals."""
        done = [trial for trial in self.trials if trial.wql is not None]
        return min(done, key=lambda trial: (trial.wql or 0.0, trial.trial), default=None)

    # --- One trial ---

    def _try(self, settings: dict[str, Any]) -> Trial:
        """Train and score; settings that the model refuses or cannot be trained with are a failed trial."""
        number = 1 + max((trial.trial for trial in self.trials), default=-1)
        best = self.best
        self._say(f"trial {number}" + (f", best WQL {best.wql:.4f}" if best else ""))
        began, started_at = time.monotonic(), dt.datetime.now(dt.UTC).replace(tzinfo=None)
        outcome: dict[str, Any]
        try:
            wql, newest = self._score(settings)
            outcome = {"status": "complete", "wql": wql, "newest_wql": newest}
        except TrendcastError as error:
            if not settings:
                raise  # the project's own settings: nothing to compare with, and the user's to mend
            message = f"{type(error).__name__}: {error}"[:4000]
            outcome = {"status": "failed", "wql": None, "newest_wql": None, "error": message}
        trial = Trial(
            study_id=self._study_id,
            trial=number,
            settings=json.dumps(settings),
            n_folds=len(self._folds),
            seconds=round(time.monotonic() - began, 2),
            started_at=started_at,
            **outcome,
        )
        self.trials.append(trial)
        self._keep(trial)
        return trial

    def _score(self, settings: dict[str, Any]) -> tuple[float, float]:
        """Return the loss on the folds searched on and on the newest, of several measures the mean."""
        own = getattr(self._features.settings, self._model) or {}
        changed = {self._model: own | settings}
        measures = self._features.settings.measures
        scores = [
            self._score_of(m, self._features.of(m).with_settings(**changed)) for m in measures
        ]
        searched, newest = zip(*scores, strict=True)
        return statistics.fmean(searched), statistics.fmean(newest)

    def _score_of(self, measure: str, features: Features) -> tuple[float, float]:
        """Return both losses of a measure."""
        model = create(self._model)

        def fit(cutoff: Cutoff) -> None:
            model.fit(features, cutoff.t, features.settings.seed, lambda message: None)

        if not model.refits_each_fold:
            fit(self._folds[-1])  # as in the backtest: later folds only test it harder
        losses = []
        for fold in (*self._folds, self._newest):
            if model.refits_each_fold:
                fit(fold)
            losses.append(self._loss(measure, model.forecast(features, fold.t), fold))
        *searched, (newest, newest_sold) = losses
        sold = sum(s for _, s in searched)
        if not sold or not newest_sold:
            raise DataError(
                "Nothing was sold in a horizon after the cutoffs of the backtest, so no loss can be put in relation to it."
            )
        return sum(loss for loss, _ in searched) / sold, newest / newest_sold

    def _loss(self, measure: str, rows: pa.Table, fold: Cutoff) -> tuple[float, float]:
        """Return the quantile loss as ``fct_champions`` has it, and what was sold, where both are known."""
        actual = self._actuals[measure, fold.fold]
        known = actual.is_valid()
        truth = pc.filter(actual, known).to_numpy()
        quantiles = np.column_stack(
            [pc.filter(rows.column(quantile_name(q)), known).to_numpy() for q in QUANTILES]
        )
        return 2 * float(pinball(truth, quantiles).sum()) / len(QUANTILES), float(truth.sum())

    # --- Between Optuna and a trial ---

    def _suggest(self, asked: Any, name: str) -> Any:
        allowed = self._space[name]
        if isinstance(allowed, Choice):
            return asked.suggest_categorical(name, allowed.values)
        suggest = asked.suggest_int if isinstance(allowed.low, int) else asked.suggest_float
        value = suggest(name, allowed.low, allowed.high, log=allowed.log)
        # Four digits are enough, and can be read where they are pasted.
        return float(f"{value:.4g}") if isinstance(value, float) else value

    def _teach(self, study: Any, trial: Trial) -> None:
        """Tell the sampler of a trial it did not ask for; one outside the space has nothing to teach."""
        config = config_class(self._model).from_settings(
            (getattr(self._features.settings, self._model) or {}) | json.loads(trial.settings)
        )
        values = {name: getattr(config, name) for name in self._space}
        inside = all(self._space[name].allows(value) for name, value in values.items())
        if trial.wql is None or not math.isfinite(trial.wql) or not inside:
            return
        optuna = self._optuna
        study.add_trial(
            optuna.trial.create_trial(
                params=values,
                distributions={name: self._distribution(name) for name in self._space},
                value=trial.wql,
            )
        )

    def _distribution(self, name: str) -> Any:
        of, allowed = self._optuna.distributions, self._space[name]
        if isinstance(allowed, Choice):
            return of.CategoricalDistribution(allowed.values)
        kind = of.IntDistribution if isinstance(allowed.low, int) else of.FloatDistribution
        return kind(allowed.low, allowed.high, log=allowed.log)
