"""Ridge regression by sufficient statistics.

Ridge needs only X'X and X'y (Hoerl & Kennard 1970; Hastie, Tibshirani & Friedman, The Elements of
Statistical Learning, 3.4): an SQL aggregate over rows of the design matrix, made where the rows are
(`trendcast.models.ridge_rows`). Coefficients go back to the warehouse as a table.

The target is demand over the series' level, weighted by the level: the variance of a count grows with
its mean, so this is the efficient weighting, and with an unpenalised intercept the forecasts add up to
the demand they were trained on. One set of coefficients per lead bucket (direct, never recursive).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trendcast.design import BATCH_ROWS, Design, Keys
from trendcast.errors import ArtifactError, DataError
from trendcast.models.base import QUANTILES, Forecast, ModelError, read_artifact
from trendcast.models.explanations import explanation_table
from trendcast.models.ridge_rows import Rows, statistics
from trendcast.models.spread import Spread, least_demand, scaled_variance
from trendcast.models.tables import forecast_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from trendcast.features import Features

    Array = npt.NDArray[np.float64]

FORMAT = 2
# Relative to the unit diagonal of the correlations.
PENALTIES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
COLLINEAR = 1e-6  # a feature with less than this share of its variance left over is dropped


@dataclass(frozen=True)
class Bucket:
    """What was learnt for one group of leads; arrays run over the features.

    Parameters
    ----------
    intercept
        In units of the level.
    coefficients, means, stds
        Of the scaled features, [P]; a dropped feature's coefficient is 0.
    dropped
        Features that do not vary or repeat others, [P].
    penalty
        The ridge penalty chosen.
    """

    lead_bucket: int
    intercept: float
    coefficients: list[float]
    means: list[float]
    stds: list[float]
    dropped: list[bool]
    penalty: float


@dataclass(frozen=True)
class Fit:
    """A fitted regression: plain data, all of which goes into the artefact."""

    features: list[str]
    components: list[str]
    buckets: list[Bucket]
    #: Measured on periods the fit did not see; None before it is.
    spread: Spread | None

    @property
    def component_names(self) -> list[str]:
        """The components of an explanation, each once; the level comes first."""
        return list(dict.fromkeys(["level", *self.components]))

    def parts(self, rows: Rows) -> Array:
        """Return what each component adds to the mean of rows, [R, C]; their sum may be below zero."""
        names = self.component_names
        into = np.zeros((len(self.components), len(names)))
        into[np.arange(len(self.components)), [names.index(c) for c in self.components]] = 1
        out = np.empty((len(rows.level), len(names)))
        for b, bucket in enumerate(self.buckets):
            there = np.flatnonzero(rows.bucket == b)
            weights = np.array(bucket.coefficients)[:, None] * into
            # Not BLAS, whose sums may depend on the number of threads.
            out[there] = np.einsum("rp,pc->rc", rows.matrix[there].astype(np.float64), weights)
            out[there, 0] += bucket.intercept
        return out * rows.level[:, None]


class Ridge:
    """Direct multi-horizon ridge regression by sufficient statistics in SQL."""

    name = "ridge"
    refits_each_fold = True
    scores_by_series = True
    needs_history = True

    def __init__(self) -> None:
        self._fit: Fit | None = None

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Learn from targets up to ``end_t``; the later part of them chooses the penalty.

        Raises
        ------
        DataError
            The history up to ``end_t`` leaves no training rows.
        """
        cutoffs = _training_cutoffs(features, end_t)
        if not cutoffs:
            raise _too_short(features)
        progress("sums")
        found = statistics(features, cutoffs, end_t, self._held_out(features, end_t), seed)
        buckets, early = [], []
        for lead_bucket, (train, held_out) in found.gram.items():
            if train[0, 0] > 0:
                penalty = _choose_penalty(train, held_out)
                early.append(_solve(lead_bucket, train, penalty))
                buckets.append(_solve(lead_bucket, train + held_out, penalty))
        if len(buckets) < -(-features.settings.horizon // features.settings.lead_bucket):
            raise _too_short(features)
        early_fit = Fit(
            features=[column.name for column in found.columns],
            components=[column.component for column in found.columns],
            buckets=early,
            spread=None,
        )
        progress("spread")
        counts = features.in_whole_units(end_t)
        spread = _spread(found.held_out, early_fit, counts=counts, seed=seed)
        self._fit = replace(early_fit, buckets=buckets, spread=spread)

    @staticmethod
    def _held_out(features: Features, end_t: int) -> int:
        """Last training target: two horizons before the end, or a third of a short history."""
        span = end_t - features.first_t
        return end_t - max(1, min(2 * features.settings.horizon, span // 3))

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Score every series from a cutoff."""
        design = Design(features, [cutoff_t], cutoff_t, wide=False)
        fit = self._fitted(design)
        assert fit.spread is not None
        keys = design.keys([cutoff_t])
        n, horizon = len(keys) // design.horizon, design.horizon
        mean, quantiles = np.empty(len(keys)), np.empty((len(keys), len(QUANTILES)))
        for part in _slices(len(keys)):
            rows = Rows.of(design, keys.take(part))
            mean[part] = np.maximum(fit.parts(rows).sum(axis=1), 0)
            quantiles[part] = fit.spread.quantiles(
                mean[part], scaled_variance(mean[part], rows.level, rows.variance), rows.bucket
            )
        forecast = Forecast(
            _names(design, keys),
            cutoff_t,
            mean.reshape(n, horizon),
            quantiles.reshape(n, horizon, len(QUANTILES)),
        )
        return forecast_table(forecast, features.dates)

    def explain(self, features: Features, cutoff_t: int) -> pa.Table:
        """Contributions by component, exact: they add up to the mean."""
        design = Design(features, [cutoff_t], cutoff_t, wide=False)
        fit = self._fitted(design)
        keys = design.keys([cutoff_t])
        names = [*fit.component_names, "floor"]
        series, horizon = _names(design, keys), design.horizon
        at_once = max(1, BATCH_ROWS // horizon)
        tables = []
        # A batch of series at a time: every part of every forecast at once would take gigabytes before the first row.
        for start in range(0, len(series), at_once):
            some = series[start : start + at_once]
            rows = keys.take(slice(start * horizon, (start + len(some)) * horizon))
            parts = np.empty((len(rows), len(names)))
            parts[:, :-1] = fit.parts(Rows.of(design, rows))
            parts[:, -1] = np.maximum(-parts[:, :-1].sum(axis=1), 0)
            shaped = parts.reshape(len(some), horizon, len(names))
            tables.append(explanation_table(some, cutoff_t, features.dates, names, shaped))
        return pa.concat_tables(tables)

    def coefficients(self) -> pa.Table:
        """Coefficients with the penalty, and what was dropped as collinear."""
        fit = self._fit
        if fit is None:
            raise ModelError("the ridge regression is neither trained nor loaded")
        rows: list[dict[str, Any]] = []
        for bucket in fit.buckets:
            common = {"lead_bucket": bucket.lead_bucket, "penalty": bucket.penalty}
            rows.append(
                common
                | {"feature": "intercept", "component": "level", "coefficient": bucket.intercept}
                | {"feature_mean": 1.0, "feature_std": 0.0, "is_dropped": False}
            )
            for j, name in enumerate(fit.features):
                rows.append(
                    common
                    | {"feature": name, "component": fit.components[j]}
                    | {"coefficient": bucket.coefficients[j], "feature_mean": bucket.means[j]}
                    | {"feature_std": bucket.stds[j], "is_dropped": bucket.dropped[j]}
                )
        return pa.Table.from_pylist(
            rows,
            schema=pa.schema(
                [
                    ("lead_bucket", pa.int32()),
                    ("feature", pa.string()),
                    ("component", pa.string()),
                    ("coefficient", pa.float64()),
                    ("feature_mean", pa.float64()),
                    ("feature_std", pa.float64()),
                    ("is_dropped", pa.bool_()),
                    ("penalty", pa.float64()),
                ]
            ),
        )

    def save(self, directory: Path) -> list[Path]:
        """Write ``ridge.json``."""
        if self._fit is None:
            raise ModelError("the ridge regression is not trained")
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "ridge.json"
        path.write_text(json.dumps({"format": FORMAT, "fit": asdict(self._fit)}, indent=1))
        return [path]

    def load(self, directory: Path) -> None:
        """Read ``ridge.json``."""
        fit = read_artifact(directory / "ridge.json", FORMAT)["fit"]
        parts = {
            "buckets": [Bucket(**bucket) for bucket in fit["buckets"]],
            "spread": Spread(**fit["spread"]),
        }
        self._fit = Fit(**(fit | parts))

    def _fitted(self, design: Design) -> Fit:
        if self._fit is None:
            raise ModelError("the ridge regression is neither trained nor loaded")
        now = [column.name for column in design.columns]
        if now != self._fit.features:
            gone = sorted(set(self._fit.features) - set(now))
            new = sorted(set(now) - set(self._fit.features))
            raise ArtifactError(
                f"The stored ridge regression was trained on other features: missing now {gone}, new {new}. "
                "Train again with `trendcast train`."
            )
        return self._fit


# --- The rows ---


def _slices(n: int) -> Iterator[slice]:
    return (slice(start, start + BATCH_ROWS) for start in range(0, n, BATCH_ROWS))


def _names(design: Design, keys: Keys) -> npt.NDArray[np.str_]:
    """Return the series of a cutoff's keys, [N]."""
    return np.asarray(design.series_id, dtype=np.str_)[keys.series[:: design.horizon]]


def _training_cutoffs(features: Features, end_t: int) -> list[int]:
    """Return the cutoffs to learn from, evenly spaced and in step with the end.

    Where the stride divides the season, as that of months does, they so stand where the forecast's cutoff does in it.
    """
    stride = features.settings.train_stride
    first = max(features.first_t, end_t - features.settings.train_periods)
    return list(range(end_t - (end_t - first) // stride * stride, end_t, stride))


def _too_short(features: Features) -> DataError:
    return DataError(
        f"The history up to the cutoff is too short to train a regression {features.settings.horizon} periods ahead (it "
        "needs pairs of a cutoff and a target that far apart, in two parts). Lower the var `horizon` or `backtest_folds`."
    )


# --- The small matrix ---


def _choose_penalty(train: Array, held_out: Array) -> float:
    """Return the penalty whose coefficients have the least squared error on the later targets."""
    if held_out[0, 0] <= 0:
        return PENALTIES[len(PENALTIES) // 2]

    def error(penalty: float) -> float:
        bucket = _solve(0, train, penalty)
        v = np.array([bucket.intercept, *bucket.coefficients, -1.0])
        return float(v @ held_out @ v)

    return min(PENALTIES, key=error)


def _solve(lead_bucket: int, gram: Array, penalty: float) -> Bucket:
    """Solve the ridge normal equations on standardised features.

    Parameters
    ----------
    gram
        Weighted moments of (1, features, target), [P + 2, P + 2].
    penalty
        Added to the diagonal of the correlation matrix.
    """
    n = gram[0, 0]
    means = gram[0, 1:] / n
    cov = gram[1:, 1:] / n - np.outer(means, means)
    stds = np.sqrt(np.maximum(np.diag(cov)[:-1], 0))
    varies = stds > 1e-4 * np.maximum(1.0, np.abs(means[:-1]))
    kept = _independent(cov[:-1, :-1], stds, varies)
    coefficients = np.zeros(len(stds))
    if len(kept):
        scale = stds[kept]
        corr = cov[np.ix_(kept, kept)] / np.outer(scale, scale)
        right = cov[kept, -1] / scale
        coefficients[kept] = np.linalg.solve(corr + penalty * np.eye(len(kept)), right) / scale
    dropped = np.ones(len(stds), dtype=bool)
    dropped[kept] = False
    return Bucket(
        lead_bucket=lead_bucket,
        intercept=float(means[-1] - means[:-1] @ coefficients),
        coefficients=coefficients.tolist(),
        means=means[:-1].tolist(),
        stds=stds.tolist(),
        dropped=dropped.tolist(),
        penalty=penalty,
    )


def _independent(cov: Array, stds: Array, varies: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the features that add something, in order, by Cholesky of their correlations.

    A feature whose variance is explained by the ones before it, to all but ``COLLINEAR``, is left out.
    """
    kept: list[int] = []
    rows: list[Array] = []
    for j in np.flatnonzero(varies):
        corr = cov[j, kept] / (stds[j] * stds[kept]) if kept else np.zeros(0)
        row = np.zeros(len(kept))
        for k in range(len(kept)):
            row[k] = (corr[k] - rows[k][:k] @ row[:k]) / rows[k][k]
        left = 1.0 - row @ row
        if left > COLLINEAR:
            kept.append(int(j))
            rows.append(np.append(row, np.sqrt(left)))
    return np.array(kept, dtype=np.int64)


# --- The spread ---


def _spread(rows: Rows, fit: Fit, *, counts: bool, seed: int) -> Spread:
    """Measure the spread about the means of rows held out."""
    mean = np.maximum(fit.parts(rows).sum(axis=1), 0)
    return Spread.measure(
        rows.target,
        mean,
        scaled_variance(mean, rows.level, rows.variance),
        rows.bucket,
        counts=counts,
        smallest=least_demand(rows.target),
        n_buckets=len(fit.buckets),
        seed=seed,
    )
