"""Finds what would stop a run, or make it worse than it could be, and says how to mend it."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from trendcast import ledger
from trendcast.checks import (
    DEMO_SCHEMA,
    MAPPINGS,
    TYPES,
    check_freshness,
    check_orders,
    check_volume,
    count_periods,
)
from trendcast.errors import ArtifactError, TrendcastError
from trendcast.features import PART_ROWS, TRAIN_ROWS
from trendcast.models.lightgbm import LightGBMConfig
from trendcast.pipeline import Workspace, default_artifacts_dir, versions
from trendcast.project import find_profiles_dir, find_project_dir, read_output
from trendcast.publish import CURRENT, DATABASE, STORAGE_VERSION, default_folder, served
from trendcast.vars import resolved_vars
from trendcast.warehouse import connect, is_server, place, quote

if TYPE_CHECKING:
    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

STALE_DAYS = 8
#: Share of a column's values that may be unreadable before it is no longer a few bad lines.
UNREADABLE = 0.01
#: Periods in a row without any line from which on lines seem to be missing.
LONG_GAP = {"day": 7, "week": 2, "month": 1}
#: Median days between dates from which on a finer grain is empty most of the time.
COARSER = {"day": (6, "week"), "week": (27, "month")}
#: Tables with a date, and how many days behind the orders it may be; None where the date is ahead or of no matter.
DATED = {
    **{"inventory": ("date", 7), "exchange_rates": ("date", 31), "reviews": ("reviewed_at", None)},
    **{"prices": ("start_date", None), "promotions": ("end_date", None), "events": ("date", None)},
    **{"purchase_orders": ("expected_date", None), "launches": ("launch_date", None)},
}
# What a run takes at its peak, measured: see `memory_needed`. The panel's second copy is what was known at a fold's cutoff.
LIBRARIES_GB = 1.3
TABLE_COPIES, MATRIX_COPIES, PANEL_COPIES = 3, 2, 2
VARS = "Correct the vars under `vars: trendcast:` in dbt_project.yml, then call `trendcast doctor` again."


#: Takes down a finding: check, status, what was found, remedy.
Note = Callable[..., None]


def examine(
    *,
    project_dir: Path | None,
    profiles_dir: Path | None,
    target: str | None,
    vars: dict[str, Any],
    artifacts_dir: Path | None,
) -> list[dict[str, str]]:
    """Check from the outside in, and stop where the rest could not be read.

    Returns
    -------
    list of dict
        check, status (ok, warn or fail), found, and the remedy, empty where all is well.
    """
    found: list[dict[str, str]] = []

    def note(check: str, status: str, text: str, remedy: str = "") -> None:
        found.append({"check": check, "status": status, "found": text, "remedy": remedy})

    if not _versions(note):
        return found
    try:
        project_dir = find_project_dir(project_dir)
        profiles_dir = find_profiles_dir(profiles_dir, project_dir)
        output = read_output(project_dir, profiles_dir, target)
    except TrendcastError as error:
        remedy = (
            "Correct profiles.yml, or say which with --project-dir, --profiles-dir and --target."
        )
        note("profile", "fail", str(error), remedy)
        return found
    note(
        "profile",
        "ok",
        f"{profiles_dir / 'profiles.yml'}: {output['type']} {place(output)}",
    )
    path = output.get("path")
    if path and not Path(path).exists():
        note(
            "warehouse",
            "warn",
            f"{path} does not exist yet",
            "`trendcast demo` or `trendcast run` makes it; if it should be there, correct the profile's path.",
        )
        return found
    try:
        connect(output, read_only=False).close()
    except TrendcastError as error:
        remedy = (
            "Start the server, or correct the profile's host, port, user, password and dbname."
            if is_server(output)
            else "Wait for the process that holds it or stop it; for a file that is no warehouse of this DuckDB, correct the "
            "profile's path, or `pip install -U duckdb` where a newer one wrote it."
        )
        note("warehouse", "fail", str(error), remedy)
        return found
    held = "" if is_server(output) else "; nobody holds it"
    note("warehouse", "ok", f"{place(output)} opens for writing{held}")
    try:
        workspace = Workspace.open(
            project_dir=project_dir,
            profiles_dir=profiles_dir,
            target=target,
            vars=vars,
            artifacts_dir=artifacts_dir or default_artifacts_dir(output),
        )
    except TrendcastError as error:
        note("dbt project", "fail", str(error), "Mend what is named, then `dbt parse`.")
        return found
    settings = workspace.project.settings
    note(
        "dbt project",
        "ok",
        f"grain {settings.grain}, series key {', '.join(settings.series_key)}, horizon {settings.horizon}, "
        f"models {', '.join(settings.models)}",
    )
    with workspace.connect() as warehouse:
        if not warehouse.is_prepared():
            note(
                "engine",
                "warn",
                f"the functions that SQL needs on {warehouse.engine} are not there yet",
                "`trendcast prepare` makes them, as does `trendcast run`; then this again.",
            )
            return found
        _storage(warehouse, note)
        _orders(workspace, warehouse, resolved_vars(project_dir, vars), note)
        _ledger(workspace, warehouse, note)
        _published(workspace, warehouse, note)
    return found


# --- The installation and the file ---


def _versions(note: Note) -> bool:
    """Compare what is installed with what this trendcast requires, and say whether everything is there."""
    wrong, missing = [], False
    for text in metadata.requires("trendcast") or []:
        required = Requirement(text)
        if required.marker and not required.marker.evaluate({"extra": ""}):
            continue
        try:
            has = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            wrong.append((required, "is not installed"))
            missing = True
            continue
        if not required.specifier.contains(has, prereleases=True):
            wrong.append((required, f"is {has}"))
    if wrong:
        note(
            "versions",
            "fail" if missing else "warn",
            "; ".join(f"{required.name} {came}, needed is {required}" for required, came in wrong),
            f"{sys.executable} -m pip install "
            + " ".join(f"'{required}'" for required, _ in wrong),
        )
    else:
        note("versions", "ok", ", ".join(f"{name} {v}" for name, v in versions().items()))
    return not missing


def _storage(warehouse: Warehouse, note: Note) -> None:
    """Say which clients can open the warehouse's file."""
    version = warehouse.about()["storage_version"]
    if version is None:
        return
    text = f"{version}: DuckDB {version.removeprefix('v')} and newer opens the file"
    if version == STORAGE_VERSION:
        note("storage version", "ok", text)
        return
    note(
        "storage version",
        "warn",
        f"{text}, older clients do not",
        "BI tools can read the copy that `trendcast publish` makes, which any DuckDB from 1.0 opens. To have this file like it, "
        f"set `config_options: {{storage_compatibility_version: {STORAGE_VERSION}}}` in profiles.yml and copy what is there: "
        f"attach 'new.duckdb' (storage_version '{STORAGE_VERSION}'); copy from database <this one> to new.",
    )


# --- The shop's data ---


def _orders(workspace: Workspace, warehouse: Warehouse, vars: dict[str, Any], note: Note) -> None:
    """Check the order lines as a run does, how old they are, and whether grain and machine fit them."""
    project = workspace.project
    try:
        facts = check_orders(warehouse, project)
    except TrendcastError as error:
        note("orders", "fail", str(error), VARS)
        return
    own = project.stages_orders_itself
    if own and not warehouse.exists(project.relation("int_order_lines")):
        note(
            "orders",
            "warn",
            "the project stages its orders itself, and they are not built yet",
            "Run `trendcast run`, or `dbt build --select tag:trendcast_features`, then this again.",
        )
        return
    if facts is None and not own:
        note("orders", "warn", "the demo shop is not loaded yet", "`trendcast demo` loads it.")
        return
    if facts:
        _readable(project, facts, note)
        _freshness(project, warehouse, vars, note)
    counted = count_periods(warehouse, project, vars)
    if counted["n_periods"]:
        _grain(project, counted, note)
        _size(workspace, warehouse, counted, note)
    else:
        note(
            "grain",
            "fail",
            f"no line is dated from {vars['min_order_date']} to {counted['until']}",
            "Correct order_columns.ordered_at, or the vars min_order_date, cutoff and as_of.",
        )
    for name in project.sources:
        if name != "order_lines":
            _source(name, project, warehouse, vars, counted["last_d"], note)


def _readable(project: Project, facts: dict[str, Any], note: Note) -> None:
    text = f"{project.orders}: {facts['n_lines']:,} lines"
    unread = {
        column: 1 - facts[f"n_{column}_read"] / facts[f"n_{column}"]
        for column in TYPES
        if facts.get(f"n_{column}")
    }
    worst = max(unread, key=unread.__getitem__)
    if unread[worst] <= UNREADABLE:
        note("orders", "ok", f"{text}, every mapped column reads")
        return
    note(
        "orders",
        "warn",
        f"{text}; {unread[worst]:.1%} of the values of order_columns.{worst} cannot be read as {TYPES[worst]}, and cleaning "
        "refuses their lines",
        "Look at them in int_order_lines_rejected after a build, and map an SQL expression that reads them, such as "
        "replace(amount, ',', '.') or try_strptime(day, '%d.%m.%Y').",
    )


def _freshness(project: Project, warehouse: Warehouse, vars: dict[str, Any], note: Note) -> None:
    """Say how old the newest line is, and whether the last day is whole; a run stops at what it says to be wrong."""
    try:
        column, newest = check_freshness(warehouse, project, vars)
    except TrendcastError as error:
        note(
            "freshness",
            "fail",
            str(error),
            "Load the newer lines, or raise the var freshness_days.",
        )
        return
    if newest is None:
        note(
            "freshness",
            "warn",
            f"no line of {project.orders} has an order_columns.{column} up to now",
            VARS,
        )
        return
    age = (dt.datetime.now(dt.UTC).replace(tzinfo=None) - newest).days
    limit = vars["freshness_days"]
    allowed = "any age is allowed (var freshness_days)" if limit is None else f"allowed are {limit}"
    text = f"the newest line is of {newest:%Y-%m-%d %H:%M} (order_columns.{column}), {age:,} days ago; {allowed}"
    try:
        check_volume(warehouse, project, vars)
    except TrendcastError as error:
        note(
            "freshness",
            "fail",
            str(error),
            "Load the rest, or what was loaded twice anew; or `trendcast run --no-data-checks`.",
        )
        return
    note("freshness", "ok", text)


def _grain(project: Project, counted: dict[str, Any], note: Note) -> None:
    """Say how many periods there are, how many of them without a line, and whether another grain would fit."""
    grain = project.settings.grain
    text = (
        f"{counted['n_periods'] + counted['n_empty']:,} {grain}s from {counted['first_d']} to {counted['last_d']}, "
        f"{counted['n_empty']:,} of them without any line"
    )
    most, coarser = COARSER.get(grain, (None, ""))
    longest = (counted["longest"] or 1) - 1
    if most and (counted["days_apart"] or 1) >= most:
        note(
            "grain",
            "warn",
            f"{text}: dates are {counted['days_apart']:.0f} days apart (median), so most {grain}s are empty",
            f"Set the var grain to {coarser}, with a horizon in {coarser}s.",
        )
    elif longest >= LONG_GAP[grain]:
        note(
            "grain",
            "warn",
            f"{text}; the longest gap is of {longest:,} {grain}s after {counted['gap_after']}",
            "If lines are missing, load them and `trendcast run --full-refresh`. If the shop was closed, those periods count as "
            "periods without demand: see the var gap_fill, or begin after it with the var min_order_date.",
        )
    elif counted["n_ahead"]:
        note(
            "grain",
            "warn",
            f"{text}; {counted['n_ahead']:,} lines are dated after {counted['until']} and are refused",
            "Correct their dates, or the var order_timezone if times are local and not UTC.",
        )
    else:
        note("grain", "ok", text)


def _size(workspace: Workspace, warehouse: Warehouse, counted: dict[str, Any], note: Note) -> None:
    """Say how many series there are and what memory a run takes, beside what there is."""
    project, memory = workspace.project, warehouse.about()["memory_limit"]
    limit = memory / 1e9 if memory else 0.0
    n_series, rows, about = counted["n_series"], counted["n_rows"], "about "
    if warehouse.exists(project.relation("ftr_history")):
        built = warehouse.query(
            f"select (select count(*) from {project.relation('int_series')}) as n_series, "
            f"(select count(*) from {project.relation('ftr_history')}) as n_rows"
        ).to_pylist()[0]
        if built["n_series"]:
            n_series, rows, about = built["n_series"], built["n_rows"], ""
    needed, has = memory_needed(project, n_series, rows, limit), machine_memory()
    listed = ", ".join(f"{part} {size:.1f}" for part, size in needed.items())
    text = (
        f"{about}{n_series:,} series and {rows:,} rows (series and {project.settings.grain}s); a run takes about "
        f"{sum(needed.values()):.1f} GB ({listed}) of this machine's {has:.1f}"
    )
    if sum(needed.values()) <= has:
        note("series", "ok", text)
        return
    note(
        "series",
        "warn",
        text,
        "Lower DuckDB's memory_limit in profiles.yml (TRENDCAST_MEMORY_LIMIT; it then writes to disk), leave lstm out of the var "
        "models, or take a coarser series_key or grain.",
    )


def memory_needed(
    project: Project, n_series: int, rows: int, duckdb_limit: float
) -> dict[str, float]:
    """Return about how much memory a run takes at its peak, GB, by what takes it.

    `benchmarks.memory` compares it with what runs took. What DuckDB cannot hold within its limit it writes to disk.
    """
    settings = project.settings
    roles = ("history", "season", "known")
    wide = len(project.with_role(*roles, wide=True))
    needed = {
        "libraries": LIBRARIES_GB,
    }
    if duckdb_limit:  # the memory of a server is not this machine's
        needed["DuckDB"] = min(duckdb_limit, TABLE_COPIES * 8 * rows * wide / 1e9)
    if "lightgbm" in settings.models:
        trees = LightGBMConfig.from_settings(settings.lightgbm or {})
        sample = min(trees.max_rows, n_series * settings.horizon * trees.train_cutoffs)
        needed["trees"] = MATRIX_COPIES * 4 * (sample + trees.error_rows) * wide / 1e9
    if "lstm" in settings.models:
        # Of a larger panel a sample is learnt from, and parts are forecast.
        share = min(1.0, max(PART_ROWS, TRAIN_ROWS) / max(rows, 1))
        held = panel_bytes(project, round(share * n_series), round(share * rows))
        needed["panel"] = PANEL_COPIES * held / 1e9
    return needed


def panel_bytes(project: Project, n_series: int, rows: int) -> int:
    """Return the size of the arrays of `trendcast.panel.Panel`: 32-bit numbers, known columns for the horizon too."""
    observed = 1 + len(project.with_role("history", "season"))
    ahead = rows + n_series * project.settings.horizon
    return 4 * (rows * observed + ahead * len(project.with_role("known")))


def machine_memory() -> float:
    """Return the memory of the machine, GB, or of the container where that has less."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            has = min(has, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return has / 1e9


def _source(
    name: str,
    project: Project,
    warehouse: Warehouse,
    vars: dict[str, Any],
    last: dt.date | None,
    note: Note,
) -> None:
    """Check an optional table: that it is there, its mapped columns read, and it does not end long before the orders."""
    relation, var = project.sources[name], MAPPINGS[name]
    if not warehouse.exists(relation):
        if project.orders_schema != DEMO_SCHEMA:
            note(
                name,
                "fail",
                f"{relation} does not exist",
                f"Load it, correct the var {name}_table, or set that to null if the shop has no such table.",
            )
        return
    mapping = {column: str(text) for column, text in vars[var].items() if text is not None}
    date, behind = DATED.get(name, ("", None))
    at = warehouse.safe_cast(mapping[date], "date") if date in mapping else "cast(null as date)"
    counts = "".join(
        f", count({text}) as {quote('n_' + column)}" for column, text in mapping.items()
    )
    try:
        row = warehouse.query(
            f"select count(*) as n_lines, max({at}) as newest{counts} from {relation}"
        ).to_pylist()[0]
    except TrendcastError as error:
        note(
            name,
            "fail",
            f"the var {var} does not fit {relation}: {str(error).splitlines()[0]}",
            f"It has the columns {', '.join(warehouse.columns(relation))}. Correct the var {var}.",
        )
        return
    n, newest = row["n_lines"], row["newest"]
    empty = [column for column in mapping if n and not row[f"n_{column}"]]
    text = f"{relation}: {n:,} rows" + (f", the last of {newest}" if newest else "")
    if not n:
        note(name, "warn", f"{relation} is empty", f"Load it, or set the var {name}_table to null.")
    elif empty:
        remedy = f"Correct the var {var}, or map the column to null if the shop does not know it."
        note(name, "warn", f"{text}; no value of {', '.join(f'{var}.{c}' for c in empty)}", remedy)
    elif date in mapping and newest is None:
        remedy = (
            f"Map {var}.{date} to an expression that reads it, such as strptime(day, '%d.%m.%Y')."
        )
        note(name, "warn", f"{text}; no {var}.{date} reads as a date", remedy)
    elif behind and last and newest and (last - newest).days > behind:
        note(
            name,
            "warn",
            f"{text}, {(last - newest).days:,} days before the last order",
            f"Load the newer rows of {relation}: what they say is not known since.",
        )
    else:
        note(name, "ok", text)


# --- What runs left ---


def _ledger(workspace: Workspace, warehouse: Warehouse, note: Note) -> None:
    project, folder = workspace.project, workspace.artifacts_dir
    if folder.is_dir():
        try:
            with ledger.run_lock(folder):
                left = ledger.leftovers(folder)
        except ArtifactError as error:
            remedy = "Make it writable, or choose another folder with --artifacts-dir."
            note("model files", "fail", str(error), remedy)
            return
        except TrendcastError as error:
            note(
                "run under way",
                "warn",
                str(error),
                "Wait for it; what follows is of the runs before.",
            )
        else:
            if left:
                note(
                    "left over",
                    "warn",
                    f"{left[0].directory} has what {left[0].directory.name} finished before it failed",
                    "`trendcast run --resume` goes on from it; the next `trendcast run` removes it.",
                )
    try:
        ledger.require_tables(warehouse, project)
    except TrendcastError as error:
        note("ledger", "warn", str(error), "`trendcast run` builds it.")
        return
    runs = ledger.runs(warehouse, project, 1000)
    latest = ledger.latest_run(warehouse, project)
    if latest is None:
        note(
            "runs",
            "warn",
            "no committed forecast; marts show the SQL baseline",
            "Run `trendcast run`.",
        )
        return
    age = (dt.datetime.now(dt.UTC).replace(tzinfo=None) - latest["finished_at"]).days
    text = f"{latest['run_id']} forecast {latest['n_series']} series from {latest['cutoff']}, {age} days ago"
    if age > STALE_DAYS:
        note(
            "runs",
            "warn",
            text,
            "Schedule `trendcast run`, or `trendcast forecast` between trainings.",
        )
    else:
        note("runs", "ok", text)
    if runs[0]["status"] == "failed":
        note(
            "last run",
            "warn",
            f"{runs[0]['run_id']} failed: {runs[0]['error']}",
            "Mend it and run again.",
        )
    trained = latest["trained_run_id"] or latest["run_id"]
    row = next((r for r in runs if r["run_id"] == trained), None)
    if row is None:
        return
    try:
        for model in json.loads(row["models"]):
            ledger.verified_directory(workspace.artifacts_dir, row, model)
    except TrendcastError as error:
        note("model files", "fail", str(error), "Run `trendcast train`.")
        return
    note(
        "model files",
        "ok",
        f"{len(json.loads(row['artifacts']))} files of {trained} match their hashes",
    )


def _published(workspace: Workspace, warehouse: Warehouse, note: Note) -> None:
    """Compare the copy for BI tools with the run in force; nothing to say where none was ever published."""
    folder = default_folder(workspace.output) if workspace.output.get("path") else None
    if folder is None or not (folder / CURRENT).is_symlink():
        return
    copy = served(folder)
    remedy = "Run `trendcast publish`; schedule it after `trendcast run`."
    if copy is None or not (folder / CURRENT / DATABASE).is_file():
        note("published copy", "fail", f"{folder / CURRENT} names no whole copy", remedy)
        return
    age = (dt.datetime.now(dt.UTC).replace(tzinfo=None) - copy.published_at).days
    text = f"{folder}: forecasts of {copy.run_id}, published {age} days ago"
    runs = workspace.project.relation("runs")
    latest = ledger.latest_run(warehouse, workspace.project) if warehouse.exists(runs) else None
    if latest and latest["run_id"] != copy.run_id:
        note("published copy", "warn", f"{text}; the run in force is {latest['run_id']}", remedy)
    elif age > STALE_DAYS:
        note("published copy", "warn", text, remedy)
    else:
        note("published copy", "ok", text)
