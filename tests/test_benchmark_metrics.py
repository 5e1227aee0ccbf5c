"""The scores of benchmarks.accuracy, on numbers done by hand."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from benchmarks.metrics import LEVELS, QUANTILES, Truth, split_coverage


def test_what_nobody_knows_is_not_scored() -> None:
    days = [dt.date(2024, 1, d) for d in (3, 4)]
    truth = Truth(["a", "b"], days, np.array([[4.0, np.nan], [2.0, 6.0]]), np.array([2.0, 1.0]), [])
    rows = pa.table(
        {"unique_id": ["a", "a", "b", "b"], "ds": days * 2, "mean": [5.0, 9.0, 2.0, 4.0]}
        | {name: [5.0, 9.0, 2.0, 4.0] for name in QUANTILES}
    )
    scores = truth.score(rows)
    assert scores["mase"] == pytest.approx((1 / 2 + (0 + 2) / 2 / 1) / 2)
    assert scores["wape"] == pytest.approx(3 / 12)
    assert scores["bias"] == pytest.approx(-1 / 12)
    assert scores["coverage_80"] == pytest.approx(1 / 3)


def test_an_interval_of_counts_covers_what_it_promises_once_ends_are_split() -> None:
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.2, 6, 20_000)
    actual = rng.poisson(mean).astype(float)
    quantiles = stats.poisson.ppf(LEVELS, mean[:, None])
    inside = (actual >= quantiles[:, 2]) & (actual <= quantiles[:, 6])
    assert inside.mean() > 0.87
    assert split_coverage(actual, quantiles, 0.1, 0.9).mean() == pytest.approx(0.8, abs=0.02)


def test_of_a_continuous_forecast_nothing_is_split() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(size=20_000)
    quantiles = np.tile(stats.norm.ppf(LEVELS), (20_000, 1))
    inside = (actual >= quantiles[:, 2]) & (actual <= quantiles[:, 6])
    assert (split_coverage(actual, quantiles, 0.1, 0.9) == inside).all()
