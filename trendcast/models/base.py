"""What every model gives back and what the pipeline may ask of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, get_args, get_type_hints, runtime_checkable

import numpy as np
import numpy.typing as npt

from trendcast.errors import ArtifactError, DataError, UsageError, one_of
from trendcast.panel import Panel

QUANTILES = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)

Config = TypeVar("Config")

# Called with steps done, steps in all (an upper bound) and a short message.
Progress = Callable[[int, int, str], None]


class ModelError(DataError, ValueError):
    """A model cannot be trained, loaded or used on this panel; the message says why."""


def quantile_name(q: float) -> str:
    """Return the ledger's column of a quantile level: 0.025 -> q025, 0.05 -> q05, 0.5 -> q50."""
    if not 0 < q < 1:
        raise ModelError(f"a quantile level lies between 0 and 1, got {q}")
    digits = f"{q:.6f}".split(".")[1].rstrip("0")
    return "q" + digits.ljust(2, "0")


@dataclass(frozen=True)
class Forecast:
    """A distribution for every series and lead after one cutoff.

    Parameters
    ----------
    series_id : array [N]
        The series, in the order of the rows below.
    cutoff : int
        The last period the forecast knows.
    mean : array [N, H]
        Expected demand.
    quantiles : array [N, H, Q]
        Demand at each of ``levels``, ascending along the last axis.
    levels : tuple of float
        The quantile levels, ascending.
    """

    series_id: npt.NDArray[np.str_]
    cutoff: int
    mean: npt.NDArray[np.floating[Any]]
    quantiles: npt.NDArray[np.floating[Any]]
    levels: tuple[float, ...] = QUANTILES

    def __post_init__(self) -> None:
        """Refuse what no mart should ever show."""
        n = len(self.series_id)
        if self.mean.ndim != 2 or self.mean.shape[0] != n:
            raise ModelError(f"mean has shape {self.mean.shape}, expected ({n}, H)")
        expected = (*self.mean.shape, len(self.levels))
        if self.quantiles.shape != expected:
            raise ModelError(f"quantiles have shape {self.quantiles.shape}, expected {expected}")
        if list(self.levels) != sorted(set(self.levels)):
            raise ModelError(f"quantile levels must ascend, got {self.levels}")
        whole = {"mean": self.mean, "quantiles": self.quantiles}
        for name, values in whole.items():
            self._refuse(~np.isfinite(values), values, f"{name} not finite")
            self._refuse(values < 0, values, f"{name} negative")
        self._refuse(np.diff(self.quantiles, axis=-1) < 0, self.quantiles, "quantiles not ordered")

    def _refuse(self, bad: npt.NDArray[np.bool_], values: npt.NDArray[Any], what: str) -> None:
        if bad.any():
            i, h = np.argwhere(bad)[0][:2]
            raise ModelError(
                f"{what}: series {str(self.series_id[i])!r}, lead {h + 1}, got {values[i, h]}"
            )

    @property
    def horizon(self) -> int:
        """Number of leads, H."""
        return int(self.mean.shape[1])


@runtime_checkable
class Forecaster(Protocol):
    """A model that learns from a panel and forecasts every series of one."""

    name: str

    def fit(self, panel: Panel, *, seed: int = 0, progress: Progress | None = None) -> Self:
        """Learn from all of the panel; pass ``panel.truncate(cutoff)`` to learn as of a cutoff."""
        ...

    def predict(self, panel: Panel, cutoff: int | None = None) -> Forecast:
        """Forecast the ``horizon`` periods after the cutoff (default: the panel's end)."""
        ...

    def save(self, directory: Path) -> list[Path]:
        """Write the model as data (no pickles) and return the files written."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a model written by ``save``."""
        ...


@dataclass(frozen=True)
class Range:
    """Values of a setting that `trendcast tune` may try, both ends included; whole numbers where they are.

    Parameters
    ----------
    log
        Whether twice as much is the same step everywhere.
    """

    low: float
    high: float
    log: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value is not None and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """Values of a setting that `trendcast tune` may try, without an order."""

    values: tuple[str | int, ...]

    def allows(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.values


def pinball(truth: npt.NDArray[Any], quantiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the pinball loss of each value and quantile: [...] and [..., Q] -> [..., Q]."""
    levels = np.asarray(QUANTILES, quantiles.dtype)
    error = truth[..., None] - quantiles
    loss: npt.NDArray[Any] = np.maximum(levels * error, (levels - 1) * error)
    return loss


def read_artifact(path: Path, version: int) -> dict[str, Any]:
    """Return the JSON of a model's file, of which ``format`` must be the version this code writes.

    Raises
    ------
    ArtifactError
        The file was written by another version.
    """
    data: dict[str, Any] = json.loads(path.read_text())
    if data.get("format") != version:
        raise ArtifactError(
            f"{path} has format {data.get('format')}, this version reads {version}. Train again."
        )
    return data


def config_from_settings(cls: type[Config], model: str, settings: dict[str, Any]) -> Config:
    """Build a model's settings, a dataclass, from the dict of its dbt var; unknown names are refused."""
    valid = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for name in settings:
        if name not in valid:
            raise one_of(f"{model} setting", str(name), valid)
    for name, kind in get_type_hints(cls).items():
        value = settings.get(name)
        accepted = get_args(kind) or (kind,)
        if isinstance(value, int) and not isinstance(value, bool) and float in accepted:
            continue
        if name in settings and type(value) not in accepted:
            takes = " or ".join("null" if a is type(None) else a.__name__ for a in accepted)
            raise UsageError(
                f"The {model} setting {name!r} must be of type {takes}; came: {value!r}."
            )
    return cls(**settings)
