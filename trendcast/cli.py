"""The command line: parses options, calls the method of `trendcast.session.Session` and prints what it returns."""

from __future__ import annotations

import inspect
import io
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import trendcast
from trendcast.errors import Stopped, Terminated, TrendcastError, UsageError

if TYPE_CHECKING:
    from trendcast.session import Session
else:
    Session = (
        Any  # annotations are evaluated below, and the module takes too long to import for --help
    )

app = typer.Typer(
    name="trendcast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Forecasts as governed warehouse tables: dbt builds the features, trendcast trains and writes back.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage. Start with: trendcast demo",
)
simulate = typer.Typer(
    name="simulate",
    no_args_is_help=True,
    help="Replay decisions on the backtest, in money, against what a planner does today.",
)


def _model_names() -> list[str]:
    from trendcast.models import model_names

    return model_names()


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="Model to use, repeatable. Default: the var `models`.",
        autocompletion=_model_names,
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        "-s",
        help="dbt selection to narrow what is built, repeatable; department=GROCERY is the same as with --series.",
    ),
]
Series = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        help="Part of the portfolio to forecast, repeatable: department=GROCERY, or an id. The rest keeps its forecasts.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, on one line.")]


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


# --- The options that every command on a project takes ---


def _open(
    project_dir: Annotated[
        Path | None,
        typer.Option(
            "--project-dir", help="Folder with dbt_project.yml. Default: here or ./dbt_project."
        ),
    ] = None,
    profiles_dir: Annotated[
        Path | None,
        typer.Option(
            "--profiles-dir", help="Folder with profiles.yml. Default: as dbt, or ./profiles."
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Output of the dbt profile.")
    ] = None,
    vars: Annotated[
        str | None, typer.Option("--vars", help="dbt vars as YAML or JSON: '{horizon: 14}'.")
    ] = None,
    artifacts_dir: Annotated[
        Path | None,
        typer.Option(
            "--artifacts-dir",
            envvar="TRENDCAST_ARTIFACTS_DIR",
            help="Folder of the model files. Default: trendcast_artifacts beside the warehouse.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            envvar="TRENDCAST_DEVICE",
            help="What networks work on: auto (a GPU where there is one), cpu or gpu. Default: auto.",
        ),
    ] = None,
) -> Session:
    return trendcast.open(
        project_dir,
        profiles_dir=profiles_dir,
        target=target,
        vars=_parse_vars(vars),
        artifacts_dir=artifacts_dir,
        device=device,
    )


def _command(
    show: str,
    *,
    example: str,
    opened: Callable[..., Any] = _open,
    within: typer.Typer = app,
    networks: bool = False,
    failed: Callable[[Any], bool] = lambda result: False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a command of a function that takes what ``opened`` returns, then options of its own.

    The options of ``opened``, and --json, are added to the command's own.

    Parameters
    ----------
    show
        Function of `trendcast.summary` that prints what the command returns, unless --json does.
    networks
        Whether it trains or asks a neural network: then it takes --device, too.
    failed
        Whether what it returns makes the exit code 1.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def parameters(of: Callable[..., Any]) -> list[inspect.Parameter]:
            found = inspect.signature(of, eval_str=True).parameters.values()
            return [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in found]

        own, shared = parameters(function)[1:], parameters(opened)
        shared = [p for p in shared if networks or p.name != "device"]
        as_json = inspect.Parameter(
            "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json
        )

        def called(*, as_json: bool, **given: Any) -> None:
            session = opened(**{p.name: given.pop(p.name) for p in shared})
            result = function(session, **given)
            _print(result, as_json, show)
            if failed(result):
                raise typer.Exit(1)

        called.__name__, called.__doc__ = function.__name__, function.__doc__
        called.__signature__ = inspect.Signature([*own, *shared, as_json])  # type: ignore[attr-defined]
        return within.command(epilog=f"Example: {example}")(called)

    return register


def _print(result: Any, as_json: bool, show: str) -> None:
    if as_json:
        print(json.dumps(result, default=str))
    else:
        from trendcast import summary

        getattr(summary, show)(result)


# --- The commands ---


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
) -> None:
    if version:
        print(f"trendcast {trendcast.__version__}")
        raise typer.Exit


@wraps(_open)
def _open_demo(**given: Any) -> Session:
    from trendcast.project import PACKAGED_PROJECT

    here = Path("dbt_project")
    if (
        given["project_dir"] is None
        and not (here / "dbt_project.yml").is_file()
        and PACKAGED_PROJECT.is_dir()
    ):
        # Installed from a wheel: the project lies in site-packages, where dbt must not write.
        given["project_dir"] = PACKAGED_PROJECT / "dbt_project"
        given["profiles_dir"] = given["profiles_dir"] or PACKAGED_PROJECT / "profiles"
        given["target_path"] = Path("trendcast_target").resolve()
    given["project_dir"] = given["project_dir"] or here
    return trendcast.open(**given | {"vars": _parse_vars(given["vars"])})


@_command("print_demo", example="trendcast demo", networks=True, opened=_open_demo)
def demo(
    session: Session,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run again even if nothing has changed.")
    ] = False,
) -> Any:
    """Load the demo shop (410,466 order lines of a real grocer) and run the main job on it."""
    if not fresh and session.is_current():
        return session.summary() | {"unchanged": True}
    print(
        "Running the demo: dbt build, backtest, training, forecast, marts. This takes a few minutes.",
        file=sys.stderr,
        flush=True,
    )
    session.load_demo()
    return session.run()


@_command("print_prepared", example="trendcast prepare && dbt build")
def prepare(session: Session) -> Any:
    """Make what dbt alone cannot make on a server: functions, public holidays. A run does so too; on DuckDB there is nothing."""
    return session.prepare()


@app.command(
    epilog="Example: trendcast init orders.csv products.csv --dir shop && cd shop && trendcast run"
)
def init(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="CSV or Parquet files, a folder of them, or one DuckDB file, with your orders."
        ),
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

    found = scaffold.propose(sources, _pairs(mapped, "--map", "quantity=units"))
    _print(found.told(), as_json, "print_guess")
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError(
                "Nothing was written. Look at the guesses above, and add --yes to write them."
            )
        typer.confirm(f"Write this to {folder}?", abort=True)
    scaffold.write(found, folder)
    if not as_json:
        print(
            f"Wrote {folder}. Next: cd {folder} && trendcast run. To correct a guess, edit dbt_project.yml."
        )


def _pairs(given: list[str] | None, option: str, example: str) -> dict[str, str]:
    """Return the values of an option that is NAME=VALUE as a mapping."""
    found: dict[str, str] = {}
    for text in given or []:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name or not value:
            raise UsageError(f"{option} takes NAME=VALUE, such as {example}; came: {text!r}")
        if name in found and found[name] != value:
            raise UsageError(f"{option} sets {name} twice: to {found[name]!r} and to {value!r}.")
        found[name] = value
    return found


def _part(given: list[str] | None) -> dict[str, list[str]] | None:
    """Return --series options as columns with the values wanted; text without = is an id."""
    found: dict[str, list[str]] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        found.setdefault(name.strip() if equals else "series_id", []).append(
            value if equals else text
        )
    return found or None


@_command("print_run", example="trendcast run --vars '{horizon: 14}' --model ridge", networks=True)
def run(
    session: Session,
    models: Models = None,
    select: Select = None,
    train: Annotated[
        bool, typer.Option(help="Train; without, stored models forecast what is new.")
    ] = True,
    series: Series = None,
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
) -> Any:
    """Do the main job: build features, backtest, train, forecast, commit, build the marts."""
    # No selection of dbt's begins like this.
    parts = [text for text in select or [] if re.match(r"\w+=", text)]
    return session.run(
        models=models,
        select=[text for text in select or [] if text not in parts],
        train=train,
        series=_part([*(series or []), *parts]),
        backtest=backtest,
        full_refresh=full_refresh,
        resume=resume,
        data_checks=data_checks,
    )


@_command("print_step", example="trendcast train --model ridge --model lstm", networks=True)
def train(session: Session, models: Models = None) -> Any:
    """Train on the features as they are and keep the model files, hashed, for `forecast`."""
    return session.train(models=models)


@_command(
    "print_step",
    example="trendcast forecast && dbt build --select tag:trendcast_marts",
    networks=True,
)
def forecast(session: Session, models: Models = None, series: Series = None) -> Any:
    """Forecast with the models of the latest training and write the ledger; nothing is trained."""
    return session.rescore(models=models, series=_part(series))


@_command("print_step", example="trendcast backtest --model ridge --json", networks=True)
def backtest(session: Session, models: Models = None) -> Any:
    """Score the models at every fold's cutoff (var `backtest_folds`) and write the ledger."""
    return session.backtest(models=models)


@_command("print_tuned", example="trendcast tune lightgbm --minutes 60", networks=True)
def tune(
    session: Session,
    model: Annotated[
        str,
        typer.Argument(help="The model: classical, lightgbm or lstm.", autocompletion=_model_names),
    ],
    minutes: Annotated[
        float,
        typer.Option(min=0, help="No trial is begun that would probably end later."),
    ] = 30,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Most trials to make now. Default: as many as fit.")
    ] = None,
) -> Any:
    """Search a model's settings on the older folds of the backtest, judge them on the newest, and go on with it next time."""
    return session.tune(model, minutes=minutes, trials=trials)


@_command("print_customers", example="trendcast customers --json", networks=True)
def customers(session: Session) -> Any:
    """Rank what each customer buys next and write the ledger; judged on days the blend was not tuned on."""
    return session.customers()


@_command(
    "print_whatif", example="trendcast whatif --set price=-10% --where department=GROCERY --preview"
)
def whatif(
    session: Session,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="What is other, repeatable: price=-10%, price=1.99 (for each series), promotion=display.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="Series it is about, repeatable: department=GROCERY, or an id. Different columns must all hold. Default: all.",
        ),
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Tell which series it is about, and write nothing.")
    ] = False,
) -> Any:
    """Write a scenario of other prices or a promotion beside the forecast in force; fct_scenarios compares them."""
    return session.whatif(
        _pairs(settings, "--set", "price=-10%"), where=_part(where), preview=preview
    )


@_command("print_runs", example="trendcast runs --limit 5")
def runs(
    session: Session,
    limit: Annotated[int, typer.Option(min=1, help="How many runs, newest first.")] = 20,
) -> Any:
    """List the runs in the ledger, newest first, failed ones with their reason."""
    return session.runs(limit)


@_command("print_pruned", example="trendcast prune --keep 90 --dry-run")
def prune(
    session: Session,
    keep: Annotated[
        int, typer.Option(min=1, help="How many of the newest runs to keep in any case.")
    ] = 30,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and drop nothing.")
    ] = False,
) -> Any:
    """Drop the rows and model files of old runs that nothing reads any more; the list of runs keeps a row of each."""
    return session.prune(keep=keep, dry_run=dry_run)


@wraps(_open)
def _unopened(**given: Any) -> dict[str, Any]:
    return given | {"vars": _parse_vars(given["vars"])}


@_command(
    "print_checks",
    example="trendcast doctor",
    opened=_unopened,
    failed=lambda checks: any(check["status"] == "fail" for check in checks),
)
def doctor(where: dict[str, Any]) -> Any:
    """Check versions, profile, warehouse, orders, gaps, memory, runs and model files; a remedy beside each finding."""
    from trendcast.doctor import examine

    return examine(**where)


@_command(
    "print_audit",
    example="trendcast audit --cuts 3",
    failed=lambda rows: any(row["differing"] for row in rows),
)
def audit(
    session: Session,
    cuts: Annotated[int, typer.Option(min=1, help="How many random dates to cut at.")] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the dates. Default: the var `seed`.")
    ] = None,
) -> Any:
    """Prove on your own data that no feature knows the future; exit code 1 if one does."""
    return session.audit(cuts=cuts, seed=seed)


@_command(
    "print_reproduced",
    example="trendcast reproduce 20261124T170238-e6d127",
    networks=True,
    failed=lambda found: not found["equal"],
)
def reproduce(
    session: Session,
    run_id: Annotated[str, typer.Argument(help="A run of `trendcast run`, see `trendcast runs`.")],
) -> Any:
    """Repeat a run with its recorded inputs, nothing published; exit code 1 if its forecasts come out otherwise."""
    return session.reproduce(run_id)


@_command("print_published", example="trendcast publish --keep 5")
def publish(
    session: Session,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Folder of the copies. Default: trendcast_published beside the warehouse."
        ),
    ] = None,
    keep: Annotated[
        int, typer.Option(min=1, help="How many of the copies before this one to keep.")
    ] = 3,
) -> Any:
    """Swap in a copy of the marts for BI tools, which can read it while runs go on."""
    return session.publish(to, keep=keep)


@_command("print_report", example="trendcast report --out report.html")
def report(
    session: Session,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The HTML file; an old one is replaced.")
    ] = Path("trendcast_report.html"),
    limit: Annotated[
        int, typer.Option(min=1, help="Most series to show, those with the most revenue first.")
    ] = 2000,
) -> Any:
    """Write the forecast in force as one HTML file that opens offline: portfolio, and a chart of every series."""
    return session.report(out, limit=limit)


@_command(
    "print_inventory", example="trendcast simulate inventory --cover-days 10", within=simulate
)
def inventory(
    session: Session,
    cover_days: Annotated[
        float,
        typer.Option(min=0, help="Days of mean demand a min/max planner adds to the lead time."),
    ] = 7.0,
) -> Any:
    """Replay the order levels of the backtest beside min/max and the normal safety stock."""
    return session.simulate_inventory(cover_days=cover_days)


app.add_typer(simulate)


# --- What a terminal gets ---


def main() -> None:
    """Run the command line; an error made on purpose is a message, not a traceback."""
    try:
        with _stoppable():
            sys.exit(app(standalone_mode=False) or 0)
    except TrendcastError as error:
        _complain("\n".join([f"trendcast: {error}", *_notes(error)]))
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        shown = io.StringIO()
        error.show(shown)  # type: ignore[attr-defined]
        _complain(shown.getvalue().rstrip())
        sys.exit(error.exit_code)
    except typer.Abort:
        _complain("trendcast: aborted.")
        sys.exit(1)
    except (Stopped, KeyboardInterrupt) as error:
        kept = _notes(error) or ["Nothing of a run under way was kept."]
        _complain("\n".join(["trendcast: stopped.", *kept]))
        sys.exit(1)


def _complain(message: str) -> None:
    """Print an error on stderr; in red up to the first colon if it is a terminal and NO_COLOR is not set."""
    from rich.console import Console
    from rich.text import Text

    text = Text(message)
    text.highlight_regex(r"(?m)^(trendcast|Error):", "bold red")
    Console(stderr=True).print(text, soft_wrap=True)


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
