"""Replays of ordering policies: against stock worked out by hand, and on the demo shop."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import REPO, Shop
from trendcast.errors import DataError, UsageError
from trendcast.pipeline import Workspace
from trendcast.simulate import inventory, replay


def one(*values: float) -> np.ndarray:
    return np.array([values], dtype=float)


def test_stock_by_hand() -> None:
    """Reviews every 2 periods, lead time 1, up to 10 units in packs of 4; the first order is there from the start."""
    cycles = replay(
        one(10, 10),
        one(10, 10),
        one(3, 4, 6, 1, 9),
        np.array([1]),
        2,
        pack=np.array([4.0]),
        minimum=np.array([0.0]),
    )
    # At the end of period 2: 3 in stock, 7 wanted, two packs. They are there when period 4 begins.
    # Period 3 sells the 3 and is 3 short; period 4 has 8, sells 1, keeps 7; period 5 sells 7 of 9.
    assert cycles.demand.tolist() == [[10, 10]]
    assert cycles.short.tolist() == [[3, 2]]
    assert cycles.held.tolist() == [[3, 7]]
    assert cycles.orders.tolist() == [[0, 1]]


def test_nothing_is_ordered_above_the_trigger() -> None:
    cycles = replay(
        one(2, 2, 2),
        one(10, 10, 10),
        one(4, 3, 1, 1),
        np.array([1]),
        1,
        pack=np.array([1.0]),
        minimum=np.array([9.0]),
    )
    # Positions of 6 and 3 are above the trigger of 2.
    assert cycles.orders.tolist() == [[0, 0, 0]]
    assert cycles.held.tolist() == [[3, 2, 1]]


def test_a_quantile_of_demand_is_in_stock_as_often() -> None:
    """Normal demand, known exactly: order up to its 90% quantile over lead time and review, and 90% of cycles hold."""
    draws = np.random.default_rng(3)
    n, reviews, review, lead = 400, 30, 5, 3
    demand = draws.normal(100, 20, (n, reviews * review + lead))
    periods = review + lead
    level = np.full((n, reviews), 100 * periods + 1.2816 * 20 * np.sqrt(periods))
    cycles = replay(
        level, level, demand, np.full(n, lead), review, pack=np.full(n, 1e-6), minimum=np.zeros(n)
    )
    assert (cycles.short == 0).mean() == pytest.approx(0.9, abs=0.01)


def opened(shop: Shop, monkeypatch: pytest.MonkeyPatch, **vars: object) -> Workspace:
    # Relations are named with the database, which is called like the file.
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(shop.path))
    return Workspace.open(
        project_dir=REPO / "dbt_project",
        profiles_dir=REPO / "profiles",
        vars=shop.vars | vars,
        target_path=shop.folder / "target",
    )


def test_the_demo_meets_its_target_at_less_cost(
    demo_run: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(demo_run, monkeypatch)
    found = inventory(workspace)
    policies = {row["policy"]: row for row in found["policies"]}
    ours, normal = policies["trendcast"], policies["normal safety stock"]
    assert found["n_cutoffs"] == 2  # the oldest fold has none to measure sums on
    assert ours["n_cycles"] == normal["n_cycles"] > 500
    assert abs(ours["service_level"] - ours["target_service_level"]) < 0.025
    assert found["saved"]["normal safety stock"] > 0.05
    often = policies["normal, as often in stock"]
    assert often["service_level"] >= ours["service_level"]
    assert ours["total_cost"] < often["total_cost"]

    settings = replace(workspace.project.settings, measure="revenue")
    with pytest.raises(UsageError, match="must be quantity"):
        inventory(replace(workspace, project=replace(workspace.project, settings=settings)))


def test_one_fold_is_too_few(small_run: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="backtest_folds"):
        inventory(opened(small_run, monkeypatch))


def test_help_has_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trendcast", "simulate", "inventory", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "Example: trendcast simulate inventory" in " ".join(done.stdout.split())
