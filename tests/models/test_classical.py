"""Smoothing of single series, on series whose continuation is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.test_lightgbm import HORIZON, LAST_T, FakeProject, demand, features_on
from trendcast.errors import ArtifactError, TrendcastError
from trendcast.features import Features
from trendcast.models import classical
from trendcast.models.base import ModelError
from trendcast.models.classical import Classical, ClassicalConfig, expect, seasonal_index
from trendcast.models.tables import QUANTILE_NAMES

YEAR = np.array([0.6, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5, 1.4, 1.1, 0.9, 0.8, 0.7])


def features(absurd_after: int | None = None) -> Features:
    y, promotion = demand(np.random.default_rng(3))
    project = FakeProject()
    project.settings.classical = {}
    return features_on(y, promotion, absurd_after=absurd_after, project=project)


def means(y: np.ndarray, season: int, horizon: int, *, counts: bool = False) -> np.ndarray:
    mean, variance, ceiling, *_ = expect(y, season, horizon, ClassicalConfig(), counts=counts)
    assert np.isfinite(mean).all() and (mean >= 0).all()
    assert np.isfinite(variance).all() and (variance > 0).all()
    assert (mean <= ceiling[:, None]).all()
    return mean


@pytest.mark.parametrize("growth", [0.0, 0.5])
@pytest.mark.parametrize("season_by", ["factor", "summand"])
def test_a_season_and_a_trend_go_on(growth: float, season_by: str) -> None:
    t = np.arange(84)
    level = 100 + growth * t
    y = level * YEAR[t % 12] if season_by == "factor" else level + 40 * (YEAR[t % 12] - 1)
    y = y + np.random.default_rng(1).normal(0, 1, 84)
    found = means(y[None, :72], 12, 12)[0]
    assert np.abs(found - y[72:]).mean() < 0.06 * y[72:].mean()
    naive = np.abs(y[60:72] - y[72:]).mean()
    if growth:
        assert np.abs(found - y[72:]).mean() < naive


@pytest.mark.parametrize("periods", [1, 2, 3, 5, 9, 13, 25, 60])
def test_any_series_has_a_forecast(periods: int) -> None:
    rng = np.random.default_rng(0)
    y = np.stack(
        [
            np.zeros(periods),
            np.full(periods, 7.0),
            rng.poisson(0.1, periods).astype(float),
            np.r_[np.full(periods - 1, np.nan), 4.0],  # began in the last period
            1e9 * np.arange(1, periods + 1),
        ]
    )
    found = means(y, 12, 6, counts=True)
    assert (found[0] == 0).all()
    assert found[1] == pytest.approx(7)
    assert found[3] == pytest.approx(4)
    assert (found[4] <= classical.CEILING * y[4].max()).all()


def test_a_series_is_forecast_alike_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Classical()
    whole.fit(features(), LAST_T - HORIZON, 7, print)
    found = whole.forecast(features(), LAST_T - HORIZON)
    monkeypatch.setattr(classical, "AT_ONCE", 7)
    parts = Classical()
    parts.fit(features(), LAST_T - HORIZON, 7, print)
    mean = parts.forecast(features(), LAST_T - HORIZON).column("mean").to_numpy()
    assert mean == pytest.approx(found.column("mean").to_numpy())


def test_nothing_after_the_cutoff_is_seen() -> None:
    cutoff = LAST_T - HORIZON - 3
    told = []
    for panel in (features(), features(absurd_after=cutoff)):
        model = Classical()
        model.fit(panel, cutoff, 7, print)
        told.append(model.forecast(panel, cutoff))
    assert told[0] == told[1]
    assert float(np.max(told[0].column("mean").to_numpy())) < 1e4


def test_chance_is_not_taken_for_a_season() -> None:
    rng = np.random.default_rng(5)
    noise = 100 + rng.normal(0, 10, (50, 60))
    index, _ = seasonal_index(noise, 12, 5, divide=True)
    real, position = seasonal_index(noise * YEAR[np.arange(60) % 12], 12, 5, divide=True)
    assert np.abs(index - 1).mean() < 0.02  # raw ones are off by 0.04
    assert real.mean(axis=0) == pytest.approx(YEAR, abs=0.06)
    assert list(position[-12:]) == list(range(12))


def test_methods_that_erred_count_less() -> None:
    # Two methods, the second wrong by twice as much: a quarter of the square, so 16:1 at power 2.
    means = np.array([[[1.0]], [[2.0]]])
    weight = classical._weight([np.array([[1.0], [4.0]])], 2.0, means)
    mean = classical._average(means, weight)
    assert mean[0, 0] == pytest.approx((16 * 1 + 1 * 2) / 17)


def test_intervals_cover_what_they_promise() -> None:
    panel = features()
    cutoff = LAST_T - HORIZON - 1
    model = Classical()
    model.fit(panel, cutoff, 7, print)
    rows = model.forecast(panel, cutoff)
    actual = panel.query(
        f"select y from ftr_history where t > {cutoff} and t <= {cutoff + HORIZON} "
        "order by series_id, t"
    )
    y = actual.column("y").to_numpy()
    quantiles = np.column_stack([rows.column(name).to_numpy() for name in QUANTILE_NAMES])
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert 0.75 < np.mean((y >= quantiles[:, 2]) & (y <= quantiles[:, 6])) < 0.95


def test_what_was_saved_forecasts_the_same(tmp_path: Path) -> None:
    panel = features()
    model = Classical()
    with pytest.raises(ModelError, match="neither trained nor loaded"):
        model.forecast(panel, LAST_T - 1)
    model.fit(panel, LAST_T - 1, 7, print)
    (path,) = model.save(tmp_path)
    other = Classical()
    other.load(tmp_path)
    assert other.forecast(panel, LAST_T - 1) == model.forecast(panel, LAST_T - 1)
    path.write_text(json.dumps({"format": 0}))
    with pytest.raises(ArtifactError, match="Train again"):
        other.load(tmp_path)


@pytest.mark.parametrize("setting", [{"origins": 0}, {"power": -1.0}, {"smoothness": 2}])
def test_settings_that_cannot_work_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(TrendcastError, match="classical"):
        ClassicalConfig.from_settings(setting)


# --- Explanations ---


@pytest.mark.parametrize("season_by", ["factor", "summand"])
def test_the_parts_are_the_level_trend_and_season_that_were_planted(season_by: str) -> None:
    t = np.arange(84)
    level, growth = 100.0, 0.5 * t
    factor = YEAR[t % 12] / YEAR.mean()
    y = (level + growth) * factor if season_by == "factor" else level + growth + 100 * (factor - 1)
    mean, _, _, parts, *_ = expect(y[None, :72], 12, 12, ClassicalConfig(), counts=False)
    assert parts.sum(axis=-1) == pytest.approx(mean)  # nothing had to be bounded
    level_part, trend, season = parts[0].T
    planted = y[72:] - level - growth[72:]
    assert season == pytest.approx(planted, abs=8)
    assert level_part == pytest.approx(np.full(12, level + growth[71]), abs=8)
    assert 1 < trend[-1] < 1.2 * 0.5 * 12 and (np.diff(trend) > 0).all()


def test_explanations_add_up_to_the_forecast() -> None:
    panel = features()
    cutoff = LAST_T - HORIZON
    model = Classical()
    model.fit(panel, cutoff, 7, print)
    explained = model.explain(panel, cutoff).to_pandas()
    keys = ["series_id", "cutoff", "target_date", "lead"]
    assert not explained.duplicated([*keys, "component"]).any()
    mean = model.forecast(panel, cutoff).to_pandas().set_index(keys)["mean"]
    total = explained.groupby(keys)["contribution"].sum().loc[mean.index]
    assert total.to_numpy() == pytest.approx(mean.to_numpy())


def test_what_bounding_adds_has_a_name() -> None:
    panel = features()
    model = Classical()
    found = model._outlook(panel, LAST_T - HORIZON)
    horizon = found.mean.shape[1]
    found.parts[:2] = 0.0
    found.parts[0, :, 1] = -5.0
    found.parts[1, :, 0] = 9.0
    found.mean[0], found.mean[1] = 0.0, 7.0
    explained = model.explain(panel, LAST_T - HORIZON).to_pandas()
    of = explained.groupby(["series_id", "component"])["contribution"].sum() / horizon
    assert of[found.series_id[0]].to_dict() == {"level": 0.0, "trend": -5.0, "floor": 5.0}
    assert of[found.series_id[1]].to_dict() == {"level": 9.0, "ceiling": -2.0}
