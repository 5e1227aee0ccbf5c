"""Ridge regression by sufficient statistics.

Ridge needs only X'X and X'y (Hoerl & Kennard 1970; Hastie, Tibshirani & Friedman, The Elements of
Statistical Learning, 3.4): one SQL aggregate over rows of the design matrix, gathered by position
(`trendcast.design`) and lent to the engine as Arrow. Coefficients go back to the warehouse as a table.

The target is demand over the series' level, weighted by the level: the variance of a count grows with
its mean, so this is the efficient weighting, and with an unpenalised intercept the forecasts add up to
the demand they were trained on. One set of coefficients per lead bucket (direct, never recursive).

The entries of the design matrix are rounded to whole multiples of 2**-16 and summed as integers. Integer
sums do not depend on the order of addition, so one thread or eight, the coefficients are the same to the
last bit. At the scale of the columns (around one) the rounding is below any statistical relevance.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trendcast.design import BATCH_ROWS, Design, Keys
from trendcast.errors import ArtifactError, DataError
from trendcast.models.base import QUANTILES, Forecast, ModelError, read_artifact
from trendcast.models.explanations import explanation_table
from trendcast.models.spread import Spread, is_counts, least_demand, sampled, scaled_variance
from trendcast.models.tables import forecast_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from trendcast.features import Features
    from trendcast.project import Column

    Array = npt.NDArray[np.float64]

FORMAT = 2
ROWS = "ridge_rows"  # the name under which SQL reads what is learnt from
# Relative to the unit diagonal of the correlations.
PENALTIES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
FRACTION = 2**16  # resolution of the fixed-point design matrix
RATIO_LIMIT = 100.0  # features are at most this many times the level
ENTRY_LIMIT = 16000  # keeps the product of two fixed-point entries inside 64 bits
COLLINEAR = 1e-6  # a feature with less than this share of its variance left over is dropped
SPREAD_ROWS = 200_000  # the spread is measured on, at most
SEASON_FALLBACK = "mean_short"  # of a series that has no whole season yet


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

    def parts(self, rows: _Rows) -> Array:
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
        progress("rows")
        cutoffs = _training_cutoffs(features, end_t)
        if not cutoffs:
            raise _too_short(features)
        silent = features.too_young(end_t, features.settings.train_periods)
        design = Design(features, cutoffs, end_t, wide=False, silent=silent, seed=seed)
        rows = _Rows.of(design, _training_keys(features, design, cutoffs, end_t, seed))
        columns = design.columns
        del design
        is_held_out = rows.target_t > self._held_out(features, end_t)
        progress("sums")
        gram = _gram(features, columns, rows.table(is_held_out))
        buckets, early = [], []
        for lead_bucket, train, held_out in gram:
            penalty = _choose_penalty(train, held_out)
            early.append(_solve(lead_bucket, train, penalty))
            buckets.append(_solve(lead_bucket, train + held_out, penalty))
        early_fit = Fit(
            features=[column.name for column in columns],
            components=[column.component for column in columns],
            buckets=early,
            spread=None,
        )
        progress("spread")
        spread = _spread(rows.take(np.flatnonzero(is_held_out)), early_fit, rows.target, seed)
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
            rows = _Rows.of(design, keys.take(part))
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
            parts[:, :-1] = fit.parts(_Rows.of(design, rows))
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


@dataclass(frozen=True)
class _Rows:
    """Rows of the design matrix as the regression sees them: R rows, P features.

    Parameters
    ----------
    matrix : array [R, P]
        Relative to the level, bounded, never missing.
    target, level, variance : array [R]
    bucket, target_t : array [R]
        Lead bucket, from 0, and the period forecast.
    """

    matrix: npt.NDArray[np.float32]
    target: Array
    level: Array
    variance: Array
    bucket: npt.NDArray[np.int64]
    target_t: npt.NDArray[np.int64]

    @classmethod
    def of(cls, design: Design, keys: Keys) -> _Rows:
        """Read rows; a target that has not come to pass is NaN."""
        level, variance = (values.astype(np.float64) for values in design.scale(keys))
        matrix = design.matrix(keys)
        names = [column.name for column in design.columns]
        for j, column in enumerate(design.columns):
            values = matrix[:, j]
            if column.role == "season" and SEASON_FALLBACK in names:
                # Of a series without a whole season its mean stands for the season.
                instead = matrix[:, names.index(SEASON_FALLBACK)]
                np.copyto(values, instead, where=np.isnan(values))
            np.nan_to_num(values, copy=False, nan=0.0, posinf=RATIO_LIMIT, neginf=-RATIO_LIMIT)
            np.clip(values, -RATIO_LIMIT, RATIO_LIMIT, out=values)
        return cls(
            matrix,
            design.target(keys).astype(np.float64),
            level,
            variance,
            (keys.lead.astype(np.int64) - 1) // design.lead_bucket,
            keys.cutoff.astype(np.int64) + keys.lead,
        )

    def take(self, index: npt.NDArray[np.int64]) -> _Rows:
        """Return some of the rows."""
        return _Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def table(self, is_held_out: npt.NDArray[np.bool_]) -> pa.Table:
        """Return the rows as SQL reads them."""
        columns = {
            "lead_bucket": pa.array((self.bucket + 1).astype(np.int32)),
            "is_held_out": pa.array(is_held_out),
            "target": pa.array(self.target),
            "demand_level": pa.array(self.level),
        }
        for j in range(self.matrix.shape[1]):
            columns[_x(j)] = pa.array(np.ascontiguousarray(self.matrix[:, j]))
        return pa.table(columns)


def _x(j: int) -> str:
    return f"x{j}"


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


def _training_keys(
    features: Features, design: Design, cutoffs: Sequence[int], end_t: int, seed: int
) -> Keys:
    """Return about ``train_rows`` rows with a known target up to ``end_t``, spread by chance over cutoffs, leads and series.

    What a date does to all series is learnt from as many dates as there are: few dates with every series on them say less
    than many dates with a part of the series each.
    """
    leads = {t: range(1, min(design.horizon, end_t - t) + 1) for t in cutoffs}
    share = features.settings.train_rows / max(
        1, len(design.series_id) * sum(map(len, leads.values()))
    )
    parts = []
    for t, ahead in leads.items():
        keys = design.keys([t], ahead)
        parts.append(keys.take(sampled(len(keys), math.ceil(share * len(keys)), seed + t)))
    keys = Keys.concatenate(parts)
    return keys.take(np.isfinite(design.target(keys)))


def _gram(
    features: Features, columns: Sequence[Column], rows: pa.Table
) -> list[tuple[int, Array, Array]]:
    """Sufficient statistics per lead bucket, of the rows not held out and of those that are.

    Returns
    -------
    list of (lead bucket, train [P + 2, P + 2], held out [P + 2, P + 2])
        Moments of (1, features, target), weighted by the level.
    """
    scale = _weight_scale(features, rows)
    expressions = ["1.0", *(_x(j) for j in range(len(columns))), "target / demand_level"]
    p = len(expressions)

    def entry(i: int) -> str:
        value = f"({expressions[i]}) * sqrt(demand_level / {scale!r})"
        bounded = f"least(greatest({value}, -{ENTRY_LIMIT}), {ENTRY_LIMIT})"
        return f"cast(round({bounded} * {FRACTION}) as bigint) as e{i}"

    pairs = [(i, j) for i in range(p) for j in range(i, p)]
    sums = ",\n".join(f"cast(sum(e{i} * e{j}) as double) as s{i}_{j}" for i, j in pairs)
    table = features.compute(
        f"""
        with entries as (
            select lead_bucket, is_held_out, {", ".join(entry(i) for i in range(p))} from {ROWS}
        )
        select lead_bucket, is_held_out, {sums}
        from entries
        group by lead_bucket, is_held_out
        order by lead_bucket, is_held_out
        """,
        {ROWS: rows},
    )
    moments: dict[int, list[Array]] = {}
    for row in table.to_pylist():
        gram = np.zeros((p, p))
        for i, j in pairs:
            gram[i, j] = gram[j, i] = row[f"s{i}_{j}"] / FRACTION**2
        halves = moments.setdefault(row["lead_bucket"], [np.zeros((p, p)), np.zeros((p, p))])
        halves[int(row["is_held_out"])] += gram
    usable = [(bucket, a, b) for bucket, (a, b) in sorted(moments.items()) if a[0, 0] > 0]
    wanted = -(-features.settings.horizon // features.settings.lead_bucket)
    if len(usable) < wanted:
        raise _too_short(features)
    return usable


def _too_short(features: Features) -> DataError:
    return DataError(
        f"The history up to the cutoff is too short to train a regression {features.settings.horizon} periods ahead (it "
        "needs pairs of a cutoff and a target that far apart, in two parts). Lower the var `horizon` or `backtest_folds`."
    )


def _weight_scale(features: Features, rows: pa.Table) -> float:
    """Return the power of two nearest to the mean level, to keep weights around one."""
    sql = f"select avg(demand_level) as level from {ROWS}"
    (level,) = features.compute(sql, {ROWS: rows}).column("level").to_pylist()
    return float(2.0 ** round(np.log2(level))) if level else 1.0


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


def _spread(held_out: _Rows, fit: Fit, target: Array, seed: int) -> Spread:
    """Measure the spread about the means of rows held out; all targets tell whether demand comes in whole units."""
    rows = held_out.take(sampled(len(held_out.target), SPREAD_ROWS, seed))
    mean = np.maximum(fit.parts(rows).sum(axis=1), 0)
    return Spread.measure(
        rows.target,
        mean,
        scaled_variance(mean, rows.level, rows.variance),
        rows.bucket,
        counts=is_counts(target),
        smallest=least_demand(rows.target),
        n_buckets=len(fit.buckets),
        seed=seed,
    )
