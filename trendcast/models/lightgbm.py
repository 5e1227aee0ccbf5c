"""Gradient boosted trees over (series, cutoff, lead) rows, one model for all series and leads (LightGBM).

The approach that won M5 (Makridakis, Spiliotis & Assimakopoulos, M5 accuracy competition, IJF 2022): one global
model, direct over leads, Poisson deviance. The target is demand over the series' level at the cutoff, weighted by the
level: then leaves average whole demand, so the mean adds up to what was sold in training, in every group a tree can
tell apart. Lead is a feature. How many trees to grow, and how wide the quantiles are (`trendcast.models.spread`), is measured
on the latest horizons, each forecast by trees that had seen nothing after its cutoff: rolling origins, as the forecast
itself will be (Tashman, Out-of-sample tests of forecasting accuracy, IJF 2000). One horizon would be a gamble: what is best for
one with Christmas in it may be far from best for the next.

Rows are a seeded sample over evenly spaced cutoffs, bounded by ``max_rows`` whatever the panel's size. LightGBM 4
(Ke et al., NeurIPS 2017) is run deterministically: the same seed, data and version give the same trees on any
number of threads.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from trendcast.design import OWN_FEATURES, Design, Keys
from trendcast.errors import ArtifactError, DataError
from trendcast.models.backend import import_lightgbm, openmp_threads
from trendcast.models.base import (
    QUANTILES,
    Choice,
    Forecast,
    ModelError,
    Range,
    config_from_settings,
    read_artifact,
)
from trendcast.models.explanations import explanation_table, in_units, positions
from trendcast.models.spread import Spread, is_counts, least_demand, sampled, scaled_variance
from trendcast.models.tables import forecast_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from trendcast.features import Features

    Array = npt.NDArray[np.float64]
    Say = Callable[[str], None]

FORMAT = 1
PREDICT_ROWS = 200_000
EXPLAIN_ROWS = 10_000  # explained at once: a number per feature each
RATIO_LIMIT = 100.0  # a target is at most this many times the level


@dataclass(frozen=True)
class LightGBMConfig:
    """Settings, from the dbt var ``lightgbm``.

    Parameters
    ----------
    max_rows
        Rows to train on, at most; more are sampled.
    train_cutoffs, train_periods
        How many cutoffs to learn from, and over how many periods before the last target they are spread.
    windows
        Held-out horizons the number of rounds and the spread are measured on, at most; a short history has fewer.
    error_rows
        Rows of all held-out horizons, at most.
    max_rounds, patience, learning_rate, num_leaves, min_rows, feature_share, row_share, penalty
        Of the trees; the number of rounds is the one after which the held-out horizons no longer improve on average.
    max_categories
        A category with more values than this is left out: it learns single series by heart.
    explain_rows
        Forecasts taken apart, at most, in whole series from the largest on: it takes far longer than forecasting them.
    threads
        Of LightGBM; the result does not depend on them. None: see `trendcast.models.backend.openmp_threads`.
    """

    max_rows: int = 1_000_000
    train_cutoffs: int = 40
    train_periods: int | None = None
    windows: int = 3
    error_rows: int = 150_000
    max_rounds: int = 400
    patience: int = 60
    learning_rate: float = 0.08
    num_leaves: int = 31
    min_rows: int = 60
    feature_share: float = 0.7
    row_share: float = 0.7
    penalty: float = 1.0
    max_bin: int = 127
    max_categories: int = 100
    explain_rows: int = 20_000
    threads: int | None = None

    #: What `trendcast tune` may try.
    SPACE: ClassVar[dict[str, Range | Choice]] = {
        "learning_rate": Range(0.02, 0.2, log=True),
        "num_leaves": Range(7, 255, log=True),
        "min_rows": Range(10, 500, log=True),
        "feature_share": Range(0.3, 1.0),
        "row_share": Range(0.4, 1.0),
        "penalty": Range(0.01, 100.0, log=True),
        "train_cutoffs": Range(20, 120, log=True),
    }

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        for name in (
            *("max_rows", "train_cutoffs", "windows", "max_rounds", "threads", "explain_rows"),
        ):
            value = getattr(self, name)
            if value is None and name == "threads":
                continue
            if not isinstance(value, int) or value < 1:
                raise ModelError(
                    f"lightgbm setting {name!r} must be a whole number of at least 1, got {value!r}"
                )

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> LightGBMConfig:
        """Build from a dict, such as the dbt var ``lightgbm``; unknown names are refused."""
        return config_from_settings(cls, "lightgbm", settings)

    def parameters(self, seed: int) -> dict[str, Any]:
        """Return LightGBM's parameters."""
        return {
            "objective": "poisson",
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "min_data_in_leaf": self.min_rows,
            "min_sum_hessian_in_leaf": 1e-3,
            "feature_fraction": self.feature_share,
            "bagging_fraction": self.row_share,
            "bagging_freq": 1,
            "lambda_l2": self.penalty,
            "max_bin": self.max_bin,
            "cat_smooth": 20,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads or openmp_threads(),
            "verbose": -1,
        }


@dataclass(frozen=True)
class _Sample:
    """Training rows: features [R, F], target in units of the level, and what scales them."""

    matrix: npt.NDArray[np.float32]
    actual: Array
    level: Array
    variance: Array
    cutoff_t: npt.NDArray[np.int32]
    target_t: npt.NDArray[np.int32]
    bucket: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[Any]) -> _Sample:
        return _Sample(*(getattr(self, f.name)[rows] for f in fields(self)))


class LightGBM:
    """Global gradient boosting with lead as a feature."""

    name = "lightgbm"
    #: Two trainings (the one without the latest periods measures the spread) are too dear for every fold.
    refits_each_fold = False
    scores_by_series = True
    needs_history = True

    def __init__(self) -> None:
        self._booster: Any = None
        self._about: dict[str, Any] = {}
        self._spread: Spread | None = None

    def fit(self, features: Features, end_t: int, seed: int, progress: Say) -> None:
        """Learn from targets up to ``end_t``.

        Raises
        ------
        DataError
            The history up to ``end_t`` leaves no training rows.
        """
        config = LightGBMConfig.from_settings(features.settings.lightgbm)
        progress("rows")
        cutoffs = _cutoffs(features, config, end_t)
        windows = _windows(features, config, end_t)
        design = Design(
            features,
            [*cutoffs, *windows],
            end_t,
            max_values=config.max_categories,
            silent=features.too_young(end_t, _span(features, config)),
            seed=seed,
        )
        self._about = {"names": design.names, "categories": design.categories}
        sample = _sample(design, config, cutoffs, windows, seed)
        folds = _folds(sample, windows)
        if not folds:
            raise DataError(
                f"The history up to the cutoff has {end_t - features.first_t + 1} periods, too few to train lightgbm "
                f"{features.settings.horizon} periods ahead. Lower the var `horizon` or `backtest_folds`."
            )
        n_buckets = -(-design.horizon // design.lead_bucket)
        counts, smallest = is_counts(sample.actual), least_demand(sample.actual)
        rows = self._dataset(config, seed, sample)
        tested = np.sort(np.concatenate([ahead for _, ahead in folds]))
        errors = sample.take(tested)
        # The trees grow on LightGBM's own copy, which has a byte where these have four.
        del design, sample
        progress(f"trees without the latest periods, {len(folds)} times")
        rounds, trees = _rounds(config, seed, rows, folds)
        mean = np.empty(len(tested))
        for booster, (_, ahead) in zip(trees, folds, strict=True):
            at = np.searchsorted(tested, ahead)
            mean[at] = booster.predict(errors.matrix[at], num_iteration=rounds) * errors.level[at]
        self._spread = Spread.measure(
            errors.actual,
            mean,
            scaled_variance(mean, errors.level, errors.variance),
            errors.bucket,
            counts=counts,
            smallest=smallest,
            n_buckets=n_buckets,
            seed=seed,
        )
        del trees, errors
        progress(f"{rounds} trees")
        self._booster = _train(config, seed, rows, rounds)

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Forecast every series from a cutoff."""
        if self._spread is None:
            raise ModelError("lightgbm is neither trained nor loaded")
        design = Design(features, [cutoff_t], cutoff_t, categories=self._about["categories"])
        self._check(design)
        keys = design.keys([cutoff_t])
        n = len(keys) // design.horizon
        mean = np.empty(len(keys))
        quantiles = np.empty((len(keys), len(QUANTILES)))
        for start in range(0, len(keys), PREDICT_ROWS):
            rows = slice(start, start + PREDICT_ROWS)
            part = keys.take(rows)
            level, variance = (values.astype(np.float64) for values in design.scale(part))
            expected = self._booster.predict(design.matrix(part)) * level
            mean[rows] = expected
            quantiles[rows] = self._spread.quantiles(
                expected, scaled_variance(expected, level, variance), _bucket(design, part)
            )
        names = np.asarray(design.series_id, dtype=np.str_)[keys.series[:: design.horizon]]
        forecast = Forecast(
            names,
            cutoff_t,
            mean.reshape(n, design.horizon),
            quantiles.reshape(n, design.horizon, len(QUANTILES)),
        )
        return forecast_table(forecast, features.dates)

    def explain(self, features: Features, cutoff_t: int) -> pa.Table | None:
        """Contributions by component that add up to the mean, of up to ``explain_rows`` forecasts of the whole panel.

        TreeSHAP (Lundberg et al., Nature Machine Intelligence 2020) takes the logarithm of the mean over the level apart.
        The logarithmic mean of the forecast and of what trees say on average turns these parts into units of the
        measure and leaves no residual (LMDI: Ang, Energy Policy 2005). What trees say on average counts as level.
        """
        if self._spread is None:
            raise ModelError("lightgbm is neither trained nor loaded")
        design = Design(features, [cutoff_t], cutoff_t, categories=self._about["categories"])
        self._check(design)
        keys = design.keys([cutoff_t])
        most = LightGBMConfig.from_settings(features.settings.lightgbm).explain_rows
        horizon = design.horizon
        series_id = np.asarray(design.series_id, dtype=np.str_)[keys.series[::horizon]]
        chosen = positions(features.largest(cutoff_t, max(1, most // horizon)), series_id)
        if not len(chosen):
            return None
        keys = keys.take((chosen[:, None] * horizon + np.arange(horizon)).ravel())
        components = _components(features, design)
        names = list(dict.fromkeys(["level", *components]))
        into = np.zeros((len(components), len(names)))
        into[np.arange(len(components)), [names.index(c) for c in components]] = 1
        out = np.empty((len(keys), len(names)))
        for start in range(0, len(keys), EXPLAIN_ROWS):
            rows = slice(start, start + EXPLAIN_ROWS)
            part = keys.take(rows)
            shares = self._booster.predict(design.matrix(part), pred_contrib=True)
            base = np.exp(shares[:, -1]) * design.scale(part)[0].astype(np.float64)
            out[rows] = in_units(shares[:, :-1] @ into, base)
            out[rows, 0] += base
        contributions = out.reshape(len(chosen), horizon, len(names))
        return explanation_table(series_id[chosen], cutoff_t, features.dates, names, contributions)

    def coefficients(self) -> pa.Table | None:
        """Return None."""
        return None

    def save(self, directory: Path) -> list[Path]:
        """Write ``lightgbm.txt`` (the trees) and ``lightgbm.json`` (the rest)."""
        if self._spread is None:
            raise ModelError("lightgbm is not trained")
        directory.mkdir(parents=True, exist_ok=True)
        trees, rest = directory / "lightgbm.txt", directory / "lightgbm.json"
        trees.write_text(self._booster.model_to_string())
        rest.write_text(
            json.dumps({"format": FORMAT, "about": self._about, "spread": asdict(self._spread)})
        )
        return [trees, rest]

    def load(self, directory: Path) -> None:
        """Read what ``save`` wrote."""
        lightgbm = import_lightgbm()
        data = read_artifact(directory / "lightgbm.json", FORMAT)
        self._about, self._spread = data["about"], Spread(**data["spread"])
        self._booster = lightgbm.Booster(model_str=(directory / "lightgbm.txt").read_text())

    def _dataset(self, config: LightGBMConfig, seed: int, sample: _Sample) -> Any:
        """Return the sample as LightGBM keeps it, in bins."""
        names = self._about["names"]
        rows = import_lightgbm().Dataset(
            sample.matrix,
            np.minimum(sample.actual / sample.level, RATIO_LIMIT),
            weight=sample.level / sample.level.mean(),
            feature_name=_safe(names),
            categorical_feature=[names.index(name) for name in self._about["categories"]],
            params=config.parameters(seed),
        )
        return rows.construct()

    def _check(self, design: Design) -> None:
        """Refuse other features than those of the training."""
        if design.names != self._about["names"]:
            gone = sorted(set(self._about["names"]) - set(design.names))
            new = sorted(set(design.names) - set(self._about["names"]))
            raise ArtifactError(
                f"The stored lightgbm was trained on other features: missing now {gone}, new {new}. "
                "Train again with `trendcast train`."
            )


def _components(features: Features, design: Design) -> list[str]:
    """Return what each feature counts under, in the order of the matrix."""
    found = {
        c.name: c.component
        for c in features.project.with_role("history", "season", "known", wide=True)
    }
    found |= dict.fromkeys(OWN_FEATURES, "level")
    return [found.get(name, "other") for name in design.names]


def _cutoffs(features: Features, config: LightGBMConfig, end_t: int) -> list[int]:
    """Return evenly spaced cutoffs before the end.

    The stride shares no factor with the season: with one cutoff a week, lead would stand for the weekday, and
    the first forecast from another weekday would be wrong by a day.
    """
    settings = features.settings
    first = max(features.first_t, end_t - _span(features, config))
    stride = max(1, (end_t - first) // config.train_cutoffs)
    while math.gcd(stride, settings.season_length) > 1:
        stride += 1
    return list(range(end_t - 1, first - 1, -stride))[::-1] or [end_t - 1]


def _span(features: Features, config: LightGBMConfig) -> int:
    """Return the periods to learn from: seven months of days, four years of weeks, eight of months, where not set."""
    return config.train_periods or {"day": 210, "week": 208, "month": 96}[features.settings.grain]


def _windows(features: Features, config: LightGBMConfig, end_t: int) -> list[int]:
    """Return the cutoffs of the held-out horizons, newest first: one horizon apart, less where the history is short."""
    span = end_t - features.first_t
    length = max(1, min(features.settings.horizon, span // 3))
    cutoffs = [end_t - length * (j + 1) for j in range(config.windows)]
    # The trees of each must have something to learn from: at least as long a history as they are to forecast.
    return [c for c in cutoffs if c - features.first_t >= length]


def _sample(
    design: Design, config: LightGBMConfig, cutoffs: list[int], windows: list[int], seed: int
) -> _Sample:
    """Return up to ``max_rows`` rows with a known target, spread evenly by chance, and up to ``error_rows`` of the windows."""

    def known(cutoff: int) -> Keys:
        keys = design.keys([cutoff])
        return keys.take(~np.isnan(design.target(keys)))

    def drawn(cutoffs: list[int], most: int) -> Keys:
        # One cutoff after the other, for all rows at once are many times those that are kept.
        count = {t: len(known(t)) for t in cutoffs}
        share = min(1.0, most / max(1, sum(count.values())))
        parts = [known(t).take(sampled(n, int(share * n), seed + t)) for t, n in count.items()]
        return Keys.concatenate(parts)

    others = [c for c in cutoffs if c not in windows]  # a row is learnt from once
    parts = [drawn(others, config.max_rows)] if others else []
    parts += [drawn([cutoff], config.error_rows // len(windows)) for cutoff in windows]
    keys = Keys.concatenate(parts)
    level, variance = design.scale(keys)
    return _Sample(
        matrix=design.matrix(keys),
        actual=design.target(keys).astype(np.float64),
        level=level.astype(np.float64),
        variance=variance.astype(np.float64),
        cutoff_t=keys.cutoff,
        target_t=keys.cutoff + keys.lead,
        bucket=_bucket(design, keys),
    )


def _folds(
    sample: _Sample, windows: list[int]
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the rows to train on and to test on for each window; none where there is nothing to train on."""
    found = []
    for cutoff in windows:
        known = np.flatnonzero(sample.target_t <= cutoff)
        ahead = np.flatnonzero(sample.cutoff_t == cutoff)
        if len(known) and len(ahead):
            found.append((known, ahead))
    return found


def _bucket(design: Design, keys: Keys) -> npt.NDArray[np.int64]:
    return (keys.lead.astype(np.int64) - 1) // design.lead_bucket


def _rounds(
    config: LightGBMConfig,
    seed: int,
    rows: Any,
    folds: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
) -> tuple[int, list[Any]]:
    """Grow trees on every fold at once until they no longer improve on average; return how many and the trees."""
    lightgbm = import_lightgbm()
    found = lightgbm.cv(
        config.parameters(seed),
        rows,
        config.max_rounds,
        folds=folds,
        callbacks=[lightgbm.early_stopping(config.patience, verbose=False)],
        return_cvbooster=True,
    )
    trees = found["cvbooster"]
    return trees.best_iteration, trees.boosters


def _train(config: LightGBMConfig, seed: int, rows: Any, rounds: int) -> Any:
    """Grow trees on all rows."""
    return import_lightgbm().train(config.parameters(seed), rows, rounds)


def _safe(names: list[str]) -> list[str]:
    """Return names without the characters LightGBM refuses; a user's column may be called anything."""
    return [f"f{j}_" + "".join(c if c.isalnum() else "_" for c in n) for j, n in enumerate(names)]
