"""Forecasting models, one file each; this registry is where the CLI and the settings find them by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from trendcast.errors import one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pyarrow as pa

    from trendcast.features import Features
    from trendcast.project import Settings

BASELINE = "seasonal_naive"
# For series with little or no history alone; it has no forecast of the others, so the ensemble cannot weigh it.
ANALOGY = "analogy"
# Combines the others, so it is no Model of its own: see trendcast.ensemble.
ENSEMBLE = "ensemble"

_CLASSES = {
    "seasonal_naive": "trendcast.models.seasonal_naive:SeasonalNaive",
    "analogy": "trendcast.models.analogy:Analogy",
    "classical": "trendcast.models.classical:Classical",
    "ridge": "trendcast.models.ridge:Ridge",
    "lightgbm": "trendcast.models.lightgbm:LightGBM",
    "lstm": "trendcast.models.panel_model:LSTM",
}


_SETTINGS = {
    "classical": "trendcast.models.classical:ClassicalConfig",
    "lightgbm": "trendcast.models.lightgbm:LightGBMConfig",
    "lstm": "trendcast.models.lstm:LSTMConfig",
}


class Model(Protocol):
    """What the pipeline asks of a model.

    Forecast rows have the columns series_id, cutoff, target_date, lead, mean and the quantiles, one row per
    series that has history at the cutoff and lead, ordered by series_id and lead; of `ANALOGY` one per series
    in ``ftr_analogy``.
    """

    name: str
    #: Cheap enough to be fitted again for every fold of a backtest.
    refits_each_fold: bool
    #: A series' forecast depends on what was learnt and on its own rows, not on the other series there are.
    scores_by_series: bool
    #: It cannot be asked where no series has begun; what dbt computes, of launches to come too, is there all the same.
    needs_history: bool

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Learn from targets up to and including the period ``end_t``, and nothing later."""

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Forecast every series from a cutoff."""

    def explain(self, features: Features, cutoff_t: int) -> pa.Table | None:
        """Contributions by component that add up to each mean, or None."""

    def coefficients(self) -> pa.Table | None:
        """Coefficients as a table, or None for a model that has none."""

    def save(self, directory: Path) -> list[Path]:
        """Write the model as data files (never pickles) and return them; none if it learns nothing."""

    def load(self, directory: Path) -> None:
        """Read what ``save`` wrote."""


def model_names() -> list[str]:
    """Names of all models, the baseline first and the ensemble of the others last."""
    return [*_CLASSES, ENSEMBLE]


def create(name: str, measures: Sequence[str] = ()) -> Model:
    """Return a new model; an unknown name is a UsageError that lists the valid ones.

    Parameters
    ----------
    measures
        What is forecast. Of several, each gets a model of its own behind the one returned.
    """
    if len(measures) > 1:
        from trendcast.models.by_measure import ByMeasure

        return ByMeasure(name, {measure: create(name) for measure in measures})
    if name not in _CLASSES:
        raise one_of("model", name, model_names())
    module, class_name = _CLASSES[name].split(":")
    model: Model = getattr(import_module(module), class_name)()
    return model


def config_class(name: str) -> Any:
    """Return the dataclass of a model's settings; None for a model whose settings are vars of the whole project."""
    if name not in _CLASSES:
        raise one_of("model", name, list(_CLASSES))
    if name not in _SETTINGS:
        return None
    module, class_name = _SETTINGS[name].split(":")
    return getattr(import_module(module), class_name)


def with_settings() -> list[str]:
    """Names of the models that have a var of settings of their own."""
    return list(_SETTINGS)


def check_model_settings(settings: Settings) -> None:
    """Refuse settings of a model that it cannot take, before anything is built."""
    for name in _SETTINGS:
        config_class(name).from_settings(getattr(settings, name) or {})
