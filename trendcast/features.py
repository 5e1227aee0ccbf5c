"""The features a model may see: queries, panel and design matrix over the tables dbt built."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trendcast.errors import DataError, UsageError
from trendcast.portfolio import listed, narrowed
from trendcast.warehouse import literal, quote

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from trendcast.panel import Panel
    from trendcast.project import Project
    from trendcast.warehouse import Warehouse


# Models with a row or more per series, which are narrowed to a measure's.
BY_SERIES = (
    *("int_series", "ftr_history", "ftr_known", "ftr_static"),
    *("ftr_cutoff", "ftr_design", "ftr_baseline", "ftr_analogy"),
)
PERIODS_A_YEAR = {"day": 365, "week": 52, "month": 12}
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

    def compute(self, sql: str, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Return the rows of a query on tables of this process alone; a large one is sent nowhere."""
        return self._warehouse.compute(sql, tables)

    @property
    def has_workers(self) -> bool:
        """Whether the engine can run a function where its rows are, see `by_shard`."""
        return self._warehouse.has_workers

    def by_shard(
        self,
        queries: Mapping[str, str],
        function: Callable[[Mapping[str, pa.Table]], pa.Table],
        schema: pa.Schema,
        shard_rows: int,
    ) -> pa.Table:
        """Return the rows a function makes of each shard of series, given the rows of several queries by name."""
        return self._warehouse.by_shard(queries, "series_id", function, schema, shard_rows)

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
            relations = dict(self.project.relations)
            # A launch that has not sold is no series yet; it is of the leading measure.
            others = "not in" if measure == measures[0] else "in"
            differs = "<>" if measure == measures[0] else "="
            mine = (
                f"series_id {others} (select series_id from {self.relation('int_series')} "
                f"where measure {differs} {literal(measure)})"
            )
            for name in BY_SERIES:
                view = quote(f"{name} of {measure}")
                self._warehouse.execute(
                    f"create or replace temporary view {view} as "
                    f"select * from {self.relation(name)} where {mine}"
                )
                relations[name] = view
            settings = replace(self.settings, measure=measure, measures=(measure,))
            project = replace(self.project, relations=relations, settings=settings)
            self._of[measure] = Features(self._warehouse, project)
        return self._of[measure]

    @cached_property
    def cutoffs(self) -> list[Cutoff]:
        """Every cutoff, fold 0 first."""
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
        """Whether all demand up to a period came in whole units."""
        rows = self.query(
            f"select count(*) as n from {self.relation('ftr_history')} where t <= ? and y <> floor(y)",
            [end_t],
        )
        return int(rows.column("n")[0].as_py()) == 0

    @cached_property
    def dates(self) -> dict[int, dt.date]:
        """First day of each period, by period index."""
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
