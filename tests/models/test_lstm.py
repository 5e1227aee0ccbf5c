"""The LSTM on small synthetic panels whose truth is known."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tests.models.panels import read_panel
from trendcast.errors import ArtifactError, UsageError
from trendcast.models.backend import devices, import_tensorflow, use_device
from trendcast.models.base import (
    QUANTILES,
    Forecast,
    Forecaster,
    ModelError,
    quantile_name,
)
from trendcast.models.lstm import (
    EPOCH_PASSES,
    LEAST_REACH,
    RECENT,
    Frame,
    LSTMConfig,
    LSTMForecaster,
    Sampler,
    _Trainer,
    build_network,
)
from trendcast.panel import Panel, Roles

HORIZON, SEASON = 14, 7
PATTERN = np.array([0.4, 0.6, 0.8, 1.0, 1.2, 1.8, 1.2])
SMALL = LSTMConfig(
    n_seeds=1, units=16, hidden=24, batch_size=128, steps_per_epoch=25, max_epochs=8, dropout=0.0
)
TINY = LSTMConfig(
    n_seeds=1,
    units=8,
    hidden=8,
    context=14,
    batch_size=32,
    steps_per_epoch=3,
    max_epochs=2,
    validation_cutoffs=2,
)
WIDE = LSTMConfig(n_seeds=1, steps_per_epoch=15, max_epochs=1)


def make_panel(
    y: dict[str, np.ndarray],
    *,
    horizon: int = HORIZON,
    season: int = SEASON,
    colour: dict[str, str] | None = None,
    history: tuple[str, ...] = ("mean_28",),
) -> Panel:
    """Build a panel of series that all end at period 0 + the longest length - 1."""
    end = max(map(len, y.values())) - 1
    rows, ahead = [], []
    for name, values in y.items():
        first = end + 1 - len(values)
        for k, v in enumerate(values):
            means = np.mean(values[max(0, k - 27) : k + 1])
            same = np.mean(values[k::-season][:4])
            rows.append((name, first + k, float(v), means, same))
        ahead += [(name, t) for t in range(first, end + horizon + 1)]
    names, t, value, mean, same = zip(*rows, strict=True)
    history_table = {"series_id": names, "t": t, "y": value, "season_mean": same}
    history_table |= {column: mean for column in history}
    known = {"series_id": [n for n, _ in ahead], "t": [t for _, t in ahead]}
    known |= {f"day_{d}": [t % season == d for _, t in ahead] for d in range(min(season, 7) - 1)}
    colours = colour or {}
    static = {"series_id": list(y), "colour": [colours.get(n, "red") for n in y]}
    roles = Roles(
        history=dict.fromkeys(history, "demand"),
        season={"season_mean": "demand"},
        known=[c for c in known if c.startswith("day_")],
        static=["colour"],
    )
    return read_panel(
        pa.table(history_table),
        pa.table(known),
        pa.table(static),
        roles,
        horizon=horizon,
        season_length=season,
    )


def weekly_series(n: int = 30, length: int = 182, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    levels = np.exp(rng.uniform(np.log(2), np.log(60), n))
    days = np.arange(length)
    return {f"s{i}": rng.poisson(level * PATTERN[days % 7]) for i, level in enumerate(levels)}


def fit(panel: Panel, config: LSTMConfig, seed: int = 0) -> LSTMForecaster:
    return LSTMForecaster(config).fit(panel, seed=seed)


@pytest.fixture(scope="module")
def weekly() -> Panel:
    return make_panel(weekly_series())


@pytest.fixture(scope="module")
def cutoff(weekly: Panel) -> int:
    return weekly.end - HORIZON


@pytest.fixture(scope="module")
def model(weekly: Panel, cutoff: int) -> LSTMForecaster:
    return fit(weekly.truncate(cutoff), SMALL)


@pytest.fixture(scope="module")
def small_panel() -> Panel:
    return make_panel(weekly_series(6, 70), colour={"s0": "blue", "s1": "green"})


@pytest.fixture(scope="module")
def tiny(small_panel: Panel) -> LSTMForecaster:
    return fit(small_panel, TINY)


# --- What it learns ---


def truth_of(panel: Panel, cutoff: int) -> np.ndarray:
    windows = panel.windows(
        np.arange(panel.n_series), np.full(panel.n_series, cutoff), 1, with_target=True
    )
    return windows.target


def test_learns_a_weekly_pattern_better_than_the_seasonal_naive(weekly, cutoff, model):
    forecast = model.predict(weekly, cutoff)
    truth = truth_of(weekly, cutoff)
    ends = weekly.offsets[1:] - HORIZON
    naive = weekly.y[ends[:, None] - 7 + np.arange(HORIZON) % 7]
    ours, theirs = np.abs(truth - forecast.mean).sum(), np.abs(truth - naive).sum()
    assert ours < 0.8 * theirs
    days = np.arange(cutoff + 1, cutoff + 1 + HORIZON) % 7
    levels = forecast.mean.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        (forecast.mean / levels).mean(axis=0), PATTERN[days], rtol=0.15, atol=0.05
    )


def test_total_is_unbiased_and_intervals_cover(weekly, cutoff, model):
    forecast = model.predict(weekly, cutoff)
    truth = truth_of(weekly, cutoff)
    assert forecast.mean.sum() == pytest.approx(truth.sum(), rel=0.05)
    low, high = forecast.quantiles[:, :, 2], forecast.quantiles[:, :, 6]
    assert 0.7 < np.mean((truth >= low) & (truth <= high)) < 0.95
    # Whole-number sales have whole-number quantiles.
    np.testing.assert_array_equal(forecast.quantiles, np.rint(forecast.quantiles))


def test_forecast_is_ordered_non_negative_and_complete(weekly, cutoff, model):
    forecast = model.predict(weekly, cutoff)
    assert forecast.mean.shape == (30, HORIZON)
    assert forecast.quantiles.shape == (30, HORIZON, len(QUANTILES))
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    assert (forecast.quantiles >= 0).all()
    assert forecast.series_id.tolist() == weekly.series_id.tolist()
    assert isinstance(model, Forecaster)


def test_new_and_silent_series_have_sensible_forecasts(weekly, model):
    y = weekly_series(3, 182, seed=8)
    y |= {"new": np.array([12, 9]), "silent": np.zeros(182), "one_day": np.array([5])}
    forecast = model.predict(make_panel(y))
    mean = dict(zip(forecast.series_id, forecast.mean.mean(axis=1), strict=True))
    assert 3 < mean["new"] < 30
    assert 0 < mean["one_day"] < 20
    assert mean["silent"] < 1


def test_revenue_is_not_rounded_and_small_quantiles_are_zero():
    rng = np.random.default_rng(0)
    y = {f"s{i}": rng.uniform(3, 9, 70) * (rng.random(70) < 0.2) for i in range(5)}
    forecast = fit(make_panel(y), TINY).predict(make_panel(y))
    positive = forecast.quantiles[forecast.quantiles > 0]
    assert positive.min() > 1.4
    assert not np.array_equal(positive, np.rint(positive))


# --- What it tells of its forecasts ---

COMPONENTS = {"season_mean": "season", "mean_28": "level"} | {
    f"day_{d}": "calendar" for d in range(6)
}


def test_explanations_find_the_planted_week_and_add_up(weekly, cutoff, model):
    forecast = model.predict(weekly, cutoff)
    some = np.sort(np.argsort(-forecast.mean.sum(axis=1))[:20])
    series, names, parts = model.explain(weekly, forecast, COMPONENTS, some)
    assert names == ["level", "season", "calendar"]
    chosen = np.isin(forecast.series_id, series)
    np.testing.assert_array_equal(np.flatnonzero(chosen), some)
    np.testing.assert_allclose(parts.sum(axis=-1), forecast.mean[chosen], rtol=1e-6)
    # In units of the average: the level is about the same every day, the rest is the pattern of the week.
    level, season, calendar = (parts.sum(axis=0) / forecast.mean[chosen].mean(axis=1).sum()).T
    assert np.ptp(level) < 0.1
    days = np.arange(cutoff + 1, cutoff + 1 + HORIZON) % 7
    assert np.corrcoef(season + calendar, PATTERN[days])[0, 1] > 0.98
    assert np.ptp(season + calendar) == pytest.approx(np.ptp(PATTERN), abs=0.3)


def test_what_says_nothing_is_known_of_every_column_but_the_levels(model):
    places = model.frame.places(COMPONENTS)
    known, bases = len(model.frame.known_columns), model.frame.sizes["bases"]
    assert [place[:2] for place in places["calendar"]] == [("future", j) for j in range(known)]
    assert [j for name, j, _ in places["season"] if name == "bases"] == list(
        range(1 + len(RECENT), bases)
    )
    assert not any(name == "present" for rows in places.values() for name, _, _ in rows)
    # Every set of components costs a forecast, so what is beyond six is not told apart.
    many = model.frame.places({f"day_{d}": f"own_{d}" for d in range(6)} | {"mean_28": "level"})
    assert list(many) == ["season", "other", "own_0", "own_1", "own_2"]
    assert sum(map(len, many.values())) == sum(map(len, places.values()))


# --- What it may know ---


def test_nothing_after_the_cutoff_changes_the_forecast(weekly, cutoff, model):
    y = weekly_series()
    absurd = {name: np.where(np.arange(len(v)) > cutoff, 9e5, v) for name, v in y.items()}
    expected = model.predict(weekly.truncate(cutoff))
    for panel in (weekly, make_panel(absurd)):
        came = model.predict(panel, cutoff)
        np.testing.assert_array_equal(came.mean, expected.mean)
        np.testing.assert_array_equal(came.quantiles, expected.quantiles)


def test_series_that_start_after_the_cutoff_are_left_out(model, weekly):
    panel = make_panel(weekly_series(2) | {"late": np.array([4.0, 4.0])})
    assert model.predict(panel, panel.end - 3).series_id.tolist() == ["s0", "s1"]


def test_no_training_target_is_later_than_the_first_validation_cutoff(weekly, monkeypatch):
    seen: dict[str, list[int]] = {"train": [], "late": []}
    original = _Trainer._train

    def spy(self, network, sampler, epochs, *args, **kwargs):
        seen["train" if kwargs.get("after") else "late"].append(sampler.last)
        return original(self, network, sampler, 1, *args, **kwargs)

    monkeypatch.setattr(_Trainer, "_train", spy)
    fit(weekly, TINY)
    frame = Frame.of(weekly, TINY)
    validation = _Trainer(TINY, frame, weekly, 0, None).validation
    assert validation == [weekly.end - HORIZON, weekly.end - HORIZON - SEASON]
    assert seen["train"] == [min(validation) - HORIZON]
    assert seen["late"] == [weekly.end - HORIZON]


def test_what_is_not_seen_often_is_all_trained_on(weekly):
    frame = Frame.of(weekly, TINY)
    asked = replace(TINY, validation_cutoffs=None)
    assert _Trainer(asked, frame, weekly, 0, None).validation == []
    often = replace(asked, steps_per_epoch=10_000)
    assert len(_Trainer(often, frame, weekly, 0, None).validation) == 2


def test_few_windows_are_not_drawn_for_ever():
    days = (
        SEASON + 10 + HORIZON
    )  # a cutoff on each of eleven days has a week before it and a target after it
    calls: list[tuple[int, int, str]] = []
    config = replace(TINY, steps_per_epoch=10_000, max_epochs=2, validation_cutoffs=0)
    model = LSTMForecaster(config)
    model.fit(make_panel(weekly_series(1, days)), progress=lambda *call: calls.append(call))
    steps = math.ceil(EPOCH_PASSES * 11 / config.batch_size)
    assert [call[:2] for call in calls] == [(steps, 2 * steps), (2 * steps, 2 * steps)]


def test_sampler_stays_in_range_and_prefers_late_cutoffs():
    panel = make_panel({"long": np.ones(120), "mid": np.ones(60), "short": np.ones(9)})
    sampler = Sampler.of(panel, last=105, youngest=7, half_life=20)
    series, cutoff = sampler.draw(np.random.default_rng(0), 200_000)
    assert set(series.tolist()) == {0, 1}  # short has no 7 periods up to 105
    assert cutoff[series == 0].min() == 6
    assert cutoff[series == 1].min() == 66
    assert cutoff.max() == 105
    counts = np.bincount(cutoff[series == 0], minlength=106)
    assert counts[105] / counts[85] == pytest.approx(2, rel=0.15)
    # The series are drawn as often as the weights of their cutoffs add up to.
    weights = [np.sum(0.5 ** (np.arange(n) / 20)) for n in (100, 40)]
    assert np.mean(series == 0) == pytest.approx(weights[0] / sum(weights), abs=0.01)


@pytest.mark.parametrize("needed", [182, 183])
def test_what_needs_a_longer_history_is_not_learnt_from(weekly, needed):
    """A column whose first values have just come says nothing, or the network would make much of what it hardly saw."""
    panel = replace(weekly, known_needs=(("day_3", needed),))
    forecaster = fit(panel, replace(TINY, validation_cutoffs=0))
    column = panel.known_columns.index("day_3")
    changed = panel.known.copy()
    changed[:, column] = 9.0
    with_change = forecaster.predict(replace(panel, known=changed)).mean
    said_nothing = np.array_equal(with_change, forecaster.predict(panel).mean)
    assert said_nothing == (needed > 182)


@pytest.mark.parametrize(("seen", "planned", "says"), [(0.0, 1.0, 0.0), (1.0, 9.0, 1.0)])
def test_what_was_never_seen_counts_as_the_nearest_that_was(weekly, seen, planned, says):
    """A promotion that comes for the first time must not meet weights that nothing has trained."""
    column = weekly.known_columns.index("day_3")
    past = weekly.is_past_known
    known = weekly.known.copy()
    known[:, column] *= seen
    known[~past, column] = says
    expected = fit(replace(weekly, known=known), TINY)
    known[~past, column] = planned
    came = fit(replace(weekly, known=known), TINY)
    panel = replace(weekly, known=known)
    np.testing.assert_array_equal(came.predict(panel).mean, expected.predict(panel).mean)
    known[~past, column] = says
    np.testing.assert_array_equal(
        came.predict(panel).mean, came.predict(replace(weekly, known=known)).mean
    )
    assert np.all(known[past, column].max() == seen)


# --- Windows ---


def test_padding_is_masked(model, weekly, cutoff):
    """A short series looks the same however far before its start the context reaches."""
    frame = model.frame
    panel = make_panel(weekly_series(2, 182) | {"young": np.arange(1.0, 11.0)})
    windows = panel.windows(np.array([2]), np.array([panel.end]), frame.context)
    inputs, level = frame.batch(windows, frame.static_codes(panel)[[2]])
    steps = inputs["steps"][0]
    assert steps.tolist() == [False] * 6 + [True] * 2  # 10 days are 2 of the 8 weeks
    assert not inputs["past"][0, :6].any()
    assert level[0] == pytest.approx(5.5 + frame.level_floor)
    # The sixth to last day opens the season's last cycle; its value is the newest candidate.
    np.testing.assert_allclose(
        inputs["bases"][0, :7, 1 + len(RECENT)] * level[0], np.arange(4.0, 11.0), rtol=1e-5
    )
    np.testing.assert_allclose(inputs["bases"][0, :, 0], 1)
    recent = inputs["bases"][0, 0, 1 : 1 + len(RECENT)] * level[0]
    np.testing.assert_allclose(recent, [10.0, 8.5], rtol=1e-5)  # the last day, the last four


def test_reach_is_how_much_a_window_moves():
    rng = np.random.default_rng(2)
    wander = 1000 * np.exp(np.cumsum(rng.choice([-1, 1], 182) * 0.003))
    panel = make_panel(
        {
            "sparse": rng.poisson(0.3, 182),
            "wanders": wander,
            "still": np.full(182, 20.0),
            "repeats": np.tile(PATTERN * 100, 26),
            "young": np.array([5.0, 5, 5, 5]),
        }
    )
    frame = Frame.of(panel, LSTMConfig())
    windows = panel.windows(np.arange(5), np.full(5, panel.end), frame.context)
    inputs, level = frame.batch(windows, frame.static_codes(panel))
    reach = dict(zip(panel.series_id, inputs["reach"].ravel(), strict=True))
    assert reach["sparse"] == 1
    assert reach["young"] == 1  # three changes say little
    assert reach["still"] == reach["repeats"] == np.float32(LEAST_REACH)
    assert reach["wanders"] == pytest.approx(0.03, rel=0.2)  # ten times the change of a day


def test_a_series_that_hardly_moves_is_not_drowned_by_those_that_jump():
    rng = np.random.default_rng(5)
    y = {f"jumps{i}": rng.poisson(rng.choice([2, 20, 60], 200)) for i in range(30)}
    for i in range(6):
        moves = rng.choice([-1, 1], 200) * 0.002
        y[f"wanders{i}"] = 500 * (i + 1) * np.exp(np.cumsum(moves))
    panel = make_panel(y)
    forecast = fit(panel, SMALL).predict(panel)
    for i in np.flatnonzero(np.char.startswith(forecast.series_id, "wanders")):
        last = y[forecast.series_id[i]][-1]
        q10, median, q90 = (forecast.quantiles[i, :, QUANTILES.index(q)] for q in (0.1, 0.5, 0.9))
        assert np.abs(median / last - 1).max() < 0.03
        assert ((q90 - q10) / last).max() < 0.1  # a wanderer of .2% is within 2% after 14 days


@pytest.mark.parametrize(
    ("season", "length", "horizon"),
    [(1, 40, 3), (12, 40, 6), (52, 150, 8), (7, 16, 7)],
)
def test_other_grains_and_short_panels_train(season, length, horizon):
    rng = np.random.default_rng(1)
    y = {f"s{i}": rng.poisson(6, length) for i in range(4)}
    panel = make_panel(y, horizon=horizon, season=season)
    forecast = fit(panel, replace(TINY, context=None, max_epochs=1)).predict(panel)
    assert forecast.mean.shape == (4, horizon)


def test_too_short_a_panel_is_refused_with_what_is_needed():
    with pytest.raises(ModelError, match="horizon 14 and 7 periods of history are needed.*12"):
        fit(make_panel({"a": np.ones(12)}), TINY)


@pytest.mark.parametrize(
    "changes", [{"cell": "gru", "n_seeds": 2}, {"cell": "rnn", "refit": "full"}]
)
def test_variants_train_and_predict(small_panel, changes):
    config = LSTMConfig.from_settings(asdict(TINY) | {"max_epochs": 1} | changes)
    model = fit(small_panel, config)
    assert len(model.networks) == config.n_seeds
    model.predict(small_panel)


def test_several_networks_are_averaged(small_panel):
    config = LSTMConfig.from_settings(asdict(TINY) | {"n_seeds": 2, "max_epochs": 1})
    alone = [
        fit(small_panel, replace(config, n_seeds=1), seed=k).predict(small_panel).mean
        for k in range(2)
    ]
    assert not np.array_equal(*alone)
    both = fit(small_panel, config).predict(small_panel).mean
    np.testing.assert_allclose(both, np.mean(alone, axis=0), rtol=1e-5)


def test_tensorflow_does_not_warn_of_a_graph_for_each_network():
    import_tensorflow()
    assert logging.getLogger("tensorflow").getEffectiveLevel() == logging.ERROR


# --- The same again ---


def test_two_fits_with_one_seed_are_identical_and_another_seed_is_not(small_panel, tiny):
    again, other = fit(small_panel, TINY), fit(small_panel, TINY, seed=1)
    expected = tiny.predict(small_panel).mean
    np.testing.assert_array_equal(again.predict(small_panel).mean, expected)
    assert not np.array_equal(other.predict(small_panel).mean, expected)


def fitted_apart(**environment: str) -> str:
    """Among how many devices another process fits a network of the default size, and its mean forecast, in hex."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_lstm import WIDE, fit, make_panel, weekly_series\n"
        "panel = make_panel(weekly_series(30, 70))\n"
        "model = fit(panel, WIDE)\n"
        "print(len(model.report['devices']), model.predict(panel).mean.tobytes().hex())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, __file__.rsplit("/", 1)[0]],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("onednn", ["0", "1"], ids=["Eigen", "oneDNN"])
def test_other_processes_give_the_same_bits_on_any_number_of_threads(onednn):
    """With either library of matrix products: which one TensorFlow takes depends on the processor."""
    one, three = (
        fitted_apart(TF_ENABLE_ONEDNN_OPTS=onednn, TF_NUM_INTRAOP_THREADS=n, OMP_NUM_THREADS=n)
        for n in ("1", "3")
    )
    assert one == three


def test_a_batch_shared_among_devices_teaches_the_same():
    """Two parts of the CPU stand for two GPUs; what is dropped is the same too, so only how sums round is other."""
    alone, shared, uneven = (
        fitted_apart(TRENDCAST_DEVICE="cpu", TRENDCAST_REPLICAS=n).split() for n in ("1", "2", "3")
    )
    assert [alone[0], shared[0], uneven[0]] == ["1", "2", "3"]
    expected, *found = (
        np.frombuffer(bytes.fromhex(text), np.float32) for _, text in (alone, shared, uneven)
    )
    for mean in found:
        np.testing.assert_allclose(mean, expected, rtol=1e-4)
    assert fitted_apart().split() == alone  # a CPU is one device unless told otherwise


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setenv("TRENDCAST_DEVICE", "auto")
    assert devices()  # has TensorFlow begin: afterwards the CPU cannot be divided
    monkeypatch.setenv("TRENDCAST_REPLICAS", "500")
    with pytest.raises(UsageError, match=r"TRENDCAST_REPLICAS is 500, and TensorFlow has \d+"):
        devices()
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("TRENDCAST_REPLICAS", wrong)
        with pytest.raises(UsageError, match=f"a whole number from 1 on; came: '{wrong}'"):
            devices()
    monkeypatch.delenv("TRENDCAST_REPLICAS")
    with pytest.raises(UsageError, match=r"Unknown device 'gpus'. Did you mean 'gpu'\?"):
        use_device("gpus")
    monkeypatch.setattr("tensorflow.config.list_logical_devices", lambda kind: [])
    with pytest.raises(UsageError, match="TensorFlow finds none on this machine"):
        use_device("gpu")


def test_gpus_are_used_where_they_are(monkeypatch):
    """All of them, as many as are asked for, or none; there is no GPU where this runs, so TensorFlow's answer is made up."""
    there = {"GPU": ["/device:GPU:0", "/device:GPU:1"], "CPU": ["/device:CPU:0"]}
    monkeypatch.setattr(
        "tensorflow.config.list_logical_devices",
        lambda kind: [SimpleNamespace(name=name) for name in there[kind]],
    )
    for device in ("auto", "gpu"):
        monkeypatch.setenv("TRENDCAST_DEVICE", device)
        assert devices() == there["GPU"]
    monkeypatch.setenv("TRENDCAST_REPLICAS", "1")
    assert devices() == there["GPU"][:1]
    monkeypatch.setenv("TRENDCAST_DEVICE", "cpu")
    assert devices() == there["CPU"]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_long_histories_can_be_read_on_a_gpu(cell, weekly):
    """What is padded is the beginning; cuDNN's kernels, which Keras takes by itself on a GPU, would refuse that."""
    config = replace(TINY, cell=cell, context=20 * SEASON)
    encoder = build_network(Frame.of(weekly, config), config).get_layer("encoder")
    assert not encoder.unroll
    assert encoder.use_cudnn is False


def test_a_loaded_model_predicts_the_same(small_panel, tiny, tmp_path):
    files = tiny.save(tmp_path)
    assert [f.name for f in files] == ["lstm.json", "lstm_0.keras"]
    loaded = LSTMForecaster.load(tmp_path)
    assert loaded.config == tiny.config
    assert loaded.frame == tiny.frame
    ours, theirs = loaded.predict(small_panel), tiny.predict(small_panel)
    np.testing.assert_array_equal(ours.mean, theirs.mean)
    np.testing.assert_array_equal(ours.quantiles, theirs.quantiles)


def test_a_network_that_holds_code_is_refused(tiny, tmp_path):
    import keras

    tiny.save(tmp_path)
    x = keras.Input((3,))
    evil = keras.Model(x, keras.layers.Lambda(lambda v: v * 2)(x))
    evil.save(tmp_path / "lstm_0.keras")
    with pytest.raises(ModelError, match=r"lstm_0\.keras"):
        LSTMForecaster.load(tmp_path)


def test_a_model_of_another_format_is_refused(tiny, tmp_path):
    path = tiny.save(tmp_path)[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(ArtifactError, match="format 99"):
        LSTMForecaster.load(tmp_path)


# --- Other panels ---


def test_other_columns_are_refused_by_name(tiny):
    panel = make_panel(weekly_series(2, 70), history=("mean_56",))
    with pytest.raises(ModelError, match=r"missing \['mean_28'\], unexpected \['mean_56'\]"):
        tiny.predict(panel)
    with pytest.raises(ModelError, match="the model has horizon 14, the panel has 7"):
        tiny.predict(make_panel(weekly_series(2, 70), horizon=7))
    with pytest.raises(ModelError, match="not trained"):
        LSTMForecaster().predict(panel)


def test_unseen_category_is_the_unknown_one_and_codes_follow_names(tiny):
    y = weekly_series(3, 70)
    colours = {"s0": "violet", "s1": "green", "s2": "aqua"}
    codes = tiny.frame.static_codes(make_panel(y, colour=colours))
    assert tiny.frame.static_categories == (("blue", "green", "red"),)
    assert codes[:, 0].tolist() == [0, 2, 0]
    tiny.predict(make_panel(y, colour=colours))


# --- Settings, progress, the forecast's own checks ---


def test_settings_are_checked():
    with pytest.raises(UsageError, match="Unknown lstm setting .unit."):
        LSTMConfig.from_settings({"unit": 3})
    with pytest.raises(ModelError, match="'cell' is 'transformer', valid are"):
        LSTMConfig(cell="transformer")
    with pytest.raises(ModelError, match="'units' must be at least 1, got 0"):
        LSTMConfig(units=0)


def test_progress_and_report(small_panel):
    calls: list[tuple[int, int, str]] = []
    model = LSTMForecaster(TINY).fit(small_panel, progress=lambda *call: calls.append(call))
    assert calls
    assert all(0 < done <= total and message for done, total, message in calls)
    assert model.report["n_series"] == 6
    assert model.report["runs"][0]["best_epoch"] >= 1
    json.dumps(model.report)


def test_a_bound_on_seconds_stops_training(small_panel):
    config = replace(TINY, max_epochs=50, max_seconds=0.01)
    report = fit(small_panel, config).report
    assert len(report["runs"][0].get("validation_wql", [0])) == 1


def test_importing_the_model_does_not_import_keras():
    code = "import sys, trendcast.models.lstm as m; print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_quantile_names_are_the_ledgers():
    assert [quantile_name(q) for q in QUANTILES] == (
        "q025 q05 q10 q25 q50 q75 q90 q95 q975".split()
    )
    with pytest.raises(ModelError, match="between 0 and 1"):
        quantile_name(1.0)


@pytest.mark.parametrize(
    ("mean", "quantiles", "words"),
    [
        ([[1.0]], [[[1.0, np.nan]]], "quantiles not finite: series 'a', lead 1"),
        ([[-1.0]], [[[1.0, 2.0]]], "mean negative"),
        ([[1.0]], [[[2.0, 1.0]]], "quantiles not ordered"),
        ([[1.0, 1.0]], [[[1.0, 2.0]]], "expected .1, 2, 2."),
        ([[1.0], [1.0]], [[[1.0, 2.0]]], "mean has shape"),
    ],
)
def test_a_forecast_that_is_no_distribution_is_refused(mean, quantiles, words):
    with pytest.raises(ModelError, match=words):
        Forecast(np.array(["a"]), 3, np.array(mean), np.array(quantiles), levels=(0.1, 0.9))
