"""The regression against plain numpy, which shares no code with it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendcast.design import Keys
from trendcast.errors import ArtifactError, DataError
from trendcast.features import Features
from trendcast.models import ridge
from trendcast.models.ridge_rows import RATIO_LIMIT, ROWS, Drawn, Rows
from trendcast.models.tables import QUANTILE_NAMES
from trendcast.project import Column
from trendcast.warehouse.duckdb import DuckDBWarehouse

COLUMNS = (
    Column("y", "ftr_history", "history", "demand", "level"),
    Column("share", "ftr_history", "history", "none", "level"),
    Column("season_last", "ftr_history", "season", "demand", "season"),
    Column("promotion", "ftr_known", "known", "none", "promotion"),
    Column("copy", "ftr_known", "known", "none", "promotion"),
    Column("constant", "ftr_known", "known", "none", "calendar"),
)
HORIZON, BUCKET, LAST_T = 6, 3, 200


SETTINGS = SimpleNamespace(
    horizon=HORIZON,
    lead_bucket=BUCKET,
    season_length=7,
    grain="day",
    train_periods=150,
    train_stride=2,
    train_rows=10**6,
    seed=1,
)
TABLES = ("int_series", "ftr_history", "ftr_known", "ftr_calendar", "ftr_static", "ftr_cutoff")


@dataclass
class FakeProject:
    """Only what a model asks of a project."""

    settings: SimpleNamespace = field(default_factory=lambda: SETTINGS)
    relations: dict[str, str] = field(default_factory=lambda: {name: name for name in TABLES})
    columns = COLUMNS

    def relation(self, name: str) -> str:
        return self.relations[name]

    def with_role(self, *roles: str, wide: bool = False) -> list[Column]:
        return [c for c in self.columns if c.role in roles]


N_SERIES, SEASON = 12, 7


def shop(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Demand [N, T] that follows a known linear rule of its season and promotions, with noise."""
    level = 2.0 ** rng.uniform(-2, 5, (N_SERIES, 1))
    promotion = (rng.random((N_SERIES, LAST_T + HORIZON)) < 0.2).astype(float)
    season = level * rng.gamma(4, 0.25, promotion.shape)
    before = np.concatenate([np.zeros((N_SERIES, SEASON)), season[:, :-SEASON]], axis=1)
    mean = level * (0.5 + 0.4 * before / level + 0.5 * promotion)
    return {
        "level": np.broadcast_to(level, promotion.shape),
        "promotion": promotion,
        "season_last": season,
        "share": rng.random(promotion.shape),
        "y": rng.poisson(mean).astype(float),
    }


def rows_of(tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every (series, cutoff, lead) with its features and target, from the description and not from Design."""
    grid = np.meshgrid(
        np.arange(N_SERIES), np.arange(LAST_T), np.arange(1, HORIZON + 1), indexing="ij"
    )
    series, cutoff, lead = (part.ravel() for part in grid)
    target_t = cutoff + lead
    aligned = target_t - SEASON
    season = np.where(aligned >= 0, tables["season_last"][series, np.maximum(aligned, 0)], 0)
    promotion = tables["promotion"][series, target_t]
    return {
        "series_id": np.array([f"s{s:02}" for s in series]),
        "cutoff_t": cutoff,
        "lead": lead,
        "lead_bucket": (lead - 1) // BUCKET + 1,
        "target_t": target_t,
        "target": np.where(target_t < LAST_T, tables["y"][series, target_t], np.nan),
        "demand_level": tables["level"][series, 0],
        "y": tables["y"][series, cutoff],
        "share": tables["share"][series, cutoff],
        "season_last": season,
        "promotion": promotion,
        "copy": 2 * promotion + 1,
        "constant": np.ones(len(series)),
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray]:
    return shop(np.random.default_rng(5))


@pytest.fixture(scope="module")
def arrays(tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return rows_of(tables)


def features_on(tables: dict[str, np.ndarray], threads: int = 2) -> Features:
    """Write the panel as the feature tables; the past ends before LAST_T."""
    connection = duckdb.connect(config={"threads": threads})
    n, periods = tables["y"].shape
    flat = {name: values.ravel() for name, values in tables.items()}
    keys = {
        "series_id": [f"s{s:02}" for s in range(n) for _ in range(periods)],
        "t": np.tile(np.arange(periods), n),
    }
    connection.register("flat", pa.table({k: pa.array(v) for k, v in (keys | flat).items()}))
    connection.execute(
        f"""
        create table ftr_history as
        select series_id, t, y, y as actual, share, season_last, level as demand_level, level as demand_variance
        from flat where t < {LAST_T} order by hash(series_id, t);
        create table ftr_known as
        select series_id, t, promotion, 2 * promotion + 1 as copy, 1.0 as constant from flat;
        create view ftr_cutoff as from ftr_history;
        create table ftr_calendar as
        select cast(t as integer) as t, date '2020-01-01' + cast(t as integer) as ds from range({LAST_T + HORIZON}) as days(t);
        create table ftr_static as select distinct series_id from ftr_history;
        create table int_series as select 0 as first_t, series_id from ftr_static;
        """
    )
    return Features(DuckDBWarehouse(connection, ":memory:"), FakeProject())  # type: ignore[arg-type]


def test_what_needs_a_longer_history_is_not_learnt_from(
    tables: dict[str, np.ndarray], features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = tuple(replace(c, needs_years=3 * (c.name == "copy")) for c in COLUMNS)
    monkeypatch.setattr(features, "project", FakeProject())
    monkeypatch.setattr(features.project, "columns", needy, raising=False)
    model = ridge.Ridge()
    model.fit(features, LAST_T - 1, 1, lambda _: None)
    place = [c.name for c in COLUMNS].index("copy")
    assert all(bucket.dropped[place] for bucket in model._fit.buckets)
    assert features.too_young(LAST_T - 1) == {"copy"}
    assert features.too_young(3 * 365 - 1) == set()
    assert features.too_young(3 * 365 - 1, window=364) == {"copy"}


@pytest.fixture(scope="module")
def features(tables: dict[str, np.ndarray]) -> Features:
    return features_on(tables)


@pytest.fixture(scope="module")
def fitted(features: Features) -> ridge.Ridge:
    model = ridge.Ridge()
    model.fit(features, LAST_T - 1, 1, lambda _: None)
    return model


def numpy_matrix(arrays: dict[str, np.ndarray]) -> np.ndarray:
    level = arrays["demand_level"]
    return np.column_stack(
        [
            arrays["y"] / level,
            arrays["share"],
            arrays["season_last"] / level,
            arrays["promotion"],
            arrays["copy"],
            arrays["constant"],
        ]
    )


def test_coefficients_equal_weighted_ridge_in_numpy(
    arrays: dict[str, np.ndarray], fitted: ridge.Ridge
) -> None:
    """The sums, the sampling of cutoffs, the weights and the solution, against np.linalg on the rows."""
    end = LAST_T - 1
    x = numpy_matrix(arrays)
    for bucket in fitted._fit.buckets:
        chosen = (
            (arrays["lead_bucket"] == bucket.lead_bucket)
            & (arrays["target_t"] <= end)
            & (arrays["cutoff_t"] >= end - 150)
            & ((end - arrays["cutoff_t"]) % 2 == 0)
        )
        weight = arrays["demand_level"][chosen]
        kept = [0, 1, 2, 3]  # `copy` repeats `promotion`, `constant` does not vary
        a = x[chosen][:, kept]
        r = arrays["target"][chosen] / weight
        mean = np.average(a, axis=0, weights=weight)
        centred = a - mean
        std = np.sqrt(np.average(centred**2, axis=0, weights=weight))
        z = centred / std
        gram = (z * weight[:, None]).T @ z / weight.sum()
        right = (z * weight[:, None]).T @ (r - np.average(r, weights=weight)) / weight.sum()
        expected = np.linalg.solve(gram + bucket.penalty * np.eye(4), right) / std
        # Entries are rounded to 2**-16, so agreement is to about that.
        np.testing.assert_allclose(np.array(bucket.coefficients)[kept], expected, atol=2e-4)
        assert bucket.dropped == [False, False, False, False, True, True]
        assert np.array(bucket.coefficients)[[4, 5]].tolist() == [0, 0]


def test_of_a_large_panel_rows_are_drawn_over_all_cutoffs_and_leads(
    tables: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = features_on(tables)
    end_t = LAST_T - 1
    cutoffs = ridge._training_cutoffs(features, end_t)
    assert cutoffs == list(range(end_t - 150, end_t, 2))

    def drawn(seed: int) -> Keys:
        return Drawn.of(features, cutoffs, end_t, end_t - 10, seed).keys

    wanted = len(drawn(1)) // 10
    monkeypatch.setattr(SETTINGS, "train_rows", wanted)
    keys = drawn(1)
    assert wanted <= len(keys) <= wanted + len(cutoffs)
    assert (keys.cutoff + keys.lead <= end_t).all()
    for part, n in ((keys.cutoff, len(cutoffs)), (keys.lead, HORIZON), (keys.series, N_SERIES)):
        assert len(np.unique(part)) == n
    assert np.array_equal(keys.series, drawn(1).series)
    assert not np.array_equal(keys.series, drawn(2).series)


def test_recovers_the_rule_behind_the_data(fitted: ridge.Ridge) -> None:
    for bucket in fitted._fit.buckets:
        y, _, season, promotion, _, _ = bucket.coefficients
        assert y == pytest.approx(0, abs=0.05)
        assert season == pytest.approx(0.4, abs=0.05)
        assert promotion == pytest.approx(0.5, abs=0.1)


def test_a_missing_season_is_the_mean_and_nothing_is_missing_or_beyond_bounds() -> None:
    columns = [
        Column("mean_short", "ftr_history", "history", "demand", "level"),
        Column("season_last", "ftr_history", "season", "demand", "season"),
        Column("price", "ftr_known", "known", "none", "price"),
    ]
    matrix = np.array([[2.0, np.nan, np.nan], [2.0, 3.0, 1e6]], np.float32)
    level = np.ones(2, np.float32)
    given = SimpleNamespace(
        columns=columns,
        lead_bucket=BUCKET,
        matrix=lambda keys: matrix.copy(),
        scale=lambda keys: (level, level),
        target=lambda keys: level,
    )
    keys = Keys(*(np.array([1, 2], np.int32) for _ in range(3)))
    rows = Rows.of(given, keys)  # type: ignore[arg-type]
    assert rows.matrix.tolist() == [[2, 2, 0], [2, 3, RATIO_LIMIT]]


def test_same_coefficients_on_any_number_of_threads(tables: dict[str, np.ndarray]) -> None:
    fits = []
    for threads in (1, 2, 8):
        model = ridge.Ridge()
        model.fit(features_on(tables, threads), LAST_T - 1, 1, lambda _: None)
        fits.append(model._fit)
    assert fits[0] == fits[1] == fits[2]


class Elsewhere(DuckDBWarehouse):
    """An engine that is not in this process, as far as it says."""

    in_process = False


class WithWorkers(Elsewhere):
    """One that has workers, too: here, one after the other."""

    has_workers = True

    def by_shard(self, queries, key, function, schema, shard_rows, n_rows=None):
        made = []
        for shard in range(3):
            mine = f"where hash({key}) % 3 = {shard}"
            rows = {n: self.query(f"select * from ({q}) {mine}") for n, q in queries.items()}
            if any(map(len, rows.values())):
                # Told how many rows there are at most, the engine need not join them twice to count them.
                n_rows -= sum(map(len, rows.values()))
                assert n_rows >= 0
                made.append(pickle.loads(pickle.dumps(function))(rows))
        return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in made)])


@pytest.mark.parametrize("engine", [Elsewhere, WithWorkers])
def test_rows_added_up_elsewhere_teach_the_same_to_the_last_bit(
    tables: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, engine: type[Elsewhere]
) -> None:
    """By joins in the engine, whole or by shards, and not by position: missing values, gaps, launches and a sample of rows."""
    columns = (Column("mean_short", "ftr_history", "history", "demand", "level"), *COLUMNS)
    needy = tuple(replace(c, needs_years=3 * (c.name == "copy")) for c in columns)
    monkeypatch.setattr("trendcast.models.ridge_rows.SPREAD_ROWS", 200)
    monkeypatch.setattr("trendcast.models.ridge_rows._SUMS_AT_ONCE", 10)
    monkeypatch.setattr(SETTINGS, "train_rows", 3000)
    fits = []
    for kind in (DuckDBWarehouse, engine):
        features = features_on(tables)
        connection = features._warehouse._connection  # type: ignore[attr-defined]
        connection.execute(
            """
            alter table ftr_history add column mean_short double;
            update ftr_history set mean_short = y * 0.7 + 0.1;
            update ftr_history set actual = null where t % 11 = 3;
            update ftr_history set season_last = null where t % 5 = 1;
            update ftr_history set share = null, mean_short = null where t % 7 = 2;
            update ftr_history set share = 1e9 where t % 13 = 2;
            delete from ftr_history where series_id = 's03' and t < 120;
            delete from ftr_known where t % 17 = 0;
            update int_series set first_t = 120 where series_id = 's03';
            insert into ftr_static values ('a launch');
            """
        )
        project = FakeProject()
        monkeypatch.setattr(project, "columns", needy, raising=False)
        found = Features(kind(connection, ":memory:"), project)  # type: ignore[arg-type]
        model = ridge.Ridge()
        model.fit(found, LAST_T - 1, 1, lambda _: None)
        fits.append(model._fit)
        assert not features._warehouse.exists(ROWS)
    assert fits[0] == fits[1]
    assert fits[0].spread is not None
    assert fits[0].buckets[0].dropped == [False, False, False, False, False, True, False]


def test_forecast_is_the_scored_design_with_ordered_quantiles(
    arrays: dict[str, np.ndarray], features: Features, fitted: ridge.Ridge
) -> None:
    table = fitted.forecast(features, LAST_T - 1)
    assert table.column("series_id").to_pylist() == sorted(table.column("series_id").to_pylist())
    assert len(table) == 12 * HORIZON
    at = arrays["cutoff_t"] == LAST_T - 1
    by_bucket = {b.lead_bucket: b for b in fitted._fit.buckets}
    scored = [
        level * (by_bucket[b].intercept + row @ np.array(by_bucket[b].coefficients))
        for level, b, row in zip(
            arrays["demand_level"][at],
            arrays["lead_bucket"][at],
            numpy_matrix(arrays)[at],
            strict=True,
        )
    ]
    # Features are in single precision.
    np.testing.assert_allclose(table.column("mean").to_numpy(), np.maximum(scored, 0), rtol=1e-5)
    quantiles = np.column_stack([table.column(name).to_numpy() for name in QUANTILE_NAMES])
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles >= 0).all()


def test_intervals_cover_what_they_promise(
    arrays: dict[str, np.ndarray], features: Features, fitted: ridge.Ridge
) -> None:
    model = ridge.Ridge()
    model.fit(features, 150, 1, lambda _: None)
    tables = [model.forecast(features, c) for c in range(151, LAST_T - HORIZON - 1, 5)]
    got = pa.concat_tables(tables).to_pandas()
    truth = {
        (s, c, lead): a
        for s, c, lead, a in zip(
            arrays["series_id"], arrays["cutoff_t"], arrays["lead"], arrays["target"], strict=True
        )
    }
    cutoff_t = (got["cutoff"].astype("datetime64[s]") - np.datetime64("2020-01-01")).dt.days
    actual = np.array([truth[k] for k in zip(got["series_id"], cutoff_t, got["lead"], strict=True)])
    covered = ((actual >= got["q10"]) & (actual <= got["q90"])).mean()
    assert 0.74 <= covered <= 0.92


def test_explanations_add_up_to_the_mean(features: Features, fitted: ridge.Ridge) -> None:
    means = (
        fitted.forecast(features, LAST_T - 1).to_pandas().set_index(["series_id", "lead"])["mean"]
    )
    explained = fitted.explain(features, LAST_T - 1).to_pandas()
    totals = explained.groupby(["series_id", "lead"])["contribution"].sum()
    np.testing.assert_allclose(totals.loc[means.index], means, rtol=1e-9)
    assert set(explained["component"]) >= {"level", "season", "promotion"}


def test_explanations_are_the_same_however_many_series_at_once(
    features: Features, fitted: ridge.Ridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fitted.explain(features, LAST_T - 1)
    monkeypatch.setattr(ridge, "BATCH_ROWS", 2 * HORIZON + 1)
    assert fitted.explain(features, LAST_T - 1).equals(expected)


def test_what_a_sample_of_the_series_teaches_serves_all(
    features: Features, fitted: ridge.Ridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fitted.forecast(features, LAST_T - 1)
    n_series = len(set(expected.column("series_id").to_pylist()))
    monkeypatch.setattr("trendcast.features.TRAIN_SERIES", n_series - 2)
    model = ridge.Ridge()
    model.fit(features, LAST_T - 1, 1, lambda _: None)
    found = model.forecast(features, LAST_T - 1)
    assert found.select(["series_id", "lead"]) == expected.select(["series_id", "lead"])
    assert not np.array_equal(found.column("mean"), expected.column("mean"))


def test_training_never_reads_a_target_after_its_end(
    tables: dict[str, np.ndarray], features: Features
) -> None:
    late = np.arange(tables["y"].shape[1]) > 150
    poisoned = tables | {"y": np.where(late, 1e6, tables["y"])}
    clean, dirty = ridge.Ridge(), ridge.Ridge()
    clean.fit(features, 150, 1, lambda _: None)
    dirty.fit(features_on(poisoned), 150, 1, lambda _: None)
    assert clean._fit == dirty._fit


def test_saved_and_loaded_forecasts_the_same(
    features: Features, fitted: ridge.Ridge, tmp_path: object
) -> None:
    files = fitted.save(tmp_path)  # type: ignore[arg-type]
    assert [f.suffix for f in files] == [".json"]
    loaded = ridge.Ridge()
    loaded.load(tmp_path)  # type: ignore[arg-type]
    assert loaded.forecast(features, LAST_T - 1).equals(fitted.forecast(features, LAST_T - 1))
    assert loaded.coefficients().equals(fitted.coefficients())


def test_other_features_than_trained_on_are_refused(
    features: Features, fitted: ridge.Ridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeProject, "columns", COLUMNS[:-1])
    with pytest.raises(ArtifactError, match=r"missing now \['constant'\]"):
        fitted.forecast(features, LAST_T - 1)


@pytest.mark.parametrize("engine", [DuckDBWarehouse, Elsewhere, WithWorkers])
def test_too_short_a_history_says_what_to_do(
    tables: dict[str, np.ndarray], engine: type[DuckDBWarehouse]
) -> None:
    features = features_on(tables)
    connection = features._warehouse._connection  # type: ignore[attr-defined]
    found = Features(engine(connection, ":memory:"), features.project)
    for end_t in (0, 1, 3):
        with pytest.raises(DataError, match="Lower the var"):
            ridge.Ridge().fit(found, end_t, 1, lambda _: None)
    for nothing in ("ftr_history set actual = null", "int_series set first_t = 500"):
        connection.execute(f"update {nothing}")
        with pytest.raises(DataError, match="Lower the var"):
            ridge.Ridge().fit(found, LAST_T - 1, 1, lambda _: None)


@given(
    seed=st.integers(0, 10_000),
    p=st.integers(1, 6),
    repeats=st.integers(0, 3),
    penalty=st.sampled_from(ridge.PENALTIES),
)
@settings(max_examples=60, deadline=None)
def test_solution_is_finite_and_unbiased_whatever_repeats(
    seed: int, p: int, repeats: int, penalty: float
) -> None:
    """Collinear columns are dropped, never blown up; the mean of the fit is the mean of the target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, p))
    x = np.column_stack([x] + [x[:, [k % p]] * (k + 2) - 1 for k in range(repeats)])
    target = rng.normal(3, 2, 50)
    full = np.column_stack([np.ones(50), x, target])
    bucket = ridge._solve(1, full.T @ full, penalty)
    assert np.isfinite(bucket.coefficients).all()
    assert sum(bucket.dropped) == repeats
    fit = bucket.intercept + x @ np.array(bucket.coefficients)
    assert fit.mean() == pytest.approx(target.mean(), abs=1e-6)
