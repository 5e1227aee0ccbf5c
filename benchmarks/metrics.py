"""Scores of forecasts on a data set's truth, shared by trendcast and its peers: N series, H leads, Q levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[np.float64]
LEVELS = np.array([0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975])
INTERVALS = {80: (2, 6), 95: (0, 8)}  # per cent to the positions of their ends among the levels
QUANTILES = ("q025", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q975")


@dataclass(frozen=True)
class Truth:
    """What happened to N series in the H periods after the cutoff, and the scale of each.

    Parameters
    ----------
    series
        Names, [N].
    actual : array [N, H]
        NaN where nobody knows; such periods are not scored.
    scale : array [N]
        Mean absolute error of the seasonal naive in the training part (Hyndman & Koehler 2006); NaN where it is 0.
    history : list of N arrays
        The training part.
    """

    series: list[str]
    dates: list[Any]
    actual: Array
    scale: Array
    history: list[Array]

    @classmethod
    def of(cls, train: pa.Table, truth: pa.Table, season: int) -> Truth:
        """Read a split; both tables are ordered by series and date. Series with a history only."""
        histories = _by_series(train)
        futures = _by_series(truth)
        series = sorted(set(histories) & set(futures))
        dates = sorted(set(truth.column("ds").to_pylist()))
        actual = np.array([futures[name] for name in series], dtype=float)

        def error(y: Array) -> float:
            lag = season if len(y) > season else 1
            apart = np.abs(y[lag:] - y[:-lag])
            return float(apart.mean()) if len(apart) and apart.mean() > 0 else np.nan

        scale = np.array([error(histories[name]) for name in series])
        return cls(series, dates, actual, scale, [histories[name] for name in series])

    def align(self, rows: pa.Table) -> tuple[Array, Array | None, int]:
        """Return mean [N, H] and quantiles [N, H, Q] of forecasts, and how many series have none (0 for them).

        Parameters
        ----------
        rows
            unique_id, ds, mean and, if there are any, the quantiles.
        """
        position = {name: i for i, name in enumerate(self.series)}
        lead = {date: h for h, date in enumerate(self.dates)}
        i = np.array([position.get(name, -1) for name in rows.column("unique_id").to_pylist()])
        h = np.array([lead.get(date, -1) for date in rows.column("ds").to_pylist()])
        kept = (i >= 0) & (h >= 0)

        def place(column: str) -> Array:
            out = np.zeros(self.actual.shape)
            out[i[kept], h[kept]] = rows.column(column).to_numpy()[kept]
            return out

        has = QUANTILES[0] in rows.column_names
        quantiles = np.stack([place(q) for q in QUANTILES], axis=2) if has else None
        return place("mean"), quantiles, len(self.series) - len(set(i[kept].tolist()))

    def score(self, rows: pa.Table) -> dict[str, float]:
        """Return the scores of forecasts by name."""
        mean, quantiles, missing = self.align(rows)
        known = np.isfinite(self.actual)
        error = np.abs(mean - self.actual)
        total = np.nansum(np.abs(self.actual))
        size = np.abs(mean) + np.abs(self.actual)
        # 0/0 is a forecast of nothing where nothing came: no error.
        smape = 200 * np.divide(error, size, out=np.zeros_like(error), where=size > 0)
        scores = {
            "mase": float(np.nanmean(_mean(error) / self.scale)),
            "wape": float(np.nansum(error) / total),
            "bias": float(np.nansum(mean - self.actual) / total),
            "smape": float(smape[known].mean()),
        }
        if quantiles is not None:
            apart = self.actual[:, :, None] - quantiles
            loss = 2 * np.maximum(LEVELS * apart, (LEVELS - 1) * apart).mean(axis=2)
            scores |= {
                "mase_of_median": float(np.nanmean(_mean(np.abs(apart[:, :, 4])) / self.scale)),
                "scaled_pinball": float(np.nanmean(_mean(loss) / self.scale)),
                "wql": float(np.nansum(loss) / total),
            }
            for share, (low, high) in INTERVALS.items():
                y, q = self.actual[known], quantiles[known]
                scores[f"coverage_{share}"] = float(np.mean((y >= q[:, low]) & (y <= q[:, high])))
                scores[f"coverage_{share}_split"] = float(
                    np.mean(split_coverage(y, q, LEVELS[low], LEVELS[high]))
                )
        return scores | ({"series_without_forecast": float(missing)} if missing else {})


def _mean(values: Array) -> Array:
    """Return each series' mean over the periods that are known, [N]; NaN where there is none."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def split_coverage(actual: Array, quantiles: Array, low: float, high: float) -> Array:
    """Return how much of what happened lies between two levels, [R], with what lies on an end split.

    A whole number of units has a probability of its own: if 70% of days sell nothing, any interval with 0 in it covers
    70% at least, and no interval of counts can cover 80% exactly. So the actual stands for all levels the forecast gives
    it and counts by the share of them inside the interval: the randomised interval of a count (Czado, Gneiting & Held,
    Biometrics 2009) in expectation. For a continuous forecast it is plain coverage.

    Parameters
    ----------
    actual : array [R]
    quantiles : array [R, Q]
    """
    levels = np.r_[0.0, LEVELS, 1.0]
    below = (quantiles < actual[:, None]).sum(
        axis=1
    )  # position of the last level whose quantile is below
    upto = (quantiles <= actual[:, None]).sum(axis=1)
    tied = upto > below
    # Where the probability up to a value lies between two levels, half-way is the guess; of nothing below 0 it is known.
    halfway = (levels[:-1] + levels[1:]) / 2
    first = np.where(tied, np.where(actual > 0, halfway[below], 0.0), levels[below])
    last = np.where(tied, halfway[upto], levels[below + 1])
    inside: Array = np.clip(np.minimum(last, high) - np.maximum(first, low), 0, None)
    return inside / (last - first)


def _by_series(table: pa.Table) -> dict[str, Array]:
    """Return each series' values in order of date."""
    names = np.array(table.column("unique_id").to_pylist())
    values = table.column("y").cast(pa.float64()).to_numpy()
    if not len(names):
        return {}
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    return {str(names[s]): v for s, v in zip(starts, np.split(values, starts[1:]), strict=True)}


def owa(scores: dict[str, float], naive: dict[str, float]) -> float:
    """Return M4's overall weighted average against its naive (Makridakis et al. 2020)."""
    return (scores["smape"] / naive["smape"] + scores["mase"] / naive["mase"]) / 2


class WRMSSE:
    """M5's weighted root mean squared scaled error over its 12 levels (Makridakis et al. 2022).

    Scales are over the days in the training part (here 15 months of the original five years), weights the revenue
    of the last 28 of them: for a window other than the competition's, its own weights are not official.

    Parameters
    ----------
    truth
        The bottom level; series are named store/item.
    revenue : array [N]
        Of the last 28 days of training.
    """

    def __init__(self, truth: Truth, revenue: Array) -> None:
        days = max(map(len, truth.history))
        y = np.zeros((len(truth.series), days))
        for i, values in enumerate(truth.history):
            y[i, days - len(values) :] = values
        self._actual = truth.actual
        self.levels = [
            (group, *_scale_and_weight(group, y, revenue)) for group in _levels(truth.series)
        ]

    def __call__(self, mean: Array) -> tuple[float, list[float]]:
        """Return the score of a mean [N, H], and those of the levels from the total to the bottom."""
        error = mean - self._actual
        scores = []
        for group, scale, weight in self.levels:
            summed = np.zeros((len(scale), error.shape[1]))
            np.add.at(summed, group, error)
            ratio = np.sqrt((summed**2).mean(axis=1) / np.where(scale > 0, scale, np.inf))
            scores.append(float((ratio * weight).sum()))
        return float(np.mean(scores)), scores


def _levels(series: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """Return each level's group of every series."""
    store, item = (np.array(part) for part in zip(*(s.split("/") for s in series), strict=True))
    state = np.array([name[:2] for name in store])
    category = np.array([name.split("_")[0] for name in item])
    department = np.array([name.rsplit("_", 1)[0] for name in item])

    def both(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.char.add(np.char.add(a, "|"), b)

    keys = [np.zeros(len(store)), state, store, category, department, both(state, category)]
    keys += [both(state, department), both(store, category), both(store, department), item]
    keys += [both(state, item), np.array(series)]
    return [np.unique(key, return_inverse=True)[1] for key in keys]


def _scale_and_weight(
    group: npt.NDArray[np.int64], y: Array, revenue: Array
) -> tuple[Array, Array]:
    """Return mean squared day-to-day changes since the first sale, and shares of revenue."""
    n = int(group.max()) + 1
    summed = np.zeros((n, y.shape[1]))
    np.add.at(summed, group, y)
    since = np.arange(1, y.shape[1]) > (summed > 0).argmax(axis=1)[:, None]
    changes = np.diff(summed, axis=1) ** 2 * since
    scale = changes.sum(axis=1) / np.maximum(since.sum(axis=1), 1)
    return scale, np.bincount(group, revenue, n) / revenue.sum()
