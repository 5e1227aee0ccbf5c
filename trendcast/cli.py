"""The command line: a thin layer that parses options, calls the pipeline and prints what it returns."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from trendcast import __version__
from trendcast.errors import Stopped, Terminated, TrendcastError, UsageError

app = typer.Typer(
    name="trendcast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Forecasts as governed warehouse tables: dbt builds the features, trendcast trains and writes back.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage. Start with: trendcast demo",
)

ProjectDir = Annotated[
    Path | None,
    typer.Option(
        "--project-dir", help="Folder with dbt_project.yml. Default: here or ./dbt_project."
    ),
]
ProfilesDir = Annotated[
    Path | None,
    typer.Option(
        "--profiles-dir", help="Folder with profiles.yml. Default: as dbt, or ./profiles."
    ),
]
Target = Annotated[str | None, typer.Option("--target", "-t", help="Output of the dbt profile.")]
Vars = Annotated[
    str | None, typer.Option("--vars", help="dbt vars as YAML or JSON: '{horizon: 14}'.")
]
Artifacts = Annotated[
    Path | None,
    typer.Option(
        "--artifacts-dir",
        envvar="TRENDCAST_ARTIFACTS_DIR",
        help="Folder of the model files. Default: trendcast_artifacts beside the warehouse.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="Model to use, repeatable. Default: the var `models`."),
]
Select = Annotated[
    list[str] | None,
    typer.Option("--select", "-s", help="dbt selection to narrow what is built, repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, on one line.")]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
) -> None:
    if version:
        print(f"trendcast {__version__}")
        raise typer.Exit


@app.command(epilog="Example: trendcast demo")
def demo(
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run again even if nothing has changed.")
    ] = False,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Load the demo shop (410,466 order lines of a real grocer) and run the main job on it."""
    from trendcast import pipeline
    from trendcast.project import PACKAGED_PROJECT

    target_path = None
    if (
        project_dir is None
        and not Path("dbt_project/dbt_project.yml").is_file()
        and PACKAGED_PROJECT.is_dir()
    ):
        # Installed from a wheel: the project lies in site-packages, where dbt must not write.
        project_dir = PACKAGED_PROJECT / "dbt_project"
        profiles_dir = profiles_dir or PACKAGED_PROJECT / "profiles"
        target_path = Path("trendcast_target").resolve()
    workspace = pipeline.Workspace.open(
        project_dir=project_dir or Path("dbt_project"),
        profiles_dir=profiles_dir,
        vars=_parse_vars(vars),
        artifacts_dir=artifacts_dir,
        target_path=target_path,
    )
    if not fresh and pipeline.is_current(workspace):
        workspace.progress.timings.clear()
        summary = pipeline.summarize(workspace)
        _say("Nothing has changed since the last run; --fresh runs it again.", as_json)
    else:
        _say(
            "Running the demo: dbt build, backtest, training, forecast, marts. This takes a few minutes.",
            as_json,
        )
        summary = pipeline.run(workspace)
    _print(summary, as_json, _summary)


@app.command(
    epilog="Example: trendcast init orders.csv products.csv --dir shop && cd shop && trendcast run"
)
def init(
    sources: Annotated[
        list[Path],
        typer.Argument(help="CSV or Parquet files, or one DuckDB file, with your orders."),
    ],
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder of the new project; it must be empty.")
    ] = Path("shop"),
    mapped: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="Correct a guess, repeatable: --map quantity=units, --map orders_table=sales.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Look at your tables, guess what their columns mean, and write a project that is ready to run."""
    from trendcast import scaffold

    found = scaffold.propose(sources, _pairs(mapped))

    def show(told: dict[str, Any]) -> None:
        from trendcast.summary import print_guess

        print_guess(told)

    _print(found.told(), as_json, show)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError(
                "Nothing was written. Look at the guesses above, and add --yes to write them."
            )
        typer.confirm(f"Write this to {folder}?", abort=True)
    scaffold.write(found, folder)
    _say(
        f"Wrote {folder}. Next: cd {folder} && trendcast run. To correct a guess, edit dbt_project.yml.",
        as_json,
    )


def _pairs(given: list[str] | None) -> dict[str, str]:
    """Return NAME=VALUE options as a mapping."""
    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageError(f"--map takes NAME=COLUMN, such as quantity=units; came: {text!r}")
        found[name.strip()] = value.strip()
    return found


@app.command(epilog="Example: trendcast run --vars '{horizon: 14}' --model ridge")
def run(
    models: Models = None,
    select: Select = None,
    backtest: Annotated[
        bool, typer.Option(help="Score the models first, to choose the champion.")
    ] = True,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Build every row of the panel anew.")
    ] = False,
    data_checks: Annotated[
        bool,
        typer.Option(
            "--data-checks/--no-data-checks",
            help="Stop on old, few or retyped data (vars freshness_days, volume_low, ...).",
        ),
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what a run that failed had finished.")
    ] = False,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Do the main job: build features, backtest, train, forecast, commit, build the marts."""
    from trendcast import pipeline

    workspace = _open(project_dir, profiles_dir, target, vars, artifacts_dir)
    workspace.models(models)
    pipeline.check_selection(workspace, select or [])
    summary = pipeline.run(
        workspace,
        models=models,
        select=select or [],
        with_backtest=backtest,
        full_refresh=full_refresh,
        resume=resume,
        data_checks=data_checks,
    )
    _print(summary, as_json, _ran)


@app.command(epilog="Example: trendcast train --model ridge --model lstm")
def train(
    models: Models = None,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Train on the features as they are and keep the model files, hashed, for `forecast`."""
    from trendcast import pipeline

    workspace = _open(project_dir, profiles_dir, target, vars, artifacts_dir)
    _print(pipeline.train(workspace, models=models), as_json, _step)


@app.command(epilog="Example: trendcast forecast && dbt build --select tag:trendcast_marts")
def forecast(
    models: Models = None,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Forecast with the models of the latest training and write the ledger; nothing is trained."""
    from trendcast import pipeline

    workspace = _open(project_dir, profiles_dir, target, vars, artifacts_dir)
    _print(pipeline.forecast(workspace, models=models), as_json, _step)


@app.command(epilog="Example: trendcast backtest --model ridge --json")
def backtest(
    models: Models = None,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Score the models at every fold's cutoff (var `backtest_folds`) and write the ledger."""
    from trendcast import pipeline

    workspace = _open(project_dir, profiles_dir, target, vars, artifacts_dir)
    _print(pipeline.backtest(workspace, models=models), as_json, _step)


@app.command(epilog="Example: trendcast customers --json")
def customers(
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Rank what each customer buys next and write the ledger; judged on days the blend was not tuned on."""
    from trendcast import pipeline

    workspace = _open(project_dir, profiles_dir, target, vars, artifacts_dir)

    def show(told: dict[str, Any]) -> None:
        from trendcast.summary import print_customers

        print_customers(told)

    _print(pipeline.customers(workspace), as_json, show)


@app.command(epilog="Example: trendcast runs --limit 5")
def runs(
    limit: Annotated[int, typer.Option(min=1, help="How many runs, newest first.")] = 20,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    as_json: Json = False,
) -> None:
    """List the runs in the ledger, newest first, failed ones with their reason."""
    from trendcast import ledger

    workspace = _open(project_dir, profiles_dir, target, vars, None)
    with workspace.connect() as warehouse:
        found = ledger.runs(warehouse, workspace.project, limit)

    def show(listed: list[dict[str, Any]]) -> None:
        from trendcast.summary import print_runs

        print_runs(listed)

    _print(found, as_json, show)


@app.command(epilog="Example: trendcast doctor")
def doctor(
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Check versions, profile, warehouse, orders, ledger and model files; a remedy beside each finding."""
    from trendcast.doctor import examine

    checks = examine(
        project_dir=project_dir,
        profiles_dir=profiles_dir,
        target=target,
        vars=_parse_vars(vars),
        artifacts_dir=artifacts_dir,
    )

    def show(found: list[dict[str, str]]) -> None:
        from trendcast.summary import print_checks

        print_checks(found)

    _print(checks, as_json, show)
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(1)


@app.command(epilog="Example: trendcast audit --cuts 3")
def audit(
    cuts: Annotated[int, typer.Option(min=1, help="How many random dates to cut at.")] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the dates. Default: the var `seed`.")
    ] = None,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    as_json: Json = False,
) -> None:
    """Prove on your own data that no feature knows the future; exit code 1 if one does."""
    from trendcast.audit import audit as examine_features

    workspace = _open(project_dir, profiles_dir, target, vars, None)
    found = examine_features(workspace, cuts=cuts, seed=seed)

    def show(rows: list[dict[str, Any]]) -> None:
        from trendcast.summary import print_audit

        print_audit(rows)

    _print(found, as_json, show)
    if any(row["differing"] for row in found):
        raise typer.Exit(1)


@app.command(epilog="Example: trendcast reproduce 20261124T170238-e6d127")
def reproduce(
    run_id: Annotated[str, typer.Argument(help="A run of `trendcast run`, see `trendcast runs`.")],
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    artifacts_dir: Artifacts = None,
    as_json: Json = False,
) -> None:
    """Repeat a run with its recorded inputs, nothing published; exit code 1 if its forecasts come out otherwise."""
    from trendcast.reproduce import reproduce as repeat

    workspace = _open(project_dir, profiles_dir, target, vars, artifacts_dir)
    found = repeat(workspace, run_id)

    def show(found: dict[str, Any]) -> None:
        from trendcast.summary import print_reproduced

        print_reproduced(found)

    _print(found, as_json, show)
    if not found["equal"]:
        raise typer.Exit(1)


@app.command(epilog="Example: trendcast publish --keep 5")
def publish(
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Folder of the copies. Default: trendcast_published beside the warehouse."
        ),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=1, help="How many of the copies before this one to keep.")
    ] = 3,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    as_json: Json = False,
) -> None:
    """Swap in a copy of the marts for BI tools, which can read it while runs go on."""
    from trendcast.publish import publish as swap_in

    workspace = _open(project_dir, profiles_dir, target, vars, None)

    def show(told: dict[str, Any]) -> None:
        from trendcast.summary import print_published

        print_published(told)

    _print(swap_in(workspace, to, keep=keep), as_json, show)


@app.command(epilog="Example: trendcast report --out report.html")
def report(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The HTML file; an old one is replaced.")
    ] = Path("trendcast_report.html"),
    limit: Annotated[
        int, typer.Option(min=1, help="Most series to show, those with the most revenue first.")
    ] = 2000,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    as_json: Json = False,
) -> None:
    """Write the forecast in force as one HTML file that opens offline: portfolio, and a chart of every series."""
    from trendcast.report import write

    workspace = _open(project_dir, profiles_dir, target, vars, None)

    def show(told: dict[str, Any]) -> None:
        print(
            f"Wrote {told['file']} ({told['bytes'] / 1e6:.1f} MB): run {told['run_id']}, {told['n_series']:,} of "
            f"{told['n_series_total']:,} series. Open it in a browser; it needs no network."
        )

    _print(write(workspace, out, limit=limit), as_json, show)


simulate = typer.Typer(
    name="simulate",
    no_args_is_help=True,
    help="Replay decisions on the backtest, in money, against what a planner does today.",
)
app.add_typer(simulate)


@simulate.command(epilog="Example: trendcast simulate inventory --cover-days 10")
def inventory(
    cover_days: Annotated[
        float,
        typer.Option(min=0, help="Days of mean demand a min/max planner adds to the lead time."),
    ] = 7.0,
    project_dir: ProjectDir = None,
    profiles_dir: ProfilesDir = None,
    target: Target = None,
    vars: Vars = None,
    as_json: Json = False,
) -> None:
    """Replay the order levels of the backtest beside min/max and the normal safety stock."""
    from trendcast.simulate import inventory as replayed

    workspace = _open(project_dir, profiles_dir, target, vars, None)

    def show(found: dict[str, Any]) -> None:
        from trendcast.summary import print_inventory

        print_inventory(found)

    _print(replayed(workspace, cover_days=cover_days), as_json, show)


def _open(
    project_dir: Path | None,
    profiles_dir: Path | None,
    target: str | None,
    vars: str | None,
    artifacts_dir: Path | None,
) -> Any:
    from trendcast.pipeline import Workspace

    return Workspace.open(
        project_dir=project_dir,
        profiles_dir=profiles_dir,
        target=target,
        vars=_parse_vars(vars),
        artifacts_dir=artifacts_dir,
    )


def _parse_vars(text: str | None) -> dict[str, Any]:
    """Read --vars as dbt does: one YAML mapping."""
    import yaml

    from trendcast.vars import plain

    if not text:
        return {}
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--vars is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(parsed, dict):
        raise UsageError(f"--vars must be a mapping like '{{horizon: 14}}', came: {text!r}")
    return {str(name): plain(value) for name, value in parsed.items()}


def _summary(summary: dict[str, Any]) -> None:
    from trendcast.summary import print_summary

    print_summary(summary)


def _ran(summary: dict[str, Any]) -> None:
    for note in summary.get("notes", ()):
        print(f"Note: {note}")
    if "resumed" in summary:
        kept = summary["resumed"]
        print(f"Resumed run {kept['run_id']}; kept of it: {', '.join(kept['steps'])}.")
    _summary(summary)


def _step(told: dict[str, Any]) -> None:
    from trendcast.summary import print_step

    print_step(told)


def _say(text: str, as_json: bool) -> None:
    if not as_json:
        print(text, flush=True)


def _print(result: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    if as_json:
        print(json.dumps(result, default=str))
    else:
        show(result)


def main() -> None:
    """Run the command line; an error made on purpose is a message, not a traceback."""
    try:
        with _stoppable():
            app()
    except TrendcastError as error:
        print("\n".join([f"trendcast: {error}", *_notes(error)]), file=sys.stderr)
        sys.exit(error.exit_code)
    except (Stopped, KeyboardInterrupt) as error:
        kept = _notes(error) or ["Nothing of a run under way was kept."]
        print("\n".join(["trendcast: stopped.", *kept]), file=sys.stderr)
        sys.exit(1)


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


@contextmanager
def _stoppable() -> Iterator[None]:
    """Take SIGTERM, which schedulers and containers send, and Ctrl-C alike: tidy up and say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: Any) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # once is enough
        raise Terminated if number == signal.SIGTERM else Stopped

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        for each in before:
            signal.signal(each, stop)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


if __name__ == "__main__":
    main()
