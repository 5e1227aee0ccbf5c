"""A distribution around a mean: a count's or a gamma's, with its levels corrected on periods not trained on.

The variance is that of the series scaled to the mean, times a factor measured per size of the mean and group of
leads. Demand in whole units is negative binomial, so that quantiles of sparse demand are 0, 1 or 2 and not 0.37;
anything else is gamma. Neither fits exactly, so each quantile level is replaced by the one that covered as often as it
promised on held-out periods: the empirical quantile of the probability integral transforms (randomised for counts;
Czado, Gneiting & Held, Predictive model assessment for count data, Biometrics 2009). Distribution functions are monotone,
so quantiles stay ordered and non-negative whatever was measured.

Shapes: R rows, Q quantile levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trendcast.models.base import QUANTILES

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SIZES = range(-7, 18)  # classes of the mean, powers of two
MIN_ROWS = 400  # a class with fewer held-out rows is pooled with its neighbours
FLOOR = 0.1  # a mean below this share of the level keeps the level's variance at that share
MAX_FACTOR = 25.0
AT_ONCE = 100_000  # rows
EDGE = 1e-5  # levels stay this far from 0 and 1


@dataclass(frozen=True)
class Spread:
    """What was measured, plain data for the artefact.

    Parameters
    ----------
    counts
        Demand comes in whole units.
    smallest
        About the least demand when there is any; a smaller quantile is 0.
    factors : [buckets][sizes]
        Variance over the series' own, by lead bucket and size of the mean.
    levels : [buckets][sizes][Q]
        The level to ask the distribution for, in place of each nominal one.
    """

    counts: bool
    smallest: float
    factors: list[list[float]]
    levels: list[list[list[float]]]

    @classmethod
    def measure(
        cls,
        actual: Array,
        mean: Array,
        variance: Array,
        bucket: IntArray,
        *,
        counts: bool,
        smallest: float,
        n_buckets: int,
        seed: int,
    ) -> Spread:
        """Measure on rows the mean was not trained on.

        Parameters
        ----------
        actual, mean : array [R]
            What happened and what was expected.
        variance : array [R]
            From `scaled_variance`.
        bucket : array [R]
            Lead bucket, from 0.
        """
        draw = np.random.default_rng(seed).random(len(actual))
        size = _size(mean)
        mean = mean * _bias(actual, mean, variance, bucket)
        square = (actual - mean) ** 2 / variance
        pools = _pools(bucket, size, n_buckets)
        factors = np.ones((n_buckets, len(SIZES)))
        for b, k, rows in pools:
            if len(rows):
                factors[b, k] = np.clip(square[rows].mean(), 1 / MAX_FACTOR, MAX_FACTOR)
        shape = cls(counts, smallest, factors.tolist(), [])
        transform = shape._transform(actual, mean, variance * factors[bucket, size], draw)
        levels = np.tile(np.array(QUANTILES), (n_buckets, len(SIZES), 1))
        for b, k, rows in pools:
            if len(rows) >= MIN_ROWS:
                levels[b, k] = np.quantile(transform[rows], QUANTILES)
        return cls(counts, smallest, factors.tolist(), np.clip(levels, EDGE, 1 - EDGE).tolist())

    def quantiles(self, mean: Array, variance: Array, bucket: IntArray) -> Array:
        """Return the quantiles of rows, [R, Q]; a part of them at a time, for inverses are many arrays in one."""
        parts = [
            self._quantiles(mean[rows], variance[rows], bucket[rows])
            for rows in (slice(k, k + AT_ONCE) for k in range(0, len(mean), AT_ONCE))
        ]
        return np.concatenate([np.empty((0, len(QUANTILES))), *parts])

    def _quantiles(self, mean: Array, variance: Array, bucket: IntArray) -> Array:
        size = _size(mean)
        variance = variance * np.asarray(self.factors)[bucket, size]
        levels = np.asarray(self.levels)[bucket, size]
        if self.counts:
            n, p = _binomial(mean, variance)
            from scipy.stats import nbinom

            out = nbinom.ppf(levels, n[:, None], p[:, None])
        else:
            from scipy.special import gammaincinv

            shape, scale = _gamma(mean, variance)
            out = gammaincinv(shape[:, None], levels) * scale[:, None]
        out = np.where(out < self.smallest / 2, 0.0, out)
        # Levels of two classes never meet in a row; rounding in the tails may still undo an order.
        return np.asarray(np.maximum.accumulate(np.nan_to_num(out), axis=1))

    def _transform(self, actual: Array, mean: Array, variance: Array, draw: Array) -> Array:
        """Return the probability integral transforms, [R], spread evenly over the jump of a count."""
        if self.counts:
            from scipy.stats import nbinom

            n, p = _binomial(mean, variance)
            below = np.where(actual >= 1, nbinom.cdf(actual - 1, n, p), 0.0)
            return np.asarray(below + draw * (nbinom.cdf(actual, n, p) - below))
        from scipy.special import gammainc

        shape, scale = _gamma(mean, variance)
        at = gammainc(shape, actual / scale)
        # No sale is all of the distribution below the least sale.
        none = gammainc(shape, self.smallest / 2 / scale)
        return np.asarray(np.where(actual > 0, np.maximum(at, none), draw * none))


def sampled(n: int, most: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the positions of a seeded sample of ``most`` of n rows, ascending; of all where they are fewer."""
    if n <= most:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(n, most, replace=False, shuffle=False))


def least_demand(actual: Array) -> float:
    """Return about the least demand when there is any; 0 where there is none."""
    positive = actual[actual > 0]
    return float(np.quantile(positive, 0.01)) if len(positive) else 0.0


def scaled_variance(mean: Array, level: Array, variance: Array) -> Array:
    """Return a series' variance carried to a mean away from its level, [R]; above zero."""
    return np.asarray(np.maximum(variance * np.maximum(mean / level, FLOOR), 1e-12))


def _bias(actual: Array, mean: Array, variance: Array, group: IntArray) -> Array:
    """Return the part of what came over what was expected that is an accident of the periods held out, of each row's group, [R].

    Weighed by the variance, so that a series which is hard to forecast says little of what all have in common. How much of it will come
    again nobody knows from a few origins; half is taken for chance.
    """
    came = np.bincount(group, actual * mean / variance)
    expected = np.maximum(np.bincount(group, mean**2 / variance), 1e-12)
    ratio = np.clip(np.where(came > 0, came / expected, 1.0), 0.5, 2.0)
    return np.asarray(np.sqrt(ratio)[group])


def _size(mean: Array) -> IntArray:
    """Return the class of a mean: the power of two it lies in, from 0."""
    power = np.floor(np.log2(np.maximum(mean, 2.0 ** SIZES[0])))
    return np.asarray(np.clip(power, SIZES[0], SIZES[-1]) - SIZES[0]).astype(np.int64)


def _pools(bucket: IntArray, size: IntArray, n_buckets: int) -> list[tuple[int, int, IntArray]]:
    """Return the rows of each (bucket, size), with those of the nearest sizes where they are few."""
    pools = []
    for b in range(n_buckets):
        rows = np.flatnonzero(bucket == b)
        order = rows[np.argsort(size[rows], kind="stable")]
        ends = np.searchsorted(size[order], np.arange(len(SIZES) + 1))
        for k in range(len(SIZES)):
            for radius in range(len(SIZES)):
                first, last = max(k - radius, 0), min(k + radius + 1, len(SIZES))
                near = order[ends[first] : ends[last]]
                if len(near) >= MIN_ROWS:
                    break
            pools.append((b, k, near))
    return pools


def _binomial(mean: Array, variance: Array) -> tuple[Array, Array]:
    """Return a negative binomial's size and probability; nearly Poisson where the variance is not above the mean."""
    mean = np.maximum(mean, 1e-9)
    excess = np.maximum(variance - mean, 1e-3 * mean)
    n = mean**2 / excess
    return n, n / (n + mean)


def _gamma(mean: Array, variance: Array) -> tuple[Array, Array]:
    """Return a gamma's shape and scale."""
    mean = np.maximum(mean, 1e-9)
    return mean**2 / variance, variance / mean


def is_counts(values: npt.NDArray[Any]) -> bool:
    """Whether demand comes in whole units."""
    return bool(np.array_equal(values, np.rint(values)))
