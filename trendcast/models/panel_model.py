"""Lets a forecaster that trains on the panel's arrays stand beside the models that train in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trendcast.models.base import ModelError
from trendcast.models.lstm import LSTMConfig, LSTMForecaster
from trendcast.models.tables import forecast_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from trendcast.features import Features
    from trendcast.models.base import Forecaster


class LSTM:
    """The global LSTM on the panel; see ``trendcast.models.lstm``."""

    name = "lstm"
    refits_each_fold = False

    def __init__(self) -> None:
        self._forecaster: Forecaster | None = None

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Train on the panel as it was at ``end_t``."""
        config = LSTMConfig.from_settings(features.settings.lstm)
        panel = features.panel.truncate(end_t)
        self._forecaster = LSTMForecaster(config).fit(
            panel,
            seed=seed,
            progress=lambda done, total, message: progress(f"{done}/{total} {message}"),
        )

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Forecast every series from a cutoff."""
        # Truncating is what keeps the model from seeing past the cutoff, whatever it reads.
        forecast = self._fitted().predict(features.panel.truncate(cutoff_t), cutoff_t)
        return forecast_table(forecast, features.dates)

    def explain(self, features: Features, cutoff_t: int) -> pa.Table | None:
        """Return None: the network's forecasts are not additive."""
        return None

    def coefficients(self) -> pa.Table | None:
        """Return None."""
        return None

    def save(self, directory: Path) -> list[Path]:
        """Write the network and its settings."""
        return self._fitted().save(directory)

    def load(self, directory: Path) -> None:
        """Read them."""
        self._forecaster = LSTMForecaster.load(directory)

    def _fitted(self) -> Forecaster:
        if self._forecaster is None:
            raise ModelError("the lstm is neither trained nor loaded")
        return self._forecaster
