"""Drops what old runs have left in the ledger, which else only grows: a nightly run of a large shop adds millions of rows.

What anything still reads stays, however old: the runs in force, those that `fct_forecast_health` compares them with, the newest
rows of every kind, and the trainings whose models a command may still ask for. A run that is dropped keeps its row in ``runs``,
with the status ``pruned``: what was forecast when, by what, with which hash of its rows, remains known.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trendcast import ledger
from trendcast.errors import UsageError
from trendcast.pipeline import alone
from trendcast.warehouse import place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trendcast.pipeline import Workspace

PRUNED = "pruned"
# The others, whatif and tune, are made by hand and read however old they are.
COMMANDS = ("run", "train", "forecast", "backtest", "customers")
_COLUMNS = (
    *("run_id", "command", "status", "panel", "finished_at", "cutoff", "models"),
    *("series_filter", "trained_run_id", *(f"{table}_rows" for table in ledger.ROW_TABLES)),
)
_CHOSEN = "pruned_runs"


def superseded(runs: Sequence[dict[str, Any]], keep: int) -> list[dict[str, Any]]:
    """Return the committed runs that nothing reads any more, the oldest first.

    Parameters
    ----------
    runs
        Rows of the ledger's ``runs``, of all panels.
    keep
        How many of a panel's newest runs stay in any case.
    """
    by_panel: dict[str, list[dict[str, Any]]] = defaultdict(list)
    newest_first = sorted(runs, key=lambda run: (run["finished_at"], run["run_id"]), reverse=True)
    for run in newest_first:
        if run["status"] == "committed" and run["command"] in COMMANDS:
            by_panel[run["panel"]].append(run)
    needed: set[str] = set()
    for ours in by_panel.values():
        needed |= {run["run_id"] for run in ours[:keep]} | _read(ours)
    # The models of a forecast that stays.
    needed |= {
        run["trained_run_id"]
        for run in newest_first
        if run["trained_run_id"]
        and run["status"] == "committed"
        and (run["run_id"] in needed or run["command"] not in COMMANDS)
    }
    of_ours = [run for ours in by_panel.values() for run in ours]
    gone = [run for run in of_ours if run["run_id"] not in needed]
    return sorted(gone, key=lambda run: (run["finished_at"], run["run_id"]))


def _read(runs: list[dict[str, Any]]) -> set[str]:
    """Return the runs of a panel, newest first, that a mart or a command reads."""
    found: set[str] = set()
    for table in ledger.ROW_TABLES:
        found.update([run["run_id"] for run in runs if run[f"{table}_rows"]][:1])
    forecasts = [run for run in runs if run["forecasts_rows"]]
    # In force: all since the newest of every series, as the macro runs_in_force has it.
    for run in forecasts:
        found.add(run["run_id"])
        if run["series_filter"] is None:
            break
    # How far a run has moved the forecasts: the newest of each of the last two cutoffs.
    for cutoff in sorted({run["cutoff"] for run in forecasts}, reverse=True)[:2]:
        found.add(next(run["run_id"] for run in forecasts if run["cutoff"] == cutoff))
    # `trendcast forecast` asks for the newest training of some models.
    learnt: list[set[str]] = []
    for run in runs:
        models = set(json.loads(run["models"] or "[]"))
        if run["command"] in ("run", "train") and not any(models <= newer for newer in learnt):
            learnt.append(models)
            found.add(run["run_id"])
    return found


def prune(workspace: Workspace, *, keep: int, dry_run: bool = False) -> dict[str, Any]:
    """Drop the rows and model files of runs that nothing reads any more, in one transaction.

    Parameters
    ----------
    keep
        How many of a panel's newest runs stay in any case.
    dry_run
        Say what would go, and drop nothing.

    Returns
    -------
    dict
        ``runs`` (their ids, the oldest first), ``rows`` by table, ``kept`` (committed runs that stay) and ``dry_run``.

    Raises
    ------
    UsageError
        The engine is Spark, whose tables of files take no update.
    WarehouseLockedError
        A run is under way.
    """
    if workspace.output.get("type") == "spark":
        raise UsageError(
            f"`trendcast prune` runs on duckdb and postgres; the target is spark {place(workspace.output)}. The ledger's tables are "
            "partitioned by run: drop the partitions of old runs from forecasts_log, backtests_log and explanations_log instead."
        )
    project = workspace.project
    with alone(workspace):
        with workspace.connect(read_only=dry_run) as warehouse:
            ledger.require_tables(warehouse, project)
            relation = project.relation("runs")
            runs = warehouse.query(f"select {', '.join(_COLUMNS)} from {relation}").to_pylist()
            gone = superseded(runs, keep)
            chosen = [run["run_id"] for run in gone]
            if chosen and not dry_run:
                warehouse.lookup(_CHOSEN, pa.table({"run_id": chosen}))
                among = f"run_id in (select run_id from {_CHOSEN})"
                with warehouse.transaction():
                    for table in ledger.ROW_TABLES:
                        warehouse.execute(f"delete from {project.relation(table)} where {among}")
                    warehouse.execute(f"update {relation} set status = ? where {among}", [PRUNED])
        if not dry_run:
            # Those of an earlier prune, too, that died before it came to them.
            earlier = [run["run_id"] for run in runs if run["status"] == PRUNED]
            for run_id in (*earlier, *chosen):
                shutil.rmtree(workspace.artifacts_dir / run_id, ignore_errors=True)
    rows = {table: sum(run[f"{table}_rows"] or 0 for run in gone) for table in ledger.ROW_TABLES}
    committed = sum(run["status"] == "committed" for run in runs)
    return {
        "runs": chosen,
        "rows": {table: n for table, n in rows.items() if n},
        "kept": committed - len(chosen),
        "dry_run": dry_run,
    }
