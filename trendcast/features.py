"""The features a model may see: queries, panel and design matrix over the tables dbt built."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from trendcast.errors import DataError, UsageError
from trendcast.models.spread import sampled
from trendcast.portfolio import listed, narrowed
from trendcast.warehouse import literal, quote

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from trendcast.panel import Panel
    from trendcast.project import Project
    from trendcast.warehouse import Warehouse


# Models with a row or more per series, which are narrowed to a measure's.
BY_SERIES = (
    *("int_series", "ftr_history", "ftr_known", "ftr_static"),
    *("ftr_cutoff", "ftr_design", "ftr_baseline", "ftr_analogy"),
)
PERIODS_A_YEAR = {"day": 365, "week": 52, "month": 12}
#: Rows of history that are held at once, about: what forecasts them, and what is made of that, is bounded by it.
PART_ROWS = 16_000_000
#: Rows that a worker of the engine holds at once, about.
SHARD_ROWS = 250_000
#: Series that a training reads: of a larger panel a seeded sample, or what is read would grow with it, whatever is learnt from.
TRAIN_SERIES = 50_000
#: Rows of history that a training reads which reads whole series.
TRAIN_ROWS = 16_000_000
LEVEL = "demand_level"
# Columns that name a series, and not what it is like.
NAMING = ("series_id", "measure")


@dataclass(frozen=True)
class Cutoff:
    """A cutoff of ``int_cutoffs``: fold 0 is forecast from, folds 1 and up are backtested, newest first."""

    fold: int
    t: int
    date: dt.date


class Features:
    """The one thing a model is given: it can ask for rows, and never sees the connection.

    Parameters
    ----------
    warehouse
        An open connection; read-only is enough.
    project
        Relations, settings and roles.
    """

    def __init__(self, warehouse: Warehouse, project: Project) -> None:
        self._warehouse = warehouse
        self.project = project
        self.settings = project.settings
        self._of: dict[str, Features] = {}
        self._samples: dict[str, Features] = {}
        self._in_whole_units: dict[int, bool] = {}
        # What these are a part of: tells what is the same for all of its series. None: they are no part.
        self._whole: Features | None = None
        self._label = ""

    def with_settings(self, **changes: Any) -> Features:
        """Return the same features under other settings; what has been read is not read again."""
        other = copy(self)
        other.settings = replace(self.settings, **changes)
        other.project = replace(self.project, settings=other.settings)
        other._of = {measure: part.with_settings(**changes) for measure, part in self._of.items()}
        return other

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the rows of a query on the feature tables."""
        return self._warehouse.query(sql, parameters)

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Return the rows of a query a batch at a time; no other query may run until they are read."""
        return self._warehouse.batches(sql)

    def lookup(self, name: str, rows: pa.Table) -> None:
        """Make a small table readable under ``name`` in later queries."""
        self._warehouse.lookup(name, rows)

    def held(self, name: str, rows: str | pa.Table) -> AbstractContextManager[None]:
        """Rows are readable under ``name`` inside: those of a query, made once, or of this process."""
        return self._warehouse.held(name, rows)

    @property
    def in_process(self) -> bool:
        """Whether the engine is in this process, so that rows are here whoever asks for them."""
        return self._warehouse.in_process

    @property
    def has_workers(self) -> bool:
        """Whether the engine can run a function where its rows are, see `by_shard`."""
        return self._warehouse.has_workers

    def by_shard(
        self,
        queries: Mapping[str, str],
        function: Callable[[Mapping[str, pa.Table]], pa.Table],
        schema: pa.Schema,
        n_rows: int | None = None,
    ) -> pa.Table:
        """Return the rows a function makes of each shard of series, given the rows of several queries by name.

        ``n_rows`` is how many there are at most; where it is not known they are counted.
        """
        return self._warehouse.by_shard(queries, "series_id", function, schema, SHARD_ROWS, n_rows)

    def text_order(self, expression: str) -> str:
        """SQL to order texts by as Python does."""
        return self._warehouse.text_order(expression)

    def relation(self, name: str) -> str:
        """Return the rendered relation name of a feature model."""
        return self.project.relation(name)

    def of(self, measure: str) -> Features:
        """Return the features of one measure's series: what a model is given, for models learn one measure at a time.

        Where there is no other these are all features; else its relations are views on this connection.
        """
        measures = self.settings.measures
        if measures == (measure,):
            return self
        if measure not in self._of:
            # A launch that has not sold is no series yet; it is of the leading measure.
            others = "not in" if measure == measures[0] else "in"
            differs = "<>" if measure == measures[0] else "="
            mine = (
                f"series_id {others} (select series_id from {self.relation('int_series')} "
                f"where measure {differs} {literal(measure)})"
            )
            found = self._narrowed(f"of {measure}", mine)
            found.settings = replace(self.settings, measure=measure, measures=(measure,))
            found.project = replace(found.project, settings=found.settings)
            found._whole = self._whole.of(measure) if self._whole else None
            self._of[measure] = found
        return self._of[measure]

    @cached_property
    def n_rows(self) -> int:
        """Rows of history of all series."""
        found = self.query(
            f"select sum(cast(? - first_t as bigint) + 1) as n from {self.relation('int_series')}",
            [self.last_cutoff.t],
        )
        return int(found.column("n")[0].as_py() or 0)

    @cached_property
    def _bounds(self) -> list[str]:
        """Ids of the series that parts begin with, but for the first part."""
        parts = -(-self.n_rows // PART_ROWS)
        if parts < 2:
            return []
        size = -(-self.n_series // parts)
        order = self.text_order("series_id")
        found = self.query(
            f"""
            select series_id
            from (
                select series_id, row_number() over (order by {order}) - 1 as place
                from {self.relation("int_series")}
            ) as placed
            where place > 0 and place % ? = 0
            order by {order}
            """,
            [size],
        )
        bounds: list[str] = found.column("series_id").to_pylist()
        return bounds

    @property
    def n_parts(self) -> int:
        """How many parts there are, see `part`."""
        return len(self._bounds) + 1

    def part(self, number: int) -> Features:
        """Return the features of some of the series, of about `PART_ROWS` rows of history; these themselves where there are no more.

        Parts follow each other in the order of ids. What is the same for all series, cutoffs for one, is that of the whole panel.

        Parameters
        ----------
        number
            From 0 to ``n_parts - 1``.
        """
        if not self._bounds:
            return self
        bounds = [None, *self._bounds, None]
        series = self.text_order("series_id")
        among = [
            f"{series} {comparison} {literal(bound)}"
            for comparison, bound in ((">=", bounds[number]), ("<", bounds[number + 1]))
            if bound is not None
        ]
        found = self._narrowed(f"part {number}", " and ".join(among))
        found._whole = self
        return found

    def sampled(self, end_t: int, seed: int, *, whole_history: bool = False) -> Features:
        """Return the features of a seeded sample of `TRAIN_SERIES` series; these themselves where there are no more.

        What is the same for all series is that of the whole panel, as in `part`.

        Parameters
        ----------
        end_t
            The sample is of series that had begun by then.
        whole_history
            For who reads every row of a series: there are about `TRAIN_ROWS` in all.
        """
        most = TRAIN_SERIES
        if whole_history and self.n_rows > TRAIN_ROWS:
            most = min(most, max(1, self.n_series * TRAIN_ROWS // self.n_rows))
        if self.n_series <= most:
            return self
        label = f"{most:d} begun by {end_t:d} drawn by {seed:d}"
        if label not in self._samples:
            begun = self.query(
                f"select series_id from {self.relation('int_series')} where first_t <= ? "
                f"order by {self.text_order('series_id')}",
                [end_t],
            )
            name = f"{self._label} {label}".strip().replace(" ", "_")
            self.lookup(name, begun.take(pa.array(sampled(len(begun), most, seed))))
            among = f"series_id in (select series_id from {quote(name)})"
            self._samples[label] = self._narrowed(label, among)
            self._samples[label]._whole = self
        found = copy(self._samples[label])  # what a training reads goes with it
        found.settings = self.settings
        found.project = replace(found.project, settings=self.settings)
        return found

    def _narrowed(self, label: str, condition: str) -> Features:
        """Return features whose relations are views, on this connection, of the series that a condition holds for."""
        label = f"{self._label} {label}".strip()
        relations = dict(self.project.relations)
        for name in BY_SERIES:
            if name not in relations:  # a worker has only what models read
                continue
            view = quote(f"{name} {label}")
            self._warehouse.execute(
                f"create or replace temporary view {view} as select * from {self.relation(name)} where {condition}"
            )
            relations[name] = view
        found = Features(self._warehouse, replace(self.project, relations=relations))
        found.settings, found._label = self.settings, label
        return found

    def has_history(self, cutoff_t: int) -> bool:
        """Whether any of the series had begun at a cutoff; of a part of the panel none may have."""
        sql = f"select 1 as n from {self.relation('ftr_cutoff')} where t = ? limit 1"
        return len(self.query(sql, [cutoff_t])) > 0

    def largest(self, cutoff_t: int, most: int) -> pa.Array:
        """Return the ids of the series of the whole panel with the highest demand level at a cutoff, at most so many, sorted."""
        if self._whole:
            return self._whole.largest(cutoff_t, most)
        order = self.text_order("series_id")
        found = self.query(
            f"select series_id from {self.relation('ftr_cutoff')} where t = ? "
            f"order by {quote(LEVEL)} desc, {order} limit {most:d}",
            [cutoff_t],
        )
        ids = found.column("series_id").combine_chunks()
        return ids.take(pc.array_sort_indices(ids))

    @cached_property
    def cutoffs(self) -> list[Cutoff]:
        """Every cutoff, fold 0 first."""
        if self._whole:
            return self._whole.cutoffs
        rows = self.query(
            f"select fold, cutoff_t, cutoff from {self.relation('int_cutoffs')} order by fold"
        ).to_pylist()
        if not rows:
            raise DataError(
                "There is no cutoff to forecast from: no order line was accepted, or the data ends before "
                "its first period is over. See int_order_lines_rejected for the reasons."
            )
        return [Cutoff(row["fold"], row["cutoff_t"], row["cutoff"]) for row in rows]

    @property
    def last_cutoff(self) -> Cutoff:
        """The cutoff to forecast from."""
        return self.cutoffs[0]

    @cached_property
    def first_t(self) -> int:
        """Period index of the first sale of all."""
        if self._whole:
            return self._whole.first_t
        sql = f"select min(first_t) as first_t from {self.relation('int_series')}"
        return int(self.query(sql).column("first_t")[0].as_py())

    @cached_property
    def series_id(self) -> pa.Array:
        """Ids of the series, sorted."""
        sql = f"select series_id from {self.relation('int_series')} order by series_id"
        return self.query(sql).column("series_id").combine_chunks()

    @cached_property
    def n_series(self) -> int:
        """Series in the panel."""
        sql = f"select count(*) as n from {self.relation('int_series')}"
        return int(self.query(sql).column("n")[0].as_py())

    def matching(self, where: Mapping[str, Any]) -> pa.Array:
        """Return the ids of the series whose columns of ``ftr_static`` have the values asked for, sorted.

        Raises
        ------
        UsageError
            There is no such column or value, or no series has all of them.
        """
        relation = self.relation("ftr_static")
        condition = narrowed(self._warehouse, relation, where)
        found = self.query(
            f"select series_id from {relation} where {condition} order by {self.text_order('series_id')}"
        )
        if not len(found):
            asked = ", ".join(f"{c}={'|'.join(listed(v))}" for c, v in where.items())
            raise UsageError(f"No series has all of {asked}; each of them has some.")
        return found.column("series_id").combine_chunks()

    def actuals(self, cutoff_t: int) -> pa.Table:
        """Return what happened after a cutoff: one row per series and lead, ordered by them; null where it has yet to."""
        return self.query(
            f"""
            select
                baseline.series_id, baseline.lead, baseline.demand_class, baseline.error_scale, history.actual
            from {self.relation("ftr_baseline")} as baseline
            left join {self.relation("ftr_history")} as history
                on baseline.series_id = history.series_id and baseline.target_t = history.t
            where baseline.cutoff_t = ?
            order by {self.text_order("baseline.series_id")}, baseline.lead
            """,
            [cutoff_t],
        )

    def in_whole_units(self, end_t: int) -> bool:
        """Whether all demand of the whole panel up to a period came in whole units."""
        if self._whole:
            return self._whole.in_whole_units(end_t)
        if end_t not in self._in_whole_units:
            rows = self.query(
                f"select count(*) as n from {self.relation('ftr_history')} where t <= ? and y <> floor(y)",
                [end_t],
            )
            self._in_whole_units[end_t] = int(rows.column("n")[0].as_py()) == 0
        return self._in_whole_units[end_t]

    @cached_property
    def dates(self) -> dict[int, dt.date]:
        """First day of each period, by period index."""
        if self._whole:
            return self._whole.dates
        rows = self.query(f"select t, ds from {self.relation('ftr_calendar')} order by t")
        return dict(zip(rows.column("t").to_pylist(), rows.column("ds").to_pylist(), strict=True))

    @cached_property
    def panel(self) -> Panel:
        """The whole panel as contiguous arrays, pulled once and without an order, which the engine would have to sort for."""
        from trendcast.panel import Panel, Roles

        history = self.project.with_role("history", "season")
        known = self.project.with_role("known")
        by_series = [quote(c.name) for c in known if c.model == "ftr_known"]
        by_date = [quote(c.name) for c in known if c.model == "ftr_calendar"]
        static = self.static_columns
        history_columns = ", ".join(
            ["series_id", "t", "y", *(quote(c.name) for c in history if c.name != "y")]
        )
        return Panel.read(
            self.query(
                f"select series_id, min(t) as first, max(t) as last from {self.relation('ftr_history')} "
                f"group by 1 order by {self.text_order('series_id')}"
            ),
            self.batches(f"select {history_columns} from {self.relation('ftr_history')}"),
            self.batches(
                f"select {', '.join(['series_id', 't', *by_series])} from {self.relation('ftr_known')}"
            ),
            # Apart, or what is the same for all series would go through the engine once for each.
            self.query(f"select {', '.join(['t', *by_date])} from {self.relation('ftr_calendar')}"),
            self.query(
                f"select {', '.join(['series_id', *map(quote, static)])} "
                f"from {self.relation('ftr_static')}"
            ),
            Roles(
                history={c.name: c.unit for c in history if c.role == "history"},
                season={c.name: c.unit for c in history if c.role == "season"},
                known=[c.name for c in known],
                static=static,
                needs=self._needs(),
            ),
            season_length=self.settings.season_length,
            horizon=self.settings.horizon,
        )

    def too_young(self, end_t: int, window: int | None = None) -> set[str]:
        """Known columns that the history up to a period, or the window of it that is learnt from, is too short to tell anything of."""
        periods = end_t + 1 - self.first_t
        if window is not None:
            periods = min(periods, window)
        return {name for name, needed in self._needs().items() if needed > periods}

    def _needs(self) -> dict[str, int]:
        """Periods of history that known columns need, of those that need any."""
        year = PERIODS_A_YEAR[self.settings.grain]
        known = self.project.with_role("known", wide=True)
        return {c.name: c.needs_years * year for c in known if c.needs_years}

    @cached_property
    def static_columns(self) -> list[str]:
        """Categories that describe a series: the text columns of ``ftr_static``."""
        relation = self.relation("ftr_static")
        text = ("VARCHAR", "TEXT", "STRING")
        columns = self._warehouse.columns(relation)
        return [
            name for name, kind in columns.items() if name not in NAMING and kind.upper() in text
        ]
