"""Lets a forecaster that trains on the panel's arrays stand beside the models that train in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trendcast.models.base import ModelError
from trendcast.models.explanations import explanation_table, positions
from trendcast.models.lstm import LSTMConfig, LSTMForecaster
from trendcast.models.tables import forecast_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from trendcast.features import Features
    from trendcast.models.base import Forecast


class LSTM:
    """The global LSTM on the panel; see ``trendcast.models.lstm``."""

    name = "lstm"
    refits_each_fold = False
    scores_by_series = True
    needs_history = True

    def __init__(self) -> None:
        self._forecaster: LSTMForecaster | None = None
        self._latest: tuple[Features, Forecast] | None = None

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Train on the panel as it was at ``end_t``."""
        config = LSTMConfig.from_settings(features.settings.lstm)
        panel = features.sampled(end_t, seed, whole_history=True).panel.truncate(end_t)
        self._latest = None
        self._forecaster = LSTMForecaster(config).fit(
            panel,
            seed=seed,
            progress=lambda done, total, message: progress(f"{done}/{total} {message}"),
        )

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Forecast every series from a cutoff."""
        return forecast_table(self._predicted(features, cutoff_t), features.dates)

    def explain(self, features: Features, cutoff_t: int) -> pa.Table | None:
        """Contributions by component that add up to the mean, of up to ``explain_rows`` forecasts of the whole panel."""
        forecast = self._predicted(features, cutoff_t)
        columns = features.project.with_role("history", "season", "known")
        config = LSTMConfig.from_settings(features.settings.lstm)
        most = max(1, config.explain_rows // forecast.horizon)
        chosen = positions(features.largest(cutoff_t, most), forecast.series_id)
        if not len(chosen):
            return None
        series_id, names, contributions = self._fitted().explain(
            features.panel.truncate(cutoff_t),
            forecast,
            {column.name: column.component for column in columns},
            chosen,
        )
        return explanation_table(series_id, cutoff_t, features.dates, names, contributions)

    def coefficients(self) -> pa.Table | None:
        """Return None."""
        return None

    def save(self, directory: Path) -> list[Path]:
        """Write the network and its settings."""
        return self._fitted().save(directory)

    def load(self, directory: Path) -> None:
        """Read them."""
        self._latest = None
        self._forecaster = LSTMForecaster.load(directory)

    def _predicted(self, features: Features, cutoff_t: int) -> Forecast:
        """Return the forecast from a cutoff; forecasting and explaining it runs the network once."""
        latest = self._latest
        if latest is None or latest[0] is not features or latest[1].cutoff != cutoff_t:
            self._latest = latest = None  # with the panel of another part of the series
            # Truncating is what keeps the model from seeing past the cutoff, whatever it reads.
            made = self._fitted().predict(features.panel.truncate(cutoff_t), cutoff_t)
            self._latest = latest = (features, made)
        return latest[1]

    def _fitted(self) -> LSTMForecaster:
        if self._forecaster is None:
            raise ModelError("the lstm is neither trained nor loaded")
        return self._forecaster
