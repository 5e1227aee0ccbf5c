"""Ridge regression that trains where the data is.

Ridge needs only X'X and X'y (Hoerl & Kennard 1970; Hastie, Tibshirani & Friedman, The Elements of
Statistical Learning, 3.4): one SQL aggregate over the design matrix. Only that small matrix leaves the
warehouse; coefficients go back as a table, and scoring and additive explanations are SQL.

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
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trendcast.errors import ArtifactError, DataError
from trendcast.models.base import ModelError, read_artifact
from trendcast.models.spread import Spread, least_demand, sampled, scaled_variance
from trendcast.models.tables import QUANTILE_NAMES
from trendcast.warehouse import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from trendcast.features import Features
    from trendcast.project import Column

    Array = npt.NDArray[np.float64]

FORMAT = 2
ROWS = "ridge_rows"  # a temporary table of what is learnt from
# Relative to the unit diagonal of the correlations.
PENALTIES = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
FRACTION = 2**16  # resolution of the fixed-point design matrix
RATIO_LIMIT = 100.0  # features are at most this many times the level
ENTRY_LIMIT = 16000  # keeps the product of two fixed-point entries inside 64 bits
COLLINEAR = 1e-6  # a feature with less than this share of its variance left over is dropped
SPREAD_ROWS = 200_000  # the spread is measured on, at most


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
    units: list[str]
    components: list[str]
    buckets: list[Bucket]
    #: Measured on periods the fit did not see; None before it is.
    spread: Spread | None

    @property
    def component_names(self) -> list[str]:
        """The components of an explanation, each once."""
        return list(dict.fromkeys([*self.components, "level"]))


class Ridge:
    """Direct multi-horizon ridge regression by sufficient statistics in SQL."""

    name = "ridge"
    refits_each_fold = True

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
        columns = features.project.design_columns
        held_out_t = self._held_out(features, end_t)
        progress("rows")
        with features.kept(ROWS, _training_rows(features, columns, end_t, held_out_t)):
            self._fit = self._learn(features, columns, seed, progress)

    @staticmethod
    def _learn(
        features: Features, columns: Sequence[Column], seed: int, progress: Callable[[str], None]
    ) -> Fit:
        """Solve on all the rows kept; measure the spread about what the earlier part alone taught."""
        progress("sums")
        gram = _gram(features, columns)
        buckets, early = [], []
        for lead_bucket, train, held_out in gram:
            penalty = _choose_penalty(train, held_out)
            early.append(_solve(lead_bucket, train, penalty))
            buckets.append(_solve(lead_bucket, train + held_out, penalty))
        early_fit = Fit(
            features=[column.name for column in columns],
            units=[column.unit for column in columns],
            components=[column.component for column in columns],
            buckets=early,
            spread=None,
        )
        progress("spread")
        return replace(early_fit, buckets=buckets, spread=_spread(features, early_fit, seed))

    @staticmethod
    def _held_out(features: Features, end_t: int) -> int:
        """Last training target: two horizons before the end, or a third of a short history."""
        span = end_t - features.first_t
        return end_t - max(1, min(2 * features.settings.horizon, span // 3))

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Score every series from a cutoff: means in SQL, quantiles by the spread about them."""
        fit = self._fitted(features)
        _lend_coefficients(features, fit)
        scored = features.query(
            f"""
            select series_id, cutoff, target_date, lead, mean, lead_bucket, demand_level, demand_variance
            from ({_scores(features, fit)}) as scored
            order by series_id, lead
            """,
            [cutoff_t],
        )
        mean, level, variance, bucket = _scale_of(scored)
        assert fit.spread is not None
        quantiles = fit.spread.quantiles(mean, scaled_variance(mean, level, variance), bucket)
        table = scored.select(["series_id", "cutoff", "target_date", "lead", "mean"])
        for k, name in enumerate(QUANTILE_NAMES):
            table = table.append_column(name, pa.array(np.ascontiguousarray(quantiles[:, k])))
        return table

    def explain(self, features: Features, cutoff_t: int) -> pa.Table:
        """Contributions by component, exact: they add up to the mean."""
        fit = self._fitted(features)
        _lend_coefficients(features, fit)
        components = fit.component_names
        parts = " union all ".join(
            f"select series_id, cutoff, target_date, lead, ? as component, {_part(i)} as contribution from scored"
            for i in range(len(components))
        )
        return features.query(
            f"""
            with scored as ({_scores(features, fit)})
            {parts}
            union all
            select series_id, cutoff, target_date, lead, 'floor', mean - raw_mean from scored where raw_mean < 0
            order by series_id, lead, component
            """,
            [cutoff_t, *components],
        )

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

    def _fitted(self, features: Features) -> Fit:
        if self._fit is None:
            raise ModelError("the ridge regression is neither trained nor loaded")
        now = [column.name for column in features.project.design_columns]
        if now != self._fit.features:
            gone = sorted(set(self._fit.features) - set(now))
            new = sorted(set(now) - set(self._fit.features))
            raise ArtifactError(
                f"The stored ridge regression was trained on other features: missing now {gone}, new {new}. "
                "Train again with `trendcast train`."
            )
        return self._fit


# --- SQL: the design matrix as the regression sees it ---


def _beta(j: int) -> str:
    return f"beta_{j}"


def _x(j: int) -> str:
    return f"x{j}"


def _part(i: int) -> str:
    return f"part_{i}"


def _scaled(name: str, unit: str) -> str:
    """SQL of a feature as the regression sees it: relative to the level, bounded, never null."""
    column = quote(name)
    if unit == "demand":
        column = f"{column} / demand_level"
    return f"coalesce(least(greatest({column}, -{RATIO_LIMIT}), {RATIO_LIMIT}), 0)"


def _scores(features: Features, fit: Fit) -> str:
    """SQL that scores the design matrix at a cutoff; ``part_i`` are the components' contributions to ``raw_mean``."""
    components = fit.component_names
    terms: dict[str, list[str]] = {component: [] for component in components}
    terms["level"].append("intercept")
    for j, (name, unit) in enumerate(zip(fit.features, fit.units, strict=True)):
        terms[fit.components[j]].append(f"{_beta(j)} * {_scaled(name, unit)}")
    parts = ",\n".join(
        f"demand_level * ({' + '.join(terms[component])}) as {_part(i)}"
        for i, component in enumerate(components)
    )
    total = " + ".join(_part(i) for i in range(len(components)))
    return f"""
        select
            parts.*,
            {total} as raw_mean,
            greatest(0, {total}) as mean
        from (
            select
                series_id, cutoff, target_date, lead, design.lead_bucket, demand_level, demand_variance,
                {parts}
            from {features.relation("ftr_design")} as design
            inner join ridge_coefficients as coefficients on design.lead_bucket = coefficients.lead_bucket
            where cutoff_t = ?
        ) as parts
    """


def _training_rows(
    features: Features, columns: Sequence[Column], end_t: int, held_out_t: int
) -> str:
    """SQL of the rows to learn from: the design matrix at sampled cutoffs, with targets up to ``end_t``.

    Which pairs of a cutoff and a lead they are is spelt out, for a comparison with constants is pushed below the joins
    of the view; arithmetic, which might overflow, is not.
    """
    pairs = _training_pairs(features, end_t)
    by_leads: dict[tuple[int, ...], list[int]] = {}
    for cutoff, leads in pairs.items():
        by_leads.setdefault(leads, []).append(cutoff)
    among = " or ".join(
        f"(cutoff_t in ({_listed(cutoffs)}) and lead in ({_listed(leads)}))"
        for leads, cutoffs in by_leads.items()
    )
    # Single precision is finer than the fixed point the sums are made in, but for a few large ratios.
    scaled = ", ".join(
        f"cast({_scaled(c.name, c.unit)} as float) as {_x(j)}" for j, c in enumerate(columns)
    )
    return f"""
        select
            series_id, cutoff_t, lead, lead_bucket, target_t > {held_out_t} as is_held_out, target, demand_level,
            demand_variance, {scaled}
        from {features.relation("ftr_design")}
        where target is not null and cutoff_t in ({_listed(pairs) or "null"}) and ({among or "false"})
    """


def _training_pairs(features: Features, end_t: int) -> dict[int, tuple[int, ...]]:
    """Return the leads to learn from at each sampled cutoff, with targets up to ``end_t``.

    Of a large panel only every so many-th pair of cutoff and lead is used, so that time does not grow with it.
    """
    settings = features.settings
    stride, season, horizon = settings.train_stride, settings.season_length, settings.horizon
    first = max(features.first_t, end_t - settings.train_periods)
    n_rows = features.n_series * ((end_t - first) // stride + 1) * horizon
    every = -(-n_rows // settings.train_rows)
    # Odd, and without a factor in common with stride and season: else whole weekdays or leads would drop out.
    while every > 1 and math.gcd(every, 2 * stride * season) > 1:
        every += 1
    pairs = {
        cutoff: tuple(
            lead
            for lead in range(1, min(horizon, end_t - cutoff) + 1)
            if (cutoff + 2 * lead) % every == 0
        )
        for cutoff in range(end_t - (end_t - first) // stride * stride, end_t, stride)
    }
    return {cutoff: leads for cutoff, leads in pairs.items() if leads}


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _gram(features: Features, columns: Sequence[Column]) -> list[tuple[int, Array, Array]]:
    """Sufficient statistics per lead bucket, of the rows not held out and of those that are.

    Returns
    -------
    list of (lead bucket, train [P + 2, P + 2], held out [P + 2, P + 2])
        Moments of (1, features, target), weighted by the level.
    """
    scale = _weight_scale(features)
    expressions = ["1.0", *(_x(j) for j in range(len(columns))), "target / demand_level"]
    p = len(expressions)

    def entry(i: int) -> str:
        value = f"({expressions[i]}) * sqrt(demand_level / {scale!r})"
        bounded = f"least(greatest({value}, -{ENTRY_LIMIT}), {ENTRY_LIMIT})"
        return f"cast(round({bounded} * {FRACTION}) as bigint) as e{i}"

    pairs = [(i, j) for i in range(p) for j in range(i, p)]
    sums = ",\n".join(f"cast(sum(e{i} * e{j}) as double) as s{i}_{j}" for i, j in pairs)
    table = features.query(
        f"""
        with entries as (
            select lead_bucket, is_held_out, {", ".join(entry(i) for i in range(p))} from {ROWS}
        )
        select lead_bucket, is_held_out, {sums}
        from entries
        group by lead_bucket, is_held_out
        order by lead_bucket, is_held_out
        """
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
        raise DataError(
            f"The history up to the cutoff is too short to train a regression {features.settings.horizon} periods ahead (it "
            "needs pairs of a cutoff and a target that far apart, in two parts). Lower the var `horizon` or `backtest_folds`."
        )
    return usable


def _weight_scale(features: Features) -> float:
    """Return the power of two nearest to the mean level, to keep weights around one."""
    (level,) = (
        features.query(f"select avg(demand_level) as level from {ROWS}").column("level").to_pylist()
    )
    return float(2.0 ** round(np.log2(level))) if level else 1.0


def _lend_coefficients(features: Features, fit: Fit) -> None:
    """Make the coefficients readable in SQL as ``ridge_coefficients``, one row per lead bucket."""
    wide: dict[str, Any] = {
        "lead_bucket": pa.array([b.lead_bucket for b in fit.buckets], pa.int32()),
        "intercept": [b.intercept for b in fit.buckets],
    }
    for j in range(len(fit.features)):
        wide[_beta(j)] = [b.coefficients[j] for b in fit.buckets]
    features.lookup("ridge_coefficients", pa.table(wide))


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


def _spread(features: Features, fit: Fit, seed: int) -> Spread:
    """Measure the spread about the means of rows held out."""
    _lend_coefficients(features, fit)
    terms = " + ".join(["intercept", *(f"{_beta(j)} * {_x(j)}" for j in range(len(fit.features)))])
    rows = features.query(
        f"""
        select
            kept.lead_bucket, target, demand_level, demand_variance, greatest(0, demand_level * ({terms})) as mean
        from {ROWS} as kept
        inner join ridge_coefficients as coefficients on kept.lead_bucket = coefficients.lead_bucket
        where is_held_out
        order by series_id, cutoff_t, lead
        """
    )
    rows = rows.take(pa.array(sampled(len(rows), SPREAD_ROWS, seed)))
    parts = features.query(f"select count(*) as n from {ROWS} where target <> floor(target)")
    actual = rows.column("target").to_numpy()
    mean, level, variance, bucket = _scale_of(rows)
    return Spread.measure(
        actual,
        mean,
        scaled_variance(mean, level, variance),
        bucket,
        counts=parts.column("n")[0].as_py() == 0,
        smallest=least_demand(actual),
        n_buckets=len(fit.buckets),
        seed=seed,
    )


def _scale_of(rows: pa.Table) -> tuple[Array, Array, Array, npt.NDArray[np.int64]]:
    """Return mean, level, variance and lead bucket (from 0) of rows, [R] each."""
    mean, level, variance = (
        rows.column(name).to_numpy() for name in ("mean", "demand_level", "demand_variance")
    )
    return mean, level, variance, rows.column("lead_bucket").to_numpy().astype(np.int64) - 1
