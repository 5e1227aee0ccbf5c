"""Exponential smoothing, theta and autoregression of each series on its own, all series at once.

Three methods that have held their own in every forecasting competition are fitted to the series with its season taken
out, once by division and once by subtraction, and averaged with weights from their errors at earlier origins:

- simple exponential smoothing, and Gardner & McKenzie's damped trend (Management Science 1985), each with the smoothing
  constants that had the least squared error one step ahead;
- theta in its equivalent form, simple smoothing with half the slope of a trend line as drift (Assimakopoulos &
  Nikolopoulos, IJF 2000; Hyndman & Billah, IJF 2003);
- an autoregression by ridge regression, for what oscillates about a level.

Seasonal indices are those of a classical decomposition of the last years, shrunk towards none by how uncertain they are
(James-Stein; Miller & Williams, IJF 2003), so that a series without a season needs no test. Averages of such methods
beat the best of them (M4: Makridakis, Spiliotis & Assimakopoulos, IJF 2020). The distribution about the mean is
`trendcast.models.spread`'s, measured on forecasts from earlier origins.

Every smoothing constant of a grid is tried on every series in one pass over the periods, with arrays and no loop over
series: 30,000 series take seconds, a result is the same on every machine, and no optimizer can fail to converge.

Every method is a sum of level, trend and season, and so is their average: that is its explanation.

Shapes: N series, T periods, H leads, G settings of a grid, M methods, S positions in a season. Periods before a
series began are NaN.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trendcast.models.base import (
    QUANTILES,
    Choice,
    Forecast,
    ModelError,
    Range,
    config_from_settings,
    read_artifact,
)
from trendcast.models.explanations import explanation_table
from trendcast.models.spread import Spread, least_demand, sampled, scaled_variance
from trendcast.models.tables import forecast_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trendcast.features import Features

    Array = npt.NDArray[np.float64]

FORMAT = 1
AT_ONCE = 500  # series smoothed together: their states stay in the processor's cache
SIMPLE = [(alpha, 0.0, 0.0) for alpha in (0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)]
#: Level, trend and damping constants.
DAMPED = list(product((0.1, 0.3, 0.6, 1.0), (0.02, 0.05, 0.1, 0.2, 0.4), (0.8, 0.9, 0.98)))
LAGS = 4  # of the autoregression
SMALLEST_INDEX = 0.02
SPARSE = 0.5  # a series with a larger share of zeros has no season of its own
# Of counts, for the variance of a series that sold nothing; demand_level of ftr_history has such a bound too.
LEAST_LEVEL = 0.02
CEILING = 3.0  # no mean is more than so many times the largest demand in the window


@dataclass(frozen=True)
class ClassicalConfig:
    """Settings, from the dbt var ``classical``.

    Parameters
    ----------
    max_periods
        History smoothed, in periods, at least five seasons. More is slower and, on the sets of benchmarks.accuracy, no
        better: what a series did long ago says little.
    origins
        Earlier origins, half a horizon apart, at which methods are compared and the spread is measured.
    power
        A method counts as its squared error at them to minus this power; 0 weighs all alike.
    error_rows
        Rows on which the spread is measured, at most.
    threads
        The result does not depend on them.
    """

    max_periods: int = 260
    origins: int = 4
    power: float = 2.0
    error_rows: int = 150_000
    threads: int = 2

    #: What `trendcast tune` may try.
    SPACE: ClassVar[dict[str, Range | Choice]] = {
        "max_periods": Range(60, 1500, log=True),
        "origins": Range(2, 10),
        "power": Range(0.0, 6.0),
    }

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        for name in ("max_periods", "origins", "error_rows", "threads"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ModelError(
                    f"classical setting {name!r} must be a whole number of at least 1, got {value!r}"
                )
        if not self.power >= 0:
            raise ModelError(f"classical setting 'power' must not be negative, got {self.power!r}")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ClassicalConfig:
        """Build from a dict, such as the dbt var ``classical``; unknown names are refused."""
        return config_from_settings(cls, "classical", settings)


@dataclass(frozen=True)
class _Outlook:
    """What is expected after a cutoff: mean and variance, [N, H], and how earlier forecasts fared, rows [R].

    ``parts`` [N, H, 3] are level, trend and season, before the mean is bounded.
    """

    series_id: npt.NDArray[np.str_]
    counts: bool  # demand comes in whole units
    mean: Array
    variance: Array
    ceiling: Array  # [N], what no quantile is above
    parts: Array
    past_actual: Array
    past_mean: Array
    past_variance: Array
    past_lead: npt.NDArray[np.int64]


class Classical:
    """Averages of smoothing methods, series by series."""

    name = "classical"
    refits_each_fold = True
    scores_by_series = False
    needs_history = True

    def __init__(self) -> None:
        self._spread: Spread | None = None
        self._latest: tuple[Features, int, _Outlook] | None = None

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Measure the spread on forecasts from earlier origins; the means are fitted when they are asked for."""
        settings = features.settings
        config = ClassicalConfig.from_settings(settings.classical)
        progress("smoothing")
        found = self._outlook(features.sampled(end_t, seed), end_t)
        rows = sampled(len(found.past_actual), config.error_rows, seed)
        self._spread = Spread.measure(
            found.past_actual[rows],
            found.past_mean[rows],
            found.past_variance[rows],
            (found.past_lead[rows] - 1) // settings.lead_bucket,
            counts=found.counts,
            smallest=least_demand(found.past_actual),
            n_buckets=-(-settings.horizon // settings.lead_bucket),
            seed=seed,
        )

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Forecast every series from a cutoff."""
        if self._spread is None:
            raise ModelError("classical is neither trained nor loaded")
        found = self._outlook(features, cutoff_t)
        n, horizon = found.mean.shape
        bucket = np.tile(np.arange(horizon) // features.settings.lead_bucket, n)
        quantiles = self._spread.quantiles(found.mean.ravel(), found.variance.ravel(), bucket)
        quantiles = quantiles.reshape(n, horizon, len(QUANTILES))
        quantiles = np.minimum(quantiles, found.ceiling[:, None, None])
        forecast = Forecast(found.series_id, cutoff_t, found.mean, quantiles)
        return forecast_table(forecast, features.dates)

    def explain(self, features: Features, cutoff_t: int) -> pa.Table:
        """Level, trend and season of the methods, by their weights; ``floor`` and ``ceiling`` are what bounding the mean changed."""
        found = self._outlook(features, cutoff_t)
        rest = found.mean - found.parts.sum(axis=-1)
        rest[np.abs(rest) < 1e-9 * (1 + found.mean)] = 0.0  # rounding
        contributions = np.dstack([found.parts, np.maximum(rest, 0), np.minimum(rest, 0)])
        names = ["level", "trend", "season", "floor", "ceiling"]
        return explanation_table(found.series_id, cutoff_t, features.dates, names, contributions)

    def coefficients(self) -> pa.Table | None:
        """Return None."""
        return None

    def save(self, directory: Path) -> list[Path]:
        """Write ``classical.json``."""
        if self._spread is None:
            raise ModelError("classical is not trained")
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "classical.json"
        path.write_text(json.dumps({"format": FORMAT, "spread": asdict(self._spread)}))
        return [path]

    def load(self, directory: Path) -> None:
        """Read what ``save`` wrote."""
        data = read_artifact(directory / "classical.json", FORMAT)
        self._spread = Spread(**data["spread"])

    def _outlook(self, features: Features, t: int) -> _Outlook:
        """Return what is expected after a period; training and forecasting from the same one smooth once."""
        if self._latest is None or self._latest[0] is not features or self._latest[1] != t:
            self._latest = None  # with what it holds of another part of the series
            self._latest = (features, t, _look(features, t))
        return self._latest[2]


def _look(features: Features, t: int) -> _Outlook:
    """Smooth every series up to a period, a part of them at a time."""
    settings = features.settings
    config = ClassicalConfig.from_settings(settings.classical)
    span = max(config.max_periods, 5 * settings.season_length)
    series_id, y = _history(features, t, span)
    counts = features.in_whole_units(t)

    def part(values: Array) -> tuple[Any, ...]:
        return expect(values, settings.season_length, settings.horizon, config, counts=counts)

    # NumPy lets go of the interpreter while it computes, so threads are as good as processes.
    with ThreadPoolExecutor(config.threads) as pool:
        parts = list(pool.map(part, np.split(y, range(AT_ONCE, len(y), AT_ONCE))))
    return _Outlook(
        series_id, counts, *(np.concatenate(values) for values in zip(*parts, strict=True))
    )


def _history(features: Features, t: int, span: int) -> tuple[npt.NDArray[np.str_], Array]:
    """Return the series that have begun and their last periods, [N, T]; NaN before the first."""
    rows = features.query(
        f"""
        select series_id, t, y from {features.relation("ftr_history")}
        where t > ? and t <= ? order by {features.text_order("series_id")}, t
        """,
        [t - span, t],
    )
    # As wide for a part of the panel as for all of it.
    first = max(features.first_t, t - span + 1)
    names = pc.run_end_encode(rows.column("series_id").combine_chunks())
    ends = names.run_ends.to_numpy()
    code = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    period = rows.column("t").to_numpy().astype(np.int64)
    y = np.full((len(ends), t - first + 1), np.nan)
    y[code, period - first] = rows.column("y").cast(pa.float64()).to_numpy()
    return np.array(names.values.to_pylist(), dtype=np.str_), y


def expect(
    y: Array, season: int, horizon: int, config: ClassicalConfig, *, counts: bool
) -> tuple[Array, Array, Array, Array, Array, Array, Array, npt.NDArray[np.int64]]:
    """Forecast series from their end, with methods weighed by their errors at earlier origins.

    Parameters
    ----------
    y : array [N, T]
        Demand; the last column is the cutoff.
    season, horizon
        In periods.

    Returns
    -------
    tuple
        Mean and variance [N, H], what no quantile is above [N], the mean's level, trend and season before it is bounded
        [N, H, 3], and for the forecasts from earlier origins, with weights that did not see how that origin turned out:
        actual, mean, variance and lead, [R] each.
    """
    means, variance, stages = _methods(y, season, horizon, counts=counts)
    step = max(1, horizon // 2)
    past = []
    for back in range(step, config.origins * step + 1, step):
        if y.shape[1] - back >= 2:
            actual = y[:, -back:][:, :horizon]
            found = _methods(y[:, :-back], season, actual.shape[1], counts=counts)
            past.append((actual, *found[:2]))
    # Squares and not absolute errors: of sparse demand those would choose whatever forecasts nothing.
    errors = [_mean_square(p_means - actual) for actual, p_means, _ in past]
    ceiling = CEILING * _nanmax(y)
    weight = _weight(errors, config.power, means)
    mean = _bounded(_average(means, weight), ceiling, counts=counts)
    parts = np.diff(np.einsum("mn,smnh->nhs", weight, stages), axis=-1, prepend=0)
    rows = []
    for k, (actual, p_means, p_variance) in enumerate(past):
        weight = _weight(errors[:k] + errors[k + 1 :], config.power, p_means)
        p_mean = _bounded(
            _average(p_means, weight), CEILING * _nanmax(y[:, : -step * (k + 1)]), counts=counts
        )
        # Of a series that never sold nothing can be learnt about one that does.
        there = np.isfinite(actual) & (p_mean > 0)
        lead = np.broadcast_to(np.arange(1, actual.shape[1] + 1), actual.shape)
        spread = _carried(p_mean, p_variance, counts=counts)
        rows.append((actual[there], p_mean[there], spread[there], lead[there]))
    none = (np.empty(0), np.empty(0), np.empty(0), np.empty(0, np.int64))
    joined = [np.concatenate(v) for v in zip(*rows, strict=True)] if rows else list(none)
    return (mean, _carried(mean, variance, counts=counts), ceiling, parts, *joined)


def _weight(errors: list[Array], power: float, means: Array) -> Array:
    """Return what methods [M, N, H] count by their mean squared errors [M, N] at some origins, [M, N]; alike where there are none."""
    if not errors:
        return np.full(means.shape[:2], 1 / len(means))
    error = _nanmean(np.stack(errors), 0)
    typical = error.mean(axis=0)
    ratio = np.where(typical > 0, error / np.where(typical > 0, typical, 1), 1.0)
    weight = np.where(np.isfinite(ratio), np.maximum(ratio, 1e-3), 1.0) ** -power
    return np.asarray(weight / weight.sum(axis=0))


def _average(means: Array, weight: Array) -> Array:
    """Return the average of methods [M, N, H] by weights [M, N], never negative."""
    # Not before: a mean of methods each cut off at 0 would be too high.
    return np.asarray(np.maximum(np.einsum("mn,mnh->nh", weight, means), 0))


def _bounded(mean: Array, ceiling: Array, *, counts: bool) -> Array:
    """Return means within what a series may sell: a count that has sold is never expected to be nothing."""
    least = LEAST_LEVEL if counts else 0.0
    return np.asarray(np.minimum(np.maximum(mean, least), ceiling[:, None]))


def _carried(mean: Array, variance: Array, *, counts: bool) -> Array:
    """Return a series' variance [N, H] carried to means away from its level."""
    level = np.maximum(_nanmean(mean, 1), 1e-9)
    n, horizon = mean.shape
    carried = scaled_variance(mean.ravel(), np.repeat(level, horizon), variance.ravel())
    return np.maximum(carried, LEAST_LEVEL if counts else 0.0).reshape(n, horizon)


def _methods(y: Array, season: int, horizon: int, *, counts: bool) -> tuple[Array, Array, Array]:
    """Return every method's forecasts from the end, [M, N, H], and the variance of their average, [N, H].

    Also how the forecasts come about, [3, M, N, H]: the level, with the trend, and with the season, not yet bounded.
    NaN for series that had not begun.
    """
    begun = np.isfinite(y).any(axis=1)
    seasons = max(4, -(-52 // season))
    recent = y[:, -seasons * season :]
    # A zero cannot be divided by; nor does what is sold now and then sell twice as often in December.
    positive = begun & ~(recent <= 0).any(axis=1)
    # Taken for a season of demand that mostly does not come, chance would be added to every zero.
    sparse = begun & ((recent == 0).sum(axis=1) > SPARSE * np.isfinite(recent).sum(axis=1))
    stages = np.full((3, 8, len(y), horizon), np.nan)
    variance = np.full((len(y), horizon), np.nan)
    ahead = np.arange(horizon) % season
    for of, kind in ((begun, 0), (positive, 1)):
        if not of.any():
            continue
        values = y[of]
        index, position = seasonal_index(values, season, seasons, divide=bool(kind))
        if not kind:
            index[sparse[of]] = 0.0
        if kind:
            level, means, spread = _smooth(values / index[:, position], horizon, season)
            whole, spread = means * index[:, ahead], spread * (index**2).mean(axis=1)[:, None]
        else:
            level, means, spread = _smooth(values - index[:, position], horizon, season)
            whole = means + index[:, ahead]
        stages[:, 4 * kind : 4 * kind + 4, of] = level, means, whole
        variance[of] = np.where(np.isnan(variance[of]), spread, (spread + variance[of]) / 2)
    stages[:, 4:, ~positive] = stages[:, :4, ~positive]
    ceiling = CEILING * _nanmax(y)[:, None]
    found = np.clip(stages[2], -ceiling, ceiling)
    if counts:
        # Drawn to the variance of a count, so that a quiet year is not taken for certainty.
        level = np.maximum(_nanmean(found, 0).mean(axis=1), LEAST_LEVEL)[:, None]
        variance = (2 * variance + level) / 3
    return found, np.maximum(variance, 1e-12), stages


def seasonal_index(
    y: Array, season: int, seasons: int, *, divide: bool
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the seasonal index of each position, [N, S], and each period's position, [T].

    Position 0 is that of the first period to come. Without two whole seasons there is no index: 1, or 0 if it is to
    be subtracted.
    """
    n, periods = y.shape
    position = (np.arange(periods) - periods) % season
    neutral = 1.0 if divide else 0.0
    index = np.full((n, season), neutral)
    average = _centred_average(y, season)
    if average is None:
        return index, position
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = y / average if divide else y - average
    raw[~np.isfinite(raw)] = np.nan
    raw[:, : max(0, periods - season // 2 - seasons * season)] = np.nan
    count, square = np.zeros((n, season)), np.zeros(n)
    for p in range(season):
        values = raw[:, position == p]
        count[:, p] = np.isfinite(values).sum(axis=1)
        index[:, p] = _nanmean(values, 1)
        square += np.nansum((values - index[:, [p]]) ** 2, axis=1)
    spare = count.sum(axis=1) - season  # degrees of freedom that tell what an index is worth
    known = (count > 0).all(axis=1) & (spare > 0)
    index[~known] = neutral
    centre = index.mean(axis=1, keepdims=True)
    index = index / centre if divide else index - centre
    # The share of what the indices differ by that is chance.
    chance = square / np.maximum(spare, 1) * (1 / np.maximum(count, 1)).mean(axis=1)
    total = ((index - neutral) ** 2).sum(axis=1) / max(season - 1, 1)
    doubt = (
        np.clip(chance / np.maximum(total, 1e-300), 0, 1) * max(season - 3, 0) / max(season - 1, 1)
    )
    index = neutral + (1 - doubt)[:, None] * (index - neutral)
    return np.maximum(index, SMALLEST_INDEX) if divide else index, position


def _centred_average(y: Array, season: int) -> Array | None:
    """Return the moving average over a season about each period, [N, T]; None where not even one season is known."""
    weights = np.ones(season) if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5]
    n, periods = y.shape
    if season < 2 or periods < len(weights):
        return None
    inside = periods - len(weights) + 1
    out = np.full_like(y, np.nan)
    summed = np.zeros((n, inside))
    for j, weight in enumerate(weights):
        summed += weight / season * y[:, j : j + inside]
    out[:, season // 2 : season // 2 + inside] = summed
    return out


def _smooth(z: Array, horizon: int, season: int) -> tuple[Array, Array, Array]:
    """Return the methods' levels and forecasts without season, [4, N, H] each, and the variance of their errors, [N, H].

    An autoregression's way back to its mean counts as level, for it has no slope.
    """
    grid = np.array(SIMPLE + DAMPED)
    square, level, trend = _filter(z, grid)
    row = np.arange(len(z))
    simple = square[:, : len(SIMPLE)].argmin(axis=1)
    damped = len(SIMPLE) + square[:, len(SIMPLE) :].argmin(axis=1)
    lead = np.arange(1, horizon + 1)
    alpha = grid[simple, 0]
    flat = np.repeat(level[row, simple][:, None], horizon, axis=1)
    start = np.repeat(level[row, damped][:, None], horizon, axis=1)
    sloped = start + trend[row, damped][:, None] * np.cumsum(
        grid[damped, 2][:, None] ** lead, axis=1
    )
    # Smoothing with drift lags behind a trend line by (1 - alpha) / alpha periods; bounded for a slow average.
    late = np.minimum(1 / alpha, 20) - 1
    theta = flat + _slope(z)[:, None] / 2 * (lead + late[:, None])
    back = _autoregression(z, horizon, season)
    levels, means = np.stack([flat, start, flat, back]), np.stack([flat, sloped, theta, back])
    one_step = (square[row, simple] + square[row, damped]) / 2
    # Errors of simple smoothing grow so with the lead (Hyndman et al. 2008, chapter 6).
    return levels, means, one_step[:, None] * (1 + (lead - 1) * alpha[:, None] ** 2)


def _filter(z: Array, grid: Array) -> tuple[Array, Array, Array]:
    """Smooth with every setting of a grid: mean squared error one step ahead, last level and last trend, [N, G] each."""
    alpha, beta, damping = grid.T
    n, periods = z.shape
    first = np.isfinite(z).argmax(axis=1)
    start = z[np.arange(n)[:, None], np.minimum(first[:, None] + np.arange(10), periods - 1)]
    slope = np.where(periods - first < 20, 0.0, _slope(start))
    level = np.repeat(_nanmean(start[:, :5], 1)[:, None], len(grid), axis=1)
    trend = slope[:, None] * (beta > 0)
    level = level - 3 * trend
    square, count = np.zeros((n, len(grid))), np.zeros(n)
    carried, expected, error = (np.empty_like(level) for _ in range(3))
    for t in range(int(first.min()), periods):
        known = np.isfinite(z[:, t]) & (t >= first)
        counted = known & (t > first + 2)
        np.multiply(damping, trend, out=carried)
        np.add(level, carried, out=expected)
        np.subtract(z[:, [t]], expected, out=error)
        if not counted.all():
            error[~known] = 0.0
            # Before its first period a series stays where it starts.
            carried[~known], expected[~known] = trend[~known], level[~known]
        np.multiply(error, error, out=level)
        if not counted.all():
            level[~counted] = 0.0
        square += level
        np.multiply(alpha, error, out=error)
        np.add(expected, error, out=level)
        np.multiply(beta, error, out=error)
        np.add(carried, error, out=trend)
        count += counted
    # A series of three periods has no error yet; its spread is a guess: that of a count of its level.
    unknown = count == 0
    square = square / np.maximum(count, 1)[:, None]
    square[unknown] = np.abs(level[unknown])
    return square, level, trend


def _slope(z: Array) -> Array:
    """Return the slope of a line through each series, [N]; 0 for two points or fewer."""
    known = np.isfinite(z)
    n = known.sum(axis=1)
    x = (
        np.arange(z.shape[1])
        - (known * np.arange(z.shape[1])).sum(axis=1)[:, None] / np.maximum(n, 1)[:, None]
    )
    rise = np.where(known, x * (z - _nanmean(z, 1)[:, None]), 0).sum(axis=1)
    return np.where(n > 2, rise / np.maximum(np.where(known, x * x, 0).sum(axis=1), 1e-9), 0.0)


def _autoregression(z: Array, horizon: int, season: int) -> Array:
    """Forecast by a ridge regression on the last values, about the mean of two seasons, [N, H]."""
    z = z[:, -max(5 * season, 80) :]
    centre = _nanmean(z[:, -max(2 * season, 24) :], 1)[:, None]
    x = np.nan_to_num(z - centre)
    n, periods = x.shape
    if periods <= 2 * LAGS:
        return np.repeat(centre, horizon, axis=1)
    lagged = np.stack([x[:, LAGS - 1 - j : periods - 1 - j] for j in range(LAGS)])
    weighted = lagged * np.isfinite(z[:, LAGS:])
    gram = np.einsum("pnt,qnt->npq", weighted, lagged)
    moment = np.einsum("pnt,nt->np", weighted, x[:, LAGS:])
    # One observation's worth of doubt.
    doubt = np.einsum("npp->n", gram) / LAGS / np.maximum(np.isfinite(z).sum(axis=1), 1) + 1e-9
    gram += doubt[:, None, None] * np.eye(LAGS)
    weights = np.linalg.solve(gram, moment[:, :, None])[:, :, 0]
    bound = np.abs(x).max(axis=1)
    state, out = x[:, : -LAGS - 1 : -1], np.empty((n, horizon))
    for h in range(horizon):
        # Least squares may find an explosive root in a short series; demand does not explode.
        out[:, h] = np.clip((weights * state).sum(axis=1), -bound, bound)
        state = np.column_stack([out[:, h], state[:, :-1]])
    return centre + out


def _mean_square(error: Array) -> Array:
    """Return the mean square over the leads that came to pass, [M, N]; NaN where none did."""
    return _nanmean(error**2, 2)


def _nanmax(y: Array) -> Array:
    """Return the largest value of each series, [N]; NaN where it has not begun."""
    return np.asarray(np.fmax.reduce(y, axis=1))


def _nanmean(values: Array, axis: int) -> Array:
    """Return the mean without NaN; NaN, and no warning, where there is nothing else."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
