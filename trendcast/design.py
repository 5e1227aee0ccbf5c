"""Sampled rows of the design matrix, (series, cutoff, lead), gathered from the feature tables by position.

The view ``ftr_design`` has the same rows, but a sample over all leads costs its joins over all leads. What is known at a
cutoff is the same for every lead and is read once; the rest comes from the tables by period, without a join or a sort,
each into one contiguous array. Rows are then put together by index, so memory is that of the sample and not of the joins.

Shapes: N series, R rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trendcast.features import LEVEL
from trendcast.panel import season_steps
from trendcast.warehouse import quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from trendcast.features import Features
    from trendcast.project import Column, Project

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

BATCH_ROWS = 100_000
VARIANCE = "demand_variance"
#: Computed from a row's own key and scale; they have no column in a feature table.
OWN_FEATURES = ("lead", "log_level", "variation")


@dataclass(frozen=True)
class Keys:
    """Which rows: R triples of a series' position, its cutoff and the lead."""

    series: npt.NDArray[np.int32]
    cutoff: npt.NDArray[np.int32]
    lead: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.series)

    def take(self, index: slice | IntArray | npt.NDArray[np.bool_]) -> Keys:
        """Return some of the rows."""
        return Keys(self.series[index], self.cutoff[index], self.lead[index])

    @classmethod
    def concatenate(cls, parts: Sequence[Keys]) -> Keys:
        """Return the rows of all parts, one after the other."""
        return cls(
            np.concatenate([p.series for p in parts]),
            np.concatenate([p.cutoff for p in parts]),
            np.concatenate([p.lead for p in parts]),
        )


@dataclass(frozen=True)
class Sides:
    """Columns with a role, by the table they are read from and the period they are read at."""

    history: list[Column]  # ftr_cutoff, at the cutoff
    season: list[Column]  # ftr_history, at the target's place in the last season seen
    by_series: list[Column]  # ftr_known, at the target
    by_date: list[Column]  # ftr_calendar, at the target

    @classmethod
    def of(cls, project: Project, *, wide: bool) -> Sides:
        """Return those of a project, for trees where ``wide``."""
        known = project.with_role("known", wide=wide)
        return cls(
            project.with_role("history", wide=wide),
            project.with_role("season", wide=wide),
            [c for c in known if c.model == "ftr_known"],
            [c for c in known if c.model == "ftr_calendar"],
        )

    @property
    def columns(self) -> list[Column]:
        """All of them, in the order of the matrix."""
        return [*self.history, *self.season, *self.by_series, *self.by_date]


@dataclass(frozen=True)
class _Block:
    """Rows of one table and where each (series, period) is among them.

    Parameters
    ----------
    values : array [rows, columns]
    position : array [N, periods]
        Row of each series and period; -1 where there is none.
    first : int
        Period of the first column of ``position``.
    """

    values: FloatArray
    position: npt.NDArray[np.int32]
    first: int

    def take(self, series: npt.NDArray[np.int32], t: npt.NDArray[np.int32]) -> FloatArray:
        """Return the rows of (series, period) pairs, NaN where there is none, [R, columns]."""
        column = t - self.first
        inside = (column >= 0) & (column < self.position.shape[1])
        row = self.position[series, np.where(inside, column, 0)]
        there = inside & (row >= 0)
        out = self.values.take(np.where(there, row, 0), axis=0)
        out[~there] = np.nan
        return out


class Design:
    """The feature tables at some cutoffs, ready to give rows of the design matrix.

    Parameters
    ----------
    features
        Where to read.
    cutoffs
        Cutoffs (period indices) rows will be asked for.
    last_t
        No demand after this period is read: targets later than it are NaN.
    categories
        The static categories to use, with the values they are coded by (those of a training; others become
        missing). None: every one there is.
    max_values
        A category with more values than this is left out.
    wide
        Whether columns that are for trees are among the features, with what describes a series and its scale.
    silent
        Columns that are 0 whatever the tables say, for a training that could learn nothing from them.
    seed
        Of the sample of series that a training reads (`Features.sampled`). None: all series.
    """

    def __init__(
        self,
        features: Features,
        cutoffs: Sequence[int],
        last_t: int,
        *,
        categories: dict[str, list[str]] | None = None,
        max_values: int | None = None,
        wide: bool = True,
        silent: Collection[str] = (),
        seed: int | None = None,
    ) -> None:
        features = features if seed is None else features.sampled(last_t, seed)
        project, settings = features.project, features.settings
        self._features = features
        self._silent = frozenset(silent)
        self.horizon = settings.horizon
        self.lead_bucket = settings.lead_bucket
        self._sides = sides = Sides.of(project, wide=wide)
        self._own = OWN_FEATURES if wide else ()
        self._read_static(categories if wide else {}, max_values, wide=wide)
        cutoffs = sorted(set(cutoffs))
        self._steps = season_steps(self.horizon, settings.season_length)
        seasons = sorted({c + int(s) for c in cutoffs for s in self._steps})
        targets = sorted({c + h for c in cutoffs for h in range(1, self.horizon + 1)})
        self._at = self._block(
            "ftr_cutoff",
            [quote(LEVEL), quote(VARIANCE), *(quote(c.name) for c in sides.history)],
            cutoffs,
        )
        self._season = self._block("ftr_history", [quote(c.name) for c in sides.season], seasons)
        self._known = self._block("ftr_known", [quote(c.name) for c in sides.by_series], targets)
        self._calendar = self._block(
            "ftr_calendar", [quote(c.name) for c in sides.by_date], targets, by_date=True
        )
        # Learnt from: demand as cleaned, where it was observed.
        self._target = self._block(
            "ftr_history",
            ["case when actual is not null then y end"],
            [t for t in targets if t <= last_t],
        )

    @property
    def columns(self) -> list[Column]:
        """The columns with a role, in the order of the matrix."""
        return self._sides.columns

    @property
    def names(self) -> list[str]:
        """Names of the features, in the order of the matrix; the categorical ones come last."""
        return [
            *self._own,
            *(c.name for c in self.columns),
            *self.static_numbers,
            *self.categories,
        ]

    @property
    def n_numeric(self) -> int:
        """How many features are numbers; the rest are codes of categories."""
        return len(self.names) - len(self.categories)

    def keys(self, cutoffs: Iterable[int], leads: Sequence[int] | None = None) -> Keys:
        """Return every (series, cutoff, lead) of some cutoffs, ordered by cutoff, series and lead; of all leads or some."""
        wanted = np.array(leads if leads is not None else range(1, self.horizon + 1), np.int32)
        parts = []
        for cutoff in cutoffs:
            column = cutoff - self._at.first
            series = np.flatnonzero(self._at.position[:, column] >= 0).astype(np.int32)
            parts.append(
                Keys(
                    np.repeat(series, len(wanted)),
                    np.full(len(series) * len(wanted), cutoff, np.int32),
                    np.tile(wanted, len(series)),
                )
            )
        return Keys.concatenate(parts)

    def target(self, keys: Keys) -> FloatArray:
        """Demand to learn from, [R]; NaN where it has yet to come or was not observed."""
        return self._target.take(keys.series, keys.cutoff + keys.lead)[:, 0]

    def scale(self, keys: Keys) -> tuple[FloatArray, FloatArray]:
        """Return each row's demand level and variance as known at its cutoff, [R] each."""
        at = self._at.take(keys.series, keys.cutoff)
        return at[:, 0], at[:, 1]

    def matrix(self, keys: Keys) -> FloatArray:
        """Return the features of rows, [R, F]; demand is in units of the level, NaN is missing."""
        out = np.empty((len(keys), len(self.names)), np.float32)
        for start in range(0, len(keys), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            self._fill(out[part], keys.take(part))
        return out

    def _fill(self, out: FloatArray, keys: Keys) -> None:
        at = self._at.take(keys.series, keys.cutoff)
        level = at[:, 0]
        if self._own:
            out[:, 0] = keys.lead
            out[:, 1] = np.log(level)
            out[:, 2] = np.sqrt(at[:, 1]) / level
        target = keys.cutoff + keys.lead
        aligned = keys.cutoff + self._steps[keys.lead - 1].astype(np.int32)
        begin = len(self._own)
        sides = self._sides
        for columns, values in (
            (sides.history, at[:, 2:]),
            (sides.season, self._season.take(keys.series, aligned)),
            (sides.by_series, self._known.take(keys.series, target)),
            (sides.by_date, self._calendar.take(np.zeros_like(keys.series), target)),
        ):
            into = out[:, begin : begin + len(columns)]
            into[:] = values
            for j, column in enumerate(columns):
                if column.unit == "demand":
                    into[:, j] /= level
                if column.name in self._silent:
                    into[:, j] = 0
            begin += len(columns)
        out[:, begin:] = self._static.take(keys.series, axis=0)

    # --- Reading ---

    def _read_static(
        self,
        known: dict[str, list[str]] | None,
        max_values: int | None,
        *,
        wide: bool,
    ) -> None:
        """Read the series and what is known of each: numbers as they are, categories as codes."""
        features = self._features
        texts = features.static_columns if wide else []
        numbers = features.project.with_role("static", wide=True) if wide else []
        self.static_numbers = [c.name for c in numbers if c.name not in texts]
        listed = ", ".join(quote(name) for name in ["series_id", *texts, *self.static_numbers])
        table = features.query(
            f"select {listed} from {features.relation('ftr_static')} order by {features.text_order('series_id')}"
        )
        self.series_id: list[str] = table.column("series_id").to_pylist()
        #: Sorted values of each category; a code is a position among them.
        self.categories: dict[str, list[str]] = {}
        columns = [_floats(table.column(name)) for name in self.static_numbers]
        for name in texts:
            values = table.column(name).to_pylist()
            found = sorted({value for value in values if value is not None})
            if known is not None:
                found = known.get(name, [])
            if (known is not None and name not in known) or len(found) > (
                len(found) if max_values is None else max_values
            ):
                continue
            codes = {value: code for code, value in enumerate(found)}
            columns.append(np.array([codes.get(value, np.nan) for value in values], np.float32))
            self.categories[name] = found
        n = len(self.series_id)
        self._static = np.column_stack([np.empty((n, 0), np.float32), *columns])
        features.lookup(
            "design_series",
            pa.table({"series_id": self.series_id, "code": pa.array(range(n), pa.int32())}),
        )

    def _block(
        self,
        model: str,
        columns: Sequence[str],
        periods: Sequence[int],
        *,
        by_date: bool = False,
    ) -> _Block:
        """Read some periods of a feature table, in batches, into one array."""
        features = self._features
        n = 1 if by_date else len(self.series_id)
        first, last = (periods[0], periods[-1]) if periods else (0, 0)
        position = np.full((n, last - first + 1), -1, np.int32)
        if not columns or not periods:
            # A table without columns for us still says which rows there are not.
            return _Block(np.zeros((1, len(columns)), np.float32), position, first)
        listed = ", ".join(f"cast({column} as float) as c{j}" for j, column in enumerate(columns))
        # Spelt out, for a view pushes constants further down than it does a join.
        among = ", ".join(map(str, periods))
        joined = f"{features.relation(model)} as feature"
        code = "0"
        if not by_date:
            joined += " inner join design_series on feature.series_id = design_series.series_id"
            code = "design_series.code"
        rows_of = f"from {joined} where feature.t in ({among})"
        (count,) = features.query(f"select count(*) as n {rows_of}").column("n").to_pylist()
        # One row at least, for a look at "none" to fall on: a history shorter than a season has no season's rows.
        values = np.empty((max(count, 1), len(columns)), np.float32)
        row = 0
        for batch in features.batches(f"select {code} as code, feature.t, {listed} {rows_of}"):
            rows = slice(row, row + len(batch))
            for j in range(len(columns)):
                values[rows, j] = _floats(batch.column(2 + j))
            at = batch.column(0).to_numpy(), batch.column(1).to_numpy() - first
            position[at] = np.arange(row, row + len(batch), dtype=np.int32)
            row += len(batch)
        return _Block(values, position, first)


def _floats(column: pa.Array | pa.ChunkedArray) -> FloatArray:
    """Return a column as 32-bit numbers, null as NaN."""
    values: FloatArray = column.cast(pa.float32()).to_numpy(zero_copy_only=False)
    return values
