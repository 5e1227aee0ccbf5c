"""The main job: features, backtest, training, forecast, marts; and its steps as commands of their own."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import trendcast
from trendcast import ensemble, holidays, ledger, next_purchase, shards
from trendcast import tune as tuning
from trendcast import whatif as scenarios
from trendcast.checks import (
    DEMO_SCHEMA,
    OVERRIDE,
    check_contracts,
    check_orders,
    check_panel,
    check_plan,
    source_columns,
)
from trendcast.dbt import BEFORE_LEDGER, FROM_LEDGER, Dbt
from trendcast.errors import ArtifactError, DataError, Stopped, TrendcastError, UsageError, one_of
from trendcast.features import Features
from trendcast.models import ANALOGY, BASELINE, ENSEMBLE, check_model_settings, create, model_names
from trendcast.models.backend import DEVICE, REPLICAS, cores
from trendcast.models.by_measure import in_order, of_measure
from trendcast.models.tables import FORECAST_SCHEMA, QUANTILE_NAMES
from trendcast.portfolio import listed
from trendcast.progress import Progress
from trendcast.project import Project, find_profiles_dir, find_project_dir, read_output
from trendcast.vars import check_vars, resolved_vars
from trendcast.warehouse import connect, is_server, place, run_alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trendcast.features import Cutoff
    from trendcast.models import Model
    from trendcast.warehouse import Warehouse

LIBRARIES = (
    "dbt-core",
    "dbt-duckdb",
    "duckdb",
    "keras",
    "lightgbm",
    "numpy",
    "pyarrow",
    "tensorflow",
)
FINGERPRINTED = (
    *("ftr_history", "ftr_known", "ftr_calendar", "ftr_static"),
    *("ftr_category", "ftr_analogy", "int_cutoffs"),
)


@dataclass
class Workspace:
    """A dbt project, its warehouse and where model files are kept.

    Parameters
    ----------
    dbt
        How to call dbt.
    output
        The rendered profile output.
    project
        What the manifest says.
    artifacts_dir
        Parent of the runs' folders.
    """

    dbt: Dbt
    output: dict[str, Any]
    project: Project
    artifacts_dir: Path
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def open(
        cls,
        *,
        project_dir: Path | None = None,
        profiles_dir: Path | None = None,
        target: str | None = None,
        vars: dict[str, Any] | None = None,
        artifacts_dir: Path | None = None,
        target_path: Path | None = None,
    ) -> Workspace:
        """Find the project and its profile, and have dbt parse it with the vars given."""
        project_dir = find_project_dir(project_dir)
        profiles_dir = find_profiles_dir(profiles_dir, project_dir)
        output = read_output(project_dir, profiles_dir, target)
        check_vars(project_dir, vars or {})
        dbt = Dbt(project_dir, profiles_dir, target, vars or {}, target_path)
        progress = Progress()
        with progress.phase("parse"):
            project = Project.from_manifest(dbt.parse())
        check_model_settings(project.settings)
        return cls(dbt, output, project, artifacts_dir or default_artifacts_dir(output), progress)

    def connect(self, *, read_only: bool = True) -> Warehouse:
        """Open the warehouse."""
        return connect(self.output, read_only=read_only)

    def models(self, names: Sequence[str] | None) -> list[str]:
        """Return the models to use, the baseline always among them and first; unknown names are errors."""
        chosen = list(names or self.project.settings.models)
        for name in chosen:
            if name not in model_names():
                raise one_of("model", name, model_names())
        found = [BASELINE, *dict.fromkeys(name for name in chosen if name != BASELINE)]
        if ENSEMBLE in found and len(members(found)) < 2:
            raise UsageError(
                f"The model {ENSEMBLE} combines others than {BASELINE} and {ANALOGY}, and needs two of them; came: "
                f"{', '.join(chosen)}. Add models, or leave {ENSEMBLE} out."
            )
        return found


def members(names: Sequence[str]) -> list[str]:
    """Return the models an ensemble of these combines: all but itself, the baseline and what forecasts few series only."""
    return [name for name in names if name not in (BASELINE, ANALOGY, ENSEMBLE)]


def default_artifacts_dir(output: dict[str, Any]) -> Path:
    """Return ``trendcast_artifacts`` beside the warehouse file, or in the working directory."""
    path = output.get("path")
    folder = Path(path).parent if path and path != ":memory:" else Path()
    return folder / "trendcast_artifacts"


# --- Commands ---


def run(
    workspace: Workspace,
    *,
    models: Sequence[str] | None = None,
    select: Sequence[str] = (),
    with_backtest: bool = True,
    full_refresh: bool = False,
    resume: bool = False,
    data_checks: bool = True,
) -> dict[str, Any]:
    """Build features, backtest, train, forecast, commit, and build the marts on the result.

    Rows of the panel that earlier runs built are kept, unless their SQL or settings were others or ``full_refresh``
    asks for all of them anew. With ``resume``, what an earlier run finished before it failed is not done again.
    Without ``data_checks``, old, few or retyped data do not stop it.

    Returns
    -------
    dict
        The run's summary, as `summarize` gives it; when resumed with ``resumed``: what was kept of which run.
    """
    names = workspace.models(models)
    check_selection(workspace, select)
    chosen = {"backtest": with_backtest, "select": list(select), "full_refresh": full_refresh}
    notes: list[str] = []
    left = _leftover(workspace, names, with_backtest) if resume else None
    resumed: dict[str, Any] = {}
    if left or not resume:
        with _run(workspace, "run", names, left, chosen) as (current, progress):
            notes = _check_contracts(workspace, current, enforced=data_checks)
            anew = full_refresh or _was_made_with_other_sql(workspace)
            _build(workspace, BEFORE_LEDGER, select, "features", full_refresh=anew)
            with _features(workspace, current, folds=with_backtest) as features:
                notes += check_plan(features)
                identity = _identity(current.header, _asked(with_backtest))
                if left:
                    _require_same(left, identity)
                    resumed = {"run_id": left.directory.name, "steps": current.adopt(left)}
                current.can_be_resumed_as(identity)
                last = None if with_backtest else _last_ensemble(workspace, features, names)
                learn(features, current, names, progress, with_backtest, last)
    _build(workspace, FROM_LEDGER, select, "marts")
    summary = summarize(workspace)
    if notes:
        summary["notes"] = notes
    if resume:
        summary["resumed"] = resumed or {"run_id": summary["run_id"], "steps": ["committed"]}
    return summary


def backtest(workspace: Workspace, *, models: Sequence[str] | None = None) -> dict[str, Any]:
    """Score the models at every fold's cutoff; reads the features as they are."""
    names = workspace.models(models)
    with (
        _run(workspace, "backtest", names) as (current, progress),
        _features(workspace, current, folds=True) as features,
    ):
        _backtest(features, current, names, progress)
    return _told(current, progress)


def train(workspace: Workspace, *, models: Sequence[str] | None = None) -> dict[str, Any]:
    """Train on everything up to the last cutoff and keep the models' files."""
    names = workspace.models(models)
    with (
        _run(workspace, "train", names) as (current, progress),
        _features(workspace, current, folds=False) as features,
    ):
        _train(features, current, names, progress)
        _keep_ensemble(features, current, _last_ensemble(workspace, features, names))
    return _told(current, progress)


def forecast(
    workspace: Workspace,
    *,
    models: Sequence[str] | None = None,
    series: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Forecast from the last cutoff with the models of the latest training; nothing is trained or built.

    Parameters
    ----------
    series
        The part of the portfolio to forecast: columns of ``ftr_static`` with the values wanted. The other series keep the
        forecasts they have. None for all.
    """
    names = workspace.models(models)
    with _run(workspace, "forecast", names) as (current, progress):
        _rescore(workspace, current, names, progress, series)
    return _told(current, progress)


def refresh(
    workspace: Workspace,
    *,
    models: Sequence[str] | None = None,
    select: Sequence[str] = (),
    series: Mapping[str, Any] | None = None,
    full_refresh: bool = False,
    data_checks: bool = True,
) -> dict[str, Any]:
    """Build features of what is new, forecast with the models of the latest training, and build the marts on the result.

    Returns
    -------
    dict
        The run's summary, as `summarize` gives it.
    """
    names = workspace.models(models)
    check_selection(workspace, select)
    chosen = {"select": list(select), "full_refresh": full_refresh}
    with _run(workspace, "forecast", names, None, chosen) as (current, progress):
        notes = _check_contracts(workspace, current, enforced=data_checks)
        anew = full_refresh or _was_made_with_other_sql(workspace)
        _build(workspace, BEFORE_LEDGER, select, "features", full_refresh=anew)
        with workspace.connect() as warehouse:
            notes += check_plan(Features(warehouse, workspace.project))
        trained = _rescore(workspace, current, names, progress, series)
        if trained["config_fingerprint"] != current.header["config_fingerprint"]:
            notes.append(
                f"The models were trained with other SQL or settings than there are now (run {trained['run_id']}). If that "
                "changed what features mean, train again: `trendcast run`."
            )
    _build(workspace, FROM_LEDGER, select, "marts")
    return summarize(workspace) | ({"notes": notes} if notes else {})


def tune(
    workspace: Workspace, model: str, *, minutes: float = 30, trials: int | None = None
) -> dict[str, Any]:
    """Search a model's settings on the folds of the backtest but for the newest, which judges them.

    A study is gone on with as long as features, settings and versions are the same, after a stop or a crash too. Told to stop, it
    keeps the trials that are done.

    Parameters
    ----------
    model
        Its name.
    minutes
        No trial is begun that would probably end later.
    trials
        Most trials to make now.

    Returns
    -------
    dict
        The run; ``study_id``, ``trials`` (all of the study), ``made`` (now), ``current`` and ``best`` with their losses, ``stopped``.
    """
    tuning.space_of(model)
    tuning.require_optuna()
    command = f"tune {model}"
    left = _left_of(workspace, command)
    with _run(workspace, "tune", [model], left) as (current, progress):
        with _features(workspace, current, folds=True) as features:
            identity = _identity(current.header, command)
            study_id = ledger.digest_text(json.dumps(identity, sort_keys=True))[:12]
            if left and left.identity == identity:
                current.adopt(left)
            current.can_be_resumed_as(identity)
            past = _trials(workspace, study_id, current)

            def keep(trial: tuning.Trial) -> None:
                current.stage("tuning_trials", trial.table(), model=model, trial=trial.trial)

            with progress.phase(f"tune {model}"):
                search = tuning.Search(features, model, study_id, past, keep, progress.update)
                stopped = False
                try:
                    search.go(minutes * 60, trials)
                except Stopped:
                    if not search.trials:
                        raise
                    stopped = True
    return _told(current, progress) | {
        "model": model,
        "study_id": study_id,
        "trials": [asdict(trial) for trial in search.trials],
        "made": len(search.trials) - len(past),
        "current": asdict(search.current) if search.current else None,
        "best": asdict(search.best) if search.best else None,
        "stopped": stopped,
    }


def customers(workspace: Workspace) -> dict[str, Any]:
    """Rank what each customer buys next, and build the marts on it; reads the customers' tables as they are.

    Returns
    -------
    dict
        The run, the blend's weights and the rows of ``fct_next_purchase_accuracy``.
    """
    project = workspace.project
    if not project.settings.order_columns.get("customer_id"):
        raise DataError(
            "The var `order_columns` maps no customer_id, so nobody knows who bought what. Map it to the column of the orders "
            "that names the customer, run `trendcast run`, then this again. Without it the customers' marts stay empty."
        )
    models = [next_purchase.RECURRENT, next_purchase.BLEND]
    with _run(workspace, "customers", models) as (current, progress):
        with progress.phase("next purchases"), workspace.connect() as warehouse:
            tables, weights = next_purchase.learn(
                warehouse, project, project.settings.seed, progress.update
            )
        for (fold, model), rows in tables.items():
            current.stage("next_purchases", rows, fold=fold, model=model)
        current.header |= {
            "cutoff": tables[0, next_purchase.BLEND].column("cutoff")[0].as_py(),
            "settings": json.dumps(
                project.settings.__dict__ | {"blend_weights": weights}, default=list
            ),
        }
    _build(workspace, ("next_purchases+",), (), "marts")
    with workspace.connect() as warehouse:
        accuracy = warehouse.query(
            f"select * from {project.relation('fct_next_purchase_accuracy')} order by fold desc, ndcg desc, method"
        ).to_pylist()
    return _told(current, progress) | {"weights": weights, "accuracy": accuracy}


def whatif(
    workspace: Workspace,
    settings: Mapping[str, Any],
    *,
    where: Mapping[str, Any] | None = None,
    preview: bool = False,
) -> dict[str, Any]:
    """Write a scenario, other prices or a promotion, into the ledger, beside the forecast in force; nothing is built.

    Parameters
    ----------
    settings
        What is set, see `trendcast.whatif.parse`.
    where
        Columns of ``dim_series`` with the values wanted; None for every series.
    preview
        Tell what it would be about, and write nothing.

    Returns
    -------
    dict
        What the scenario is about; with what came of it, unless it is a preview.
    """
    project = workspace.project
    where = {column: value for column, value in (where or {}).items() if value is not None}
    change = scenarios.parse(settings)
    with workspace.connect() as warehouse:
        planned = scenarios.plan(warehouse, project, change, where)
        about = scenarios.described(warehouse, planned)
    if preview:
        return about | {"run_id": None}
    with _run(workspace, "whatif", []) as (current, progress):
        current.header |= {
            "cutoff": planned.rows.column("cutoff")[0].as_py(),
            "n_series": len(planned.rows),
            "series_filter": json.dumps({k: listed(v) for k, v in where.items()})
            if where
            else None,
            "inputs": json.dumps(json.loads(current.header["inputs"]) | {"set": dict(settings)}),
        }
        current.stage("scenarios", planned.rows)
    with workspace.connect() as warehouse:
        found = scenarios.outcome(warehouse, project, current.run_id)
    return _told(current, progress) | about | found


# --- Steps ---


def _rescore(
    workspace: Workspace,
    current: ledger.Run,
    names: Sequence[str],
    progress: Progress,
    series: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Stage what the stored models forecast, of a part of the portfolio where one is asked for; return whose models."""
    with _features(workspace, current, folds=False) as features:
        ids = features.matching(series) if series else None
        if ids is not None:
            wanted = {column: listed(value) for column, value in (series or {}).items()}
            current.header |= {"series_filter": json.dumps(wanted), "n_series": len(ids)}
        with workspace.connect() as warehouse:
            trained = ledger.trained_run(warehouse, workspace.project, list(names))
        current.header["trained_run_id"] = trained["run_id"]
        loaded, combined = [], None
        for name in names:
            directory = ledger.verified_directory(workspace.artifacts_dir, trained, name)
            if name == ENSEMBLE:
                combined = ensemble.Ensembles.load(directory, features.settings.measures)
                continue
            model = create(name, features.settings.measures)
            model.load(directory)
            loaded.append(model)
        _forecast(features, current, loaded, combined, progress, ids)
    return trained


def learn(
    features: Features,
    current: ledger.Run,
    names: Sequence[str],
    progress: Progress,
    with_backtest: bool,
    combined: ensemble.Ensembles | None,
) -> None:
    """Stage all that a run makes of its features; the ensemble given is for a run that does not backtest."""
    if with_backtest:
        combined = _backtest(features, current, names, progress)
    _keep_ensemble(features, current, combined)
    trained = _train(features, current, names, progress)
    _forecast(features, current, trained, combined, progress)


def _backtest(
    features: Features, current: ledger.Run, names: Sequence[str], progress: Progress
) -> ensemble.Ensembles | None:
    """Stage every model's forecasts at every fold's cutoff, with what happened beside them.

    Returns
    -------
    Ensembles or None
        What the folds teach about combining the models, for the last cutoff; None if that is not wanted.
    """
    folds = features.cutoffs[1:]
    numbers = range(features.n_parts)

    @lru_cache(maxsize=max(len(folds), 1))
    def actuals(cutoff_t: int, number: int) -> pa.Table:
        return features.part(number).actuals(cutoff_t)

    for name in (name for name in names if name != ENSEMBLE):
        with progress.phase(f"backtest {name}"):
            model = create(name, features.settings.measures)
            left = {
                fold: missing
                for fold in folds
                if (missing := _missing(current, "backtests", numbers, fold=fold.fold, model=name))
            }
            if left and not model.refits_each_fold:
                # Trained once, on what the earliest fold may know: later folds only test it harder.
                filled = current.checkpoint(name)
                if filled:
                    model.load(filled)
                else:
                    _fit(model, features, folds[-1].t, progress)
                    current.keep_checkpoint(name, model.save)

            def fit(fold: Cutoff, model: Model = model) -> None:
                _fit(model, features, fold.t, progress)

            for fold, number, rows in shards.backtest(model, features, left, fit):
                came = (
                    _newcomers(features.part(number), fold.t)
                    if name == ANALOGY
                    else actuals(fold.t, number)
                )
                current.stage(
                    "backtests", _beside(rows, came, name), number, fold=fold.fold, model=name
                )

    if ENSEMBLE not in names:
        return None
    if current.has_trained(ENSEMBLE):
        return ensemble.Ensembles.load(current.directory / ENSEMBLE, features.settings.measures)
    if current.has("backtests", fold=folds[-1].fold, model=ENSEMBLE):  # the oldest, its first part
        current.drop_from(ENSEMBLE)  # each fold builds on the one before, and it costs little
    with progress.phase(f"backtest {ENSEMBLE}"):
        return _backtest_ensemble(features, current, names)


def _backtest_ensemble(
    features: Features, current: ledger.Run, names: Sequence[str]
) -> ensemble.Ensembles:
    """Combine the members' staged forecasts, oldest fold first, each with what only older targets taught."""
    settings = features.settings
    borrows, names = ANALOGY in names, members(names)
    folds = sorted(features.cutoffs[1:], key=lambda fold: fold.t)
    walks = {}
    for measure in settings.measures:
        counts = features.of(measure).in_whole_units(folds[0].t)
        walks[measure] = ensemble.Backtest(
            names, counts=counts, horizon=settings.horizon, medium=settings.windows[1]
        )
    for fold in folds:
        found = {measure: walk.ensemble(fold.t) for measure, walk in walks.items()}
        for number in range(features.n_parts):
            part = features.part(number)
            tables = [
                current.staged("backtests", number, fold=fold.fold, model=name) for name in names
            ]
            parts = []
            for measure, walk in walks.items():
                mine = _of_measure(part, measure, tables)
                about = mine[0]
                rows = ensemble.Rows.of(mine, about, settings.lead_bucket, counts=walk.counts)
                combined = found[measure].combine(rows)
                walk.remember(fold.t, rows, found[measure], features.n_parts)
                quantiles = found[measure].finish(combined)
                table = ensemble.table_of(about, combined.mean[0], quantiles)
                for name in ("demand_class", "error_scale", "actual"):
                    table = table.append_column(name, about.column(name))
                if borrows:
                    analogy = _by_analogy(part, measure, fold.t)
                    walk.remember_new(fold.t, table, analogy)
                    table, _ = _drawn(features, found[measure], table, None, analogy)
                parts.append(table)
            current.stage("backtests", in_order(parts), number, fold=fold.fold, model=ENSEMBLE)
        _stage_weights(features, current, ensemble.Ensembles(found), fold.fold)
    last = features.last_cutoff.t
    return ensemble.Ensembles({measure: walk.ensemble(last) for measure, walk in walks.items()})


def _of_measure(features: Features, measure: str, tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return the rows of tables that are of a measure's series."""
    if len(features.settings.measures) == 1:
        return list(tables)
    ids = features.of(measure).series_id
    return [table.filter(pc.is_in(table.column("series_id"), ids)) for table in tables]


def _by_analogy(features: Features, measure: str, cutoff_t: int) -> pa.Table:
    """Return the forecasts by analogy of a measure's new series."""
    analogy = features.query(
        f"""
        select series_id, lead, mean, {", ".join(QUANTILE_NAMES)}, evidence_periods
        from {features.relation("ftr_analogy")}
        where cutoff_t = ? and demand_class = 'new'
        order by series_id, lead
        """,
        [cutoff_t],
    )
    return _of_measure(features, measure, [analogy])[0]


def _drawn(
    features: Features,
    found: ensemble.Ensemble,
    table: pa.Table,
    explained: pa.Table | None,
    analogy: pa.Table,
) -> tuple[pa.Table, pa.Table | None]:
    """Draw an ensemble's forecasts of new series, and their explanations, to those by analogy."""
    prior = found.prior_share * features.settings.windows[1]
    return ensemble.drawn_to_neighbours(table, explained, analogy, prior, counts=found.counts)


def _stage_weights(
    features: Features, current: ledger.Run, found: ensemble.Ensembles, fold: int
) -> None:
    n_buckets = -(-features.settings.horizon // features.settings.lead_bucket)
    current.stage("weights", found.weights_table(n_buckets), fold=fold, model=ENSEMBLE)


def _trials(workspace: Workspace, study_id: str, current: ledger.Run) -> list[tuning.Trial]:
    """Return the trials of a study that there are: in the ledger, and staged by a process that did not get to commit them."""
    names = [field.name for field in fields(tuning.Trial)]
    with workspace.connect() as warehouse:
        rows = warehouse.query(
            f"select * from {workspace.project.relation('tuning_trials')} where study_id = ?",
            [study_id],
        )
    found = rows.select(names).to_pylist()
    for table in current.every("tuning_trials"):
        found += table.drop_columns(["model"]).to_pylist()
    return [tuning.Trial(**row) for row in found]


def _last_ensemble(
    workspace: Workspace, features: Features, names: Sequence[str]
) -> ensemble.Ensembles | None:
    """Return the ensemble as the latest run with these models learnt it; with equal weights where there is none."""
    if ENSEMBLE not in names:
        return None
    try:
        with workspace.connect() as warehouse:
            run = ledger.trained_run(warehouse, workspace.project, list(names))
        directory = ledger.verified_directory(workspace.artifacts_dir, run, ENSEMBLE)
        found = ensemble.Ensembles.load(directory, features.settings.measures)
        if found.members == tuple(members(names)):
            return found
    except ArtifactError:
        pass  # never run with these models, or its files are gone: equal weights need neither
    last = features.last_cutoff.t
    return ensemble.Ensembles(
        {
            measure: ensemble.Ensemble(
                tuple(members(names)), features.of(measure).in_whole_units(last)
            )
            for measure in features.settings.measures
        }
    )


def _keep_ensemble(
    features: Features, current: ledger.Run, combined: ensemble.Ensembles | None
) -> None:
    """Write the ensemble's file and its weights, so that `forecast` and an auditor find them."""
    if combined is None:
        return
    if not current.has_trained(ENSEMBLE):
        with current.model_directory(ENSEMBLE) as directory:
            current.add_artifacts(ENSEMBLE, combined.save(directory))
    if not current.has("weights", fold=0, model=ENSEMBLE):
        _stage_weights(features, current, combined, 0)


def _newcomers(features: Features, cutoff_t: int) -> pa.Table:
    """As `Features.actuals`, of the series forecast by analogy; a planned series that has not sold yet sold nothing."""
    return features.query(
        f"""
        select
            analogy.series_id, analogy.lead, analogy.demand_class, analogy.error_scale,
            case
                when analogy.target_t < coalesce(series.first_t, analogy.target_t + 1) and analogy.target_t <= ? then 0.0
                else history.actual
            end as actual
        from {features.relation("ftr_analogy")} as analogy
        left join {features.relation("int_series")} as series on analogy.series_id = series.series_id
        left join {features.relation("ftr_history")} as history
            on analogy.series_id = history.series_id and analogy.target_t = history.t
        where analogy.cutoff_t = ?
        order by analogy.series_id, analogy.lead
        """,
        [features.last_cutoff.t, cutoff_t],
    )


def _beside(rows: pa.Table, actuals: pa.Table, model: str) -> pa.Table:
    """Put actuals beside forecasts; both are ordered by series and lead and must have the same keys.

    Folds closer together than the horizon have leads that have not come to pass; those are left out.
    """
    _check_keys(rows, actuals, model)
    for name in ("demand_class", "error_scale", "actual"):
        rows = rows.append_column(name, actuals.column(name))
    return rows.filter(rows.column("actual").is_valid())


def _check_keys(rows: pa.Table, actuals: pa.Table, model: str) -> None:
    for key in ("series_id", "lead"):
        if rows.column(key).combine_chunks() != actuals.column(key).combine_chunks():
            raise TrendcastError(
                f"The model {model} did not forecast each series and lead of the backtest exactly once, in order "
                f"({len(rows):,} rows came, {len(actuals):,} were expected). This is a fault of the model."
            )


def _train(
    features: Features, current: ledger.Run, names: Sequence[str], progress: Progress
) -> list[Model]:
    """Train every model on all the panel and keep its files and coefficients."""
    models = []
    for name in (name for name in names if name != ENSEMBLE):
        with progress.phase(f"train {name}"):
            model = create(name, features.settings.measures)
            if current.has_trained(name):
                model.load(current.directory / name)
            else:
                _fit(model, features, features.last_cutoff.t, progress)
                with current.model_directory(name) as directory:
                    current.add_artifacts(name, model.save(directory))
            coefficients = model.coefficients()
            if coefficients is not None and not current.has("coefficients", model=name):
                if len(features.settings.measures) == 1:
                    coefficients = of_measure(coefficients, features.settings.measure)
                current.stage("coefficients", coefficients, model=name)
            models.append(model)
    return models


def _fit(model: Model, features: Features, end_t: int, progress: Progress) -> None:
    model.fit(features, end_t, features.settings.seed, progress.update)


def _forecast(
    features: Features,
    current: ledger.Run,
    models: Sequence[Model],
    combined: ensemble.Ensembles | None,
    progress: Progress,
    ids: pa.Array | None = None,
) -> None:
    """Stage every model's forecasts and explanations at the last cutoff; of the series given, or of all."""
    cutoff_t = features.last_cutoff.t
    numbers = range(features.n_parts)

    def wanted(rows: pa.Table) -> pa.Table:
        return rows if ids is None else rows.filter(pc.is_in(rows.column("series_id"), ids))

    for model in models:
        with progress.phase(f"forecast {model.name}"):
            for number in numbers:
                part = features.part(number)
                if not current.has("forecasts", number, model=model.name):
                    rows = wanted(shards.forecast(model, part, cutoff_t))
                    current.stage("forecasts", rows, number, model=model.name)
                if current.has("explanations", number, model=model.name):
                    continue
                explained = model.explain(part, cutoff_t)
                if explained is not None:
                    current.stage("explanations", wanted(explained), number, model=model.name)
    if combined is None:
        return
    borrows = any(model.name == ANALOGY for model in models)
    with progress.phase(f"forecast {ENSEMBLE}"):
        for number in _missing(current, "forecasts", numbers, model=ENSEMBLE):
            part = features.part(number)
            about = wanted(part.actuals(cutoff_t))
            if not len(about):  # a part of the panel that has none of the series asked for
                current.stage("forecasts", FORECAST_SCHEMA.empty_table(), number, model=ENSEMBLE)
                continue
            table, parts_of = _combined(part, current, combined, number, about, borrows=borrows)
            # Before the forecasts, whose presence tells a run that goes on from here that this is done.
            if not current.has("explanations", number, model=ENSEMBLE):
                current.stage("explanations", parts_of, number, model=ENSEMBLE)
            current.stage("forecasts", table, number, model=ENSEMBLE)


def _combined(
    features: Features,
    current: ledger.Run,
    combined: ensemble.Ensembles,
    number: int,
    about: pa.Table,
    *,
    borrows: bool,
) -> tuple[pa.Table, pa.Table]:
    """Return the ensemble's forecasts of a part of the panel, and their explanations, from the members' that are staged.

    Parameters
    ----------
    features
        Of that part.
    about
        What is known of the rows, as `Features.actuals` has it.
    borrows
        Whether new series are drawn to those like them.
    """
    cutoff_t = features.last_cutoff.t
    tables = [current.staged("forecasts", number, model=name) for name in combined.members]
    for name, table in zip(combined.members, tables, strict=True):
        _check_keys(table, about, name)
    explained = {
        name: current.staged("explanations", number, model=name)
        for name in combined.members
        if current.has("explanations", number, model=name)
    }
    forecasts, parts = [], []
    for measure, found in combined.parts.items():
        mine = _of_measure(features, measure, tables)
        if not len(mine[0]):
            continue  # of a part of the portfolio that has none of its series
        (about_mine,) = _of_measure(features, measure, [about])
        lead_bucket = features.settings.lead_bucket
        each = ensemble.Rows.of(mine, about_mine, lead_bucket, counts=found.counts)
        of_mine = _of_measure(features, measure, list(explained.values()))
        parts_of = found.explain(each, mine[0], dict(zip(explained, of_mine, strict=True)))
        rows = found.combine(each)
        table = ensemble.table_of(mine[0], rows.mean[0], found.finish(rows))
        if borrows:
            analogy = _by_analogy(features, measure, cutoff_t)
            table, drawn = _drawn(features, found, table, parts_of, analogy)
            parts_of = drawn if drawn is not None else parts_of
        parts.append(parts_of)
        forecasts.append(table)
    return in_order(forecasts), pa.concat_tables(parts)


def _missing(
    current: ledger.Run, table: str, numbers: Sequence[int], **constants: str | int
) -> list[int]:
    """Return which parts of some rows are not staged."""
    return [number for number in numbers if not current.has(table, number, **constants)]


def _was_made_with_other_sql(workspace: Workspace) -> bool:
    """Whether the latest run had other SQL or settings: then no row of the panel is kept.

    The models compare settings and models themselves, but dbt does not show them its macros.
    """
    project = workspace.project
    with workspace.connect() as warehouse:
        if not warehouse.exists(project.relation("runs")):
            return False
        latest = ledger.latest_run(warehouse, project)
    return latest is None or latest["config_fingerprint"] != project.fingerprint()


def _build(
    workspace: Workspace,
    part: Sequence[str],
    select: Sequence[str],
    phase: str,
    *,
    full_refresh: bool = False,
) -> None:
    """Build one side of the ledger with dbt, narrowed to the user's selection where there is one."""
    selection = [f"{mine},{theirs}" for mine in select for theirs in part] or list(part)
    with workspace.progress.phase(phase):
        workspace.dbt.build(
            selection, full_refresh=full_refresh, progress=workspace.progress.update
        )


def check_selection(workspace: Workspace, select: Sequence[str]) -> None:
    """Refuse a selection that matches no model; dbt itself would do nothing and call it success."""
    if select and not workspace.dbt.matching(select):
        valid = ", ".join(sorted(workspace.project.relations))
        raise UsageError(
            f"The selection {' '.join(select)!r} matches no model of the project. Models of trendcast: {valid}."
        )


# --- The frame around every command that writes ---


@contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """Be the one process that writes to the ledger, on this machine and on a server.

    Raises
    ------
    WarehouseLockedError
        Another does; names it.
    """
    ours = f"trendcast {workspace.project.relation('runs')}"
    with ledger.run_lock(workspace.artifacts_dir), run_alone(workspace.output, ours):
        yield


@contextmanager
def _run(
    workspace: Workspace,
    command: str,
    models: Sequence[str],
    left: ledger.Leftover | None = None,
    chosen: dict[str, Any] | None = None,
) -> Iterator[tuple[ledger.Run, Progress]]:
    """Hold the run lock and commit at the end; where something fails, leave nothing but what can be resumed.

    A command that builds says what it was ``chosen`` to build; the others need the ledger to be there.
    """
    progress = workspace.progress
    with alone(workspace):
        _check_before(workspace, left, builds=chosen is not None)
        current = ledger.Run(command, workspace.artifacts_dir)
        current.header |= _header(workspace, models)
        current.header["inputs"] = json.dumps(_inputs(workspace) | (chosen or {}))
        try:
            yield current, progress
            current.header["timings"] = json.dumps(progress.timings)
            with progress.phase("commit"), workspace.connect(read_only=False) as warehouse:
                current.commit(warehouse, workspace.project)
        except BaseException as error:
            if current.is_resumable:
                again = "run --resume" if command == "run" else f"{command} {models[0]}"
                error.add_note(f"`trendcast {again}` goes on from what was finished.")
            else:
                current.discard()
            current.header["timings"] = json.dumps(progress.timings)
            _record_failure(workspace, current, error)
            raise


def prepare(workspace: Workspace) -> dict[str, Any]:
    """Make what dbt needs of a server and cannot make by itself: functions, and the public holidays; nothing on DuckDB.

    Returns
    -------
    dict
        engine, and how many ``holidays`` were listed anew.
    """
    output, written = workspace.output, 0
    if is_server(output):
        with workspace.connect(read_only=False) as warehouse:
            if not warehouse.is_prepared():
                workspace.dbt.prepare()
            project_dir = workspace.dbt.project_dir
            vars = resolved_vars(project_dir, workspace.dbt.vars)
            written = holidays.load(warehouse, output["schema"], project_dir, vars)
    return {"engine": output["type"], "warehouse": place(output), "holidays": written}


def load_demo(workspace: Workspace) -> None:
    """Load the demo shop's tables where dbt cannot: only DuckDB reads the Parquet files beside the project."""
    if not is_server(workspace.output) or workspace.project.orders_schema != DEMO_SCHEMA:
        return
    folder = workspace.dbt.project_dir / DEMO_SCHEMA
    loaded_at = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    with workspace.progress.phase("load"), workspace.connect(read_only=False) as warehouse:
        if warehouse.exists(workspace.project.orders):
            return
        for path in sorted(folder.glob("*.parquet")):
            rows = pq.read_table(path)
            at = pa.repeat(pa.scalar(loaded_at, pa.timestamp("us")), len(rows))
            warehouse.write(DEMO_SCHEMA, path.stem, rows.append_column("loaded_at", at))


def _check_before(workspace: Workspace, left: ledger.Leftover | None, *, builds: bool) -> None:
    """Check the warehouse and the orders before anything changes, and sweep up after a run that died."""
    if builds:
        prepare(workspace)
    # Opening it for writing finds a lock now and not half an hour later.
    with workspace.connect(read_only=False) as warehouse:
        if builds:
            check_orders(warehouse, workspace.project)
        else:
            ledger.require_tables(warehouse, workspace.project)
        if warehouse.exists(workspace.project.relation("runs")):
            ledger.require_known_version(warehouse, workspace.project)
            but = left.directory.name if left else None
            ledger.sweep(workspace.artifacts_dir, warehouse, workspace.project, but=but)


def _check_contracts(workspace: Workspace, current: ledger.Run, *, enforced: bool) -> list[str]:
    """Compare the shop's tables with what they were in the last run, and note in this one what they are."""
    inputs = json.loads(current.header["inputs"])
    project = workspace.project
    with workspace.connect() as warehouse:
        exists = warehouse.exists(project.relation("runs"))
        latest = ledger.latest_run(warehouse, project) if exists else None
        before = json.loads((latest or {}).get("inputs") or "{}").get("sources")
        try:
            sources, notes = check_contracts(warehouse, project, inputs["vars"], before)
        except DataError as error:
            if enforced:
                raise
            told = str(error).removesuffix(OVERRIDE).strip()
            sources, notes = source_columns(warehouse, project), [told]
    current.header["inputs"] = json.dumps(inputs | {"sources": sources})
    return notes


def _record_failure(workspace: Workspace, current: ledger.Run, error: BaseException) -> None:
    """Leave a row that says why, if the warehouse lets us; the error itself matters more."""
    try:
        with workspace.connect(read_only=False) as warehouse:
            if warehouse.exists(workspace.project.relation("runs")):
                current.fail(warehouse, workspace.project, error)
    except TrendcastError:
        pass


@contextmanager
def _features(workspace: Workspace, current: ledger.Run, *, folds: bool) -> Iterator[Features]:
    """Open the features read-only and note in the run what they are."""
    with workspace.connect() as warehouse:
        ledger.require_tables(warehouse, workspace.project)
        features = Features(warehouse, workspace.project)
        check_panel(features, folds=folds)
        current.header |= {
            "cutoff": features.last_cutoff.date,
            "n_series": features.n_series,
            "data_fingerprint": data_fingerprint(warehouse, workspace.project),
        }
        yield features


def _leftover(
    workspace: Workspace, names: Sequence[str], with_backtest: bool
) -> ledger.Leftover | None:
    """Return what the last run that failed left to go on from; None if it failed after the commit, in the marts.

    Raises
    ------
    ArtifactError
        There is nothing to go on from, or it was made otherwise than asked for now.
    """
    found = _left_of(workspace, "run")
    if not found:
        if is_current(workspace, names):
            return None
        raise ArtifactError(
            f"There is nothing to resume in {workspace.artifacts_dir}: the last run committed, or failed before it had "
            "finished anything, or was swept away by the one after it. Run `trendcast run` without --resume."
        )
    _require_same(found, _identity(_header(workspace, names), _asked(with_backtest)))
    return found


def _left_of(workspace: Workspace, command: str) -> ledger.Leftover | None:
    """Return what the last process that was asked for this, with whichever options, left unfinished."""
    for found in ledger.leftovers(workspace.artifacts_dir):
        asked = str(found.identity.get("command"))
        if asked == command or asked.startswith(f"{command} --"):
            return found
    return None


def _asked(with_backtest: bool) -> str:
    return "run" if with_backtest else "run --no-backtest"


def _identity(header: dict[str, Any], command: str) -> dict[str, Any]:
    """Return what must be the same for two runs to have the same result, as far as the header says."""
    names = ("config_fingerprint", "models", "versions", "data_fingerprint")
    found = {name: header[name] for name in names if name in header}
    return found | {"command": command}


def _require_same(left: ledger.Leftover, now: dict[str, Any]) -> None:
    """Refuse to go on from a run that was made otherwise."""
    means = {
        "config_fingerprint": "the SQL or the settings",
        "models": "the models",
        "versions": "the versions of Python or a library",
        "data_fingerprint": "the features, for order lines or plans have changed",
        "command": "whether to backtest",
    }
    differs = [means[name] for name, value in now.items() if left.identity[name] != value]
    if differs:
        raise ArtifactError(
            f"Run {left.directory.name} cannot be resumed: other than then are {'; '.join(differs)}. What it finished "
            "would not fit. Run `trendcast run` without --resume, which starts anew."
        )


def data_fingerprint(warehouse: Warehouse, project: Project) -> str:
    """Digest of the feature tables, every column of them: a plan moved by a week is another plan."""
    relations = [project.relation(model) for model in FINGERPRINTED]
    # When a row was built says nothing of what it is.
    columns = [[c for c in warehouse.columns(r) if not c.startswith("built_")] for r in relations]
    parts = [warehouse.fingerprint(r, c) for r, c in zip(relations, columns, strict=True)]
    return ledger.digest_text("".join(parts))


def _header(workspace: Workspace, models: Sequence[str]) -> dict[str, Any]:
    settings = workspace.project.settings
    return {
        "panel": settings.panel,
        "grain": settings.grain,
        "horizon": settings.horizon,
        "models": json.dumps(list(models)),
        "seed": settings.seed,
        "config_fingerprint": workspace.project.fingerprint(),
        "git_commit": git_commit(workspace.dbt.project_dir),
        "settings": json.dumps(settings.__dict__, default=list),
        "versions": json.dumps(versions()),
    }


def _inputs(workspace: Workspace) -> dict[str, Any]:
    """Return what else a run depends on, so that it can be repeated: see `trendcast.reproduce`."""
    return {
        "vars": resolved_vars(workspace.dbt.project_dir, workspace.dbt.vars),
        "threads": threads(workspace.output),
    }


def threads(output: dict[str, Any]) -> dict[str, Any]:
    """Return how many threads a run has: of dbt, of the machine, and what limits those of libraries or moves them to a device."""
    limits = ("OMP_NUM_THREADS", "TF_NUM_INTEROP_THREADS", DEVICE, REPLICAS)
    return {
        "dbt": output.get("threads", 1),
        "duckdb": (output.get("settings") or {}).get("threads"),
        "cores": cores(),
    } | {name: os.environ[name] for name in limits if name in os.environ}


def versions() -> dict[str, str]:
    """Versions of Python, trendcast and the libraries results depend on."""
    found = {"python": sys.version.split()[0], "trendcast": trendcast.__version__}
    return found | {name: metadata.version(name) for name in LIBRARIES}


def git_commit(folder: Path) -> str | None:
    """Return the commit a folder is at, None outside git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# --- What came out ---


def _told(current: ledger.Run, progress: Progress) -> dict[str, Any]:
    """Tell what a single step wrote."""
    return {
        "run_id": current.run_id,
        "command": current.command,
        "status": "committed",
        "cutoff": str(current.header["cutoff"]),
        "models": json.loads(current.header["models"]),
        "rows": current.row_counts,
        "timings": progress.timings,
    }


def summarize(workspace: Workspace) -> dict[str, Any]:
    """Read the latest committed run and what the marts say of it.

    Returns
    -------
    dict
        run_id, cutoff, n_series, timings, ``accuracy`` (one row per measure and model, best WQL first), ``served`` (series
        per measure and model that serves them), ``weights`` (the ensemble's members, by measure) and where the warehouse is.
    """
    with workspace.connect() as warehouse:
        project = workspace.project
        latest = ledger.run_in_force(warehouse, project)
        accuracy = warehouse.query(
            f"""
            select measure, model, n_forecasts, wape, mase, wql, bias, coverage_80, coverage_95, forecast_value_added
            from {project.relation("fct_forecast_accuracy")}
            where demand_class = 'all' and lead_bucket = 'all'
            order by wql
            """
        ).to_pylist()
        served = warehouse.query(
            f"""
            select measure, model, count(distinct series_id) as n_series, sum(mean) as total
            from {project.relation("fct_forecasts")}
            group by measure, model order by n_series desc, model
            """
        ).to_pylist()
        dates = warehouse.query(
            f"""
            select count(distinct cutoff) as folds, min(cutoff) as first_cutoff, max(cutoff) as last_cutoff
            from {project.relation("int_backtests")}
            """
        ).to_pylist()[0]
        weights = warehouse.query(
            f"""
            select measure, member, avg(weight) as weight, sum(n_rows) as n_rows from {project.relation("weights")}
            where run_id = ? and fold = 0 and demand_class = 'all'
            group by measure, member order by weight desc, member
            """,
            [latest["trained_run_id"] or latest["run_id"]],
        ).to_pylist()
    measures = list(project.settings.measures)

    def by_measure(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put the rows of the leading measure first."""
        return sorted(rows, key=lambda row: measures.index(row["measure"] or measures[0]))

    return {
        "run_id": latest["run_id"],
        "status": latest["status"],
        "cutoff": str(latest["cutoff"]),
        "grain": latest["grain"],
        "horizon": latest["horizon"],
        "measure": project.settings.measure,
        "measures": measures,
        "n_series": latest["n_series"],
        "series_filter": json.loads(latest.get("series_filter") or "null"),
        "forecasts_sha256": latest["forecasts_sha256"],
        "backtest": {k: str(v) if k != "folds" else v for k, v in dates.items()},
        "accuracy": by_measure(accuracy),
        "served": by_measure(served),
        "weights": by_measure(weights),
        "timings": workspace.progress.timings or json.loads(latest["timings"] or "{}"),
        "warehouse": place(workspace.output),
        "tables": {
            name: project.relation(name)
            for name in ("fct_forecasts", "rpt_forecast_fan", "fct_forecast_accuracy", "dim_series")
        },
    }


def is_current(workspace: Workspace, models: Sequence[str] | None = None) -> bool:
    """Whether the latest run used these features, models, settings, SQL and versions.

    It compares the features as dbt last built them; order lines that landed since are for `run` to find.
    """
    project = workspace.project
    try:
        with workspace.connect() as warehouse:
            if not all(warehouse.exists(project.relation(m)) for m in (*FINGERPRINTED, "runs")):
                return False
            latest = ledger.latest_run(warehouse, project)
            if latest is None or latest["command"] != "run":
                return False
            now = _header(workspace, workspace.models(models))
            now["data_fingerprint"] = data_fingerprint(warehouse, project)
    except TrendcastError:
        return False
    compared = ("config_fingerprint", "data_fingerprint", "models", "versions")
    return all(latest[name] == now[name] for name in compared)
