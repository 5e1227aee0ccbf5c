"""The panel: every series' rows in contiguous arrays, and windows cut from them without copies.

Rows are sorted by series, then period. A series' rows are consecutive periods from its first one
to the common last period ``end``; known-future rows go on for ``horizon`` periods. Shapes use N
series, R rows (all series together), H leads, L context periods and B windows in a batch, and the
numbers of columns: F history, G season, K known, S static.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trendcast.errors import DataError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

SERIES, PERIOD, DEMAND = "series_id", "t", "y"  # the key columns and what is forecast
UNITS = ("demand", "none")
UNKNOWN = 0  # the static code of a category that was never seen


class PanelError(DataError, ValueError):
    """The tables do not form a panel; the message names the series and column and what came."""


@dataclass(frozen=True)
class Roles:
    """Which columns of the feature tables play which part.

    Parameters
    ----------
    history : mapping of str to str
        Column -> unit (``demand`` scales with the series' level, ``none`` does not). Trailing
        features as of their own row's period; read at the cutoff.
    season : mapping of str to str
        Column -> unit. Trailing features read at the last observed period with the target's
        seasonal position.
    known : sequence of str
        Columns known in advance: calendar, promotions, planned prices.
    static : sequence of str
        Categories that describe a series.
    needs : mapping of str to int
        Known column -> periods of history from which there is anything to learn from it; columns not named need none.
    """

    history: Mapping[str, str] = field(default_factory=dict)
    season: Mapping[str, str] = field(default_factory=dict)
    known: Sequence[str] = ()
    static: Sequence[str] = ()
    needs: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse units nobody knows how to scale."""
        for name, unit in (*self.history.items(), *self.season.items()):
            if unit not in UNITS:
                raise PanelError(f"column {name!r}: unit {unit!r} is not one of {UNITS}")


@dataclass(frozen=True)
class Windows:
    """A batch of B windows, each one series seen at one cutoff.

    Periods before a series' first row are padding on the left: zero, with ``mask`` False.
    """

    y: FloatArray  # [B, L]
    mask: BoolArray  # [B, L]
    past_known: FloatArray  # [B, L, K]
    known: FloatArray  # [B, H, K]
    history: FloatArray  # [B, F], at the cutoff
    season: FloatArray  # [B, H, G], at the last observed period of the target's seasonal position
    season_mask: BoolArray  # [B, H]
    static: npt.NDArray[np.int32]  # [B, S]
    age: IntArray  # [B], periods from the first row to the cutoff, both included
    target: FloatArray  # [B, H], or [B, 0] where it was not asked for


@dataclass(frozen=True)
class Panel:
    """All series of one feature build, up to and including period ``end``."""

    series_id: npt.NDArray[np.str_]  # [N]
    start: IntArray  # [N], period of the first row
    end: int
    horizon: int
    season_length: int
    y: FloatArray  # [R]
    offsets: IntArray  # [N + 1], first row of each series in y, history and season
    history: FloatArray  # [R, F]
    history_columns: tuple[str, ...]
    history_units: tuple[str, ...]
    season: FloatArray  # [R, G]
    season_columns: tuple[str, ...]
    season_units: tuple[str, ...]
    known: FloatArray  # [R + N * H, K]
    known_columns: tuple[str, ...]
    known_offsets: IntArray  # [N + 1]
    static: npt.NDArray[np.int32]  # [N, S], 0 is unknown
    static_columns: tuple[str, ...]
    static_categories: tuple[tuple[str, ...], ...]  # category of code k + 1, one tuple a column
    known_needs: tuple[tuple[str, int], ...] = ()  # as in Roles

    def __post_init__(self) -> None:
        """Check the shapes against each other."""
        n, rows = len(self.series_id), int(self.offsets[-1]) if len(self.offsets) else 0
        expected = {
            "start": (n,),
            "offsets": (n + 1,),
            "known_offsets": (n + 1,),
            "y": (rows,),
            "history": (rows, len(self.history_columns)),
            "season": (rows, len(self.season_columns)),
            "known": (rows + n * self.horizon, len(self.known_columns)),
            "static": (n, len(self.static_columns)),
        }
        for name, shape in expected.items():
            came = getattr(self, name).shape
            if came != shape:
                raise PanelError(f"{name} has shape {came}, expected {shape}")
        if self.horizon < 1 or self.season_length < 1:
            raise PanelError(
                f"horizon and season_length must be at least 1, "
                f"got {self.horizon} and {self.season_length}"
            )

    @property
    def n_series(self) -> int:
        """Number of series, N."""
        return len(self.series_id)

    @property
    def too_young(self) -> set[str]:
        """Known columns that the history is too short to learn anything from."""
        periods = self.end + 1 - self.start.min(initial=self.end)
        return {name for name, needed in self.known_needs if needed > periods}

    @property
    def is_past_known(self) -> BoolArray:
        """Which rows of ``known`` are of periods up to ``end``, [R + N * H]."""
        past = np.ones(len(self.known), dtype=bool)
        past[(self.known_offsets[1:, None] - np.arange(1, self.horizon + 1)).ravel()] = False
        return past

    @property
    def lengths(self) -> IntArray:
        """Number of rows of each series, [N]."""
        return np.diff(self.offsets)

    @property
    def static_cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each static column, the unknown code included."""
        return tuple(len(categories) + 1 for categories in self.static_categories)

    @classmethod
    def read(
        cls,
        spans: pa.Table,
        history_rows: Iterable[pa.RecordBatch],
        known_rows: Iterable[pa.RecordBatch],
        calendar: pa.Table,
        static_table: pa.Table,
        roles: Roles,
        *,
        horizon: int,
        season_length: int,
    ) -> Panel:
        """Read a panel from the three feature tables, a batch at a time.

        Every row is put where its series and period belong, so the tables need no order and nothing but the arrays is held.

        Parameters
        ----------
        spans : pyarrow.Table
            One row per series, in the order of the panel: ``series_id``, ``first`` and ``last``, the integer periods of its first
            and last row of history.
        history_rows : iterable of pyarrow.RecordBatch
            One row per series and period: ``series_id``, the integer period ``t``, the demand ``y`` and the columns of the roles
            history and season.
        known_rows : iterable of pyarrow.RecordBatch
            One row per series and period: ``series_id``, ``t`` and the columns of the role known that the calendar has not, at least
            from each series' first period to ``end + horizon``. Other series and periods are ignored. Not read if there is no such column.
        calendar : pyarrow.Table
            One row per period: ``t`` and the columns of the role known that are the same for all series.
        static_table : pyarrow.Table
            One row per series, in any order: ``series_id`` and the columns of the role static.
            Other series are ignored.
        roles : Roles
            Which columns to read.
        horizon, season_length : int
            In periods.

        Returns
        -------
        Panel
            Missing feature values are 0. Missing demand is an error.
        """
        history, season, known = tuple(roles.history), tuple(roles.season), tuple(roles.known)
        _require(static_table, "static", (SERIES, *roles.static))
        series_id, first, end = _spans(spans)
        static, categories = _static(static_table, tuple(roles.static), series_id)
        lengths = end + 1 - first
        y, of_history, of_season = _place(
            history_rows, [(DEMAND,), history, season], "history", series_id, first, lengths
        )
        own = tuple(column for column in known if column not in calendar.column_names)
        (of_series,) = _place(known_rows, [own], "known", series_id, first, lengths + horizon)
        of_known = _with_calendar(of_series, own, known, calendar, first, end + horizon)
        offsets = _offsets(lengths)
        return cls(
            series_id=series_id,
            start=first,
            end=end,
            horizon=horizon,
            season_length=season_length,
            y=y[:, 0],
            offsets=offsets,
            history=of_history,
            history_columns=history,
            history_units=tuple(roles.history.values()),
            season=of_season,
            season_columns=season,
            season_units=tuple(roles.season.values()),
            known=of_known,
            known_columns=known,
            known_offsets=offsets + horizon * np.arange(len(series_id) + 1),
            known_needs=tuple(roles.needs.items()),
            static=static,
            static_columns=tuple(roles.static),
            static_categories=categories,
        )

    def truncate(self, end: int) -> Panel:
        """Return the panel as it was known at an earlier ``end``.

        Rows after ``end`` (known features: after ``end + horizon``) are left out of the arrays, not
        hidden, so nothing that reads the result can see them. Series that start later drop out.
        """
        if end > self.end:
            raise PanelError(f"cannot truncate to period {end}: the panel ends at {self.end}")
        if end == self.end:
            return self
        if end < self.start.min(initial=self.end):
            raise PanelError(f"no series has begun by period {end}")
        return self._take(np.flatnonzero(self.start <= end), end)

    def select(self, series: npt.ArrayLike) -> Panel:
        """Return the panel of some series, given by position or as a boolean mask [N]."""
        index = np.asarray(series)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        return self._take(index.astype(np.int64), self.end)

    def _take(self, series: IntArray, end: int) -> Panel:
        lengths = end + 1 - self.start[series]
        rows = _ranges(self.offsets[series], lengths)
        known_rows = _ranges(self.known_offsets[series], lengths + self.horizon)
        offsets = _offsets(lengths)
        changed: dict[str, Any] = {
            "series_id": self.series_id[series],
            "start": self.start[series],
            "end": end,
            "y": self.y[rows],
            "offsets": offsets,
            "history": self.history[rows],
            "season": self.season[rows],
            "known": self.known[known_rows],
            "known_offsets": offsets + self.horizon * np.arange(len(series) + 1),
            "static": self.static[series],
        }
        return Panel(**{f.name: changed.get(f.name, getattr(self, f.name)) for f in fields(self)})

    def windows(
        self, series: IntArray, cutoff: IntArray, length: int, *, with_target: bool = False
    ) -> Windows:
        """Gather a batch of windows.

        Parameters
        ----------
        series : array [B]
            Positions of the series.
        cutoff : array [B]
            Last period each window may know; from the series' first period to ``end``.
        length : int
            Context periods L, cutoff included.
        with_target : bool
            Whether to gather the H periods after the cutoff too; they must be in the panel.

        Returns
        -------
        Windows
            Copies of B windows only.
        """
        series, cutoff = np.asarray(series, np.int64), np.asarray(cutoff, np.int64)
        self._check_cutoffs(series, cutoff, with_target)
        first = self.offsets[series]
        age = cutoff - self.start[series] + 1
        row = first + age - 1  # [B], the cutoff's row
        past = row[:, None] + np.arange(1 - length, 1)  # [B, L]
        mask = past >= first[:, None]
        past = np.where(mask, past, first[:, None])
        shift = (self.known_offsets[series] - first)[:, None]
        ahead = row[:, None] + np.arange(1, self.horizon + 1)  # [B, H]
        aligned = row[:, None] + season_steps(self.horizon, self.season_length)  # [B, H]
        season_mask = aligned >= first[:, None]
        season = self.season.take(np.where(season_mask, aligned, row[:, None]), axis=0)
        return Windows(
            y=self.y.take(past) * mask,
            mask=mask,
            past_known=self.known.take(past + shift, axis=0) * mask[:, :, None],
            known=self.known.take(ahead + shift, axis=0),
            history=self.history.take(row, axis=0),
            season=season * season_mask[:, :, None],
            season_mask=season_mask,
            static=self.static.take(series, axis=0),
            age=age,
            target=self.y.take(ahead if with_target else ahead[:, :0]),
        )

    def _check_cutoffs(self, series: IntArray, cutoff: IntArray, with_target: bool) -> None:
        last = self.end - self.horizon if with_target else self.end
        late = np.flatnonzero(cutoff > last)
        if len(late):
            what = f"whose {self.horizon} targets are in the panel" if with_target else "with data"
            raise PanelError(
                f"series {_name(self.series_id, series[late[0]])}: cutoff {cutoff[late[0]]} "
                f"is after {last}, the last one {what}"
            )
        early = np.flatnonzero(cutoff < self.start[series])
        if len(early):
            i = series[early[0]]
            raise PanelError(
                f"series {_name(self.series_id, i)}: cutoff {cutoff[early[0]]} is before "
                f"its first period {self.start[i]}"
            )


def season_steps(horizon: int, season_length: int) -> IntArray:
    """Return the steps from the cutoff to the period each lead's season features are read at, [H].

    Lead h reads ``c + h - S * ceil(h / S)``: the last observed period of its seasonal position.
    """
    lead = np.arange(1, horizon + 1)
    return lead - season_length * -(-lead // season_length)


def _name(series_id: npt.NDArray[np.str_], position: int | np.intp) -> str:
    """Return a series' name in quotes, for a message."""
    return repr(str(series_id[position]))


def _spans(table: pa.Table) -> tuple[npt.NDArray[np.str_], IntArray, int]:
    """Return names [N], first periods [N] and the last one, which all series have in common."""
    if table.num_rows == 0:
        raise PanelError("the history table has no rows")
    _check_keys(table, "history")
    series_id = np.asarray(table.column(SERIES).cast(pa.string()).to_pylist(), dtype=np.str_)
    first, last = (table.column(c).to_numpy().astype(np.int64) for c in ("first", "last"))
    end = int(last.max())
    short = np.flatnonzero(last != end)
    if len(short):
        raise PanelError(
            f"series {_name(series_id, short[0])} ends at period {last[short[0]]}, "
            f"others at {end}: every series must be filled up to the common end "
            f"({len(short)} are not)"
        )
    return series_id, first, end


def _check_keys(rows: pa.Table | pa.RecordBatch, name: str) -> None:
    if rows.column(SERIES).null_count:
        raise PanelError(f"the {name} table has rows without {SERIES!r}")


def _periods(rows: pa.RecordBatch, name: str) -> IntArray:
    values = rows.column(PERIOD)
    if not pa.types.is_integer(values.type):
        raise PanelError(
            f"column {PERIOD!r} of the {name} table must be an integer period, is {values.type}"
        )
    if values.null_count:
        raise PanelError(f"column {PERIOD!r} of the {name} table has {values.null_count} nulls")
    period: IntArray = values.to_numpy().astype(np.int64)
    return period


def _require(rows: pa.Table | pa.RecordBatch, name: str, columns: Sequence[str]) -> None:
    has = rows.schema.names
    missing = [c for c in columns if c not in has]
    if missing:
        raise PanelError(f"the {name} table lacks {missing}; it has {has}")


def _with_calendar(
    of_series: FloatArray,
    own: tuple[str, ...],
    known: tuple[str, ...],
    calendar: pa.Table,
    first: IntArray,
    last: int,
) -> FloatArray:
    """Return the known features of first..last of every series, [R + N * H, K]: its own and the calendar's."""
    if own == known:
        return of_series
    begin = int(first.min())
    dates = [column for column in known if column not in own]
    (periods,) = _place(
        [
            batch.append_column(SERIES, pa.repeat("all", len(batch)))
            for batch in calendar.to_batches()
        ],
        [tuple(dates)],
        "calendar",
        np.array(["all"]),
        np.array([begin]),
        np.array([last + 1 - begin]),
    )
    out = np.empty((len(of_series), len(known)), np.float32)
    lengths = last + 1 - first
    row = _ranges(first - begin, lengths)
    for j, column in enumerate(known):
        if column in own:
            out[:, j] = of_series[:, own.index(column)]
        else:
            out[:, j] = periods[row, dates.index(column)]
    return out


def _place(
    batches: Iterable[pa.RecordBatch],
    groups: Sequence[tuple[str, ...]],
    name: str,
    series_id: npt.NDArray[np.str_],
    first: IntArray,
    lengths: IntArray,
) -> list[FloatArray]:
    """Return each group of columns as float32 [R, F], rows where their series and period belong; missing values become 0.

    Raises
    ------
    PanelError
        A period is missing or there twice, a value is infinite, or demand is missing.
    """
    offsets = _offsets(lengths)
    out = [np.zeros((int(offsets[-1]), len(group)), np.float32) for group in groups]
    if not any(groups):
        return out
    times = np.zeros(int(offsets[-1]), np.uint16)
    names = pa.array(series_id.tolist(), pa.large_string())
    for batch in batches:
        _require(batch, name, (SERIES, PERIOD, *(c for group in groups for c in group)))
        _check_keys(batch, name)
        found = pc.index_in(batch.column(SERIES).cast(pa.large_string()), value_set=names)
        code = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
        age = _periods(batch, name) - first[code]
        mine = np.flatnonzero((code >= 0) & (age >= 0) & (age < lengths[code]))
        row = offsets[code[mine]] + age[mine]
        np.add.at(times, row, 1)
        for group, into in zip(groups, out, strict=True):
            values = np.empty((len(batch), len(group)), np.float32)
            for j, column in enumerate(group):
                values[:, j] = _floats(batch.column(column), column)
            into[row] = values if len(mine) == len(values) else values[mine]
    wrong = np.flatnonzero(times != 1)
    if len(wrong):
        i, period = _whose(int(wrong[0]), offsets, first)
        came = "is there twice" if times[wrong[0]] else "is missing"
        raise PanelError(
            f"{name} table, series {_name(series_id, i)}: {PERIOD} {period} {came}; needed is every period from {first[i]} to "
            f"{first[i] + lengths[i] - 1}, once"
        )
    for group, values in zip(groups, out, strict=True):
        for j, column in enumerate(group):
            bad = np.isinf(values[:, j])
            if group == (DEMAND,):
                bad |= np.isnan(values[:, j])
            if bad.any():
                row_of = int(np.argmax(bad))
                i, period = _whose(row_of, offsets, first)
                raise PanelError(
                    f"series {_name(series_id, i)}: column {column!r} is {values[row_of, j]} in period {period}"
                )
        np.nan_to_num(values, copy=False)
    return out


def _whose(row: int, offsets: IntArray, first: IntArray) -> tuple[int, int]:
    """Return the position of the series and the period that a row of an array is for."""
    i = int(np.searchsorted(offsets, row, side="right")) - 1
    return i, int(first[i] + row - offsets[i])


def _floats(chunk: pa.Array, column: str) -> FloatArray:
    if not (
        pa.types.is_boolean(chunk.type)
        or pa.types.is_integer(chunk.type)
        or pa.types.is_floating(chunk.type)
        or pa.types.is_decimal(chunk.type)
        or pa.types.is_null(chunk.type)
    ):
        raise PanelError(f"column {column!r} must be a number, is {chunk.type}")
    if pa.types.is_decimal(chunk.type):
        chunk = chunk.cast(pa.float64())  # Arrow's way from decimal to float32 rounds twice
    # Unsafe only in that a whole number above 2^24 is rounded, as float32 does.
    values: FloatArray = chunk.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _static(
    table: pa.Table, columns: tuple[str, ...], series_id: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.int32], tuple[tuple[str, ...], ...]]:
    """Return codes [N, S] and each column's categories; a missing value has the unknown code."""
    keys = table.column(SERIES).cast(pa.string()).to_pylist()
    position = {name: i for i, name in enumerate(keys)}
    if len(position) != len(keys):
        twice = next(name for i, name in enumerate(keys) if position[name] != i)
        raise PanelError(f"the static table has series {twice!r} twice")
    missing = [name for name in series_id.tolist() if name not in position]
    if missing:
        raise PanelError(f"the static table lacks {len(missing)} series, such as {missing[0]!r}")
    rows = np.array([position[name] for name in series_id.tolist()])
    codes = np.zeros((len(series_id), len(columns)), np.int32)
    categories = []
    for j, column in enumerate(columns):
        values = table.column(column).cast(pa.string()).combine_chunks().take(pa.array(rows))
        names = sorted(pc.unique(values).drop_null().to_pylist())
        found = pc.index_in(values, value_set=pa.array(names, pa.string()))
        codes[:, j] = pc.fill_null(pc.add(found, 1), UNKNOWN).to_numpy(zero_copy_only=False)
        categories.append(tuple(names))
    return codes, tuple(categories)


def _offsets(lengths: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _ranges(begin: IntArray, lengths: IntArray) -> IntArray:
    """Return the concatenated ranges begin[i] .. begin[i] + lengths[i] - 1."""
    ends = np.cumsum(lengths)
    return np.repeat(begin - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
