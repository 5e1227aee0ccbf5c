"""A global multi-horizon probabilistic LSTM over all series of a panel.

One network serves every series: an encoder reads the recent history in steps of one season, a
decoder shared by all leads joins what is known about each target period (direct multi-horizon, as
in MQ-RNN, Wen et al. 2017) and emits the mean and all quantiles at once. Each window is divided by
its own level, so that small and large series look alike; the level itself goes in as a feature. The
mean is a base (a learned blend of the last values and seasonal means) times a factor, trained with a Poisson-type loss,
which keeps totals unbiased; the quantiles are the base times a cumulative sum of positive steps, so
they are ordered and never negative. How far a forecast may be from its base, its reach, is in proportion to how much the window
moves from period to period, up to all the way: a series that changes by a thousandth is not drowned in what the network
is unsure of for one that doubles, neither in what it says nor in what it learns from.

Shapes: N series, B windows, L context periods, P periods a patch, H leads, Q quantiles.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from trendcast.errors import ArtifactError
from trendcast.models.backend import devices, import_tensorflow
from trendcast.models.base import (
    QUANTILES,
    Choice,
    Forecast,
    ModelError,
    Progress,
    Range,
    config_from_settings,
    pinball,
    read_artifact,
)
from trendcast.models.explanations import in_units, shapley
from trendcast.panel import BoolArray, FloatArray, IntArray, Panel, Windows

FORMAT = 4  # of the JSON beside the weights
CELLS = ("lstm", "gru", "rnn")
REFITS = ("none", "continue", "full")
MOST_GROUPS = 6  # components told apart: every set of them is a forecast of its own
EXPLAIN_SERIES = 512  # explained at once
# A network that sees a window so often may learn it by heart, and early stopping is worth the latest windows; one
# that does not learns more from those, and its score on a slice of the panel would mostly be chance.
MANY_PASSES, VALIDATION_CUTOFFS = 8, 2
EPOCH_PASSES = 16  # over all windows, at most: else a shop of a few products would be gone over hundreds of times
BLOCKS = (1, 2, 4, 8)  # seasons averaged into each candidate of the base
# And periods of any season: a series that wanders is best forecast from where it is.
RECENT = (1, 4)
SPARE_BASE = 0.02  # of the level: lets a series whose recent history is all zero come back
# Reach, as a multiple of the mean change from a period, or a season, to the next over the window's mean; at most 1.
REACH, LEAST_REACH, LEAST_CHANGES = 10.0, 0.02, 4

ENDLESS = 1e30  # a standard deviation: what is divided by it says nothing
STANDARD_LIMIT = 8.0  # standard deviations from the mean, at most

Batch = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class LSTMConfig:
    """Settings of the LSTM; the dbt var ``lstm`` may set any of them.

    Parameters
    ----------
    cell : str
        ``lstm``, ``gru`` or ``rnn``.
    units, hidden : int
        Width of the encoder and of the decoder.
    context : int or None
        Periods of history the encoder reads, rounded up to whole patches. None: 8 weeks at daily
        grain, else by the season length (see ``default_context``).
    patch : int or None
        Periods per recurrent step. None: one season when it is short (a week of days), see
        ``default_patch``.
    level_window : int or None
        Periods whose mean is a window's level. None: 8 patches, at least 12 periods.
    dropout : float
        Share of the decoder's units dropped in training.
    learning_rate, clip_norm : float
        Peak rate of Adam (it falls along a cosine) and the bound on the gradient's norm.
    batch_size, steps_per_epoch, max_epochs, patience : int
        Training stops when ``patience`` epochs bring no gain on the validation cutoffs. Of a panel that has few windows an
        epoch has fewer steps: ``EPOCH_PASSES`` over all of them.
    max_seconds : float or None
        Stop each network earlier, between epochs. A bound that is reached makes the result depend
        on the machine.
    half_life : float
        Patches after which a training cutoff is drawn half as often.
    weight_power : float
        A window counts as its level to this power: 0 all series alike, 1 all units alike.
    validation_cutoffs : int or None
        Cutoffs of the validation slice, one patch apart; no training target is later than the
        first. 0, or too short a panel: train for ``max_epochs`` without one, on all there is. None:
        ``VALIDATION_CUTOFFS`` where training would see a window more than ``MANY_PASSES`` times, else 0.
    refit : str
        What is done with the validation slice afterwards: ``none``, ``continue`` (go on training
        with the latest windows at a low rate) or ``full`` (train anew on everything for the epochs
        found).
    n_seeds : int
        Networks trained and averaged: what chance made of one of them counts less.
    explain_rows : int
        Forecasts taken apart, at most, in whole series from the largest on.
    """

    cell: str = "lstm"
    units: int = 64
    hidden: int = 64
    context: int | None = None
    patch: int | None = None
    level_window: int | None = None
    dropout: float = 0.2
    learning_rate: float = 3e-3
    clip_norm: float = 1.0
    batch_size: int = 256
    steps_per_epoch: int = 60
    max_epochs: int = 8
    patience: int = 3
    max_seconds: float | None = None
    half_life: float = 26.0
    weight_power: float = 0.5
    validation_cutoffs: int | None = None
    refit: str = "continue"
    n_seeds: int = 3
    explain_rows: int = 200_000

    #: What `trendcast tune` may try.
    SPACE: ClassVar[dict[str, Range | Choice]] = {
        "units": Range(16, 128, log=True),
        "hidden": Range(16, 128, log=True),
        "dropout": Range(0.0, 0.5),
        "learning_rate": Range(5e-4, 1e-2, log=True),
        "batch_size": Choice((128, 256, 512, 1024)),
        "steps_per_epoch": Range(30, 240, log=True),
        "half_life": Range(4.0, 104.0, log=True),
        "weight_power": Range(0.0, 1.0),
    }

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        _one_of("cell", self.cell, CELLS)
        _one_of("refit", self.refit, REFITS)
        for name in (
            *("units", "hidden", "batch_size", "steps_per_epoch", "max_epochs", "n_seeds"),
            "explain_rows",
        ):
            value = getattr(self, name)
            if value < 1:
                raise ModelError(f"lstm setting {name!r} must be at least 1, got {value}")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"lstm setting 'dropout' must be in [0, 1), got {self.dropout}")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> LSTMConfig:
        """Build from a dict, such as the dbt var ``lstm``; unknown names are refused."""
        return config_from_settings(cls, "lstm", settings)


def _one_of(name: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise ModelError(f"lstm setting {name!r} is {value!r}, valid are {valid}")


def default_patch(season_length: int) -> int:
    """Return the periods per recurrent step: a short season; four weeks; else single periods."""
    if 2 <= season_length <= 8:
        return season_length
    return 4 if season_length > 12 else 1


def default_context(season_length: int, patch: int) -> int:
    """Return the context in periods: eight short seasons, or one and a half long ones."""
    if patch == season_length:
        return 8 * patch
    return int(min(max(24, 1.5 * season_length), 80))


@dataclass(frozen=True)
class Frame:
    """The fixed numbers between a panel and the network: sizes, scaling constants, vocabularies."""

    horizon: int
    season_length: int
    context: int
    patch: int
    level_window: int
    level_floor: float
    mean_weight: float
    smallest: float
    counts: bool
    history_columns: tuple[str, ...]
    history_units: tuple[str, ...]
    season_columns: tuple[str, ...]
    season_units: tuple[str, ...]
    known_columns: tuple[str, ...]
    static_columns: tuple[str, ...]
    static_categories: tuple[tuple[str, ...], ...]
    constants: dict[str, list[list[float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, panel: Panel, config: LSTMConfig) -> Frame:
        """Take the sizes and scaling constants from the training panel."""
        patch = config.patch or default_patch(panel.season_length)
        context = config.context or default_context(panel.season_length, patch)
        longest = int(panel.lengths.max(initial=1))
        steps = max(1, math.ceil(min(context, longest) / patch))
        typical = float(np.mean(np.abs(panel.y), dtype=np.float64)) or 1.0
        level_window = config.level_window or max(8 * patch, 12)
        floor = 0.03 * typical
        return cls(
            horizon=panel.horizon,
            season_length=panel.season_length,
            context=steps * patch,
            patch=patch,
            level_window=min(level_window, steps * patch),
            level_floor=floor,
            mean_weight=_mean_weight(panel, floor, config.weight_power),
            smallest=_smallest(panel.y),
            counts=bool(np.array_equal(panel.y, np.rint(panel.y))),
            history_columns=panel.history_columns,
            history_units=panel.history_units,
            season_columns=panel.season_columns,
            season_units=panel.season_units,
            known_columns=panel.known_columns,
            static_columns=panel.static_columns,
            static_categories=panel.static_categories,
            constants={
                "history": _moments(panel.history),
                "season": _moments(panel.season),
                "known": _moments(panel.known, panel.is_past_known, _silent(panel)),
            },
        )

    def check(self, panel: Panel) -> None:
        """Refuse a panel whose columns, units or periods are not those of the training panel."""
        for name in ("horizon", "season_length"):
            ours, theirs = getattr(self, name), getattr(panel, name)
            if ours != theirs:
                raise ModelError(f"the model has {name} {ours}, the panel has {theirs}")
        for role in ("history", "season", "known", "static"):
            ours, theirs = getattr(self, f"{role}_columns"), getattr(panel, f"{role}_columns")
            missing = [c for c in ours if c not in theirs]
            unexpected = [c for c in theirs if c not in ours]
            if missing or unexpected:
                raise ModelError(
                    f"{role} columns differ from training: missing {missing}, "
                    f"unexpected {unexpected}; train again or restore the columns"
                )
            if ours != theirs:
                raise ModelError(f"{role} columns are {theirs}, in training they were {ours}")
        for role in ("history", "season"):
            ours, theirs = getattr(self, f"{role}_units"), getattr(panel, f"{role}_units")
            if ours != theirs:
                raise ModelError(f"{role} units are {theirs}, in training they were {ours}")

    def static_codes(self, panel: Panel) -> npt.NDArray[np.int32]:
        """Return the panel's static codes in the training vocabulary, unseen categories as 0."""
        out = np.zeros_like(panel.static)
        for j, (ours, theirs) in enumerate(
            zip(self.static_categories, panel.static_categories, strict=True)
        ):
            code = {name: k + 1 for k, name in enumerate(ours)}
            table = np.array([0, *(code.get(name, 0) for name in theirs)], np.int32)
            out[:, j] = table[panel.static[:, j]]
        return out

    def level(self, windows: Windows) -> FloatArray:
        """Return each window's level: the mean of its last observed values and a floor, [B]."""
        y, mask = windows.y[:, -self.level_window :], windows.mask[:, -self.level_window :]
        mean = np.maximum(y, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
        level: FloatArray = (mean + self.level_floor).astype(np.float32)
        return level

    def batch(self, windows: Windows, static: npt.NDArray[np.int32]) -> tuple[Batch, FloatArray]:
        """Turn windows into the network's inputs and each window's level, [B]."""
        level = self.level(windows)
        z = (np.maximum(windows.y, 0) / level[:, None]).astype(np.float32)  # [B, L]
        bases, reach = self._bases(windows, z, level), self._reach(windows, z)
        inputs: Batch = {
            "past": self._past(windows, z),
            "steps": np.any(windows.mask.reshape(len(level), -1, self.patch), axis=2),
            "present": self._present(windows, level, reach),
            "future": self._future(windows, bases),
            "bases": bases,
            "reach": reach[:, None, None],
        }
        if self.static_columns:
            inputs["static"] = static
        return inputs, level

    def _past(self, windows: Windows, z: FloatArray) -> FloatArray:
        """Return the encoder's steps, one patch each, [B, L / P, P * (2 + K)]."""
        b, length = z.shape
        out = np.empty((b, length, 2 + len(self.known_columns)), np.float32)
        out[:, :, 0] = np.arcsinh(z)
        out[:, :, 1] = windows.mask
        out[:, :, 2:] = self._standard("known", windows.past_known) * windows.mask[:, :, None]
        return out.reshape(b, length // self.patch, -1)

    def _present(self, windows: Windows, level: FloatArray, reach: FloatArray) -> FloatArray:
        """Return the features at the cutoff, [B, F + 3]."""
        scaled = self._scaled("history", windows.history, self.history_units, level[:, None])
        size = np.log(level / self.level_floor) / 4
        age = np.log1p(np.minimum(windows.age, self.context)) / math.log1p(self.context)
        return np.column_stack([scaled, size, age, np.log(reach)]).astype(np.float32)

    def _future(self, windows: Windows, bases: FloatArray) -> FloatArray:
        """Return the features of each target period, [B, H, K + G + C + 4]."""
        b, h = windows.season_mask.shape
        lead = np.arange(1, h + 1, dtype=np.float32)
        place = np.column_stack([lead / h, 1 / lead, np.sqrt(lead / h)])  # [H, 3]
        season = self._scaled("season", windows.season, self.season_units, None)
        plain = [j for j, unit in enumerate(self.season_units) if unit == "none"]
        parts = [
            self._standard("known", windows.known),
            season[:, :, plain],
            np.arcsinh(bases),
            windows.season_mask[:, :, None],
            np.broadcast_to(place, (b, h, 3)),
        ]
        return np.concatenate(parts, axis=2, dtype=np.float32)

    def _reach(self, windows: Windows, z: FloatArray) -> FloatArray:
        """Return how far a forecast may be from its base, as a share of all the way, [B].

        A window with few changes to go by is not bounded.
        """
        reach = np.ones(len(z))
        mean = z.sum(axis=1) / np.maximum(windows.mask.sum(axis=1), 1)
        for lag in {1, self.season_length}:
            both = windows.mask[:, lag:] & windows.mask[:, :-lag]
            count = both.sum(axis=1)
            moved = (np.abs(z[:, lag:] - z[:, :-lag]) * both).sum(axis=1) / np.maximum(count, 1)
            known = (count >= LEAST_CHANGES) & (mean > 0)
            share = np.divide(REACH * moved, mean, out=np.ones_like(mean), where=known)
            reach = np.minimum(reach, share)
        return np.maximum(reach, LEAST_REACH).astype(np.float32)

    def _bases(self, windows: Windows, z: FloatArray, level: FloatArray) -> FloatArray:
        """Return the candidates of the base in units of the level, [B, H, C].

        The level itself, means of the last few values, of those of the target's seasonal position, and the
        season features that scale with demand. What was not observed falls back on the level.
        """
        b, h = windows.season_mask.shape
        parts = [np.ones((b, h, 1), np.float32)]
        for k in RECENT:
            count = windows.mask[:, -k:].sum(axis=1)
            mean = z[:, -k:].sum(axis=1) / np.maximum(count, 1)
            recent = np.where(count > 0, mean, 1.0).astype(np.float32)
            parts.append(np.broadcast_to(recent[:, None, None], (b, h, 1)))
        s, length = self.season_length, z.shape[1]
        if s > 1 and length >= s:
            whole = length // s * s
            values = z[:, -whole:].reshape(b, -1, s)[:, ::-1]  # [B, blocks, S], latest first
            there = windows.mask[:, -whole:].reshape(b, -1, s)[:, ::-1]
            position = np.arange(h) % s
            for k in BLOCKS:
                count = there[:, :k].sum(axis=1)
                mean = values[:, :k].sum(axis=1) / np.maximum(count, 1)
                parts.append(np.where(count > 0, mean, 1.0)[:, position, None])
        demand = [j for j, unit in enumerate(self.season_units) if unit == "demand"]
        if demand:
            scaled = np.maximum(windows.season[:, :, demand], 0) / level[:, None, None]
            parts.append(np.where(windows.season_mask[:, :, None], scaled, 1.0))
        return np.concatenate(parts, axis=2, dtype=np.float32)

    def _scaled(
        self, role: str, values: FloatArray, units: tuple[str, ...], level: FloatArray | None
    ) -> FloatArray:
        """Return demand features over the level and compressed, the others standardised."""
        out = self._standard(role, values)
        demand = [j for j, unit in enumerate(units) if unit == "demand"]
        if demand and level is not None:
            out[..., demand] = np.arcsinh(values[..., demand] / level)
        return out

    def _standard(self, role: str, values: FloatArray) -> FloatArray:
        """Return values in standard deviations from the mean, none beyond what training has seen."""
        mean, std, low, high = (np.asarray(c, np.float32) for c in self.constants[role])
        out: FloatArray = np.clip((values - mean) / std, low, high)
        return out

    def places(self, components: Mapping[str, str]) -> dict[str, list[tuple[str, int, float]]]:
        """Return where each component is in the inputs: input, column, and the value there that says nothing.

        That is a known feature's mean in training; of what scales with demand, the level. What the encoder reads, the
        level itself, the last few values and everything static count as ``level``, which is in all forecasts and in none of the lists.

        Parameters
        ----------
        components
            Of the feature columns; a column without one is ``other``.
        """
        known, bases, even = len(self.known_columns), self.sizes["bases"], math.asinh(1.0)
        by_unit: dict[str, list[str]] = {"none": [], "demand": []}
        for name, unit in zip(self.season_columns, self.season_units, strict=True):
            by_unit[unit].append(name)
        plain, demand = by_unit["none"], by_unit["demand"]
        found: dict[str, list[tuple[str, int, float]]] = {}

        def add(component: str, *places: tuple[str, int, float]) -> None:
            found.setdefault(component, []).extend(places)

        for j in range(1 + len(RECENT), bases):
            named = (
                j - bases + len(demand)
            )  # the seasonal means that the frame itself takes come first
            component = components.get(demand[named], "other") if named >= 0 else "season"
            add(component, ("bases", j, 1.0), ("future", known + len(plain) + j, even))
        for j, name in enumerate([*self.known_columns, *plain]):
            add(components.get(name, "other"), ("future", j, 0.0))
        for j, (name, unit) in enumerate(
            zip(self.history_columns, self.history_units, strict=True)
        ):
            neutral = even if unit == "demand" else 0.0
            add(components.get(name, "other"), ("present", j, neutral))
        found.pop("level", None)
        for name in list(found)[MOST_GROUPS - 1 :] if len(found) > MOST_GROUPS else ():
            if name != "other":
                add("other", *found.pop(name))
        return found

    def finish(self, quantiles: FloatArray) -> FloatArray:
        """Return ordered quantiles that demand can take, [..., Q].

        Counts become whole numbers and what is less than half the least sale becomes 0: a quantile
        just above 0 would miss every day without a sale.
        """
        out = np.rint(quantiles) if self.counts else quantiles
        out = np.where(out < self.smallest / 2, 0, out)
        # Rounding may undo the order of neighbours that are almost equal.
        return np.maximum.accumulate(out, axis=-1)

    @property
    def sizes(self) -> dict[str, int]:
        """Widths of the network's inputs."""
        demand = self.season_units.count("demand")
        blocks = len(BLOCKS) if 1 < self.season_length <= self.context else 0
        known = len(self.known_columns)
        bases = 1 + len(RECENT) + blocks + demand
        return {
            "past": self.patch * (2 + known),
            "present": len(self.history_columns) + 3,
            "future": known + len(self.season_units) - demand + bases + 4,
            "bases": bases,
        }


def _silent(panel: Panel) -> list[int]:
    """Return the positions of the known columns that there is nothing to learn from yet."""
    return [j for j, name in enumerate(panel.known_columns) if name in panel.too_young]


def _moments(
    values: FloatArray, seen: BoolArray | None = None, silent: Collection[int] = ()
) -> list[list[float]]:
    """Return what standardises each column: its mean and standard deviation, then its least and greatest value in these.

    Reads a shard of rows at a time. What a network has never seen it knows nothing of, not even that it changes nothing:
    an input is held within what training saw of it, and one that never varied is silent, its standard deviation endless.

    Parameters
    ----------
    values : array [R, K]
    seen : array [R], optional
        The rows to look at; all, by default.
    silent
        Positions of more columns to silence.
    """
    k = values.shape[1]
    n, total, square = 0, np.zeros(k), np.zeros(k)
    low, high = np.full(k, np.inf), np.full(k, -np.inf)
    for at in range(0, len(values), 1 << 18):
        part = values[at : at + (1 << 18)]
        part = (part if seen is None else part[seen[at : at + (1 << 18)]]).astype(np.float64)
        n += len(part)
        total += part.sum(axis=0)
        square += (part**2).sum(axis=0)
        low, high = (
            np.minimum(low, part.min(axis=0, initial=np.inf)),
            np.maximum(high, part.max(axis=0, initial=-np.inf)),
        )
    mean = total / max(n, 1)
    std = np.sqrt(np.maximum(square / max(n, 1) - mean**2, 0))
    std = np.where(std > 1e-6, std, ENDLESS)
    std[list(silent)] = ENDLESS
    bounds = [np.clip((b - mean) / std, -STANDARD_LIMIT, STANDARD_LIMIT) for b in (low, high)]
    return [column.tolist() for column in (mean, std, *bounds)]


def _smallest(y: FloatArray) -> float:
    """Return about the least demand when there is any: the 1% quantile of positive values."""
    positive = y[y > 0]
    return float(np.quantile(positive, 0.01)) if len(positive) else 0.0


def _mean_weight(panel: Panel, floor: float, power: float) -> float:
    """Return the mean of level ** power over series, so that the loss has a known size."""
    sums = np.add.reduceat(np.maximum(panel.y, 0).astype(np.float64), panel.offsets[:-1])
    return float(np.mean((sums / panel.lengths + floor) ** power))


# --- Windows to learn from ---


@dataclass(frozen=True)
class Sampler:
    """Draws training windows: any series, later cutoffs more often.

    Parameters
    ----------
    first, last : array [M], int
        The range of cutoffs of each series.
    series : array [M]
        Positions of the series that have at least one cutoff.
    decay : float
        Factor on a cutoff's weight for each period it is older.
    """

    series: IntArray
    first: IntArray
    last: int
    decay: float

    @classmethod
    def of(cls, panel: Panel, last: int, youngest: int, half_life: float) -> Sampler:
        """Take cutoffs up to ``last`` that have at least ``youngest`` periods of history."""
        first = panel.start + youngest - 1
        series = np.flatnonzero(first <= last)
        return cls(series, first[series], last, 0.5 ** (1 / half_life))

    @property
    def n_windows(self) -> int:
        """How many windows there are to draw from."""
        return int((self.last - self.first + 1).sum())

    @cached_property
    def _chances(self) -> tuple[FloatArray, FloatArray]:
        """Each series' sum of weights, but for a factor, and the running total, [M]."""
        spread = 1 - self.decay ** (self.last - self.first + 1)
        return spread, np.cumsum(spread)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[IntArray, IntArray]:
        """Draw series positions and cutoffs, [size] each, in proportion to the weights."""
        spread, chance = self._chances
        pick = np.searchsorted(chance, rng.random(size) * chance[-1], side="right")
        pick = np.minimum(pick, len(chance) - 1)
        # The age of a cutoff is geometric, cut off at the series' oldest one: invert its CDF.
        age = np.log1p(-rng.random(size) * spread[pick]) / math.log(self.decay)
        age = np.minimum(age.astype(np.int64), self.last - self.first[pick])
        return self.series[pick], self.last - age


def _shards(series: IntArray, size: int) -> Iterator[IntArray]:
    for at in range(0, len(series), size):
        yield series[at : at + size]


# --- The network; Keras is imported only when one is needed ---


def build_network(frame: Frame, config: LSTMConfig) -> Any:
    """Return the Keras model: inputs of ``Frame.batch`` -> [B, H, 1 + Q] in units of the level."""
    import keras
    from keras import layers, ops

    sizes = frame.sizes
    steps, h = frame.context // frame.patch, frame.horizon
    past = keras.Input((steps, sizes["past"]), name="past")
    mask = keras.Input((steps,), dtype="bool", name="steps")
    present = keras.Input((sizes["present"],), name="present")
    future = keras.Input((h, sizes["future"]), name="future")
    bases = keras.Input((h, sizes["bases"]), name="bases")
    reach = keras.Input((1, 1), name="reach")
    inputs = {"past": past, "steps": mask, "present": present, "future": future}
    inputs |= {"bases": bases, "reach": reach}

    cell = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[config.cell]
    patches = layers.Dense(config.units, activation="gelu", name="patches")(past)
    # Few steps are unrolled: a graph without a loop runs faster, but takes longer to trace.
    # What is padded is the beginning, and cuDNN's kernels take padding at the end only.
    fused = {} if config.cell == "rnn" else {"use_cudnn": False}
    state = cell(config.units, unroll=steps <= 16, name="encoder", **fused)(patches, mask=mask)
    context = [state, present]
    if frame.static_columns:
        static = keras.Input((len(frame.static_columns),), dtype="int32", name="static")
        inputs["static"] = static
        for j, categories in enumerate(frame.static_categories):
            width = min(16, 1 + int(math.sqrt(len(categories) + 1)))
            embed = layers.Embedding(len(categories) + 1, width, name=f"static_{j}")
            context.append(embed(static[:, j]))
    # What does not depend on the lead is projected once and added: H times less work.
    shared = layers.Dense(config.hidden, name="context")(layers.Concatenate()(context))
    each = layers.Dense(config.hidden, use_bias=False, name="lead")(future)
    x = layers.Activation("gelu")(layers.Add()([ops.expand_dims(shared, 1), each]))  # [B, H, D]
    x = layers.Dropout(config.dropout)(x)
    x = layers.Add()([x, layers.Dense(config.hidden, activation="gelu", name="mix")(x)])
    x = layers.Dropout(config.dropout)(x)

    blend = layers.Dense(sizes["bases"], activation="softmax", name="blend")(x)
    base = ops.sum(blend * bases, axis=-1, keepdims=True) + SPARE_BASE * reach  # [B, H, 1]
    small = keras.initializers.RandomNormal(stddev=0.01, seed=1)
    factor = layers.Dense(1, kernel_initializer=small, name="factor")(x)
    mean = base * ops.exp(reach * 5.0 * ops.tanh(factor / 5.0))
    jumps = layers.Dense(len(QUANTILES), kernel_initializer=small, name="jumps")(x)
    steps_up = ops.cumsum(ops.softplus(jumps), axis=-1)  # [B, H, Q]
    quantiles = base * (1 - reach + reach * steps_up)
    network = keras.Model(inputs, ops.concatenate([mean, quantiles], axis=-1), name="trendcast")
    network.get_layer("jumps").bias.assign(_first_jumps())
    return network


def _first_jumps() -> npt.NDArray[np.float64]:
    """Return the biases that start the quantiles at a plausible spread around the base, [Q]."""
    start = np.array([0.3, 0.4, 0.5, 0.7, 0.95, 1.25, 1.55, 1.75, 1.95])
    return np.log(np.expm1(np.diff(start, prepend=0.0)))  # softplus inverted


def _loss(output: Any, z: Any, weight: Any) -> Any:
    """Return the weighted Poisson deviance of the mean plus the pinball loss of the quantiles.

    ``output`` [B, H, 1 + Q], ``z`` [B, H] in units of the level, ``weight`` [B].
    """
    from keras import ops

    mean, quantiles = output[:, :, 0], output[:, :, 1:]
    levels = np.asarray(QUANTILES, np.float32)
    poisson = mean - z * ops.log(mean)
    error = z[:, :, None] - quantiles
    pinball = ops.mean(ops.maximum(levels * error, (levels - 1) * error), axis=-1)
    return ops.mean(weight[:, None] * (poisson + 4.0 * pinball))


def _train_step(network: Any, optimizer: Any, places: Sequence[str]) -> Any:
    """Return the function that learns from a batch, its windows shared among devices.

    Each device has its part of the windows; the parts' gradients are summed and the weights, which the first device has,
    change once. So the batch is the same on any number of devices, masks of dropout too, and the sum is all that rounds
    otherwise.
    """
    import tensorflow as tf

    variables = network.trainable_variables
    trained, masked = _with_masks(network) if len(places) > 1 else (network, [])

    def step(inputs: Any, z: Any, weight: Any) -> Any:
        size = len(z)
        bounds = [size * k // len(places) for k in range(len(places) + 1)]
        masks = [drop(tf.ones((size, *drop.output.shape[1:])), training=True) for drop, _ in masked]
        losses, gradients = [], []
        for place, start, stop in zip(places, bounds[:-1], bounds[1:], strict=True):
            part = slice(start, stop)
            with tf.device(place), tf.GradientTape() as tape:
                for (_, layer), mask in zip(masked, masks, strict=True):
                    layer.mask = mask[part]
                mine = {name: values[part] for name, values in inputs.items()}
                output = trained(mine, training=True)
                loss = _loss(output, z[part], weight[part]) * ((stop - start) / size)
            losses.append(loss)
            gradients.append(tape.gradient(loss, variables))
        optimizer.apply([_sum(parts) for parts in zip(*gradients, strict=True)], variables)
        return tf.add_n(losses)

    return tf.function(step, reduce_retracing=True)


def _with_masks(network: Any) -> tuple[Any, list[tuple[Any, Any]]]:
    """Return a network with the same weights that multiplies by masks instead of drawing what is dropped.

    With it, pairs of a layer that drops and the one in its place, whose ``mask`` is to be set: drawn for a whole batch it
    is the same however the batch is shared.
    """
    import keras

    class Masked(keras.layers.Layer):  # type: ignore[misc]
        mask = 1.0

        def call(self, inputs: Any) -> Any:
            return inputs * self.mask

    pairs: list[tuple[Any, Any]] = []

    def in_place_of(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Dropout):
            return layer
        pairs.append((layer, Masked()))
        return pairs[-1][1]

    return keras.models.clone_model(network, clone_function=in_place_of), pairs


def _sum(gradients: Sequence[Any]) -> Any:
    """Return the sum of the devices' gradients; one of an embedding is rows, and theirs are put together."""
    import tensorflow as tf

    first = gradients[0]
    if not isinstance(first, tf.IndexedSlices):
        return tf.add_n(gradients)
    values, indices = ([getattr(g, name) for g in gradients] for name in ("values", "indices"))
    return tf.IndexedSlices(tf.concat(values, 0), tf.concat(indices, 0), first.dense_shape)


def _deterministic(seed: int) -> None:
    import_tensorflow()
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


# --- The model ---


class LSTMForecaster:
    """The global LSTM behind the ``Forecaster`` protocol.

    Parameters
    ----------
    config : LSTMConfig, optional
        Settings.
    """

    name = "lstm"

    def __init__(self, config: LSTMConfig | None = None) -> None:
        """Remember the settings; nothing is built before ``fit``."""
        self.config = config or LSTMConfig()
        self.frame: Frame | None = None
        self.networks: list[Any] = []
        self.report: dict[str, Any] = {}

    def fit(self, panel: Panel, *, seed: int = 0, progress: Progress | None = None) -> Self:
        """Train on all of the panel.

        Parameters
        ----------
        panel : Panel
            What may be known; ``panel.truncate(cutoff)`` to learn as of a cutoff.
        seed : int
            The same seed gives the same model, bit for bit, on the same machine.
        progress : callable, optional
            Called after each epoch with steps done, steps in all and a message.
        """
        began = time.perf_counter()
        self.frame = Frame.of(panel, self.config)
        self.networks, runs = [], []
        for k in range(self.config.n_seeds):
            _deterministic(seed + k)
            trainer = _Trainer(self.config, self.frame, panel, seed + k, progress)
            self.networks.append(trainer.run())
            runs.append(trainer.report)
        self.report = {
            "seconds": round(time.perf_counter() - began, 2),
            "seed": seed,
            "train_end": panel.end,
            "n_series": panel.n_series,
            "devices": devices(),
            "parameters": int(self.networks[0].count_params()),
            "runs": runs,
        }
        return self

    def predict(self, panel: Panel, cutoff: int | None = None) -> Forecast:
        """Forecast every series that has begun by the cutoff (default: the panel's end)."""
        frame = self._fitted()
        frame.check(panel)
        cutoff = panel.end if cutoff is None else cutoff
        series = np.flatnonzero(panel.start <= cutoff)
        mean, quantiles = _predict(self.networks, frame, panel, series, cutoff)
        return Forecast(panel.series_id[series], cutoff, mean, quantiles)

    def explain(
        self,
        panel: Panel,
        forecast: Forecast,
        components: Mapping[str, str],
        chosen: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.str_], list[str], npt.NDArray[np.float64]]:
        """Take the means of some series apart into components.

        Every set of components is forecast without the others (``Frame.places``); what one adds to the logarithm of the
        mean on average over all orders is its Shapley value, exactly. The logarithmic mean turns these into units.

        Parameters
        ----------
        panel
            What the forecast was made from.
        forecast
            What ``predict`` returned for it; the parts add up to its means.
        components
            Component of each feature column.
        chosen
            Positions of the series explained among those of the forecast, [n].

        Returns
        -------
        series [n], names [C], contributions [n, H, C]
            The first component is ``level``.
        """
        frame = self._fitted()
        series = np.flatnonzero(panel.start <= forecast.cutoff)
        groups, static = frame.places(components), frame.static_codes(panel)
        out = np.empty((len(chosen), frame.horizon, 1 + len(groups)))
        at = 0
        for shard in _shards(series[chosen], EXPLAIN_SERIES):
            windows = panel.windows(shard, np.full(len(shard), forecast.cutoff), frame.context)
            inputs, level = frame.batch(windows, static[shard])
            worth = np.empty((2 ** len(groups), len(shard), frame.horizon))
            for code in range(len(worth)):
                left_out = [g for k, g in enumerate(groups.values()) if not code >> k & 1]
                part = _without(inputs, left_out)
                outputs = [n.predict_on_batch(part)[:, :, 0] for n in self.networks]
                worth[code] = np.mean(outputs, axis=0, dtype=np.float64) * level[:, None]
            rows = slice(at, at + len(shard))
            out[rows, :, 0] = worth[0]
            out[rows, :, 1:] = in_units(np.moveaxis(shapley(np.log(worth)), 0, -1), worth[0])
            at += len(shard)
        # The network rounds a little differently when it is given other series beside these.
        out *= (forecast.mean[chosen] / out.sum(axis=-1))[:, :, None]
        return forecast.series_id[chosen], ["level", *groups], out

    def save(self, directory: Path) -> list[Path]:
        """Write ``lstm.json`` and one ``.keras`` file per network."""
        frame = self._fitted()
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        files = []
        for k, network in enumerate(self.networks):
            files.append(directory / f"lstm_{k}.keras")
            network.save(files[-1])
        meta = {
            "format": FORMAT,
            "quantiles": QUANTILES,
            "networks": [path.name for path in files],
            "config": asdict(self.config),
            "frame": asdict(frame),
            "report": self.report,
        }
        path = directory / "lstm.json"
        path.write_text(json.dumps(meta, indent=1))
        return [path, *files]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what ``save`` wrote; a network that holds code (a Lambda) is refused."""
        import_tensorflow()
        import keras

        directory = Path(directory)
        meta = read_artifact(directory / "lstm.json", FORMAT)
        if tuple(meta["quantiles"]) != QUANTILES:
            raise ArtifactError(
                f"{directory / 'lstm.json'} has the quantiles {meta['quantiles']}, this version reads "
                f"{list(QUANTILES)}. Train again."
            )
        model = cls(LSTMConfig.from_settings(meta["config"]))
        model.frame = _frame_from(meta["frame"])
        model.report = meta["report"]
        for name in meta["networks"]:
            path = directory / name
            try:
                network = keras.models.load_model(path, compile=False, safe_mode=True)
            except (ValueError, TypeError, OSError) as error:
                raise ModelError(f"{path} cannot be loaded: {error}") from error
            model.networks.append(network)
        return model

    def _fitted(self) -> Frame:
        if self.frame is None or not self.networks:
            raise ModelError("the lstm is not trained: call fit or load first")
        return self.frame


def _frame_from(data: dict[str, Any]) -> Frame:
    lists = {k: tuple(v) for k, v in data.items() if isinstance(v, list)}
    lists["static_categories"] = tuple(tuple(c) for c in data["static_categories"])
    return Frame(**(data | lists))


def _predict(
    networks: list[Any], frame: Frame, panel: Panel, series: IntArray, cutoff: int, size: int = 2048
) -> tuple[FloatArray, FloatArray]:
    """Return the mean [n, H] and quantiles [n, H, Q] of some series, a shard at a time."""
    static = frame.static_codes(panel)
    mean = np.empty((len(series), frame.horizon), np.float32)
    quantiles = np.empty((*mean.shape, len(QUANTILES)), np.float32)
    at = 0
    for shard in _shards(series, size):
        windows = panel.windows(shard, np.full(len(shard), cutoff), frame.context)
        inputs, level = frame.batch(windows, static[shard])
        output = np.mean([n.predict_on_batch(inputs) for n in networks], axis=0)
        output = output * level[:, None, None]
        mean[at : at + len(shard)] = output[:, :, 0]
        quantiles[at : at + len(shard)] = frame.finish(output[:, :, 1:])
        at += len(shard)
    return mean, quantiles


def _without(inputs: Batch, groups: list[list[tuple[str, int, float]]]) -> Batch:
    """Return the inputs with some groups of columns saying nothing."""
    changed = {place[0] for group in groups for place in group}
    out = inputs | {name: inputs[name].copy() for name in changed}
    for name, column, value in (place for group in groups for place in group):
        out[name][..., column] = value
    return out


class _Trainer:
    """One network's training: search with early stopping, then the validation slice."""

    def __init__(
        self, config: LSTMConfig, frame: Frame, panel: Panel, seed: int, progress: Progress | None
    ) -> None:
        self.config, self.frame, self.panel = config, frame, panel
        self.rng = np.random.default_rng(seed)
        self.seed = seed
        self.progress = progress
        self.static = frame.static_codes(panel)
        self.began = time.perf_counter()
        self.report: dict[str, Any] = {}
        self.validation = self._validation_cutoffs()

    def run(self) -> Any:
        config, panel = self.config, self.panel
        network = build_network(self.frame, config)
        last = panel.end - panel.horizon  # the last cutoff whose targets are known
        if not self.validation:
            losses = self._train(network, self._sampler(last), config.max_epochs)
            self.report = {"best_epoch": config.max_epochs, "losses": losses}
            return network
        scores = self._search(network, self._sampler(min(self.validation) - panel.horizon))
        best = 1 + int(np.argmin(scores))
        self.report = {"best_epoch": best, "validation_wql": scores}
        if config.refit == "full":
            network = build_network(self.frame, config)
            self._train(network, self._sampler(last), best)
        elif config.refit == "continue":
            epochs = max(1, best // 3)
            self._train(network, self._sampler(last), epochs, config.learning_rate / 4)
        return network

    def _validation_cutoffs(self) -> list[int]:
        """Return the latest cutoffs with known targets, if enough is left to train on before."""
        panel, frame, config = self.panel, self.frame, self.config
        last = panel.end - panel.horizon
        wanted = config.validation_cutoffs
        if wanted is None:
            windows = Sampler.of(panel, last, self._youngest, config.half_life).n_windows
            drawn = config.max_epochs * config.steps_per_epoch * config.batch_size
            wanted = VALIDATION_CUTOFFS if drawn > MANY_PASSES * windows else 0
        cutoffs = [last - k * frame.patch for k in range(wanted)]
        if not cutoffs:
            return []
        train_last = cutoffs[-1] - panel.horizon
        enough = (train_last - panel.start + 1 >= self._youngest).sum() >= panel.n_series / 3
        return cutoffs if enough else []

    @property
    def _youngest(self) -> int:
        """Periods of history a training window has at least."""
        return max(self.frame.patch, 2)

    def _sampler(self, last: int) -> Sampler:
        half_life = self.config.half_life * self.frame.patch
        sampler = Sampler.of(self.panel, last, self._youngest, half_life)
        if not len(sampler.series):
            raise ModelError(
                f"no series is long enough to train on: horizon {self.panel.horizon} and "
                f"{self._youngest} periods of history are needed, the longest series has "
                f"{self.panel.lengths.max(initial=0)} periods"
            )
        return sampler

    def _search(self, network: Any, sampler: Sampler) -> list[float]:
        """Train with early stopping and leave the best weights in the network."""
        scores: list[float] = []
        best: list[Any] = []

        def after(epoch: int) -> bool:
            nonlocal best
            scores.append(self._score(network))
            if scores[-1] == min(scores):
                best = network.get_weights()
            return len(scores) - 1 - int(np.argmin(scores)) >= self.config.patience

        self._train(network, sampler, self.config.max_epochs, after=after)
        network.set_weights(best)
        return scores

    def _train(
        self,
        network: Any,
        sampler: Sampler,
        epochs: int,
        rate: float | None = None,
        after: Any = None,
    ) -> list[float]:
        import keras

        config = self.config
        enough = math.ceil(EPOCH_PASSES * sampler.n_windows / config.batch_size)
        steps = min(config.steps_per_epoch, enough)
        schedule = keras.optimizers.schedules.CosineDecay(
            rate or config.learning_rate, epochs * steps, alpha=0.02
        )
        optimizer = keras.optimizers.Adam(schedule, global_clipnorm=config.clip_norm)
        optimizer.build(network.trainable_variables)
        step = _train_step(network, optimizer, devices()[: config.batch_size])
        losses = []
        for epoch in range(epochs):
            total = 0.0
            for _ in range(steps):
                total += step(*self._batch(sampler))
            losses.append(float(total) / steps)
            stop = after(epoch) if after else False
            if self.progress:
                phase = "search" if after else "final"
                message = f"{phase}, epoch {epoch + 1}, loss {losses[-1]:.4f}"
                self.progress((epoch + 1) * steps, epochs * steps, message)
            if stop or self._late():
                break
        return losses

    def _late(self) -> bool:
        bound = self.config.max_seconds
        return bound is not None and time.perf_counter() - self.began > bound

    def _batch(self, sampler: Sampler) -> tuple[Batch, FloatArray, FloatArray]:
        series, cutoff = sampler.draw(self.rng, self.config.batch_size)
        windows = self.panel.windows(series, cutoff, self.frame.context, with_target=True)
        static = self.static[series]
        # Now and then a category is hidden, so that the unknown code learns what is usual.
        static = np.where(self.rng.random(static.shape) < 0.05, 0, static).astype(np.int32)
        inputs, level = self.frame.batch(windows, static)
        z = np.maximum(windows.target, 0) / level[:, None]
        weight = level**self.config.weight_power / self.frame.mean_weight
        weight = (
            weight / inputs["reach"][:, 0, 0]
        )  # else what moves most would be all that is learnt
        return inputs, z.astype(np.float32), weight.astype(np.float32)

    def _score(self, network: Any) -> float:
        """Return the weighted quantile loss over the validation cutoffs."""
        loss = total = 0.0
        for cutoff in self.validation:
            series = np.flatnonzero(self.panel.start <= cutoff)
            _, quantiles = _predict([network], self.frame, self.panel, series, cutoff)
            rows = self.panel.offsets[series] + cutoff - self.panel.start[series]
            truth = self.panel.y[rows[:, None] + np.arange(1, self.panel.horizon + 1)]
            loss += float(pinball(truth, quantiles).sum(dtype=np.float64))
            total += float(np.abs(truth).sum(dtype=np.float64))
        return 2 * loss / len(QUANTILES) / max(total, 1e-9)
