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
QUANTILES = ("q025", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q975")


@dataclass(frozen=True)
class Truth:
    """What happened to N series in the H periods after the cutoff, and the scale of each.

    Parameters
    ----------
    series
        Names, [N].
    actual : array [N, H]
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
        actual = np.array([futures[name] for name in series])

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
        error = np.abs(mean - self.actual)
        total = np.abs(self.actual).sum()
        size = np.abs(mean) + np.abs(self.actual)
        # 0/0 is a forecast of nothing where nothing came: no error.
        smape = 200 * np.divide(error, size, out=np.zeros_like(error), where=size > 0)
        scores = {
            "mase": float(np.nanmean(error.mean(axis=1) / self.scale)),
            "wape": float(error.sum() / total),
            "bias": float((mean - self.actual).sum() / total),
            "smape": float(smape.mean()),
        }
        if quantiles is not None:
            apart = self.actual[:, :, None] - quantiles
            loss = 2 * np.maximum(LEVELS * apart, (LEVELS - 1) * apart).mean(axis=2)
            scores |= {
                "mase_of_median": float(
                    np.nanmean(np.abs(apart[:, :, 4]).mean(axis=1) / self.scale)
                ),
                "scaled_pinball": float(np.nanmean(loss.mean(axis=1) / self.scale)),
                "wql": float(loss.sum() / total),
                "coverage_80": _covered(self.actual, quantiles[:, :, 2], quantiles[:, :, 6]),
                "coverage_95": _covered(self.actual, quantiles[:, :, 0], quantiles[:, :, 8]),
            }
        return scores | ({"series_without_forecast": float(missing)} if missing else {})


def _covered(actual: Array, low: Array, high: Array) -> float:
    return float(np.mean((actual >= low) & (actual <= high)))


def _by_series(table: pa.Table) -> dict[str, Array]:
    """Return each series' values in order of date."""
    names = np.array(table.column("unique_id").to_pylist())
    values = table.column("y").cast(pa.float64()).to_numpy()
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]]) if len(names) else []
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
