"""The generic dbt tests fail on tables that are wrong, and say which rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from jinja2 import Environment

from tests.conftest import REPO

FOLDER = REPO / "dbt_project" / "tests" / "generic"


class Package:
    """What the generic tests call of the package."""

    def __init__(self, environment: Environment) -> None:
        for name in ("metrics", "shop", "engines"):
            source = (REPO / "dbt_project" / "macros" / f"{name}.sql").read_text()
            module = environment.from_string(source, globals={"trendcast": self}).module
            self.__dict__.update(
                {macro: getattr(module, macro) for macro in dir(module) if macro[0] != "_"}
            )

        self.where_maybe_copied = self.__dict__["duckdb__where_maybe_copied"]

    @staticmethod
    def settings() -> dict[str, int]:
        return {"horizon": 2}

    @staticmethod
    def quantile_levels() -> dict[str, float]:
        return {"q10": 0.1, "q50": 0.5, "q90": 0.9}


Fails = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def fails() -> Fails:
    """Return ``fails(test, rows, **arguments)``: the rows a test finds fault with; `others` are further tables."""
    environment = Environment(extensions=["jinja2.ext.do"])
    package = Package(environment)

    def run(
        test: str,
        rows: list[dict[str, Any]],
        others: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> list[dict[str, Any]]:
        source = (FOLDER / f"{test}.sql").read_text()
        source = re.sub(r"{%-? test ", "{% macro ", source).replace("endtest", "endmacro")
        module = environment.from_string(source, globals={"trendcast": package}).module
        sql = getattr(module, test)("checked", **arguments)
        with duckdb.connect() as connection:
            for name, table in {"checked": rows, **(others or {})}.items():
                connection.register(name, pa.Table.from_pylist(table))
            return connection.sql(sql).to_arrow_table().to_pylist()

    return run


def test_unique_combination_finds_copies_and_what_is_missing(fails: Fails) -> None:
    rows = [
        {"a": 1, "b": "x", "c": 0.5},
        {"a": 1, "b": "y", "c": None},
        {"a": 1, "b": None, "c": 0.5},
        {"a": 2, "b": "x", "c": 0.5},
        {"a": 2, "b": "x", "c": None},
    ]
    found = fails("unique_combination", rows, columns=["a", "b"])
    assert found == [{"a": 2, "b": "x", "copies": 2}]
    found = fails("unique_combination", rows, columns=["a", "b"], not_null=["b", "c"])
    assert sorted(found, key=str) == [
        {"a": 1, "b": "y", "without_b": 0, "without_c": 1, "copies": 1},
        {"a": 1, "b": None, "without_b": 1, "without_c": 0, "copies": 1},
        {"a": 2, "b": "x", "without_b": 0, "without_c": 1, "copies": 2},
    ]
    assert fails("unique_combination", rows[:1], columns=["a"], not_null=["a", "b", "c"]) == []


def scored(cls: str, model: str, actual: float | None, mean: float) -> dict[str, Any]:
    return {"cls": cls, "model": model, "actual": actual, "mean": mean}


def test_forecast_beats_baseline(fails: Fails) -> None:
    rows = [
        scored("won", "seasonal_naive", 10, 6),
        scored("won", "ridge", 10, 9),
        scored("won", "lstm", 10, 0),
        scored("lost", "seasonal_naive", 10, 9),
        scored("lost", "ridge", 10, 8),
        scored("lost", "ridge", None, 99),
    ]
    assert [row["cls"] for row in fails("forecast_beats_baseline", rows, by=["cls"])] == ["lost"]
    assert not fails("forecast_beats_baseline", rows)  # 3 of 20 against 5 of 20
    assert fails("forecast_beats_baseline", rows, at_least=0.5)


def test_coverage_in_tolerance(fails: Fails) -> None:
    rows = [{"actual": float(i), "low": 2.0, "high": 9.0} for i in range(10)]  # 8 of 10
    promised = {"lower": "low", "upper": "high"}
    assert not fails("coverage_in_tolerance", rows, level=0.8, **promised)
    assert not fails("coverage_in_tolerance", rows, level=0.5, **promised)
    assert fails("coverage_in_tolerance", rows, level=0.5, tolerance_above=0.1, **promised)
    assert fails("coverage_in_tolerance", rows, level=0.9, **promised)[0]["coverage"] == 0.8
    assert not fails("coverage_in_tolerance", rows, level=0.9, least_rows=11, **promised)


def test_horizon_complete(fails: Fails) -> None:
    rows = [{"id": "a", "lead": 1}, {"id": "a", "lead": 2}, {"id": "b", "lead": 2}]
    assert [row["id"] for row in fails("horizon_complete", rows, by=["id"])] == ["b"]
    assert len(fails("horizon_complete", rows, by=["id"], horizon=3)) == 2
    steps = [{"id": "a", "step": step} for step in (1, 2)]
    assert not fails("horizon_complete", steps, by=["id"], lead="step")
    assert fails("horizon_complete", steps, by=["id"], lead="step", horizon=3)


def test_quantiles_ordered(fails: Fails) -> None:
    good = {"mean": 5.0, "q10": 1.0, "q50": 4.0, "q90": 9.0}
    bad = [good | {"q10": 4.5}, good | {"mean": -1.0}, good | {"q10": -0.1}]
    assert fails("quantiles_ordered", [good, *bad]) == bad
    assert not fails(
        "quantiles_ordered", [{"lo": 1.0, "hi": 2.0}], quantiles=["lo", "hi"], mean=None
    )
    assert fails("quantiles_ordered", [{"lo": 1.0, "hi": 2.0}], quantiles=["hi", "lo"], mean=None)
    cold = {"mean": -5.0, "q10": -9.0, "q50": -6.0, "q90": -1.0}
    warm = cold | {"q90": -7.0}
    assert fails("quantiles_ordered", [cold])
    assert fails("quantiles_ordered", [cold, warm], signed=True) == [warm]


def test_levels_coherent(fails: Fails) -> None:
    parts = [{"day": 1, "mean": 2.0}, {"day": 1, "mean": 3.0}, {"day": 2, "mean": 4.0}]
    totals = [{"day": 1, "mean": 5.0}, {"day": 2, "mean": 4.5}, {"day": 3, "mean": 1.0}]
    found = fails("levels_coherent", parts, others={"whole": totals}, totals="whole", by=["day"])
    assert sorted(row["day"] for row in found) == [2, 3]
    found = fails(
        "levels_coherent", parts, others={"whole": totals[:1]}, totals="whole", by=["day"]
    )
    assert [row["day"] for row in found] == [2]


def test_non_negative(fails: Fails) -> None:
    rows = [{"a": 0.0, "b": None}, {"a": 1.0, "b": -1.0}, {"a": -1.0, "b": 1.0}]
    assert fails("non_negative", rows, columns=["a", "b"]) == rows[1:]


def test_few_alerts(fails: Fails) -> None:
    rows = [{"alert": "bias"}, {"alert": "bias"}, {"alert": "stale"}]
    watched = {"series": [{"i": i} for i in range(10)]}
    assert not fails("few_alerts", rows, alert="drift")
    assert not fails("few_alerts", rows, others=watched, alert="bias", among="series", share=0.2)
    assert fails("few_alerts", rows, others=watched, alert="bias", among="series", share=0.1)
    assert fails("few_alerts", rows, alert="stale")
