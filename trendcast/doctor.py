"""Finds what would stop a run, and says how to mend it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trendcast import ledger
from trendcast.checks import check_orders
from trendcast.errors import TrendcastError
from trendcast.pipeline import Workspace, default_artifacts_dir, versions
from trendcast.project import find_profiles_dir, find_project_dir, read_output
from trendcast.publish import CURRENT, DATABASE, default_folder, served
from trendcast.warehouse import connect

if TYPE_CHECKING:
    from trendcast.warehouse import Warehouse

STALE_DAYS = 8


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
        check, status (ok, warn or fail), found, and remedy where there is something to do.
    """
    found: list[dict[str, str]] = []

    def note(check: str, status: str, text: str, remedy: str = "") -> None:
        found.append({"check": check, "status": status, "found": text, "remedy": remedy})

    note("versions", "ok", ", ".join(f"{name} {version}" for name, version in versions().items()))
    try:
        project_dir = find_project_dir(project_dir)
        profiles_dir = find_profiles_dir(profiles_dir, project_dir)
        output = read_output(project_dir, profiles_dir, target)
    except TrendcastError as error:
        note("profile", "fail", str(error))
        return found
    note(
        "profile",
        "ok",
        f"{profiles_dir / 'profiles.yml'}: {output['type']} {output.get('path', '')}",
    )
    path = output.get("path")
    if path and not Path(path).exists():
        note(
            "warehouse",
            "warn",
            f"{path} does not exist yet",
            "`trendcast demo` or `trendcast run` makes it.",
        )
        return found
    try:
        connect(output, read_only=False).close()
    except TrendcastError as error:
        note("warehouse", "fail", str(error))
        return found
    note("warehouse", "ok", f"{path} opens for writing; nobody holds it")
    try:
        workspace = Workspace.open(
            project_dir=project_dir,
            profiles_dir=profiles_dir,
            target=target,
            vars=vars,
            artifacts_dir=artifacts_dir or default_artifacts_dir(output),
        )
    except TrendcastError as error:
        note("dbt project", "fail", str(error), "Mend what dbt names, then `dbt parse`.")
        return found
    settings = workspace.project.settings
    note(
        "dbt project",
        "ok",
        f"grain {settings.grain}, series key {', '.join(settings.series_key)}, horizon {settings.horizon}, "
        f"models {', '.join(settings.models)}",
    )
    with workspace.connect() as warehouse:
        _orders(workspace, warehouse, note)
        _ledger(workspace, warehouse, note)
        _published(workspace, warehouse, note)
    return found


def _orders(workspace: Workspace, warehouse: Warehouse, note: Any) -> None:
    try:
        check_orders(warehouse, workspace.project)
    except TrendcastError as error:
        note("orders", "fail", str(error))
        return
    if not warehouse.exists(workspace.project.orders):
        note("orders", "warn", "the demo shop is not loaded yet", "`trendcast demo` loads it.")
        return
    rows = warehouse.query(f"select count(*) as n from {workspace.project.orders}").to_pylist()
    note(
        "orders",
        "ok",
        f"{workspace.project.orders}: {rows[0]['n']:,} lines, every mapped column reads",
    )


def _ledger(workspace: Workspace, warehouse: Warehouse, note: Any) -> None:
    project = workspace.project
    try:
        ledger.require_tables(warehouse, project)
    except TrendcastError as error:
        note("ledger", "warn", str(error))
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


def _published(workspace: Workspace, warehouse: Warehouse, note: Any) -> None:
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
