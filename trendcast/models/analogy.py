"""Series with little or no history, by what their neighbours sold; computed in SQL by dbt.

Neighbours are of the same product elsewhere, category and price tier (``ftr_analogy``), and each counts by how likely its level makes what
the series has sold itself: nonparametric empirical Bayes (Robbins 1956), with the neighbours' levels as the prior. Pooling of
analogous series goes back to Duncan, Gorr & Szczypula (Forecasting analogous time series, in Armstrong 2001). Quantiles are
those of the neighbours' demand, so they are as wide as the neighbours differ.
"""

from __future__ import annotations

from trendcast.models.seasonal_naive import Computed


class Analogy(Computed):
    """Reads ``ftr_analogy``; no rows where there are no new series."""

    name = "analogy"
    table = "ftr_analogy"
