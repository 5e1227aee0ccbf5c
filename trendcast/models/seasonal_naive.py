"""The yardstick: the last value seen at the target's position in the season, computed in SQL by dbt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trendcast.models.tables import QUANTILE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from trendcast.features import Features


class Computed:
    """Forecasts that dbt computes: a table with the last cutoff and every fold of the backtest. Learns nothing."""

    name: str
    table: str
    refits_each_fold = True
    scores_by_series = False
    needs_history = False

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Nothing to learn."""

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Return the table's rows at a cutoff."""
        return features.query(
            f"""
            select series_id, cutoff, target_date, lead, mean, {", ".join(QUANTILE_NAMES)}
            from {features.relation(self.table)}
            where cutoff_t = ?
            order by {features.text_order("series_id")}, lead
            """,
            [cutoff_t],
        )

    def explain(self, features: Features, cutoff_t: int) -> pa.Table | None:
        """Return None: there is nothing to take apart."""
        return None

    def coefficients(self) -> pa.Table | None:
        """Return None."""
        return None

    def save(self, directory: Path) -> list[Path]:
        """Write nothing."""
        return []

    def load(self, directory: Path) -> None:
        """Read nothing."""


class SeasonalNaive(Computed):
    """Reads ``ftr_baseline``."""

    name = "seasonal_naive"
    table = "ftr_baseline"
