"""An opened project, for notebooks and scripts; the command line calls the same methods.

`trendcast.open` makes one. Tables come back as pandas frames. Each call opens the warehouse and lets go of it, so that a
notebook left open holds nobody up.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trendcast import ledger, pipeline
from trendcast.errors import TrendcastError, UsageError, one_of
from trendcast.models import model_names
from trendcast.models.tables import QUANTILE_NAMES
from trendcast.portfolio import listed, narrowed
from trendcast.warehouse import literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import altair
    import pandas as pd

# A total in fct_forecast_accuracy.
ALL = "all"
ACCURACY_BY = ("demand_class", "lead_bucket")
FORECAST_COLUMNS = (
    *("series_id", "target_date", "lead", "cutoff", "model", "run_id", "mean"),
    *QUANTILE_NAMES,
)
# Charts in a row that can still be read.
PLOTTED = 12


class Session:
    """A project with its warehouse: run the main job, read what came of it, and draw it.

    Parameters
    ----------
    workspace
        What the pipeline works on.
    """

    def __init__(self, workspace: pipeline.Workspace) -> None:
        self.workspace = workspace

    # --- What the commands of the same names do ---

    def run(
        self,
        *,
        models: Sequence[str] | None = None,
        select: Sequence[str] = (),
        train: bool = True,
        series: Mapping[str, Any] | None = None,
        backtest: bool = True,
        full_refresh: bool = False,
        resume: bool = False,
        data_checks: bool = True,
    ) -> dict[str, Any]:
        """Build features, backtest, train, forecast, commit and build the marts; see `trendcast.pipeline.run`.

        Without ``train`` the stored models forecast what is new, and nothing is backtested: see `trendcast.pipeline.refresh`.
        Then ``series`` may name a part of the portfolio: ``{"department": "GROCERY"}``.
        """
        if not train and resume:
            raise UsageError(
                "Only a run that trains can be resumed: leave out --resume or --no-train."
            )
        if train and series:
            raise UsageError(
                "Models learn from the whole portfolio, so a part of it can be forecast but not trained on: add --no-train, or "
                "use `trendcast forecast`. For a portfolio that is smaller altogether there is the var order_scope."
            )
        if not train:
            return pipeline.refresh(
                self.workspace,
                models=models,
                select=select,
                series=series,
                full_refresh=full_refresh,
                data_checks=data_checks,
            )
        return pipeline.run(
            self.workspace,
            models=models,
            select=select,
            with_backtest=backtest,
            full_refresh=full_refresh,
            resume=resume,
            data_checks=data_checks,
        )

    def prepare(self) -> dict[str, Any]:
        """Make what dbt needs of a server and cannot make by itself, see `trendcast.pipeline.prepare`."""
        return pipeline.prepare(self.workspace)

    def load_demo(self) -> None:
        """Load the demo shop where dbt cannot, see `trendcast.pipeline.load_demo`."""
        pipeline.load_demo(self.workspace)

    def is_current(self) -> bool:
        """Whether the latest run used the features, models, settings, SQL and versions there are now."""
        return pipeline.is_current(self.workspace)

    def summary(self) -> dict[str, Any]:
        """Return what the latest run came to, see `trendcast.pipeline.summarize`."""
        self.workspace.progress.timings.clear()  # else the seconds would be those of this process
        return pipeline.summarize(self.workspace)

    def train(self, *, models: Sequence[str] | None = None) -> dict[str, Any]:
        """Train on the features as they are and keep the model files."""
        return pipeline.train(self.workspace, models=models)

    def backtest(self, *, models: Sequence[str] | None = None) -> dict[str, Any]:
        """Score the models at every fold's cutoff and write the ledger."""
        return pipeline.backtest(self.workspace, models=models)

    def rescore(
        self, *, models: Sequence[str] | None = None, series: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Forecast with the stored models and write the ledger: the command ``trendcast forecast``."""
        return pipeline.forecast(self.workspace, models=models, series=series)

    def tune(self, model: str, *, minutes: float = 30, trials: int | None = None) -> dict[str, Any]:
        """Search a model's settings on the older folds of the backtest; see `trendcast.pipeline.tune`."""
        return pipeline.tune(self.workspace, model, minutes=minutes, trials=trials)

    def customers(self) -> dict[str, Any]:
        """Rank what each customer buys next and write the ledger."""
        return pipeline.customers(self.workspace)

    def whatif(
        self,
        settings: Mapping[str, Any],
        *,
        where: Mapping[str, Any] | None = None,
        preview: bool = False,
    ) -> dict[str, Any]:
        """Write a scenario beside the forecast in force: ``whatif({"price": "-10%"}, where={"department": "GROCERY"})``.

        ``fct_scenarios`` has every series of it; see `trendcast.pipeline.whatif`.
        """
        return pipeline.whatif(self.workspace, settings, where=where, preview=preview)

    def runs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Return the ledger's runs, newest first, failed ones with their reason."""
        with self.workspace.connect() as warehouse:
            return ledger.runs(warehouse, self.workspace.project, limit)

    def prune(self, *, keep: int = 30, dry_run: bool = False) -> dict[str, Any]:
        """Drop the rows and model files of old runs that nothing reads any more."""
        from trendcast.prune import prune

        return prune(self.workspace, keep=keep, dry_run=dry_run)

    def audit(self, *, cuts: int = 1, seed: int | None = None) -> list[dict[str, Any]]:
        """Prove that no feature knows the future; a row with ``differing`` above 0 is a leak."""
        from trendcast.audit import audit

        return audit(self.workspace, cuts=cuts, seed=seed)

    def reproduce(self, run_id: str) -> dict[str, Any]:
        """Repeat a run with its recorded inputs, nothing published, and compare its forecasts."""
        from trendcast.reproduce import reproduce

        return reproduce(self.workspace, run_id)

    def publish(self, to: str | Path | None = None, *, keep: int = 3) -> dict[str, Any]:
        """Swap in a copy of the marts for BI tools."""
        from trendcast.publish import publish

        return publish(self.workspace, Path(to) if to else None, keep=keep)

    def report(
        self, out: str | Path = "trendcast_report.html", *, limit: int = 2000
    ) -> dict[str, Any]:
        """Write the forecast in force as one HTML file that opens offline."""
        from trendcast.report import write

        return write(self.workspace, Path(out), limit=limit)

    def simulate_inventory(self, *, cover_days: float = 7.0) -> dict[str, Any]:
        """Replay the order levels of the backtest beside min/max and the normal safety stock."""
        from trendcast.simulate import inventory

        return inventory(self.workspace, cover_days=cover_days)

    # --- What there is to read ---

    def series(self, **where: Any) -> pd.DataFrame:
        """Return the series with their attributes, the largest first.

        Parameters
        ----------
        where
            Value of a column of ``dim_series``, or a list of values: ``series(department="GROCERY")``.

        Raises
        ------
        UsageError
            A column does not exist, or a value is in no row of it; names the nearest.
        """
        relation = self._mart("dim_series")
        return self._frame(
            f"select * from {relation} where :narrowed order by total_quantity desc, series_id",
            relation,
            where,
        )

    def forecast(
        self, series: str | Iterable[str] | None = None, model: str | Iterable[str] | None = None
    ) -> pd.DataFrame:
        """Return the forecast in force: one row per series, model and target date, with quantiles.

        Parameters
        ----------
        series
            Ids; None for every series.
        model
            Models of the run in force; None for the one that serves each series.

        Raises
        ------
        UsageError
            There is no such series or model; names the nearest.
        TrendcastError
            The marts are not built, or a model is asked for and there is no run yet.
        """
        mart = self._mart("fct_forecasts")
        relation, of_models = mart, "true"
        if model is not None:
            models = listed(model)
            self._require_models(models, mart)
            relation = self.workspace.project.relation("forecasts")
            # Of the run that is in force for the series, which need not be the newest.
            of_models = (
                f"(series_id, run_id) in (select series_id, run_id from {mart}) "
                f"and model in ({', '.join(map(literal, models))})"
            )
        return self._frame(
            f"select {', '.join(FORECAST_COLUMNS)} from {relation} where {of_models} and :narrowed "
            "order by series_id, model, target_date",
            mart,
            {"series_id": series},
        )

    def actuals(self, series: str | Iterable[str] | None = None) -> pd.DataFrame:
        """Return what was sold up to the forecast's cutoff, as far back as charts show it: series_id, ds and actual."""
        relation = self._mart("rpt_forecast_fan")
        return self._frame(
            f"select series_id, ds, actual from {relation} "
            "where kind = 'actual' and :narrowed order by series_id, ds",
            relation,
            {"series_id": series},
        )

    def explanations(self, series: str | Iterable[str] | None = None) -> pd.DataFrame:
        """Return what the forecast in force is made of: series_id, target_date, model, component and contribution.

        Contributions are in units of the measure and add up to the mean. A forecast that its model cannot explain has no rows.
        """
        parts = self._mart("fct_forecast_explanations")
        return self._frame(
            f"select series_id, target_date, model, component, contribution from {parts} "
            "where :narrowed order by series_id, target_date, component",
            self._mart("fct_forecasts"),
            {"series_id": series},
        )

    def accuracy(self, by: str | Iterable[str] = ()) -> pd.DataFrame:
        """Return each model's errors and coverage in the latest backtest, by measure, the best first.

        Parameters
        ----------
        by
            ``demand_class``, ``lead_bucket`` or both: a row for each of their values instead of one for all.
        """
        asked = listed(by)
        for name in asked:
            if name not in ACCURACY_BY:
                raise one_of("grouping", name, list(ACCURACY_BY))
        conditions = [f"{name} {'<>' if name in asked else '='} '{ALL}'" for name in ACCURACY_BY]
        order = ", ".join(
            ["measure", *(name for name in ACCURACY_BY if name in asked), "wql", "model"]
        )
        return self._frame(
            f"select * from {self._mart('fct_forecast_accuracy')} where {' and '.join(conditions)} order by {order}"
        )

    def plot(
        self, series: str | Iterable[str], model: str | None = None
    ) -> altair.LayerChart | altair.ConcatChart:
        """Draw actuals and forecast with its 80% and 95% intervals, a chart for each series.

        Needs the extra `plot` (Altair). The chart shows itself in a notebook; ``.save("fan.html")`` writes it.

        Parameters
        ----------
        series
            Ids, twelve at most.
        model
            A model of the run in force; None for the one that serves each series.
        """
        from trendcast.plot import fan

        ids = listed(series)
        if not 0 < len(ids) <= PLOTTED:
            raise UsageError(
                f"plot() draws 1 to {PLOTTED} series; came: {len(ids)}. Choose some of them, or see `trendcast report`, "
                "which draws every one."
            )
        relation = self._mart("dim_series")
        rows = self._frame(
            f"select series_id, measure from {relation} where :narrowed",
            relation,
            {"series_id": ids},
        )
        measures = dict(zip(rows["series_id"], rows["measure"], strict=True))
        return fan(ids, self.actuals(ids), self.forecast(ids, model), measures)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what is forecast, the run in force, and how good each model was."""
        settings = self.workspace.project.settings
        about = [
            f"trendcast: {' and '.join(settings.measures)} by {', '.join(settings.series_key)} and {settings.grain}, "
            f"{settings.horizon} {settings.grain}s ahead ({self.workspace.output.get('path', '')})"
        ]
        table = ""
        try:
            with self.workspace.connect() as warehouse:
                run = ledger.run_in_force(warehouse, self.workspace.project)
            about.append(f"Run {run['run_id']}: {run['n_series']} series, after {run['cutoff']}")
            shown = ["measure"] if len(settings.measures) > 1 else []
            shown += ["model", "wape", "forecast_value_added", "wql", "bias", "coverage_80"]
            table = self.accuracy()[shown].to_html(index=False, float_format="{:.3f}".format)
        except TrendcastError as error:
            about.append(str(error))
        return "".join(f"<p>{html.escape(line)}</p>" for line in about) + table

    # --- How it is read ---

    def _frame(
        self, sql: str, relation: str = "", where: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return rows as a frame; ``:narrowed`` in the SQL is where the relation's columns have the values asked for."""
        with self.workspace.connect() as warehouse:
            if where is not None:
                sql = sql.replace(":narrowed", narrowed(warehouse, relation, where))
            frame: pd.DataFrame = warehouse.query(sql).to_pandas(date_as_object=False)
        return frame

    def _mart(self, name: str) -> str:
        """Return a mart's relation, which must be built."""
        relation = self.workspace.project.relation(name)
        with self.workspace.connect() as warehouse:
            if not warehouse.exists(relation):
                raise TrendcastError(
                    f"The mart {relation} is not built. Run `trendcast run`, or `dbt build` for the SQL baseline."
                )
        return relation

    def _require_models(self, models: Sequence[str], mart: str) -> None:
        """Refuse a model that does not exist, and one that no run in force has forecasts of."""
        for name in models:
            if name not in model_names():
                raise one_of("model", name, model_names())
        project = self.workspace.project
        with self.workspace.connect() as warehouse:
            run_id = ledger.run_in_force(warehouse, project)["run_id"]
            rows = warehouse.query(
                f"select distinct model from {project.relation('forecasts')} "
                f"where run_id in (select run_id from {mart})"
            )
        has = sorted(rows.column("model").to_pylist())
        for name in models:
            if name not in has:
                raise UsageError(f"Run {run_id} has no model {name!r}. It has: {', '.join(has)}.")
