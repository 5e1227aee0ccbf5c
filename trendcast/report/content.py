"""What the report shows, read from the warehouse.

Shapes: N series, T periods.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trendcast import ledger
from trendcast.errors import TrendcastError, WarehouseError
from trendcast.warehouse import literal, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

Array = npt.NDArray[np.float64]

# The measure that has no sum.
PRICE = "average_price"
BANDS = ("lower_95", "lower_80", "upper_80", "upper_95")
# Columns of dim_series that are no attributes of the shop's.
STATE = (
    *("series_id", "products", "first_sale_date", "last_sale_date", "demand_class"),
    *("demand_level", "total_quantity", "total_revenue", "launch_date", "measure", "sales_id"),
)
# An attribute with more values than this is no filter.
FILTER_VALUES = 300
LISTED = 200
NEEDED = (
    *("dim_series", "fct_forecasts", "fct_forecast_explanations", "rpt_forecast_fan"),
    *("fct_forecast_accuracy", "fct_champions", "int_champion_backtests"),
)
# A project may have these switched off.
OPTIONAL = {"alerts": "fct_alerts", "reorder": "fct_reorder_recommendations"}


@dataclass(frozen=True)
class Block:
    """Values of every series on some of the dates.

    Parameters
    ----------
    at
        Positions of the columns on the axis of dates.
    values : array [N, T]
        NaN where there is none.
    base
        Name of the block these values are close to, for the page keeps the differences.
    """

    at: list[int]
    values: Array
    base: str | None = None


@dataclass
class Content:
    """All the report shows.

    Parameters
    ----------
    about
        Figures of the whole portfolio and of the run.
    dates
        The axis: first days of the periods.
    series
        Column name to one value per series; `series_id` is among them.
    blocks
        Name to values over dates, in units of the measure.
    promotions : array [N, T]
        Strength of the planned promotion on each date, 0 to 9, relative to the series' own strongest.
    """

    about: dict[str, Any]
    dates: list[dt.date]
    series: dict[str, list[Any]]
    blocks: dict[str, Block] = field(default_factory=dict)
    promotions: npt.NDArray[np.uint8] | None = None

    @property
    def n_series(self) -> int:
        """Series shown."""
        return len(self.series["series_id"])


def read(warehouse: Warehouse, project: Project, *, limit: int) -> Content:
    """Read the run in force from the marts, the ledger and the planned features.

    Raises
    ------
    TrendcastError
        There is no committed run.
    WarehouseError
        A mart is missing.
    """
    run = ledger.run_in_force(warehouse, project)
    enabled = [name for name in OPTIONAL.values() if name in project.relations]
    for name in (*NEEDED, *enabled):
        if not warehouse.exists(project.relation(name)):
            raise WarehouseError(
                f"The mart {project.relation(name)} does not exist. Run `trendcast run`, or "
                "`dbt build --select tag:trendcast_marts`, then report again."
            )
    return _Reader(warehouse, project, run, limit).content()


class _Reader:
    def __init__(
        self, warehouse: Warehouse, project: Project, run: dict[str, Any], limit: int
    ) -> None:
        self.warehouse, self.project, self.run = warehouse, project, run
        self.dim = self._query(
            f"""
            select * from (
                select
                    dim.*,
                    -- What is made of the same sales stands together.
                    max(total_revenue) over (partition by sales_id) as sales_revenue,
                    max(total_quantity) over (partition by sales_id) as sales_quantity
                from {self._at("dim_series")} as dim
            ) as dim
            order by sales_revenue desc nulls last, sales_quantity desc nulls last, sales_id, series_id
            limit ?
            """,
            limit,
        ).drop_columns(["sales_revenue", "sales_quantity"])
        self.names: list[str] = self.dim.column("series_id").to_pylist()
        self.row = {name: i for i, name in enumerate(self.names)}
        # Every other query is narrowed to the series shown.
        warehouse.lookup("shown", self.dim.select(["series_id"]))
        dates = self._query(
            f"select distinct ds from {self._at('rpt_forecast_fan')} where {self._shown()} order by ds"
        )
        self.dates: list[dt.date] = dates.column("ds").to_pylist()
        if not self.dates:
            raise TrendcastError(
                f"{self._at('rpt_forecast_fan')} has no row of a series in {self._at('dim_series')}: there is nothing "
                "to draw. Run `trendcast run`, or `dbt build --select tag:trendcast_marts`, then report again."
            )
        self.place = {date: i for i, date in enumerate(self.dates)}

    def _at(self, name: str) -> str:
        return self.project.relation(name)

    def _query(self, sql: str, *parameters: Any) -> pa.Table:
        return self.warehouse.query(sql, parameters)

    def _rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._query(sql, *parameters).to_pylist()
        return rows

    def _has(self, name: str) -> bool:
        """Whether the model is not switched off and was built."""
        return name in self.project.relations and self.warehouse.exists(self._at(name))

    @staticmethod
    def _shown() -> str:
        return "series_id in (select series_id from shown)"

    def _in_force(self) -> str:
        return f"(series_id, run_id) in (select series_id, run_id from {self._at('fct_forecasts')})"

    def content(self) -> Content:
        blocks = self._fan() | self._models() | self._backtests()
        return Content(
            about=self._about(),
            dates=self.dates,
            series=self._series(blocks),
            blocks=blocks,
            promotions=self._promotions(),
        )

    def _grid(self, rows: pa.Table, columns: Sequence[str]) -> tuple[list[int], list[Array]]:
        """Spread rows of series_id, ds and values over series and dates; dates off the axis are left out."""
        series, ds = (rows.column(c).combine_chunks() for c in ("series_id", "ds"))
        encoded = series.dictionary_encode()
        to_row = np.array([self.row[name] for name in encoded.dictionary.to_pylist()], np.int64)
        dated = ds.dictionary_encode()
        to_place = np.array(
            [self.place.get(date, -1) for date in dated.dictionary.to_pylist()], np.int64
        )
        at = sorted(place for place in to_place.tolist() if place >= 0)
        if not at:
            return [], [np.empty((len(self.names), 0)) for _ in columns]
        row = to_row[encoded.indices.to_numpy()]
        column = to_place[dated.indices.to_numpy()]
        kept = column >= 0
        column = np.searchsorted(at, column[kept])
        grids = []
        for name in columns:
            grid = np.full((len(self.names), len(at)), np.nan)
            values = rows.column(name).to_numpy(zero_copy_only=False).astype(np.float64)
            grid[row[kept], column] = values[kept]
            grids.append(grid)
        return at, grids

    def _fan(self) -> dict[str, Block]:
        """History, and the forecast in force with its bands."""
        fan = f"from {self._at('rpt_forecast_fan')} where {self._shown()}"
        at, (actual,) = self._grid(
            self._query(f"select series_id, ds, actual {fan} and kind = 'actual'"), ["actual"]
        )
        blocks = {"actual": Block(at, actual)}
        rows = self._query(
            f"select series_id, ds, mean, {', '.join(BANDS)} {fan} and kind = 'forecast'"
        )
        at, (mean, *bands) = self._grid(rows, ["mean", *BANDS])
        blocks["mean"] = Block(at, mean)
        for name, values in zip(BANDS, bands, strict=True):
            blocks[name] = Block(at, values, "mean")
        return blocks

    def _models(self) -> dict[str, Block]:
        """Means of every model of the run, the champion among them."""
        rows = self._query(
            f"""
            select model, series_id, target_date as ds, mean from {self._at("forecasts")}
            where {self._in_force()} and {self._shown()}
            """
        )
        blocks = {}
        models = rows.column("model")
        for model in sorted(set(models.to_pylist())):
            chosen = rows.filter(pc.equal(models, model))
            at, (mean,) = self._grid(chosen, ["mean"])
            blocks[f"model/{model}"] = Block(at, mean, "mean")
        return blocks

    def _backtests(self) -> dict[str, Block]:
        """What the champions would have forecast at earlier cutoffs."""
        rows = self._query(
            f"""
            select fold, series_id, target_date as ds, mean, q10 as lower_80, q90 as upper_80
            from {self._at("int_champion_backtests")} where {self._shown()}
            """
        )
        blocks = {}
        folds = rows.column("fold")
        for fold in sorted(set(folds.to_pylist())):
            chosen = rows.filter(pc.equal(folds, fold))
            at, (mean, lower, upper) = self._grid(chosen, ["mean", "lower_80", "upper_80"])
            if at:
                key = f"fold/{fold}"
                blocks[f"{key}/mean"] = Block(at, mean)
                blocks[f"{key}/lower_80"] = Block(at, lower, f"{key}/mean")
                blocks[f"{key}/upper_80"] = Block(at, upper, f"{key}/mean")
        return blocks

    def _promotions(self) -> npt.NDArray[np.uint8] | None:
        strength = "promotion_display + promotion_feature + promotion_discount"
        if not (self._has("ftr_known") and self._has("ftr_calendar")):
            return None
        rows = self._query(
            f"""
            select known.series_id, calendar.ds, {strength} as strength
            from {self._at("ftr_known")} as known
            inner join {self._at("ftr_calendar")} as calendar on known.t = calendar.t
            where known.series_id in (select series_id from shown) and {strength} > 0 and calendar.ds >= ?
            """,
            self.dates[0],
        )
        if not len(rows):
            return None
        at, (strengths,) = self._grid(rows, ["strength"])
        strengths = np.nan_to_num(strengths)
        strongest = np.maximum(strengths.max(axis=1, keepdims=True, initial=0), 1e-12)
        levels = np.zeros((len(self.names), len(self.dates)), np.uint8)
        levels[:, at] = np.ceil(strengths / strongest * 9)
        return levels

    # --- One value per series ---

    def _series(self, blocks: dict[str, Block]) -> dict[str, list[Any]]:
        mean, actual = blocks["mean"].values, blocks["actual"].values
        horizon = mean.shape[1]
        measures = self.dim.column("measure").to_pylist()
        # Prices have no sum: of them it is the mean.
        share = np.where(np.array(measures) == PRICE, 1 / horizon, 1.0)
        expected = np.nansum(mean, axis=1) * share
        recent = actual[:, -horizon:]
        # A series younger than that has no such sum, and a sum of nothing is no zero.
        whole = np.isfinite(recent).sum(axis=1) == horizon
        before = np.where(whole, recent.sum(axis=1) * share, np.nan)
        width = np.nansum(blocks["upper_80"].values - blocks["lower_80"].values, axis=1) * share
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.where(before > 0, expected / before - 1, np.nan)
            spread = np.where(expected > 0, width / expected, np.nan)
        columns: dict[str, list[Any]] = {
            "series_id": self.names,
            "demand_class": self.dim.column("demand_class").to_pylist(),
            "model": self._by_series(
                f"select series_id, max(model) as v from {self._at('fct_forecasts')} group by 1"
            ),
            "revenue": _short(self.dim.column("total_revenue").to_pylist()),
            "expected": _short(expected),
            "before": _short(before),
            "change": _short(change),
            "spread": _short(spread),
            "wape": _short(
                self._by_series(
                    f"""
                    select series_id, sum(abs(mean - actual)) / nullif(sum(actual), 0) as v
                    from {self._at("int_champion_backtests")} group by 1
                    """
                )
            ),
            "alerts": self._alerts_by_series(),
        }
        for name in self._attributes():
            values = self.dim.column(name).to_pylist()
            columns[f"attribute/{name}"] = [None if v is None else str(v) for v in values]
        if len(self.project.settings.measures) > 1:
            columns["measure"] = measures
        columns["explained"] = self._explanations(share)
        return columns

    def _alerts_by_series(self) -> list[int | None]:
        if OPTIONAL["alerts"] not in self.project.relations:
            return [None] * len(self.names)
        counts = self._by_series(
            f"select series_id, count(*) as v from {self._at(OPTIONAL['alerts'])} "
            "where series_id is not null group by 1"
        )
        return [count or 0 for count in counts]

    def _by_series(self, sql: str) -> list[Any]:
        found = {row["series_id"]: row["v"] for row in self._rows(sql)}
        return [found.get(name) for name in self.names]

    def _attributes(self) -> list[str]:
        """Columns worth a filter: with more values than one and fewer than there are series."""
        names = []
        for name in self.dim.column_names:
            if name in STATE:
                continue
            distinct = len(set(self.dim.column(name).to_pylist()))
            if 1 < distinct < min(len(self.names), FILTER_VALUES):
                names.append(name)
        return names

    def _explanations(self, share: Array) -> list[dict[str, float] | None]:
        """What each component adds to the forecast in force over the horizon, where the model that serves has explanations.

        Sums are multiplied with each series' share, [N].
        """
        rows = self._rows(
            f"""
            select series_id, component, sum(contribution) as v from {self._at("fct_forecast_explanations")}
            where {self._shown()} group by 1, 2 order by 1, 2
            """
        )
        found: dict[str, dict[str, float]] = {}
        for row in rows:
            value = _digits(row["v"] * share[self.row[row["series_id"]]])
            if value:
                found.setdefault(row["series_id"], {})[row["component"]] = value
        return [found.get(name) for name in self.names]

    # --- The portfolio ---

    def _about(self) -> dict[str, Any]:
        settings = self.project.settings
        parts = [self._of_measure(measure) for measure in settings.measures]
        return {
            "run_id": self.run["run_id"],
            "finished_at": self.run["finished_at"].isoformat(sep=" ", timespec="minutes"),
            "cutoff": str(self.run["cutoff"]),
            "grain": settings.grain,
            "horizon": settings.horizon,
            "season_length": settings.season_length,
            "n_series": self._rows(f"select count(*) as n from {self._at('dim_series')}")[0]["n"],
            # Those of the leading measure; of several, each.
            **parts[0],
            "measures": parts if len(parts) > 1 else [],
            "holidays": self._holidays(),
            "alerts": self._alerts(),
            "reorder": self._reorder(),
        }

    def _of_measure(self, measure: str) -> dict[str, Any]:
        """Return the figures that only make sense within a measure."""
        mine = f"measure = {literal(measure)}"
        accuracy = self._rows(
            f"""
            select model, n_forecasts, wape, baseline_wape, mase, wql, bias, coverage_50, coverage_80,
                coverage_90, coverage_95, forecast_value_added
            from {self._at("fct_forecast_accuracy")}
            where {mine} and demand_class = 'all' and lead_bucket = 'all' order by wql, model
            """
        )
        classes = self._rows(
            f"""
            select champions.demand_class, champions.model, accuracy.n_forecasts, accuracy.wape,
                accuracy.baseline_wape, accuracy.forecast_value_added, accuracy.coverage_80
            from {self._at("fct_champions")} as champions
            inner join {self._at("fct_forecast_accuracy")} as accuracy
                on champions.model = accuracy.model and champions.demand_class = accuracy.demand_class
                and champions.measure = accuracy.measure
            where champions.{mine} and champions.champion_rank = 1 and accuracy.lead_bucket = 'all'
            order by accuracy.total_actual desc, champions.demand_class
            """
        )
        served = self._rows(
            f"""
            select model, count(distinct series_id) as n_series
            from {self._at("fct_forecasts")} where {mine} group by 1 order by 2 desc, 1
            """
        )
        serving = self._rows(
            f"""
            select
                sum(abs(mean - actual)) / nullif(sum(actual), 0) as wape,
                avg(case when actual between q10 and q90 then 1.0 else 0.0 end) as coverage_80,
                avg(case when actual between q025 and q975 then 1.0 else 0.0 end) as coverage_95,
                count(distinct cutoff) as n_cutoffs, min(cutoff) as first_cutoff, max(cutoff) as last_cutoff
            from {self._at("int_champion_backtests")} where {mine}
            """
        )[0]
        return {
            "measure": measure,
            "accuracy": [_shortened(row) for row in accuracy],
            "classes": [_shortened(row) for row in classes],
            "served": served,
            "serving": _shortened(serving),
            "total": self._total(measure),
        }

    def _total(self, measure: str) -> dict[str, Any]:
        """Sums over all series, shown or not, of prices means; of expected values only, for bands do not add up."""
        mine = f"measure = {literal(measure)}"
        total = "avg" if measure == PRICE else "sum"
        rows = self._rows(
            f"""
            select ds, {total}(actual) as actual, {total}(mean) as mean
            from {self._at("rpt_forecast_fan")} where {mine} group by 1 order by 1
            """
        )
        backtest = self._rows(
            f"""
            select target_date as ds, fold, {total}(mean) as mean from {self._at("int_champion_backtests")}
            where {mine} group by 1, 2 order by 2 desc, 1
            """
        )
        # Where folds overlap the nearest cutoff counts: it is the one with the lower number.
        before = {row["ds"]: row["mean"] for row in backtest}
        return {
            "dates": [str(row["ds"]) for row in rows],
            "actual": _short([row["actual"] for row in rows]),
            "mean": _short([row["mean"] for row in rows]),
            "backtest": _short([before.get(row["ds"]) for row in rows]),
        }

    def _holidays(self) -> list[dict[str, Any]]:
        """Return holidays by the period they fall in."""
        if not self._has("int_holidays"):
            return []
        rows = self._rows(
            f"select date_day, name from {self._at('int_holidays')} where date_day >= ? order by date_day, name",
            self.dates[0],
        )
        found: dict[int, list[str]] = {}
        for row in rows:
            at = int(np.searchsorted(np.array(self.dates), row["date_day"], side="right")) - 1
            if at < len(self.dates) - 1 or row["date_day"] == self.dates[-1]:
                found.setdefault(at, []).append(row["name"])
        return [{"at": at, "name": ", ".join(names)} for at, names in found.items()]

    def _alerts(self) -> dict[str, Any] | None:
        """Return the alerts, or None where the mart is switched off."""
        if OPTIONAL["alerts"] not in self.project.relations:
            return None
        relation = self._at(OPTIONAL["alerts"])
        counts = self._rows(
            f"select alert, count(*) as n from {relation} group by 1 order by 2 desc, 1"
        )
        rows = self._rows(
            f"""
            select alert, subject, series_id, value, alert_limit, message from {relation}
            order by abs(value / nullif(alert_limit, 0)) desc nulls last, alert, subject limit {LISTED}
            """
        )
        return {"counts": counts, "rows": [_shortened(row) for row in rows]}

    def _reorder(self) -> dict[str, Any] | None:
        """Return what to order, or None where the mart is switched off."""
        if OPTIONAL["reorder"] not in self.project.relations:
            return None
        relation = self._at(OPTIONAL["reorder"])
        counts = self._rows(
            f"select action, count(*) as n from {relation} group by 1 order by 2 desc, 1"
        )
        columns = (
            *(
                "series_id",
                "action",
                "recommended_quantity",
                "order_value",
                "supplier",
                "stock_position",
            ),
            *("stockout_probability", "reorder_point", "order_up_to_level", "uses_defaults"),
        )
        rows = self._rows(
            f"""
            select {", ".join(quote(c) for c in columns)} from {relation}
            order by case action when 'order' then 0 when 'count_stock' then 1 else 2 end,
                order_value desc nulls last, reorder_point desc nulls last, series_id limit {LISTED}
            """
        )
        return {"counts": counts, "rows": [_shortened(row) for row in rows]}


def _digits(value: Any) -> Any:
    """Round to four significant digits; a number that is none is null."""
    if value is None or not np.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short


def _short(values: Any) -> list[Any]:
    return [_digits(v) for v in values]


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can hold it, its numbers with four digits."""
    return {
        key: _digits(value)
        if isinstance(value, float)
        else (str(value) if isinstance(value, dt.date) else value)
        for key, value in row.items()
    }
