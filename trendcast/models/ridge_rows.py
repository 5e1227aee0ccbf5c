"""The rows the ridge regression learns from, and their sums, made where the rows are.

Which rows is drawn here, as keys, and does not depend on the engine. What becomes of them does:

- DuckDB is in this process: rows are gathered by position (`trendcast.design`), which is faster than joins and bounded
  in memory, and lent to it as Arrow.
- Postgres is sent the keys, joins them to the feature tables and adds up; the rows stay where they are.
- Spark joins in the same way; its executors add up a shard each, and this process adds the shards' sums.

The text that adds up is one. It rounds the entries of the design matrix to whole multiples of 2**-16 and sums their
products as whole numbers, which do not depend on the order of addition: one thread or eight, one machine or a hundred,
the same rows have the same sums to the last bit. At the scale of the columns (around one) the rounding is below any
statistical relevance.

Shapes: R rows, P features.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from trendcast.design import VARIANCE, Design, Keys, Sides
from trendcast.features import LEVEL
from trendcast.models.spread import sampled
from trendcast.panel import season_steps
from trendcast.streams import from_stream, to_stream
from trendcast.warehouse import quote
from trendcast.warehouse.duckdb import DuckDBWarehouse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from trendcast.features import Features
    from trendcast.project import Column

    Array = npt.NDArray[np.float64]

ROWS = "ridge_rows"  # the name under which SQL reads what is learnt from
FRACTION = 2**16  # resolution of the fixed-point design matrix
RATIO_LIMIT = 100.0  # features are at most this many times the level
ENTRY_LIMIT = 16000  # keeps the product of two fixed-point entries inside 64 bits
SPREAD_ROWS = 200_000  # the spread is measured on, at most
SEASON_FALLBACK = "mean_short"  # of a series that has no whole season yet
# Sums that are asked for at once: Postgres takes 1,664 columns.
_SUMS_AT_ONCE = 1_500


@dataclass(frozen=True)
class Rows:
    """Rows of the design matrix as the regression sees them.

    Parameters
    ----------
    matrix : array [R, P]
        Relative to the level, bounded, never missing.
    target, level, variance : array [R]
    bucket : array [R]
        Lead bucket, from 0.
    """

    matrix: npt.NDArray[np.float32]
    target: Array
    level: Array
    variance: Array
    bucket: npt.NDArray[np.int64]

    @classmethod
    def of(cls, design: Design, keys: Keys) -> Rows:
        """Read rows; a target that has not come to pass is NaN."""
        level, variance = (values.astype(np.float64) for values in design.scale(keys))
        matrix = design.matrix(keys)
        names = [column.name for column in design.columns]
        for j, column in enumerate(design.columns):
            values = matrix[:, j]
            if column.role == "season" and SEASON_FALLBACK in names:
                # Of a series without a whole season its mean stands for the season.
                instead = matrix[:, names.index(SEASON_FALLBACK)]
                np.copyto(values, instead, where=np.isnan(values))
            np.nan_to_num(values, copy=False, nan=0.0, posinf=RATIO_LIMIT, neginf=-RATIO_LIMIT)
            np.clip(values, -RATIO_LIMIT, RATIO_LIMIT, out=values)
        return cls(
            matrix,
            design.target(keys).astype(np.float64),
            level,
            variance,
            (keys.lead.astype(np.int64) - 1) // design.lead_bucket,
        )

    @classmethod
    def read(cls, table: pa.Table, n_features: int) -> Rows:
        """Read rows from what SQL calls them."""
        matrix = np.empty((len(table), n_features), np.float32)
        for j in range(n_features):
            matrix[:, j] = table.column(_x(j)).to_numpy()
        target, level, variance = (
            table.column(name).to_numpy().astype(np.float64)
            for name in ("target", "demand_level", "demand_variance")
        )
        bucket = table.column("lead_bucket").to_numpy().astype(np.int64) - 1
        return cls(matrix, target, level, variance, bucket)

    @classmethod
    def none(cls, n_features: int) -> Rows:
        """Return no rows."""
        matrix, values = np.empty((0, n_features), np.float32), np.empty(0)
        return cls(matrix, values, values, values, np.empty(0, np.int64))

    def take(self, index: npt.NDArray[np.int64]) -> Rows:
        """Return some of the rows."""
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def table(self, is_held_out: npt.NDArray[np.bool_]) -> pa.Table:
        """Return what SQL needs of the rows for their sums."""
        columns = {
            "lead_bucket": pa.array((self.bucket + 1).astype(np.int32)),
            "is_held_out": pa.array(is_held_out),
            "target": pa.array(self.target),
            "demand_level": pa.array(self.level),
        }
        for j in range(self.matrix.shape[1]):
            columns[_x(j)] = pa.array(np.ascontiguousarray(self.matrix[:, j]))
        return pa.table(columns)


@dataclass(frozen=True)
class Statistics:
    """All that a regression needs to know of its rows.

    Parameters
    ----------
    columns
        The features.
    gram
        By lead bucket, from 1: the moments of (1, features, target), weighted by the level, [P + 2, P + 2], of the rows
        not held out and of those that are.
    held_out
        At most `SPREAD_ROWS` of the rows held out.
    """

    columns: list[Column]
    gram: dict[int, tuple[Array, Array]]
    held_out: Rows


def statistics(
    features: Features, cutoffs: Sequence[int], end_t: int, held_out_after: int, seed: int
) -> Statistics:
    """Draw rows to learn from and add them up, where they are.

    Parameters
    ----------
    cutoffs
        Cutoffs (period indices) to learn from.
    end_t
        No demand after this period is read.
    held_out_after
        Rows with a later target are held out.
    seed
        Of the draws: of series, where there are many, and of rows.
    """
    drawn = Drawn.of(features.sampled(end_t, seed), cutoffs, end_t, held_out_after, seed)
    if not len(drawn.keys):
        columns = drawn.sides.columns
        return Statistics(columns, {}, Rows.none(len(columns)))
    if features.in_process:
        return _gathered(drawn)
    if features.has_workers:
        return _by_workers(drawn)
    return _in_the_engine(drawn)


# --- Which rows ---


@dataclass(frozen=True)
class Drawn:
    """The rows to learn from, by their keys.

    Parameters
    ----------
    features
        Of the series they are drawn from.
    series_id
        Those series, in the order that ``keys`` counts them in.
    keys
        R rows. Some may turn out to have no target that was observed.
    is_held_out, for_spread : array [R]
        Whether the target is among the later ones, and whether the spread is measured on the row.
    """

    features: Features
    cutoffs: list[int]
    end_t: int
    series_id: pa.Array
    keys: Keys
    is_held_out: npt.NDArray[np.bool_]
    for_spread: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        features: Features,
        cutoffs: Sequence[int],
        end_t: int,
        held_out_after: int,
        seed: int,
    ) -> Drawn:
        """Draw about ``train_rows`` rows with a target up to ``end_t``, spread by chance over cutoffs, leads and series.

        What a date does to all series is learnt from as many dates as there are: few dates with every series on them say
        less than many dates with a part of the series each.
        """
        series_id, first_t = _series(features)
        horizon = features.settings.horizon
        leads = {t: min(horizon, end_t - t) for t in cutoffs}
        share = features.settings.train_rows / max(1, len(series_id) * sum(leads.values()))
        parts = []
        for t, ahead in leads.items():
            begun = np.flatnonzero(first_t <= t).astype(np.int32)
            n = len(begun) * ahead
            place = sampled(n, math.ceil(share * n), seed + t)
            series, lead = begun[place // ahead], (place % ahead + 1).astype(np.int32)
            parts.append(Keys(series, np.full(len(place), t, np.int32), lead))
        keys = Keys.concatenate(parts)
        is_held_out = keys.cutoff + keys.lead > held_out_after
        for_spread = np.zeros(len(keys), dtype=bool)
        late = np.flatnonzero(is_held_out)
        for_spread[late[sampled(len(late), SPREAD_ROWS, seed)]] = True
        return cls(features, sorted(cutoffs), end_t, series_id, keys, is_held_out, for_spread)

    @property
    def silent(self) -> set[str]:
        """Columns of which the history that is learnt from is too short to tell anything: 0, whatever the tables say."""
        return self.features.too_young(self.end_t, self.features.settings.train_periods)

    @property
    def sides(self) -> Sides:
        """The features, by where they are read."""
        return Sides.of(self.features.project, wide=False)

    def weight_scale(self) -> float:
        """Return the power of two nearest to the mean level, to keep weights around one."""
        found = self.features.query(
            f"select avg({quote(LEVEL)}) as level from {self.features.relation('ftr_history')} "
            f"where t in ({_listed(self.cutoffs)})"
        )
        (level,) = found.column("level").to_pylist()
        return float(2.0 ** round(math.log2(level))) if level else 1.0


def _series(features: Features) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return the series in the order of a `Design`, and the first period of each; of a launch a period that never comes."""
    order = features.text_order("series.series_id")
    found = features.query(
        f"""
        select series.series_id, began.first_t
        from {features.relation("ftr_static")} as series
        left join {features.relation("int_series")} as began on series.series_id = began.series_id
        order by {order}
        """
    )
    never = np.iinfo(np.int32).max
    first_t = found.column("first_t").cast(pa.int64()).fill_null(never).to_numpy()
    return found.column("series_id").combine_chunks(), first_t


# --- Their sums ---


def _gathered(drawn: Drawn) -> Statistics:
    """Gather the rows here, and have the engine of this process add them up."""
    design = Design(drawn.features, drawn.cutoffs, drawn.end_t, wide=False, silent=drawn.silent)
    there = np.isfinite(design.target(drawn.keys)) & np.isfinite(design.scale(drawn.keys)[0])
    rows = Rows.of(design, drawn.keys.take(there))
    columns = design.columns
    del design
    queries = _sums(len(columns), drawn.weight_scale())
    with drawn.features.held(ROWS, rows.table(drawn.is_held_out[there])):
        sums = [drawn.features.query(sql) for sql in queries]
    held_out = rows.take(np.flatnonzero(drawn.for_spread[there]))
    return Statistics(columns, _moments(sums, len(columns)), held_out)


def _in_the_engine(drawn: Drawn) -> Statistics:
    """Have an engine that is elsewhere join the rows and add them up."""
    features, columns = drawn.features, drawn.sides.columns
    queries = _sums(len(columns), drawn.weight_scale())
    with _lent(drawn), features.held(ROWS, _joined(drawn)):
        sums = [features.query(sql) for sql in queries]
        held_out = features.query(f"select * from {ROWS} where for_spread order by place")
    return Statistics(columns, _moments(sums, len(columns)), Rows.read(held_out, len(columns)))


def _by_workers(drawn: Drawn) -> Statistics:
    """Have the engine join the rows, and its workers add up a shard of them each."""
    features, columns = drawn.features, drawn.sides.columns
    adder = Adder(_sums(len(columns), drawn.weight_scale()))
    with _lent(drawn):
        queries = {ROWS: _joined(drawn)}
        shards = features.by_shard(queries, adder, Adder.SCHEMA, n_rows=len(drawn.keys))
    if not len(shards):
        return Statistics(columns, {}, Rows.none(len(columns)))
    sums = shards.column("sums").combine_chunks().flatten().to_pylist()
    held_out = pa.concat_tables(map(from_stream, shards.column("held_out").to_pylist()))
    return Statistics(
        columns,
        _moments(map(from_stream, sums), len(columns)),
        Rows.read(held_out.sort_by("place"), len(columns)),
    )


@dataclass(frozen=True)
class Adder:
    """What a worker does with a shard of the rows: adds them up, and passes on those that the spread is measured on."""

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [("sums", pa.list_(pa.binary())), ("held_out", pa.binary())]
    )

    sums: list[str]

    def __call__(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Return one row: Arrow streams of the sums and of the rows."""
        rows = tables[ROWS]
        with DuckDBWarehouse.open({"settings": {"threads": 1}}, read_only=False) as warehouse:
            with warehouse.held(ROWS, rows):
                sums = [to_stream(warehouse.query(sql)) for sql in self.sums]
        held_out = to_stream(rows.filter(rows.column("for_spread")))
        return pa.table({"sums": [sums], "held_out": [held_out]}, schema=self.SCHEMA)


def _sums(n_features: int, scale: float) -> list[str]:
    """SQL of the sums of products of (1, features, target), weighted by the level, by lead bucket and whether held out."""
    expressions = ["1.0", *(_x(j) for j in range(n_features)), f"target / {quote(LEVEL)}"]

    def entry(i: int) -> str:
        value = f"({expressions[i]}) * sqrt({quote(LEVEL)} / {scale!r})"
        bounded = f"least(greatest({value}, -{ENTRY_LIMIT}), {ENTRY_LIMIT})"
        # Not round(): what it does with a half differs by engine.
        return f"cast(floor({bounded} * {FRACTION} + 0.5) as bigint) as e{i}"

    entries = ", ".join(map(entry, range(len(expressions))))
    pairs = list(_pairs(n_features))
    queries = []
    for start in range(0, len(pairs), _SUMS_AT_ONCE):
        some = pairs[start : start + _SUMS_AT_ONCE]
        # Without the offset Postgres writes each entry out in every sum that it is in.
        sums = ", ".join(f"cast(sum(e{i} * e{j}) as decimal(38, 0)) as s{i}_{j}" for i, j in some)
        queries.append(
            f"""
            select lead_bucket, is_held_out, {sums}
            from (select lead_bucket, is_held_out, {entries} from {ROWS} offset 0) as entries
            group by lead_bucket, is_held_out
            """
        )
    return queries


def _moments(tables: Iterable[pa.Table], n_features: int) -> dict[int, tuple[Array, Array]]:
    """Put together sums of all parts of the rows, as whole numbers until the end."""
    totals: dict[tuple[int, bool], dict[str, int]] = {}
    for table in tables:
        for row in table.to_pylist():
            total = totals.setdefault((row.pop("lead_bucket"), row.pop("is_held_out")), {})
            for name, value in row.items():
                total[name] = total.get(name, 0) + int(value)
    size = n_features + 2
    moments: dict[int, tuple[Array, Array]] = {}
    for (bucket, is_held_out), total in sorted(totals.items()):
        halves = moments.setdefault(bucket, (np.zeros((size, size)), np.zeros((size, size))))
        for i, j in _pairs(n_features):
            halves[is_held_out][i, j] = halves[is_held_out][j, i] = total[f"s{i}_{j}"] / FRACTION**2
    return moments


def _pairs(n_features: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(n_features + 2) for j in range(i, n_features + 2))


# --- The rows in SQL ---


@contextmanager
def _lent(drawn: Drawn) -> Iterator[None]:
    """Have the keys readable for the engine inside, as numbers, and the series they count."""
    keys, settings = drawn.keys, drawn.features.settings
    steps = season_steps(settings.horizon, settings.season_length).astype(np.int32)
    series = {
        "series_id": drawn.series_id,
        "code": np.arange(len(drawn.series_id), dtype=np.int32),
    }
    rows = {
        "place": np.arange(len(keys), dtype=np.int32),
        "code": keys.series,
        "cutoff_t": keys.cutoff,
        "season_t": keys.cutoff + steps[keys.lead - 1],
        "target_t": keys.cutoff + keys.lead,
        "lead_bucket": (keys.lead - 1) // settings.lead_bucket + 1,
        "is_held_out": drawn.is_held_out,
        "for_spread": drawn.for_spread,
    }
    held = drawn.features.held
    with held("ridge_series", pa.table(series)), held("ridge_keys", pa.table(rows)):
        yield


def _joined(drawn: Drawn) -> str:
    """SQL of the rows that the keys name, as `Rows.of` has them.

    Every table is read once, at the periods that are asked for: a view pushes constants further down than it does a join.
    """
    features, sides, silent = drawn.features, drawn.sides, drawn.silent
    names = [column.name for column in sides.columns]
    targets = np.unique(drawn.keys.cutoff + drawn.keys.lead)
    steps = season_steps(features.settings.horizon, features.settings.season_length)
    seasons = np.unique(np.add.outer(np.array(drawn.cutoffs), steps))
    level = _single(f"history.{quote(LEVEL)}")

    def entry(column: Column, table: str) -> str:
        value = _single(f"{table}.{quote(column.name)}")
        return _single(f"{value} / {level}") if column.unit == "demand" else value

    entries: list[str] = []
    for table, columns in (
        ("history", sides.history),
        ("season", sides.season),
        ("known", sides.by_series),
        ("calendar", sides.by_date),
    ):
        for column in columns:
            value = entry(column, table)
            if column.role == "season" and SEASON_FALLBACK in names:
                instead = sides.columns[names.index(SEASON_FALLBACK)]
                value = f"coalesce({value}, {entry(instead, 'history')})"
            bounded = f"least(greatest(coalesce({value}, 0), -{RATIO_LIMIT}), {RATIO_LIMIT})"
            shown = "0" if column.name in silent else bounded
            entries.append(f"{_single(shown)} as {_x(len(entries))}")

    def rows_of(model: str, columns: Sequence[Column], periods: Iterable[int], *more: str) -> str:
        listed = ", ".join([*more, "t", *(quote(column.name) for column in columns)])
        return f"(select {listed} from {features.relation(model)} where t in ({_listed(periods)}))"

    scale = [quote(LEVEL), quote(VARIANCE)]
    return f"""
        select
            series.series_id, keys.place, keys.lead_bucket, keys.is_held_out, keys.for_spread,
            {_double("target.y")} as target,
            {_double(f"history.{quote(LEVEL)}")} as {quote(LEVEL)},
            {_double(f"history.{quote(VARIANCE)}")} as {quote(VARIANCE)},
            {", ".join(entries)}
        from ridge_keys as keys
        inner join ridge_series as series on keys.code = series.code
        inner join {rows_of("ftr_cutoff", sides.history, drawn.cutoffs, "series_id", *scale)} as history
            on series.series_id = history.series_id and keys.cutoff_t = history.t
        inner join {rows_of("ftr_history", [], targets, "series_id", "y", "actual")} as target
            on series.series_id = target.series_id and keys.target_t = target.t
        left join {rows_of("ftr_history", sides.season, seasons, "series_id")} as season
            on series.series_id = season.series_id and keys.season_t = season.t
        left join {rows_of("ftr_known", sides.by_series, targets, "series_id")} as known
            on series.series_id = known.series_id and keys.target_t = known.t
        left join {rows_of("ftr_calendar", sides.by_date, targets)} as calendar
            on keys.target_t = calendar.t
        where target.actual is not null
    """


def _single(expression: str) -> str:
    """SQL of a number in single precision, as a `Design` has it."""
    return f"cast({expression} as real)"


def _double(expression: str) -> str:
    return f"cast({_single(expression)} as double precision)"


def _listed(periods: Iterable[int]) -> str:
    return ", ".join(str(int(t)) for t in periods)


def _x(j: int) -> str:
    return f"x{j}"
