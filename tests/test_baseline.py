"""The seasonal naive baseline's spread: DuckDB's form, which fits into memory, has the rows of the plain one, to the last bit."""

from __future__ import annotations

from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from jinja2 import Environment

from tests.conftest import REPO

LEVELS = {"q05": 0.05, "q50": 0.5, "q975": 0.975}


def spread(form: str, *, prices: bool) -> str:
    """Return a query for the CTE `spread` in one of its forms, with what the project's other macros give it on DuckDB."""
    macros = SimpleNamespace(
        lag_of=lambda column, k: f"lag({column}, {k}) over (partition by series_id order by t)",
        forecasts_prices=lambda: prices,
        measure_of=lambda alias: f"{alias}.measure",
        join_measure=lambda key: f"inner join int_series as measured on {key} = measured.series_id",
        quantiles=lambda expression, levels: f"quantile_cont({expression}, {list(levels)})",
        quantile_levels=lambda: LEVELS,
    )
    text = (REPO / "dbt_project" / "macros" / "baseline.sql").read_text()
    environment = Environment()
    environment.globals |= {"trendcast": macros, "ref": lambda _, name: name}
    macro = getattr(environment.from_string(text).module, f"{form}__naive_spread")
    return f"with {macro([7, 14], 20)} select * from spread order by all"


@pytest.mark.parametrize("prices", [False, True])
def test_both_forms_have_the_same_rows(prices: bool) -> None:
    rng = np.random.default_rng(5)
    rows = []
    # Of a year, of less than a season, begun after a cutoff, before the first period of all.
    for k, first in enumerate([0, 0, -40, 50, 70, 92, 96, 99]):
        for t in range(first, 100):
            seen = rng.random() < 0.6
            value = float(rng.poisson(3)) + k / 3
            rows.append(
                {"series_id": f"s{k}", "t": t, "y": value, "actual": value if seen else None}
            )
    history = pa.Table.from_pylist(rows)
    measures = ["quantity", "average_price"]
    series = pa.table(
        {"series_id": [f"s{k}" for k in range(8)], "measure": [measures[k % 2] for k in range(8)]}
    )
    cutoffs = pa.table({"fold": [0, 1, 2], "cutoff_t": pa.array([99, 92, 85], pa.int32())})
    with duckdb.connect() as connection:
        for name, table in (
            ("ftr_history", history),
            ("int_series", series),
            ("int_cutoffs", cutoffs),
        ):
            connection.register(name, table)
        connection.execute("set preserve_insertion_order = false")
        plain, lists = (
            connection.sql(
                f"select * from ({spread(form, prices=prices)}) where n_errors > 0 order by all"
            ).fetchall()
            for form in ("default", "duckdb")
        )
    assert len(plain) > 20
    assert lists == plain
