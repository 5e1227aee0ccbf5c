"""Forecasts as Arrow tables with the ledger's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trendcast.models.base import QUANTILES, quantile_name

if TYPE_CHECKING:
    import datetime as dt

    from trendcast.models.base import Forecast

QUANTILE_NAMES = tuple(quantile_name(level) for level in QUANTILES)
FORECAST_COLUMNS = ("series_id", "cutoff", "target_date", "lead", "mean", *QUANTILE_NAMES)
FORECAST_SCHEMA = pa.schema(
    [
        ("series_id", pa.string()),
        ("cutoff", pa.date32()),
        ("target_date", pa.date32()),
        ("lead", pa.int32()),
        *((name, pa.float64()) for name in ("mean", *QUANTILE_NAMES)),
    ]
)


def forecast_table(forecast: Forecast, dates: dict[int, dt.date]) -> pa.Table:
    """Return a forecast as one row per series and lead, ordered by them.

    Parameters
    ----------
    forecast
        Mean [N, H] and quantiles [N, H, Q].
    dates
        First day of each period, by period index.
    """
    n, horizon = forecast.mean.shape
    targets = pa.array([dates[forecast.cutoff + lead] for lead in range(1, horizon + 1)])
    order = np.argsort(forecast.series_id)
    columns = {
        "series_id": pa.array(np.repeat(forecast.series_id[order], horizon)),
        "cutoff": pa.repeat(pa.scalar(dates[forecast.cutoff]), n * horizon),
        "target_date": targets.take(pa.array(np.tile(np.arange(horizon), n))),
        "lead": pa.array(np.tile(np.arange(1, horizon + 1, dtype=np.int32), n)),
        "mean": pa.array(forecast.mean[order].astype(np.float64).ravel()),
    }
    for k, name in enumerate(QUANTILE_NAMES):
        columns[name] = pa.array(forecast.quantiles[order, :, k].astype(np.float64).ravel())
    return pa.table(columns)
