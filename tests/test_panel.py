"""The panel is checked against plain Python loops over the same rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from tests.models.panels import read_panel
from trendcast.panel import Panel, PanelError, Roles, season_steps

HORIZON, SEASON = 5, 3
STARTS = {"b": 4, "a": 0, "c": 11}  # in the order of the tables, which is not the alphabet's
END = 12
ROLES = Roles(
    history={"mean": "demand", "share": "none"},
    season={"last": "demand"},
    known=["promo", "weekday"],
    static=["colour"],
)


def value(series: str, t: int) -> float:
    return float(ord(series) * 100 + t)


def tables(end: int = END, starts: dict[str, int] = STARTS) -> tuple[pa.Table, pa.Table, pa.Table]:
    rows = [(s, t) for s, first in starts.items() for t in range(first, end + 1)]
    ahead = [(s, t) for s, first in starts.items() for t in range(first, end + HORIZON + 1)]
    history = pa.table(
        {
            "series_id": [s for s, _ in rows],
            "t": [t for _, t in rows],
            "y": [value(s, t) for s, t in rows],
            "mean": [value(s, t) + 0.25 for s, t in rows],
            "share": [t / 100 for _, t in rows],
            "last": [value(s, t) + 0.5 for s, t in rows],
            "unused": ["x"] * len(rows),
        }
    )
    known = pa.table(
        {
            "series_id": [s for s, _ in ahead],
            "t": [t for _, t in ahead],
            "promo": [value(s, t) - 0.5 for s, t in ahead],
            "weekday": [t % SEASON == 0 for _, t in ahead],
        }
    )
    static = pa.table({"series_id": ["c", "z", "a", "b"], "colour": ["red", "pink", None, "blue"]})
    return history, known, static


def build(*given: pa.Table, roles: Roles = ROLES) -> Panel:
    history, known, static = given or tables()
    return read_panel(history, known, static, roles, horizon=HORIZON, season_length=SEASON)


def changed(table: pa.Table, column: str, row: int, new: object) -> pa.Table:
    values = table.column(column).to_pylist()
    values[row] = new
    at = table.column_names.index(column)
    return table.set_column(at, column, pa.array(values, table.schema.field(column).type))


def assert_same(left: Panel, right: Panel) -> None:
    for field in dataclasses.fields(Panel):
        np.testing.assert_array_equal(
            getattr(left, field.name), getattr(right, field.name), err_msg=field.name
        )


def test_reading_keeps_order_and_roles():
    panel = build()
    assert panel.series_id.tolist() == ["b", "a", "c"]
    assert (panel.end, panel.n_series) == (END, 3)
    assert panel.lengths.tolist() == [9, 13, 2]
    assert panel.y.dtype == np.float32
    assert panel.y[panel.offsets[1]] == value("a", 0)
    assert panel.known.shape == (9 + 13 + 2 + 3 * HORIZON, 2)
    assert panel.history_columns == ("mean", "share")
    assert panel.history_units == ("demand", "none")


def test_static_codes_have_a_vocabulary_and_zero_for_missing():
    panel = build()
    assert panel.static_categories == (("blue", "red"),)  # pink is no series of this panel
    assert panel.static[:, 0].tolist() == [1, 0, 2]
    assert panel.static_cardinalities == (3,)


def test_windows_match_a_plain_loop():
    panel = build()
    series, cutoff, length = np.array([1, 0, 2, 1]), np.array([7, 5, 11, 0]), 6
    cutoff[2] = 7 + 4
    windows = panel.windows(series, cutoff, length)
    for b, (i, c) in enumerate(zip(series, cutoff, strict=True)):
        name = str(panel.series_id[i])
        assert windows.age[b] == c - STARTS[name] + 1
        assert windows.history[b, 0] == np.float32(value(name, c) + 0.25)
        for k in range(length):
            t = c - length + 1 + k
            seen = t >= STARTS[name]
            assert windows.mask[b, k] == seen
            assert windows.y[b, k] == (value(name, t) if seen else 0)
            assert windows.past_known[b, k, 0] == (value(name, t) - 0.5 if seen else 0)
        for h in range(1, HORIZON + 1):
            assert windows.known[b, h - 1, 0] == value(name, c + h) - 0.5
            assert windows.known[b, h - 1, 1] == ((c + h) % SEASON == 0)
            aligned = c + h - SEASON * -(-h // SEASON)
            assert aligned <= c
            seen = aligned >= STARTS[name]
            assert windows.season_mask[b, h - 1] == seen
            assert windows.season[b, h - 1, 0] == (value(name, aligned) + 0.5 if seen else 0)


def test_targets_follow_the_cutoff():
    windows = build().windows(np.array([1]), np.array([7]), 2, with_target=True)
    assert windows.target.tolist() == [[value("a", t) for t in range(8, 13)]]
    assert build().windows(np.array([1]), np.array([7]), 2).target.shape == (1, 0)


@pytest.mark.parametrize(
    ("series", "cutoff", "with_target", "words"),
    [
        (0, END + 1, False, "'b': cutoff 13 is after 12, the last one with data"),
        (0, 8, True, "'b': cutoff 8 is after 7, the last one whose 5 targets"),
        (2, 10, False, "'c': cutoff 10 is before its first period 11"),
    ],
)
def test_windows_refuse_cutoffs_outside_the_data(series, cutoff, with_target, words):
    with pytest.raises(PanelError, match=words):
        build().windows(np.array([series]), np.array([cutoff]), 3, with_target=with_target)


def test_season_steps_are_observed_periods_of_the_same_position():
    steps = season_steps(9, 4)
    assert steps.tolist() == [-3, -2, -1, 0, -3, -2, -1, 0, -3]
    assert season_steps(3, 1).tolist() == [0, 0, 0]
    assert season_steps(3, 52).tolist() == [-51, -50, -49]


def test_truncated_panel_is_the_panel_built_from_cut_data():
    starts = {"b": 4, "a": 0}  # c starts later and drops out
    history, known, _ = tables(8, starts)
    static = pa.table({"series_id": ["a", "b"], "colour": [None, "blue"]})
    cut = build().truncate(8)
    # The vocabulary stays the whole panel's; codes mean the same.
    assert_same(
        dataclasses.replace(cut, static_categories=(("blue",),)), build(history, known, static)
    )
    assert not np.shares_memory(cut.y, build().y)
    assert build().truncate(END).y.size == build().y.size
    with pytest.raises(PanelError, match="cannot truncate to period 13"):
        build().truncate(13)
    with pytest.raises(PanelError, match="no series has begun by period -1"):
        build().truncate(-1)


def test_truncation_does_not_change_a_window():
    panel = build()
    for cutoff in (5, 8):
        ours = panel.truncate(cutoff).windows(np.array([0, 1]), np.full(2, cutoff), 7)
        full = panel.windows(np.array([0, 1]), np.full(2, cutoff), 7)
        for field in dataclasses.fields(full):
            np.testing.assert_array_equal(getattr(ours, field.name), getattr(full, field.name))


def test_select_takes_series_by_position_or_mask():
    panel = build()
    picked = panel.select([2, 1])
    assert picked.series_id.tolist() == ["c", "a"]
    assert picked.y[0] == value("c", 11)
    assert_same(panel.select(np.array([False, True, True])), panel.select([1, 2]))


def test_chunked_dictionary_tables_give_the_same_panel():
    history, known, static = tables()
    cut = history.num_rows // 2
    encoded = pa.concat_tables([history.slice(0, cut), history.slice(cut)])
    column = encoded.column("series_id").dictionary_encode()
    assert_same(build(encoded.set_column(0, "series_id", column), known, static), build())


def test_known_rows_beyond_what_is_needed_are_ignored():
    history, _, static = tables()
    _, wider, _ = tables(END + 4, {"a": 0, "b": 1, "c": 11, "x": 0})
    assert_same(build(history, wider, static), build())


def test_what_all_series_share_may_come_from_the_calendar():
    history, known, static = tables()
    periods = list(range(END + HORIZON + 1))
    calendar = pa.table({"t": periods, "weekday": [t % SEASON == 0 for t in periods]})
    about = {"horizon": HORIZON, "season_length": SEASON}
    own = known.drop_columns(["weekday"])
    found = read_panel(history, own, static, ROLES, calendar=calendar.slice(0), **about)
    assert_same(found, build())
    short = calendar.slice(0, END)
    with pytest.raises(PanelError, match="calendar table, .* t 12 is missing"):
        read_panel(history, own, static, ROLES, calendar=short, **about)


def test_missing_feature_is_zero_and_integers_and_decimals_are_numbers():
    history, known, static = tables()
    history = changed(history, "mean", 3, None)
    assert build(history, known, static).history[3, 0] == 0
    share = history.column("share").cast(pa.decimal128(9, 4))
    history = history.set_column(history.column_names.index("share"), "share", share)
    assert build(history, known, static).history[1, 1] == np.float32(0.05)


def test_rows_may_come_in_any_order():
    history, known, static = tables()
    rng = np.random.default_rng(0)
    mixed = [t.take(pa.array(rng.permutation(t.num_rows))) for t in (history, known)]
    assert_same(build(*mixed, static).select([2, 0, 1]), build().select(in_order(mixed[0])))


def in_order(history: pa.Table) -> list[int]:
    """Positions in the usual panel of the series as a mixed one has them, for the same selection of both."""
    series = list(dict.fromkeys(history.column("series_id").to_pylist()))
    return [list(STARTS).index(series[i]) for i in (2, 0, 1)]


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        (lambda h, k, s: (h.drop_columns(["mean"]), k, s), "history table lacks .'mean'."),
        (lambda h, k, s: (h, k.drop_columns(["promo"]), s), "known table lacks .'promo'."),
        (lambda h, k, s: (h, k, s.drop_columns(["colour"])), "static table lacks .'colour'."),
        (lambda h, k, s: (h.slice(0, 0), k, s), "history table has no rows"),
        (lambda h, k, s: (changed(h, "t", 2, 5), k, s), "series 'b': t 5 is there twice"),
        (lambda h, k, s: (changed(h, "t", 2, 9), k, s), "series 'b': t 6 is missing"),
        (lambda h, k, s: (h.slice(0, 23), k, s), "'c' ends at period 11, others at 12"),
        (lambda h, k, s: (changed(h, "y", 10, None), k, s), "'a': column 'y' is nan in period 1"),
        (lambda h, k, s: (changed(h, "mean", 10, np.inf), k, s), "'a': column 'mean' is inf"),
        (lambda h, k, s: (changed(h, "series_id", 1, None), k, s), "rows without 'series_id'"),
        (
            lambda h, k, s: (h, k.slice(0, k.num_rows - 1), s),
            "known table, series 'c': t 17 is missing; needed is every period from 11 to 17",
        ),
        (lambda h, k, s: (h, k.slice(14), s), "known table, series 'b': t 4 is missing"),
        (lambda h, k, s: (h, k, s.slice(1)), "static table lacks 1 series, such as 'c'"),
        (lambda h, k, s: (h, k, pa.concat_tables([s, s])), "series 'c' twice"),
    ],
)
def test_broken_tables_are_refused_with_what_came(breakage, words):
    with pytest.raises(PanelError, match=words):
        build(*breakage(*tables()))


def test_text_features_and_dates_as_periods_are_refused():
    history, known, static = tables()
    with pytest.raises(PanelError, match="column 'unused' must be a number, is string"):
        build(history, known, static, roles=Roles(history={"unused": "none"}))
    dates = history.column("t").cast(pa.int32()).cast(pa.date32())
    with pytest.raises(PanelError, match="must be an integer period, is date32"):
        build(history.set_column(1, "t", dates), known, static)
    with pytest.raises(PanelError, match="unit 'euro'"):
        Roles(history={"price": "euro"})


def test_a_panel_may_have_no_features_at_all():
    panel = build(roles=Roles())
    windows = panel.windows(np.array([0]), np.array([9]), 4)
    assert windows.known.shape == (1, HORIZON, 0)
    assert windows.history.shape == (1, 0)
    assert windows.season.shape == (1, HORIZON, 0)
