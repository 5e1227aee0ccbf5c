"""Closed forms of the decision marts, and the quantiles of sums they stand for, beside exact and simulated ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from jinja2 import Environment, FileSystemLoader
from scipy import stats

from tests.conftest import REPO


class Package:
    """The package's macros, rendered without dbt."""

    def __init__(self, environment: Environment) -> None:
        environment.globals["trendcast"] = self
        self._module = environment.get_template("distributions.sql").module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def quantile_levels(self) -> dict[str, float]:
        return {"q025": 0.025, "q05": 0.05, "q10": 0.1, "q25": 0.25, "q50": 0.5} | {
            "q75": 0.75,
            "q90": 0.9,
            "q95": 0.95,
            "q975": 0.975,
        }

    def settings(self) -> dict[str, str]:
        return {"measure": "quantity", "grain": "day"}

    def measures(self) -> list[str]:
        return ["quantity"]

    def by_measure(self, expressions: dict[str, str], column: str) -> str:
        return expressions["quantity"]


@pytest.fixture(scope="module")
def macros() -> Package:
    environment = Environment(
        loader=FileSystemLoader(REPO / "dbt_project" / "macros"),
        extensions=["jinja2.ext.do"],
    )
    environment.globals["var"] = {"whole_units": True}.get
    return Package(environment)


@pytest.fixture(scope="module")
def evaluate() -> Callable[..., np.ndarray]:
    """Return ``evaluate(sql, **columns)``: an expression's value on each row."""

    def value(sql: str, **columns: Any) -> np.ndarray:
        rows = pa.table({"i": np.arange(len(next(iter(columns.values()))))} | columns)
        with duckdb.connect() as connection:
            connection.register("rows", rows)
            found = connection.sql(f"select ({sql}) as value from rows order by i")
            values = found.to_arrow_table().column("value").to_pylist()
        return np.array([np.nan if value is None else value for value in values])

    return value


def test_normal_quantiles_and_chances(macros: Package, evaluate: Callable[..., np.ndarray]) -> None:
    level = np.array([0.0001, 0.01, 0.3, 0.5, 0.8, 0.95, 0.999, 0.9999])
    z = evaluate(macros.normal_quantile("level"), level=level)
    assert z == pytest.approx(stats.norm.ppf(level), abs=5e-4)
    at = np.linspace(-6, 6, 25)
    assert evaluate(macros.normal_cdf("z"), z=at) == pytest.approx(stats.norm.cdf(at), abs=1e-7)


def test_gamma_quantiles_are_near_the_exact_ones(
    macros: Package, evaluate: Callable[..., np.ndarray]
) -> None:
    """Within 2% where the standard deviation is no more than the mean; sparser demand within a unit."""
    shape, level = (a.ravel() for a in np.meshgrid([1, 2, 5, 20, 400], [0.5, 0.9, 0.95, 0.99]))
    mean = np.full(len(shape), 30.0)
    columns = {"mean": mean, "variance": mean**2 / shape, "z": stats.norm.ppf(level)}
    found = evaluate(macros.gamma_quantile("mean", "variance", "z"), **columns)
    exact = stats.gamma.ppf(level, shape, scale=mean / shape)
    assert found == pytest.approx(exact, rel=0.02)
    chance = evaluate(macros.gamma_cdf("x", "mean", "variance"), x=found, **columns)
    assert chance == pytest.approx(level, abs=1e-6)


def test_what_is_not_known_is_null_and_no_zero(
    macros: Package, evaluate: Callable[..., np.ndarray]
) -> None:
    unknown = {"mean": [None, 5.0, 5.0], "variance": [1.0, None, 1.0], "z": [1.0, 1.0, None]}
    columns = {name: pa.array(values, pa.float64()) for name, values in unknown.items()}
    quantile = macros.gamma_quantile("mean", "variance", "z")
    assert np.isnan(evaluate(quantile, **columns)).all()
    assert np.isnan(evaluate(macros.covering_quantity(f"({quantile})"), **columns)).all()
    nothing = {"mean": np.array([0.0]), "variance": np.array([0.0]), "z": np.array([2.0])}
    assert evaluate(quantile, **nothing) == [0.0]


@pytest.mark.parametrize("mean", [0.02, 0.2, 1.5, 12.0])
@pytest.mark.parametrize("dispersion", [1.0, 3.0])
def test_levels_cover_simulated_sums_of_correlated_leads(
    macros: Package, evaluate: Callable[..., np.ndarray], mean: float, dispersion: float
) -> None:
    """Two weeks of negative binomial days that share a level which nobody knew.

    The level of the sum comes from moments alone, as in int_order_levels, and covers what it promises to within what
    whole units allow: at one unit less it would cover too little.
    """
    draws = np.random.default_rng(7)
    n, days = 200_000, 14
    shared = draws.gamma(10, 1 / 10, n)[:, None]
    sizes = np.full((n, days), mean) * shared
    daily = draws.negative_binomial(
        mean / dispersion, mean / dispersion / (mean / dispersion + sizes)
    )
    total = daily.sum(axis=1)
    # The variance of a day, times days, times the factor that a backtest measures.
    variance = float(total.var())
    levels = np.array([0.8, 0.9, 0.95, 0.98])
    columns = {
        "mean": np.full(4, days * mean),
        "variance": np.full(4, variance),
        "z": stats.norm.ppf(levels),
    }
    units = evaluate(
        macros.covering_quantity(f"({macros.gamma_quantile('mean', 'variance', 'z')})"), **columns
    )
    covered = np.array([(total <= unit).mean() for unit in units])
    below = np.array([(total <= unit - 1).mean() for unit in units])
    assert (covered > levels - 0.02).all()
    assert (below < levels + 0.02).all()


def test_variance_by_quantiles(macros: Package, evaluate: Callable[..., np.ndarray]) -> None:
    levels = macros.quantile_levels()
    normal = {name: np.array([100 + 15 * stats.norm.ppf(p)]) for name, p in levels.items()}
    found = evaluate(macros.quantile_variance(), mean=np.array([100.0]), **normal)
    assert found == pytest.approx(225, rel=0.005)
    sparse = {name: np.array([0.0]) for name in levels} | {"q975": np.array([1.0])}
    assert evaluate(macros.quantile_variance(), mean=np.array([0.05]), **sparse) == [0.05]


def test_a_skewed_quantile_is_that_of_the_shifted_lognormal(
    macros: Package, evaluate: Callable[..., np.ndarray]
) -> None:
    """Exact for a lognormal wherever it begins and whichever way it leans; for no skew a normal's."""
    s, level = (a.ravel() for a in np.meshgrid([0.001, 0.05, 0.5, 1.2], [0.025, 0.05, 0.5, 0.95]))
    mean, variance, skewness, _ = stats.lognorm.stats(s, moments="mvsk")
    third = skewness * variance**1.5
    root = macros.skew_root("variance", "third")
    quantile = macros.skewed_quantile("mean", "variance", f"({root})", "z")
    moments = {"mean": mean - 7, "variance": variance, "third": third, "z": stats.norm.ppf(level)}
    exact = stats.lognorm.ppf(level, s) - 7
    assert evaluate(quantile, **moments) == pytest.approx(exact, rel=1e-6)
    mirrored = moments | {"mean": 7 - mean, "third": -third, "z": -moments["z"]}
    assert evaluate(quantile, **mirrored) == pytest.approx(-exact, rel=1e-6)
    normal = moments | {"third": np.zeros(len(level))}
    assert evaluate(quantile, **normal) == pytest.approx(
        mean - 7 + np.sqrt(variance) * stats.norm.ppf(level), rel=1e-9
    )
    sure = moments | {"variance": np.zeros(len(level)), "third": np.zeros(len(level))}
    assert (evaluate(quantile, **sure) == mean - 7).all()
    unknown = {name: pa.array([None], pa.float64()) for name in moments}
    assert np.isnan(evaluate(quantile, **unknown)).all()


@pytest.mark.parametrize("error", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("spread", [0.2, 0.7])
def test_bounds_cover_simulated_margins_of_a_discount(
    macros: Package, evaluate: Callable[..., np.ndarray], error: float, spread: float
) -> None:
    """Each bound of the promotion plan's margin is passed by about 5% of simulated outcomes.

    Gamma base units, a lognormal answer to the price and losses elsewhere, with nothing to do with each other; only the
    first three moments of what they come to are told. The lower bound is too low, the cautious side, where what is open is the
    base of a slow seller; a normal's would hardly ever be passed there.
    """
    draws = np.random.default_rng(7)
    n = 200_000
    base = draws.gamma(spread**-2, 100 * spread**2, n)
    factor = np.exp(2.5 * 0.2 + 0.2 * error * draws.normal(size=n))
    margin = base * (3.5 * factor - 5) - draws.normal(8, 4, n)
    columns = {
        "mean": np.full(2, margin.mean()),
        "variance": np.full(2, margin.var()),
        "third": np.full(2, ((margin - margin.mean()) ** 3).mean()),
        "z": stats.norm.ppf([0.05, 0.95]),
    }
    root = macros.skew_root("variance", "third")
    lower, upper = evaluate(macros.skewed_quantile("mean", "variance", f"({root})", "z"), **columns)
    assert 0.015 < (margin < lower).mean() < 0.06
    assert (margin > upper).mean() == pytest.approx(0.05, abs=0.01)
