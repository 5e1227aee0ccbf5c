"""One model for several measures: each measure has a model of its own, and the pipeline sees one.

Units, money and prices differ in all that models learn of them: whether they come in whole numbers, how they scatter, what
follows a promotion. Learnt apart, a measure is forecast exactly as it would be alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from trendcast.models.tables import FORECAST_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from trendcast.features import Features
    from trendcast.models import Model

KEYS = [("series_id", "ascending"), ("lead", "ascending")]


class ByMeasure:
    """A model made of one per measure, each with files in a folder of its own.

    Parameters
    ----------
    name
        The model's name.
    models
        Measure to its model.
    """

    def __init__(self, name: str, models: Mapping[str, Model]) -> None:
        self.name = name
        self._models = dict(models)
        self.refits_each_fold = all(model.refits_each_fold for model in models.values())
        self.scores_by_series = all(model.scores_by_series for model in models.values())
        self.needs_history = False  # asked of the measures one by one

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Learn each measure from its own series."""
        for measure, model in self._models.items():

            def told(text: str, of: str = measure) -> None:
                progress(f"{of}: {text}")

            model.fit(features.of(measure), end_t, seed, told)

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Forecast every series from a cutoff."""
        parts = [
            m.forecast(features.of(measure), cutoff_t)
            for measure, m in self._there(features, cutoff_t)
        ]
        return in_order(parts) if parts else FORECAST_SCHEMA.empty_table()

    def explain(self, features: Features, cutoff_t: int) -> pa.Table | None:
        """Contributions by component, or None."""
        explained = (
            m.explain(features.of(measure), cutoff_t)
            for measure, m in self._there(features, cutoff_t)
        )
        parts = [part for part in explained if part is not None]
        return pa.concat_tables(parts) if parts else None

    def _there(self, features: Features, cutoff_t: int) -> Iterator[tuple[str, Model]]:
        """Return the measures that have a series at a cutoff; in a part of the panel not all need have."""
        for measure, model in self._models.items():
            if not model.needs_history or features.of(measure).has_history(cutoff_t):
                yield measure, model

    def coefficients(self) -> pa.Table | None:
        """Coefficients with their measure, or None."""
        parts = [
            of_measure(part, measure)
            for measure, part in ((m, model.coefficients()) for m, model in self._models.items())
            if part is not None
        ]
        return pa.concat_tables(parts) if parts else None

    def save(self, directory: Path) -> list[Path]:
        """Write each measure's files into a folder of its name."""
        files = []
        for measure, model in self._models.items():
            folder = directory / measure
            folder.mkdir(exist_ok=True)
            files += model.save(folder)
        return files

    def load(self, directory: Path) -> None:
        """Read what ``save`` wrote."""
        for measure, model in self._models.items():
            model.load(directory / measure)


def in_order(parts: Sequence[pa.Table]) -> pa.Table:
    """Return the measures' forecasts as one table, ordered by series and lead."""
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts).sort_by(KEYS)


def of_measure(rows: pa.Table, measure: str) -> pa.Table:
    """Say in a column what measure the rows are of."""
    return rows.append_column("measure", pa.repeat(pa.scalar(measure), len(rows)))
