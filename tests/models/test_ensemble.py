"""Weights on the simplex, quantiles in order, and nothing learnt from what came later."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendcast.ensemble import (
    LEVELS,
    PRIOR_SHARE,
    Backtest,
    Ensemble,
    Rows,
    _pinball,
    _row_weights,
    _simplex_weights,
    _trimmed_mean,
    concatenate,
    drawn_to_neighbours,
)
from trendcast.errors import ArtifactError
from trendcast.models.base import QUANTILES
from trendcast.models.tables import QUANTILE_NAMES

Q, HORIZON, BUCKET = len(QUANTILES), 8, 4
CLASSES = np.array(["smooth", "lumpy"])


def rows_of(
    rng: np.random.Generator, n_series: int = 60, widths: tuple[float, ...] = (1.0, 1.0, 3.0)
) -> Rows:
    """Members whose median is off by noise of its own size, around a truth known to none."""
    n = n_series * HORIZON
    truth = rng.gamma(3, 4, n)
    actual = np.maximum(truth + rng.normal(0, 2, n), 0)
    steps = np.array([-2.0, -1.6, -1.3, -0.7, 0, 0.7, 1.3, 1.6, 2.0]) * 2
    mean = np.stack([np.maximum(truth + rng.normal(0, w, n), 0) for w in widths])
    return Rows(
        quantiles=np.maximum(mean[:, :, None] + steps, 0),
        mean=mean,
        demand_class=np.repeat(CLASSES[np.arange(n_series) % 2], HORIZON),
        lead=np.tile(np.arange(1, HORIZON + 1), n_series),
        actual=actual,
        series_id=np.repeat([f"s{i:03}" for i in range(n_series)], HORIZON),
        error_scale=np.full(n, 4.0),
        lead_bucket=BUCKET,
    )


def learnt(rows: Rows, n_horizons: float = 3, members: int = 3) -> Ensemble:
    ensemble = Ensemble(tuple("abcdef"[:members]), counts=False)
    ensemble.learn(rows, n_horizons)
    return ensemble


# --- Weights ---


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    widths=st.lists(st.floats(0, 20), min_size=2, max_size=4),
    scale=st.sampled_from([1e-3, 1.0, 1e6]),
)
def test_weights_lie_on_the_simplex(seed: int, widths: list[float], scale: float) -> None:
    rows = rows_of(np.random.default_rng(seed), 10, tuple(widths))
    rows = dataclasses.replace(
        rows, quantiles=rows.quantiles * scale, mean=rows.mean * scale, actual=rows.actual * scale
    )
    ensemble = learnt(rows, members=len(widths))
    assert set(ensemble.weights) == {f"{c}:{b}" for c in ("all", *CLASSES) for b in (1, 2)}
    for weights in ensemble.weights.values():
        assert sum(weights) == pytest.approx(1)
        assert min(weights) >= 0


def test_the_better_member_gets_more_and_the_unit_does_not_matter() -> None:
    rows = rows_of(np.random.default_rng(1), 2000, (0.2, 2.0, 6.0))
    weights = learnt(rows, 100).weights["all:1"]
    assert (
        weights[0] > 0.65
    )  # the whole of it but for the prior's fifth, and what averaging is worth
    assert weights[0] > weights[1] > weights[2] - 1e-9
    tons = dataclasses.replace(
        rows, quantiles=rows.quantiles / 1e6, mean=rows.mean / 1e6, actual=rows.actual / 1e6
    )
    assert learnt(tons, 100).weights["all:1"] == pytest.approx(weights, abs=1e-6)


@pytest.mark.parametrize("widths", [(1.0, 1.5), (0.2, 4.0), (3.0, 0.5)])
def test_the_descent_finds_the_best_of_a_grid(widths: tuple[float, float]) -> None:
    rows = rows_of(np.random.default_rng(3), 300, widths)

    def loss(share: float) -> float:
        error = rows.actual[:, None] - np.tensordot([share, 1 - share], rows.quantiles, axes=1)
        return float(np.mean(np.maximum(LEVELS * error, (LEVELS - 1) * error)))

    grid = np.linspace(0, 1, 101)
    losses = [loss(share) for share in grid]
    found = _simplex_weights(rows.quantiles, rows.actual, np.ones(len(rows)), np.array([0.5, 0.5]))
    assert loss(found[0]) < min(losses) * 1.001


def test_little_evidence_leaves_the_weights_nearly_equal() -> None:
    rows = rows_of(np.random.default_rng(1), 4, (0.2, 2.0, 6.0))
    for weights in learnt(rows, 1).weights.values():
        assert weights == pytest.approx([1 / 3] * 3, abs=0.02)
    none = Ensemble(("a", "b"), counts=False)
    table = none.weights_table(2).to_pylist()
    assert {(r["demand_class"], r["lead_bucket"], r["weight"], r["n_rows"]) for r in table} == {
        ("all", 1, 0.5, 0),
        ("all", 2, 0.5, 0),
    }


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_equal_members_give_the_member(seed: int) -> None:
    rows = rows_of(np.random.default_rng(seed), 20, (1.0,))
    three = dataclasses.replace(
        rows, quantiles=np.repeat(rows.quantiles, 3, axis=0), mean=np.repeat(rows.mean, 3, axis=0)
    )
    ensemble = learnt(three)
    for weights in ensemble.weights.values():
        assert weights == pytest.approx([1 / 3] * 3)
    combined = ensemble.combine(three)
    np.testing.assert_allclose(combined.mean[0], rows.mean[0])
    np.testing.assert_allclose(ensemble.finish(combined), rows.quantiles[0])


def test_a_class_never_seen_takes_the_weights_of_all_and_a_far_lead_those_of_the_nearest() -> None:
    ensemble = Ensemble(("a", "b"), counts=False, weights={"all:1": [1.0, 0.0], "smooth:1": [0, 1]})
    rows = rows_of(
        np.random.default_rng(0), 2, (1.0, 1.0)
    )  # smooth and lumpy, lead buckets 1 and 2
    combined = ensemble.combine(rows)
    smooth = rows.demand_class == "smooth"
    np.testing.assert_array_equal(combined.mean[0][smooth], rows.mean[1][smooth])
    np.testing.assert_array_equal(combined.mean[0][~smooth], rows.mean[0][~smooth])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), n_members=st.integers(1, 5))
def test_a_tenth_of_the_weight_is_trimmed_at_either_end(seed: int, n_members: int) -> None:
    """Against a plain mean of many copies of each member, as many as its weight says."""
    rng = np.random.default_rng(seed)
    values = np.sort(rng.normal(size=(n_members, 3, 4)), axis=2)
    copies = rng.multinomial(1000, rng.dirichlet(np.ones(n_members)), size=3)
    found = _trimmed_mean(values, copies / 1000)
    for row, level in np.ndindex(found.shape):
        alike = np.sort(np.repeat(values[:, row, level], copies[row]))
        assert found[row, level] == pytest.approx(alike[100:900].mean())
    assert (np.diff(found, axis=1) > -1e-12).all()


def test_one_member_far_off_counts_for_less_in_the_quantiles_and_not_in_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = rows_of(np.random.default_rng(0), 7, (1.0, 1.0, 1.0, 1.0))
    ensemble = Ensemble(tuple("abcd"), counts=False)
    far = dataclasses.replace(rows, quantiles=rows.quantiles.copy(), mean=rows.mean.copy())
    far.quantiles[2] += 1e6
    far.mean[2] += 1e6
    combined = ensemble.combine(far)
    np.testing.assert_allclose(combined.quantiles[0], 0.15 / 0.8 * 1e6, rtol=1e-3)
    np.testing.assert_allclose(combined.mean[0], 0.25 * 1e6, rtol=1e-3)
    monkeypatch.setattr("trendcast.ensemble.COMBINED_ROWS", 3)
    np.testing.assert_array_equal(ensemble.combine(far).quantiles, combined.quantiles)


# --- Widths ---


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), narrow=st.floats(0, 3), counts=st.booleans())
def test_scaling_keeps_order_and_sign(seed: int, narrow: float, counts: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, 30, (1.0, 2.0))
    median = rows.quantiles[:, :, [4]]
    rows = dataclasses.replace(
        rows, quantiles=np.maximum(median + narrow * (rows.quantiles - median), 0)
    )
    ensemble = Ensemble(("a", "b"), counts)
    combined = ensemble.combine(rows)
    ensemble.calibrate(combined, 50)
    quantiles = ensemble.finish(ensemble.combine(rows_of(rng, 30, (1.0, 2.0))))
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles >= 0).all()
    if counts:
        np.testing.assert_array_equal(quantiles, np.rint(quantiles))


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.7])
def test_intervals_of_the_wrong_width_cover_after_all(factor: float) -> None:
    rng = np.random.default_rng(5)
    past, future = rows_of(rng, 8000, (0.1,)), rows_of(rng, 1500, (0.1,))

    def wrong(rows: Rows) -> Rows:
        median = rows.quantiles[:, :, [4]]
        return dataclasses.replace(
            rows, quantiles=np.maximum(median + factor * (rows.quantiles - median), 0)
        )

    ensemble = Ensemble(("a",), counts=False)
    ensemble.calibrate(wrong(past), 50)
    quantiles = ensemble.finish(wrong(future))
    for low, high, share in ((2, 6, 0.8), (0, 8, 0.95)):
        inside = (future.actual >= quantiles[:, low]) & (future.actual <= quantiles[:, high])
        assert inside.mean() == pytest.approx(share, abs=0.02)


# --- What it may know ---


def score(walk: Backtest, t: int, rows: Rows) -> Ensemble:
    found = walk.ensemble(t)
    walk.remember(t, rows, found)
    return found


def walked(folds: dict[int, Rows], last_t: int) -> dict[int, Ensemble]:
    walk = Backtest(["a", "b", "c"], counts=False, horizon=HORIZON, medium=8)
    found = {t: score(walk, t, rows) for t, rows in sorted(folds.items())}
    return found | {last_t: walk.ensemble(last_t)}


@pytest.mark.parametrize("step", [3, HORIZON])
def test_scrambling_later_folds_changes_nothing_earlier(step: int) -> None:
    rng = np.random.default_rng(7)
    folds = {t: rows_of(rng) for t in range(0, 4 * step, step)}
    before = walked(folds, 4 * step)
    for scrambled in folds:
        other = dict(folds)
        for t in folds:
            # What comes after the cutoff `scrambled`: whole folds, and the later targets of earlier ones.
            late = folds[t].lead > scrambled - t
            actual = np.where(late, rng.uniform(0, 1e6, len(late)), folds[t].actual)
            other[t] = dataclasses.replace(folds[t], actual=actual)
        after = walked(other, 4 * step)
        for t in folds:
            assert (after[t] == before[t]) or t > scrambled
        assert after[4 * step] != before[4 * step]


def test_the_oldest_fold_knows_nothing_and_the_next_only_that() -> None:
    rng = np.random.default_rng(8)
    folds = {t: rows_of(rng) for t in (0, HORIZON, 2 * HORIZON)}
    found = walked(folds, 3 * HORIZON)
    assert (found[0].weights, found[0].scales) == ({}, {})
    n = len(folds[0])
    assert [sum(v for k, v in found[t].n_rows.items() if k.startswith("all")) for t in found] == [
        0,
        n,
        2 * n,
        3 * n,
    ]


def test_evidence_is_a_sample_of_fixed_size() -> None:
    rows = rows_of(np.random.default_rng(0), 5, (1.0, 1.0))
    big = concatenate([rows] * 6000)
    kept = big.thinned()
    assert len(kept) == 200_000
    np.testing.assert_array_equal(kept.actual, big.thinned().actual)


# --- Files ---


def test_a_stored_ensemble_is_the_same(tmp_path: Path) -> None:
    ensemble = learnt(rows_of(np.random.default_rng(2)))
    ensemble.calibrate(ensemble.combine(rows_of(np.random.default_rng(3))), 2)
    (path,) = ensemble.save(tmp_path)
    assert Ensemble.load(tmp_path) == ensemble
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(ArtifactError, match="Train again"):
        Ensemble.load(tmp_path)


def test_a_series_leans_to_the_member_that_suits_it() -> None:
    rng = np.random.default_rng(6)
    walk = Backtest(("a", "b"), counts=False, horizon=HORIZON, medium=8)
    for fold in range(4):
        rows = rows_of(rng, 40, (1.0, 1.0))
        # Of half the series one member knows nothing, of the other half the other.
        odd = np.array([int(name[1:]) % 2 for name in rows.series_id])
        for member in (0, 1):
            rows.quantiles[member, odd == member] += 20
        score(walk, 100 + fold * HORIZON, rows)
    found = walk.ensemble(100 + 4 * HORIZON)
    assert found.tilts["s000"][1] > 5 * found.tilts["s000"][0]
    assert found.tilts["s001"][0] > 5 * found.tilts["s001"][1]
    new = dataclasses.replace(rows, series_id=np.full(len(rows), "new"))
    ours, theirs = (
        _pinball(found.combine(r).quantiles[0], rows.actual).mean() for r in (rows, new)
    )
    assert ours < 0.7 * theirs


def test_a_series_with_one_row_hardly_leans() -> None:
    rows = rows_of(np.random.default_rng(6), 2, (0.1, 9.0))
    walk = Backtest(("a", "b"), counts=False, horizon=HORIZON, medium=8)
    score(walk, 100, rows.take(np.array([0])))
    (tilt,) = walk.ensemble(100 + HORIZON).tilts.values()
    assert 1 / 3 < tilt[0] / tilt[1] < 3


def test_small_series_count_in_their_own_unit() -> None:
    scale = np.array([100.0, 1.0, np.nan, 0.0])
    large, small, unknown, none = _row_weights(scale)
    assert large == pytest.approx(small / 100)
    assert unknown == none == 0
    assert _row_weights(np.full(3, np.nan)) == pytest.approx(1)


# --- Explanations ---


def test_members_explanations_are_mixed_as_their_means_are() -> None:
    rows = rows_of(np.random.default_rng(3))
    found = learnt(rows)
    keys = pa.table({"series_id": rows.series_id.tolist(), "lead": rows.lead})
    day = pa.repeat(pa.scalar(0), len(rows))
    keys = keys.append_column("cutoff", day).append_column("target_date", day)

    def explained(member: int, index: np.ndarray, share: float) -> pa.Table:
        parts = [("level", share), ("season", 1 - share)]
        return pa.concat_tables(
            keys.take(pa.array(index))
            .append_column("component", pa.repeat(pa.scalar(name), len(index)))
            .append_column("contribution", pa.array(part * rows.mean[member, index]))
            for name, part in parts
        )

    n = len(rows)
    some = np.arange(n // 2 // HORIZON * HORIZON)[::-1]
    members = {"a": explained(0, np.arange(n), 0.7), "b": explained(1, some, 0.2)}
    frame = found.explain(rows, keys, members).to_pandas()
    assert not frame.duplicated(["series_id", "lead", "component"]).any()
    total = frame.groupby(["series_id", "lead"])["contribution"].sum()
    order = list(zip(rows.series_id, rows.lead, strict=True))
    np.testing.assert_allclose(total.loc[order], found.combine(rows).mean[0], rtol=1e-9)
    # Of c nothing is known, of b only the first half.
    assert set(frame["component"]) == {"level", "season", "b", "c"}
    unknown = set(frame.loc[frame["component"] == "b", "series_id"])
    assert unknown == set(rows.series_id[len(some) :])
    level = frame[frame["component"] == "level"].set_index(["series_id", "lead"])["contribution"]
    last = order[-1]
    assert level[last] == pytest.approx(0.7 * found.shares(rows)[-1, 0] * rows.mean[0, -1])


def test_a_new_series_is_drawn_to_its_neighbours() -> None:
    """With two periods against six it counts a quarter; the parts still add up, and the others stay."""

    def forecasts(names: list[str], value: float) -> pa.Table:
        keys = {
            "series_id": [name for name in names for _ in range(2)],
            "cutoff": [dt.date(2026, 1, 1)] * 2 * len(names),
            "target_date": [dt.date(2026, 1, 2), dt.date(2026, 1, 3)] * len(names),
            "lead": pa.array([1, 2] * len(names), pa.int32()),
        }
        values = dict.fromkeys(("mean", *QUANTILE_NAMES), [value] * 2 * len(names))
        return pa.table(keys | values)

    own = forecasts(["a", "b", "c"], 8.0)
    parts = own.select(["series_id", "cutoff", "target_date", "lead"])
    parts = parts.append_column("component", pa.repeat(pa.scalar("level"), 6))
    parts = parts.append_column("contribution", own.column("mean"))
    analogy = forecasts(["b", "not forecast"], 4.0)
    analogy = analogy.append_column("evidence_periods", pa.array([1] * 4, pa.int32()))
    drawn, explained = drawn_to_neighbours(own, parts, analogy, 6.0, counts=True)
    assert drawn.column("mean").to_pylist() == [8, 8, 5, 5, 8, 8]
    assert drawn.column("q90").to_pylist() == [8, 8, 5, 5, 8, 8]
    assert explained is not None
    total: dict[tuple[str, int], float] = {}
    for row in explained.to_pylist():
        key = row["series_id"], row["lead"]
        total[key] = total.get(key, 0) + row["contribution"]
    means = zip(*(drawn.column(c).to_pylist() for c in ("series_id", "lead", "mean")), strict=True)
    assert total == {(name, lead): mean for name, lead, mean in means}
    assert set(explained.column("component").to_pylist()) == {"level", "analogy"}
    # Nothing but the first sale, and nothing new.
    none = analogy.set_column(
        analogy.column_names.index("evidence_periods"), "evidence_periods", pa.array([0] * 4)
    )
    assert (
        drawn_to_neighbours(own, None, none, 7.0, counts=True)[0].column("mean")[2].as_py() == 4.5
    )
    assert drawn_to_neighbours(own, parts, analogy.slice(0, 0), 3.0, counts=True) == (own, parts)


@pytest.mark.parametrize(("truth", "least", "most"), [(8.0, 0.03, 0.1), (4.0, 1.0, 2.0)])
def test_the_backtest_says_how_much_a_new_series_borrows(
    truth: float, least: float, most: float
) -> None:
    """Where own forecasts were right, neighbours hardly count later; where neighbours were, they count more."""
    names, leads = [f"s{i:04}" for i in range(3_000)], list(range(1, HORIZON + 1))
    keys = {
        "series_id": [name for name in names for _ in leads],
        "lead": pa.array(leads * len(names), pa.int32()),
    }

    def forecasts(value: float) -> dict[str, list[float]]:
        return dict.fromkeys(("mean", *QUANTILE_NAMES), [value] * len(names) * HORIZON)

    own = pa.table(keys | forecasts(8.0))
    own = own.append_column("actual", pa.array([truth] * len(own)))
    own = own.append_column("error_scale", pa.array([1.0] * len(own)))
    analogy = pa.table(keys | forecasts(4.0))
    analogy = analogy.append_column("evidence_periods", pa.array([2] * len(own), pa.int32()))
    walk = Backtest(("a", "b"), counts=False, horizon=HORIZON, medium=8)
    assert walk.ensemble(100).prior_share == PRIOR_SHARE
    walk.remember_new(100, own, analogy)
    assert walk.ensemble(100).prior_share == PRIOR_SHARE, "nothing has come yet"
    assert least < walk.ensemble(100 + HORIZON).prior_share < most
    # A handful of rows says little.
    walk = Backtest(("a", "b"), counts=False, horizon=HORIZON, medium=8)
    walk.remember_new(100, own.slice(0, HORIZON), analogy.slice(0, HORIZON))
    assert walk.ensemble(100 + HORIZON).prior_share == pytest.approx(PRIOR_SHARE, rel=0.05)
