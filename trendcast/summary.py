"""Prints results for people; ``--json`` bypasses it."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_summary(summary: dict[str, Any]) -> None:
    """Print a run's summary: models against the baseline, who serves, and where to look."""
    console = _console()
    part = " and ".join(f"{c} {', '.join(v)}" for c, v in (summary["series_filter"] or {}).items())
    console.print(
        f"Run {summary['run_id']}: {summary['n_series']} series{f' of {part}' if part else ''}, {summary['horizon']} "
        f"{summary['grain']}s after {summary['cutoff']}.",
        highlight=False,
    )
    measures = summary["measures"]
    for measure in measures:
        # Errors of different measures have different units, so they stand apart.
        of = f" of {measure.replace('_', ' ')}" if len(measures) > 1 else ""
        _print_backtest(console, summary, measure, of)
    console.print(
        "'vs baseline' is the share of the seasonal naive's WAPE that a model saves.", style="dim"
    )
    for measure in measures:
        weights = [w for w in summary["weights"] if w["measure"] in (measure, None)]
        if weights:
            shares = ", ".join(f"{w['member']} {w['weight']:.2f}" for w in weights)
            learnt = any(w["n_rows"] for w in weights)
            how = "" if learnt else " (equal: there was no backtest to learn from)"
            of = f" for {measure.replace('_', ' ')}" if len(measures) > 1 else ""
            console.print(f"The ensemble weighs{of} {shares}{how}.", highlight=False, style="dim")
    if summary["timings"]:
        phases = ", ".join(
            f"{name} {seconds:.0f}" for name, seconds in summary["timings"].items() if seconds >= 1
        )
        console.print(
            f"Seconds: {phases}; in all {sum(summary['timings'].values()):.0f}.",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"Where to look: {summary['warehouse']}", highlight=False)
    about = {
        "fct_forecasts": "the forecast in force, with quantiles",
        "rpt_forecast_fan": "actuals and forecast bands for charts",
        "fct_forecast_accuracy": "errors and coverage by model, class and lead",
        "dim_series": "the series and their attributes",
    }
    for name, relation in summary["tables"].items():
        console.print(f"  {relation:<53} {about[name]}", highlight=False, soft_wrap=True)


def _print_backtest(console: Console, summary: dict[str, Any], measure: str, of: str) -> None:
    """Print each model's errors on one measure, and how many series it serves."""
    backtest = summary["backtest"]
    table = Table(
        title=f"Backtest{of}, {backtest['folds']} cutoffs from {backtest['first_cutoff']} to {backtest['last_cutoff']}",
        title_justify="left",
    )
    table.add_column("model")
    for name in (
        "WAPE",
        "vs baseline",
        "MASE",
        "WQL",
        "bias",
        "80% covers",
        "95% covers",
        "series served",
    ):
        table.add_column(name, justify="right")
    served = {
        row["model"]: row["n_series"] for row in summary["served"] if row["measure"] == measure
    }
    for row in summary["accuracy"]:
        if row["measure"] != measure:
            continue
        table.add_row(
            row["model"],
            _number(row["wape"]),
            _percent(row["forecast_value_added"], signed=True),
            _number(row["mase"]),
            _number(row["wql"]),
            _percent(row["bias"], signed=True),
            _percent(row["coverage_80"]),
            _percent(row["coverage_95"]),
            str(served.get(row["model"], 0)),
        )
    console.print(table)


def print_run(summary: dict[str, Any]) -> None:
    """Print what a run noticed and kept, and its summary."""
    _print_notes(summary)
    if "resumed" in summary:
        kept = summary["resumed"]
        print(f"Resumed run {kept['run_id']}; kept of it: {', '.join(kept['steps'])}.")
    print_summary(summary)


def _print_notes(summary: dict[str, Any]) -> None:
    for note in summary.get("notes", ()):
        print(f"Note: {note}")


def print_demo(summary: dict[str, Any]) -> None:
    """Print the summary of the demo, and whether it is that of an earlier run."""
    if summary.get("unchanged"):
        print("Nothing has changed since the last run; --fresh runs it again.")
    _print_notes(summary)
    print_summary(summary)
    # `make demo` does not make the environment active.
    command = "trendcast" if shutil.which("trendcast") else sys.argv[0]
    print(f"As a page: {command} report. Whether all is in order: {command} doctor.")


def print_prepared(told: dict[str, Any]) -> None:
    """Print that dbt can build, and where."""
    what = (
        "needs nothing beforehand"
        if told["engine"] == "duckdb"
        else f"has what dbt needs; {told['holidays']:,} public holidays were listed anew"
    )
    print(f"{told['engine']} {told['warehouse']} {what}.")


def print_step(told: dict[str, Any]) -> None:
    """Print what a single step wrote."""
    console = _console()
    rows = ", ".join(f"{count:,} {table}" for table, count in told["rows"].items()) or "no rows"
    console.print(
        f"Run {told['run_id']} ({told['command']}) committed: cutoff {told['cutoff']}, models "
        f"{', '.join(told['models'])}; wrote {rows}.",
        highlight=False,
        soft_wrap=True,
    )


def print_runs(runs: list[dict[str, Any]]) -> None:
    """Print runs, newest first."""
    console = _console()
    if not runs:
        console.print("No runs yet. `trendcast run` makes one.")
        return
    table = Table()
    for name in (
        "run_id",
        "command",
        "status",
        "cutoff",
        "series",
        "models",
        "forecasts",
        "backtests",
        "seconds",
    ):
        table.add_column(name)
    for run in runs:
        seconds = (run["finished_at"] - run["started_at"]).total_seconds()
        table.add_row(
            run["run_id"],
            run["command"],
            run["status"],
            str(run["cutoff"] or ""),
            str(run["n_series"] or ""),
            (run["models"] or "").strip("[]").replace('"', ""),
            str(run["forecasts_rows"] or 0),
            str(run["backtests_rows"] or 0),
            f"{seconds:.0f}",
        )
    console.print(table)
    for run in runs:
        if run["error"]:
            reason = str(run["error"]).splitlines()[0]
            console.print(f"{run['run_id']} failed: {reason}", highlight=False, soft_wrap=True)


def print_checks(checks: list[dict[str, str]]) -> None:
    """Print the doctor's findings."""
    console = _console()
    marks = {
        "ok": "[green]ok  [/green]",
        "warn": "[yellow]warn[/yellow]",
        "fail": "[red]fail[/red]",
    }
    for check in checks:
        console.print(marks[check["status"]], end=" ", markup=True)
        console.print(f"{check['check']}: {check['found']}", highlight=False, soft_wrap=True)
        if check.get("remedy"):
            console.print(f"       {check['remedy']}", highlight=False, soft_wrap=True)


def print_guess(told: dict[str, Any]) -> None:
    """Print what `trendcast init` made of the tables."""
    console = _console()
    console.print(f"Orders: {told['orders']}, {told['rows']:,} rows.", highlight=False)
    table = Table()
    for name in ("what", "is", "why"):
        table.add_column(name, overflow="fold")
    for row in told["guesses"]:
        table.add_row(Text(row["what"]), Text(row["is"]), Text(row["why"]))
    console.print(table)
    for note in told["notes"]:
        console.print(f"Note: {note}", highlight=False, markup=False, soft_wrap=True)


def print_audit(rows: list[dict[str, Any]]) -> None:
    """Print what an audit compared and what differed."""
    console = _console()
    table = Table()
    for name in (
        "cut",
        "variant",
        "model",
        "rows compared",
        "rows that differ",
        "columns that know the future",
    ):
        table.add_column(name, justify="right" if name.startswith("rows") else "left")
    for row in rows:
        table.add_row(
            str(row["cut"]),
            row["variant"],
            row["model"],
            f"{row['compared']:,}",
            f"{row['differing']:,}",
            ", ".join(row["columns"]),
        )
    console.print(table)
    leaking = sorted({row["model"] for row in rows if row["differing"]})
    if leaking:
        console.print(
            f"Leaks: {', '.join(leaking)}. Look for a frame or a join that reaches past its own row."
        )
    else:
        console.print("No row known at a cut depends on what came after it.")


def print_inventory(found: dict[str, Any]) -> None:
    """Print what each ordering policy came to."""
    console = _console()
    table = Table(
        title=f"{found['n_series']:,} series, {found['n_cutoffs']} cutoffs, "
        f"{found['policies'][0]['n_cycles']:,} replenishment cycles",
        title_justify="left",
    )
    table.add_column("policy")
    for name in (
        *("target", "achieved", "fill rate", "units short", "unit days held"),
        *("holding cost", "shortage cost", "total cost"),
    ):
        table.add_column(name, justify="right")
    for row in found["policies"]:
        table.add_row(
            row["policy"],
            _percent(row["target_service_level"]),
            _percent(row["service_level"]),
            _percent(row["fill_rate"]),
            *(f"{row[name]:,.0f}" for name in ("units_short", "unit_days_held")),
            *(f"{row[name]:,.2f}" for name in ("holding_cost", "shortage_cost", "total_cost")),
        )
    console.print(table)
    console.print(
        "Service levels are shares of cycles without a stockout. Total cost less than the normal safety stock's: "
        + ", ".join(
            f"{name} {_percent(share, signed=True)}" for name, share in found["saved"].items()
        )
        + ".",
        highlight=False,
    )


def print_tuned(told: dict[str, Any]) -> None:
    """Print the best settings of a study beside the project's, and what to paste where."""
    print_step(told)
    console = _console()
    trials, current, best = told["trials"], told["current"], told["best"]
    failed = sum(trial["wql"] is None for trial in trials)
    console.print(
        f"{'Stopped early. ' if told['stopped'] else ''}Study {told['study_id']} of {told['model']}: {told['made']} trials now, "
        f"{len(trials)} in all{f', {failed} failed' if failed else ''}. The same command goes on with it.",
        highlight=False,
        soft_wrap=True,
    )
    if not current or not best:
        return
    table = Table(title="WQL", title_justify="left")
    table.add_column("settings")
    table.add_column("older folds, searched on", justify="right")
    table.add_column("newest fold, not searched on", justify="right")
    for name, trial in (("the project's", current), (f"trial {best['trial']}", best)):
        table.add_row(name, f"{trial['wql']:.4f}", f"{trial['newest_wql']:.4f}")
    console.print(table)
    if best["trial"] == current["trial"]:
        console.print("No trial was better than the project's settings on the older folds.")
        return
    if best["newest_wql"] >= current["newest_wql"]:
        console.print(
            "On the fold they were not searched on, the settings found are no better than the project's: keep those, or search longer.",
            soft_wrap=True,
        )
        return
    lines = (f"      {name}: {value}" for name, value in json.loads(best["settings"]).items())
    console.print(
        "\n".join(
            [
                "Better on the fold they were not searched on, too. To use them, in dbt_project.yml:",
                "",
                "vars:",
                "  trendcast:",
                f"    {told['model']}:",
                *lines,
            ]
        ),
        highlight=False,
        soft_wrap=True,
    )


def print_customers(told: dict[str, Any]) -> None:
    """Print what a run over the customers wrote, and how good each method was."""
    print_step(told)
    console = _console()
    table = Table(title="The first ten items, after the cutoff", title_justify="left")
    table.add_column("fold")
    table.add_column("method")
    for name in ("customers", "hit rate", "recall", "NDCG", "MRR"):
        table.add_column(name, justify="right")
    for row in told["accuracy"]:
        table.add_row(
            f"{row['fold']} {'(reported)' if row['is_report'] else '(blend tuned)'}",
            row["method"],
            f"{row['n_customers']:,}",
            _percent(row["hit_rate"]),
            *(f"{row[name]:.3f}" for name in ("recall", "ndcg", "mrr")),
        )
    console.print(table)
    weights = ", ".join(f"{name} {weight:.1f}" for name, weight in told["weights"].items())
    console.print(f"The blend weighs {weights}.", highlight=False)


def print_whatif(told: dict[str, Any]) -> None:
    """Print what a scenario is about, and what came of it beside the forecast in force."""
    console = _console()
    console.print(f"{told['scenario']}: {told['n_series']:,} series, after {told['cutoff']}")
    if told["lowest_unit_price"] is not None:
        console.print(
            f"Prices {told['lowest_unit_price']:,.2f} to {told['highest_unit_price']:,.2f}, in the scenario "
            f"{told['lowest_scenario_price']:,.2f} to {told['highest_scenario_price']:,.2f}",
            highlight=False,
        )
    for key, meaning in {
        "n_without_price": "have no price and are left out",
        "n_elasticity_assumed": "have an elasticity that is assumed: no price of their group ever moved",
        "n_elasticity_unsure": "do not surely sell more at a lower price: their elasticity may be zero or above",
        "n_price_unseen": "get a price that was never seen: a guess",
        "n_promotion_unmeasured": "have no measured effect of the promotion, which counts as none",
        "n_unit_cost_assumed": "have a cost that is assumed, and with it their margin",
    }.items():
        if told[key]:
            console.print(f"  {told[key]:,} {meaning}", highlight=False)
    if told["run_id"] is None:
        console.print(*told["notes"], "Nothing was written.", highlight=False, soft_wrap=True)
        return
    table = Table(title="Over the horizon", title_justify="left")
    table.add_column("")
    for name in ("base", "scenario", "change"):
        table.add_column(name, justify="right")
    totals = told["totals"]
    for what in ("units", "revenue", "margin"):
        base, scenario = totals[f"base_{what}"], totals[f"scenario_{what}"]
        if base is not None and scenario is not None:
            change = _percent(scenario / base - 1, signed=True) if base else ""
            table.add_row(what, f"{base:,.2f}", f"{scenario:,.2f}", change)
    console.print(table)
    table = Table(title="The series it moves most", title_justify="left")
    table.add_column("series")
    for name in ("price", "new", "units", "in the scenario", "90% interval", "margin more"):
        table.add_column(name, justify="right")
    for row in told["largest"]:
        table.add_row(
            str(row["series_id"]),
            *(_amount(row[name]) for name in ("unit_price", "scenario_price")),
            *(_amount(row[name]) for name in ("base_units", "scenario_units")),
            f"{_amount(row['scenario_units_lower'])} to {_amount(row['scenario_units_upper'])}",
            _amount(row["extra_margin"]),
        )
    console.print(table)
    console.print(
        *told["notes"],
        f"Every series: fct_scenarios, scenario_id {told['run_id']}.",
        highlight=False,
        soft_wrap=True,
    )


def print_pruned(told: dict[str, Any]) -> None:
    """Print what old runs have left and what stays."""
    console = _console()
    n, kept = len(told["runs"]), told["kept"]
    if not n:
        console.print(f"Nothing to drop: {kept} committed runs are new or read by something.")
        return
    rows = ", ".join(f"{count:,} {table}" for table, count in told["rows"].items()) or "no rows"
    console.print(
        f"{'Would drop' if told['dry_run'] else 'Dropped'} {n} of {n + kept} committed runs, {told['runs'][0]} to {told['runs'][-1]}: "
        f"{rows}, and their model files. {kept} stay."
        + ("" if told["dry_run"] else " The warehouse uses the room for what comes."),
        highlight=False,
        soft_wrap=True,
    )


def print_published(told: dict[str, Any]) -> None:
    """Print what a published copy holds and where it is."""
    removed = f"; removed {', '.join(told['removed'])}" if told["removed"] else ""
    _console().print(
        f"Published {told['version']}: {len(told['tables'])} tables, {told['rows']:,} rows, "
        f"{told['bytes'] / 1e6:,.1f} MB{removed}.\nWhere to look: {told['where']}/trendcast.duckdb, schema marts, or "
        f"{told['where']}/<table>.parquet",
        highlight=False,
        soft_wrap=True,
    )


def print_report(told: dict[str, Any]) -> None:
    """Print where the report is and what it shows."""
    print(
        f"Wrote {told['file']} ({told['bytes'] / 1e6:.1f} MB): run {told['run_id']}, {told['n_series']:,} of "
        f"{told['n_series_total']:,} series. Open it in a browser; it needs no network."
    )


def _console() -> Console:
    # A pipe gets the whole width: wrapped tables cannot be read or searched. What is printed is data:
    # an error that quotes [a, list] is no markup.
    plain = Console(markup=False)
    return plain if plain.is_terminal else Console(width=160, markup=False)


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None, *, signed: bool = False) -> str:
    return "" if value is None else f"{value:{'+' if signed else ''}.1%}"


def print_reproduced(found: dict[str, Any]) -> None:
    """Print whether a repeated run came out the same, and what is not as it was."""
    rows = found["rows"]
    if found["equal"]:
        print(f"Run {found['run_id']} came out the same to the last bit: {rows['now']:,} rows.")
    elif found["largest_difference"] is None:
        print(
            f"Run {found['run_id']} has {rows['then']:,} rows, and came out with others: {rows['now']:,}."
        )
    else:
        print(
            f"Run {found['run_id']} came out otherwise: {found['differing']:,} of {rows['then']:,} rows differ, by "
            f"{found['largest_difference']:.3g} at most."
        )
    for name, both in found["inputs"].items():
        print(f"  {name} was {both['then']}, is {both['now']}")
    if not found["equal"] and not found["inputs"]:
        print("  No recorded input differs: the machine or its libraries may.")
