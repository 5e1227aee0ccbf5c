"""The boosted trees, their rows and their spread, on feature tables whose truth is known."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trendcast.design import Design
from trendcast.errors import ArtifactError, TrendcastError
from trendcast.features import Features
from trendcast.models.base import ModelError
from trendcast.models.lightgbm import LightGBM, LightGBMConfig, _cutoffs
from trendcast.models.spread import Spread, scaled_variance
from trendcast.models.tables import QUANTILE_NAMES
from trendcast.project import Column
from trendcast.warehouse.duckdb import DuckDBWarehouse

HORIZON, BUCKET, LAST_T, FIRST = 14, 7, 150, dt.date(2024, 1, 1)
PATTERN = np.array([0.4, 0.6, 0.8, 1.0, 1.2, 1.8, 1.2])
COLUMNS = (
    Column("y", "ftr_history", "history", "demand"),
    Column("mean_medium", "ftr_history", "history", "demand"),
    Column("age", "ftr_history", "history", "none", wide=True),
    Column("share", "ftr_cutoff", "history", "none", wide=True),
    Column("season_last", "ftr_history", "season", "demand"),
    Column("promotion", "ftr_known", "known", component="promotion"),
    Column("is_monday", "ftr_calendar", "known"),
)
TABLES = ("int_series", "ftr_history", "ftr_known", "ftr_calendar", "ftr_static", "ftr_cutoff")
SMALL = {"max_rows": 20_000, "max_rounds": 60, "train_cutoffs": 40, "min_rows": 20}


def settings_with(**lightgbm: object) -> SimpleNamespace:
    return SimpleNamespace(
        horizon=HORIZON,
        lead_bucket=BUCKET,
        season_length=7,
        grain="day",
        lightgbm=SMALL | lightgbm,
    )


@dataclass
class FakeProject:
    """Only what a model asks of a project."""

    settings: SimpleNamespace = field(default_factory=settings_with)
    relations: dict[str, str] = field(default_factory=lambda: {name: name for name in TABLES})
    columns = COLUMNS

    def relation(self, name: str) -> str:
        return self.relations[name]

    def with_role(self, *roles: str, wide: bool = False) -> list[Column]:
        return [c for c in self.columns if c.role in roles and (wide or not c.wide)]


def demand(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Counts of 40 series, [N, T], with a weekly pattern and promotions that double them, [N, T + H]."""
    level = np.exp(rng.uniform(np.log(0.3), np.log(40), 40))
    days = np.arange(LAST_T + HORIZON)
    promotion = (rng.random((40, len(days))) < 0.15).astype(float)
    mean = level[:, None] * PATTERN[days % 7] * (1 + promotion)
    return rng.poisson(mean)[:, :LAST_T].astype(float), promotion


def features_on(
    y: np.ndarray,
    promotion: np.ndarray,
    *,
    absurd_after: int | None = None,
    project: FakeProject | None = None,
) -> Features:
    """Feature tables of a panel; every third series begins late."""
    y = y.copy()
    if absurd_after is not None:
        y[:, absurd_after + 1 :] = 1e6
    history, known = [], []
    for i, values in enumerate(y):
        first = 60 if i % 3 == 0 else 0
        for t in range(first, LAST_T):
            past = values[max(first, t - 27) : t + 1]
            level = max(float(past.mean()), 0.02)
            row = {"series_id": f"s{i:02}", "t": t, "y": values[t], "age": t - first}
            row |= {"mean_medium": past.mean(), "season_last": values[t], "actual": values[t]}
            row |= {"demand_level": level, "demand_variance": float(past.var()) / 2 + level / 2}
            history.append(row)
        known += [
            {"series_id": f"s{i:02}", "t": t, "promotion": promotion[i, t]}
            for t in range(first, LAST_T + HORIZON)
        ]
    calendar = [
        {"t": t, "ds": FIRST + dt.timedelta(t), "is_monday": float(t % 7 == 0)}
        for t in range(LAST_T + HORIZON)
    ]
    static = [
        {"series_id": f"s{i:02}", "colour": "red" if i % 2 else "blue"} for i in range(len(y))
    ]
    connection = duckdb.connect()
    tables = {"ftr_history": history, "ftr_known": known, "ftr_calendar": calendar}
    for name, rows in (tables | {"ftr_static": static}).items():
        connection.register("rows", pa.Table.from_pylist(rows))
        # In another order than anyone would like.
        connection.execute(f"create table {name} as select * from rows order by hash(rows)")
    connection.execute("create table int_series as select series_id, 0 as first_t from ftr_static")
    connection.execute(
        """
        create view ftr_cutoff as select *, cast(t % 5 as double) as share from ftr_history
        """
    )
    warehouse = DuckDBWarehouse(connection, ":memory:")
    return Features(warehouse, project or FakeProject())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def panel() -> tuple[np.ndarray, np.ndarray]:
    return demand(np.random.default_rng(4))


@pytest.fixture(scope="module")
def features(panel: tuple[np.ndarray, np.ndarray]) -> Features:
    return features_on(*panel)


CUTOFF = LAST_T - 1 - HORIZON


@pytest.fixture(scope="module")
def model(features: Features) -> LightGBM:
    return fitted(features)


def fitted(features: Features, end_t: int = CUTOFF, seed: int = 3) -> LightGBM:
    model = LightGBM()
    model.fit(features, end_t, seed, lambda _: None)
    return model


def quantiles_of(rows: pa.Table) -> np.ndarray:
    return np.column_stack([rows.column(name).to_numpy() for name in QUANTILE_NAMES])


# --- Rows ---


def test_rows_equal_the_design_by_hand(
    panel: tuple[np.ndarray, np.ndarray], features: Features
) -> None:
    y, promotion = panel
    design = Design(features, [100, 103], LAST_T)
    keys = design.keys([100, 103])
    matrix = design.matrix(keys)
    assert len(keys) == 2 * 40 * HORIZON
    assert design.names == (
        ["lead", "log_level", "variation", "y", "mean_medium", "age", "share", "season_last"]
        + ["promotion", "is_monday", "colour"]
    )
    for r in np.random.default_rng(0).choice(len(keys), 50):
        i, c, h = int(keys.series[r]), int(keys.cutoff[r]), int(keys.lead[r])
        first = 60 if i % 3 == 0 else 0
        level = max(y[i, max(first, c - 27) : c + 1].mean(), 0.02)
        season = c + h - 7 * -(-h // 7)
        mean = y[i, max(first, c - 27) : c + 1].mean()
        expected = [h, np.log(level), None, y[i, c] / level, mean / level, c - first, c % 5]
        expected += [y[i, season] / level]
        expected += [promotion[i, c + h], float((c + h) % 7 == 0), i % 2]
        for j, value in enumerate(expected):
            if value is not None:
                assert matrix[r, j] == pytest.approx(value, rel=1e-5), design.names[j]
        assert design.target(keys)[r] == y[i, c + h]


def test_rows_before_a_series_began_are_missing(features: Features) -> None:
    design = Design(features, [62], LAST_T)
    keys = design.keys([62])
    assert set(keys.series.tolist()) == set(range(40))
    late = keys.series % 3 == 0
    season = design.matrix(keys)[:, design.names.index("season_last")]
    assert np.isnan(season[late & (keys.lead <= 4)]).all()  # days 56 to 59
    assert not np.isnan(season[~late]).any()
    assert 3 not in Design(features, [40], LAST_T).keys([40]).series


def test_a_training_reads_a_sample_of_the_series_of_a_large_panel(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Design(features, [100], LAST_T)
    monkeypatch.setattr("trendcast.features.TRAIN_SERIES", 5)
    some, again = (Design(features, [100], LAST_T, seed=3) for _ in range(2))
    assert len(some.series_id) == 5 < len(whole.series_id)
    assert some.series_id == again.series_id == sorted(some.series_id)
    assert Design(features, [100], LAST_T).series_id == whole.series_id  # a forecast is of all
    # What is known of a series does not depend on which others are read.
    keys = some.keys([100])
    place = np.array([whole.series_id.index(name) for name in some.series_id], np.int32)
    in_whole = replace(keys, series=place[keys.series])
    numeric = slice(0, some.n_numeric)
    np.testing.assert_array_equal(some.matrix(keys)[:, numeric], whole.matrix(in_whole)[:, numeric])


def test_no_cutoff_stride_shares_a_factor_with_the_season(features: Features) -> None:
    for wanted in range(1, 60):
        config = LightGBMConfig(train_cutoffs=wanted)
        cutoffs = _cutoffs(features, config, CUTOFF)
        assert cutoffs[-1] < CUTOFF
        assert len({c % 7 for c in cutoffs}) == min(7, len(cutoffs))


# --- What it learns ---


def test_learns_pattern_and_promotions_without_bias(
    panel: tuple[np.ndarray, np.ndarray], features: Features, model: LightGBM
) -> None:
    rows = model.forecast(features, CUTOFF)
    truth = panel[0][:, CUTOFF + 1 : CUTOFF + 1 + HORIZON]
    mean = rows.column("mean").to_numpy().reshape(truth.shape)
    naive = panel[0][:, CUTOFF - 6 + np.arange(HORIZON) % 7]
    assert np.abs(mean - truth).sum() < 0.7 * np.abs(naive - truth).sum()
    assert mean.sum() == pytest.approx(truth.sum(), rel=0.06)
    quantiles = quantiles_of(rows)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles >= 0).all()
    np.testing.assert_array_equal(quantiles, np.rint(quantiles))
    inside = (truth.ravel() >= quantiles[:, 2]) & (truth.ravel() <= quantiles[:, 6])
    assert 0.75 < inside.mean() < 0.95  # zeros make a count's interval cover more


def test_nothing_after_the_cutoff_changes_anything(
    panel: tuple[np.ndarray, np.ndarray], features: Features, model: LightGBM
) -> None:
    absurd = features_on(*panel, absurd_after=CUTOFF)
    assert fitted(absurd).forecast(absurd, CUTOFF) == model.forecast(features, CUTOFF)


def test_threads_do_not_change_the_forecast_and_seeds_do(
    panel: tuple[np.ndarray, np.ndarray], features: Features, model: LightGBM
) -> None:
    ours = model.forecast(features, CUTOFF)
    for threads in (1, 3):
        other = features_on(*panel, project=FakeProject(settings_with(threads=threads)))
        assert fitted(other).forecast(other, CUTOFF) == ours
    assert fitted(features, seed=4).forecast(features, CUTOFF) != ours


def test_threads_are_the_cores_or_what_openmp_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for there, used in ((2, 2), (64, 8)):
        monkeypatch.setattr("trendcast.models.backend.cores", lambda there=there: there)
        assert LightGBMConfig().parameters(1)["num_threads"] == used
    assert LightGBMConfig(threads=3).parameters(1)["num_threads"] == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert LightGBMConfig().parameters(1)["num_threads"] == 0  # OpenMP's own number


def test_what_needs_a_longer_history_is_not_learnt_from(
    panel: tuple[np.ndarray, np.ndarray], model: LightGBM
) -> None:
    def uses_promotion(model: LightGBM) -> bool:
        place = model._about["names"].index("promotion")
        return bool(model._booster.feature_importance()[place])

    project = FakeProject()
    project.columns = tuple(replace(c, needs_years=3 * (c.name == "promotion")) for c in COLUMNS)
    assert uses_promotion(model)
    assert not uses_promotion(fitted(features_on(*panel, project=project)))


def test_only_columns_with_a_role_and_no_wordy_category_are_used(
    panel: tuple[np.ndarray, np.ndarray], features: Features, model: LightGBM
) -> None:
    assert "share" in model._about["names"]
    assert model._about["categories"] == {"colour": ["blue", "red"]}
    narrow = features_on(*panel, project=FakeProject(settings_with(max_categories=1)))
    assert fitted(narrow)._about["categories"] == {}


# --- Files ---


def test_a_stored_model_forecasts_the_same(
    features: Features, model: LightGBM, tmp_path: Path
) -> None:
    files = model.save(tmp_path)
    assert sorted(path.name for path in files) == ["lightgbm.json", "lightgbm.txt"]
    other = LightGBM()
    other.load(tmp_path)
    assert other.forecast(features, CUTOFF) == model.forecast(features, CUTOFF)


def test_other_features_and_other_formats_are_refused(
    panel: tuple[np.ndarray, np.ndarray], model: LightGBM, tmp_path: Path
) -> None:
    fewer = FakeProject()
    fewer.columns = COLUMNS[:-1]  # type: ignore[misc]
    with pytest.raises(ArtifactError, match=r"missing now \['is_monday'\]"):
        model.forecast(features_on(*panel, project=fewer), CUTOFF)
    model.save(tmp_path)
    path = tmp_path / "lightgbm.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    with pytest.raises(ArtifactError, match="format 0"):
        LightGBM().load(tmp_path)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [({"leaves": 3}, "Unknown lightgbm setting"), ({"max_rows": 0}, "at least 1, got 0")],
)
def test_wrong_settings_say_what_is_valid(given_settings: dict[str, object], message: str) -> None:
    with pytest.raises(TrendcastError, match=message):
        LightGBMConfig.from_settings(given_settings)


def test_nothing_fitted_nothing_told(features: Features) -> None:
    with pytest.raises(ModelError, match="neither trained nor loaded"):
        LightGBM().forecast(features, CUTOFF)


# --- The spread ---


def measured(actual: np.ndarray, mean: np.ndarray, *, counts: bool, smallest: float = 1) -> Spread:
    return Spread.measure(
        actual,
        mean,
        mean.copy(),
        np.zeros(len(mean), np.int64),
        counts=counts,
        smallest=smallest,
        n_buckets=1,
        seed=0,
    )


def test_a_negative_binomial_is_found_again() -> None:
    rng = np.random.default_rng(1)
    mean = np.full(40_000, 3.0)
    actual = rng.negative_binomial(2, 2 / (2 + mean)).astype(float)
    spread = measured(actual, mean, counts=True)
    came = spread.quantiles(mean[:1], mean[:1], np.zeros(1, np.int64))[0]
    levels = [0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975]
    expected = stats.nbinom.ppf(levels, 2, 2 / 5)
    assert np.abs(came - expected).max() <= 1


def test_levels_are_corrected_where_the_form_does_not_fit() -> None:
    rng = np.random.default_rng(2)
    mean = np.full(40_000, 50.0)
    actual = np.maximum(50 + 10 * rng.standard_t(3, len(mean)), 0)  # tails no gamma has
    spread = measured(actual, mean, counts=False, smallest=0.1)
    low, high = spread.quantiles(mean[:1], mean[:1], np.zeros(1, np.int64))[0][[0, -1]]
    assert np.mean((actual >= low) & (actual <= high)) == pytest.approx(0.95, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(
    mean=st.lists(st.floats(0, 1e5), min_size=3, max_size=30),
    variation=st.floats(1e-3, 50),
    counts=st.booleans(),
    seed=st.integers(0, 99),
)
def test_quantiles_are_ordered_and_never_negative(
    mean: list[float], variation: float, counts: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    past = rng.gamma(0.5, 4, 500)
    actual = rng.poisson(past).astype(float)
    spread = measured(actual, past, counts=counts, smallest=1)
    at = np.array(mean)
    variance = scaled_variance(at, np.maximum(at, 0.01), at * variation)
    came = spread.quantiles(at, variance, np.zeros(len(at), np.int64))
    assert np.isfinite(came).all()
    assert (came >= 0).all()
    assert (np.diff(came, axis=1) >= 0).all()


def test_the_spread_is_plain_data() -> None:
    spread = measured(np.ones(10), np.ones(10), counts=True)
    again = Spread(**json.loads(json.dumps(dataclasses.asdict(spread))))
    assert again == spread


# --- Explanations ---


def test_explanations_add_up_and_a_promotion_is_found_under_its_name() -> None:
    y, promotion = demand(np.random.default_rng(5))
    features = features_on(y, promotion)
    model = LightGBM()
    model.fit(features, LAST_T - 1, 1, lambda _: None)
    explained = model.explain(features, LAST_T - 1)
    assert explained == model.explain(features, LAST_T - 1)
    frame, means = explained.to_pandas(), model.forecast(features, LAST_T - 1).to_pandas()
    keys = ["series_id", "lead"]
    means = means.set_index(keys)["mean"]
    totals = frame.groupby(keys)["contribution"].sum().loc[means.index]
    np.testing.assert_allclose(totals, means, rtol=1e-6)
    part = frame[frame["component"] == "promotion"].set_index(keys)["contribution"].loc[means.index]
    share = (part / means).to_numpy().reshape(len(y), HORIZON)
    planned = promotion[:, LAST_T:] == 1
    # Promotions double demand, so half of the mean of a promoted day is theirs, less what the average has of them.
    assert share[planned].mean() > 0.25
    assert share[~planned].mean() < 0.0


def test_only_the_largest_series_are_explained_where_there_are_too_many() -> None:
    y, promotion = demand(np.random.default_rng(5))
    features = features_on(
        y, promotion, project=FakeProject(settings_with(explain_rows=3 * HORIZON + 1))
    )
    model = LightGBM()
    model.fit(features, LAST_T - 1, 1, lambda _: None)
    explained = set(model.explain(features, LAST_T - 1).column("series_id").to_pylist())
    largest = np.argsort(-y[:, LAST_T - 28 :].mean(axis=1))[:3]
    assert explained == {f"s{i:02}" for i in largest}
