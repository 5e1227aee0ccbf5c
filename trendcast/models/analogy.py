"""Series with little or no history, by what their neighbours sold; computed in SQL by dbt.

Neighbours are of the same product elsewhere, category and price tier (``ftr_analogy``), and each counts by how likely its level makes what
the series has sold itself: nonparametric empirical Bayes (Robbins 1956), with the neighbours' levels as the prior. Pooling of
analogous series goes back to Duncan, Gorr & Szczypula (Forecasting analogous time series, in Armstrong 2001). Quantiles are
those of the neighbours' demand, so they are as wide as the neighbours differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trendcast.models.tables import QUANTILE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from trendcast.features import Features


class Analogy:
    """Reads ``ftr_analogy``, which dbt builds for the last cutoff and every fold of the backtest."""

    name = "analogy"
    refits_each_fold = True

    def fit(
        self, features: Features, end_t: int, seed: int, progress: Callable[[str], None]
    ) -> None:
        """Nothing to learn."""

    def forecast(self, features: Features, cutoff_t: int) -> pa.Table:
        """Return the forecasts of new series at a cutoff; none where there are no new series."""
        return features.query(
            f"""
            select series_id, cutoff, target_date, lead, mean, {", ".join(QUANTILE_NAMES)}
            from {features.relation("ftr_analogy")}
            where cutoff_t = ?
            order by series_id, lead
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
