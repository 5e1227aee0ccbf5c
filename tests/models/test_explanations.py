"""Parts in units: worked examples, and sums that leave nothing over."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendcast.models.explanations import explanation_table, in_units, positions, shapley


def test_the_logarithmic_mean_of_two_factors() -> None:
    # 10 * 2 * 3 = 60: the 50 above the base are shared as ln 2 to ln 3 (Ang 2005, multiplicative factors).
    found = in_units(np.log([2.0, 3.0]), np.array(10.0))
    assert found == pytest.approx([50 * np.log(2) / np.log(6), 50 * np.log(3) / np.log(6)])
    assert in_units(np.log([2.0, 0.5]), np.array(10.0)) == pytest.approx(
        [10 * np.log(2), -10 * np.log(2)]
    )


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6), st.floats(1e-3, 1e6))
def test_parts_of_a_logarithm_leave_nothing_over(shares: list[float], base: float) -> None:
    found = in_units(np.array([shares]), np.array([base]))
    assert base + found.sum() == pytest.approx(base * np.exp(sum(shares)))
    assert ((found[0] > 0) == (np.array(shares) * base > 0)).all()


def test_the_gloves_are_shared_as_shapley_does() -> None:
    # One left glove and two right ones; a pair is worth 1: two thirds, a sixth and a sixth.
    sets = np.arange(8)
    pairs = (sets & 1) * ((sets >> 1 & 1) | (sets >> 2 & 1))
    assert shapley(pairs.astype(float)) == pytest.approx([2 / 3, 1 / 6, 1 / 6])


@given(st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_shares_add_up_to_what_all_groups_add(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2**n, 3, 2))
    parts = shapley(values)
    assert parts.shape == (n, 3, 2)
    assert parts.sum(axis=0) == pytest.approx(values[-1] - values[0])


def test_the_first_component_has_a_row_for_every_forecast() -> None:
    dates = {t: dt.date(2026, 1, 1) + dt.timedelta(days=t) for t in range(5)}
    contributions = np.array([[[0.0, 0.0], [2.0, -1.0]], [[1.0, 0.0], [1.0, 0.5]]])
    rows = explanation_table(np.array(["a", "b"]), 1, dates, ["level", "season"], contributions)
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("a", dates[1], dates[2], 1, "level", 0.0),
        ("a", dates[1], dates[3], 2, "level", 2.0),
        ("a", dates[1], dates[3], 2, "season", -1.0),
        ("b", dates[1], dates[2], 1, "level", 1.0),
        ("b", dates[1], dates[3], 2, "level", 1.0),
        ("b", dates[1], dates[3], 2, "season", 0.5),
    ]


def test_positions_are_of_those_there_are() -> None:
    series = np.array(["a", "b", "d", "e"])
    assert positions(pa.array(["e", "c", "b"]), series).tolist() == [1, 3]
    assert positions(pa.array(["c"]), series).tolist() == []
