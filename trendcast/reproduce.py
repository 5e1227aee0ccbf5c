"""Repeats a run of the ledger in a throw-away warehouse, and compares its forecasts to the last bit.

A run records its vars, seed, versions, commit, threads and a fingerprint of its features. Where the repeated forecasts
are others, the recorded inputs that differ now say why. Nothing is written to the ledger or the marts.
"""

from __future__ import annotations

import calendar
import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trendcast import ensemble, ledger, pipeline
from trendcast.audit import build
from trendcast.errors import UsageError
from trendcast.features import Features
from trendcast.models import ENSEMBLE
from trendcast.models.tables import QUANTILE_NAMES
from trendcast.vars import declared_vars
from trendcast.warehouse import connect, require_duckdb

if TYPE_CHECKING:
    from trendcast.pipeline import Workspace

# What a run records, compared in this order; each names what makes results differ.
COMPARED = ("data_fingerprint", "config_fingerprint", "seed", "git_commit")


def reproduce(workspace: Workspace, run_id: str) -> dict[str, Any]:
    """Repeat a run on the shop's data as they are now.

    Lines of later than the run's cutoff are left out, so that a run can be repeated while new orders land; lines that
    came late for a day before it change the features, which is told.

    Returns
    -------
    dict
        run_id, ``equal``, forecasts_sha256 then and now, rows, differing rows, the largest difference, and
        ``inputs``: those that differ, then and now.

    Raises
    ------
    UsageError
        There is no such run, or it is not one of `trendcast run` that recorded what is needed.
    """
    require_duckdb(
        workspace.output,
        "reproduce",
        "Reproduce the run on a DuckDB copy of the order lines, or run again from a copy of the database as it was.",
    )
    with workspace.connect() as warehouse:
        then = ledger.find_run(warehouse, workspace.project, run_id)
        _require_repeatable(then)
        columns = ", ".join(("model", "series_id", "lead", "mean", *QUANTILE_NAMES))
        made = warehouse.query(
            f"select {columns} from {workspace.project.relation('forecasts')} where run_id = ?",
            [run_id],
        )
    inputs, names = json.loads(then["inputs"]), json.loads(then["models"])
    declared = declared_vars(workspace.dbt.project_dir)
    vars = {name: value for name, value in inputs["vars"].items() if name in declared}
    del vars["shop_database"]  # the throw-away warehouse reads the shop's from its own
    vars["cutoff"] = str(_period_end(then["cutoff"], then["grain"]))
    with tempfile.TemporaryDirectory(prefix="trendcast_reproduce_") as folder:
        with workspace.progress.phase("features"):
            built = build(workspace, Path(folder), "again", vars)
        current = ledger.Run("run", Path(folder) / "artifacts")
        with connect(
            {"type": "duckdb", "path": str(built.path)} | _settings(workspace.output),
            read_only=True,
        ) as warehouse:
            features = Features(warehouse, built.project)
            now = {
                "data_fingerprint": pipeline.data_fingerprint(warehouse, built.project),
                "config_fingerprint": built.project.fingerprint(),
                "seed": built.project.settings.seed,
                "git_commit": pipeline.git_commit(workspace.dbt.project_dir),
            }
            combined = None
            if not inputs["backtest"] and ENSEMBLE in names:
                stored = ledger.verified_directory(workspace.artifacts_dir, then, ENSEMBLE)
                combined = ensemble.Ensembles.load(stored, features.settings.measures)
            pipeline.learn(
                features, current, names, workspace.progress, inputs["backtest"], combined
            )
        again = pa.concat_tables(
            table.select(made.column_names) for table in current.every("forecasts")
        )
    return {
        "run_id": run_id,
        "equal": current.forecasts_sha256 == then["forecasts_sha256"],
        "forecasts_sha256": {"then": then["forecasts_sha256"], "now": current.forecasts_sha256},
        **_compared(made, again),
        "inputs": _differences(then, now, inputs, workspace),
    }


def _require_repeatable(run: dict[str, Any]) -> None:
    if run["status"] != "committed" or run["command"] != "run":
        raise UsageError(
            f"{run['run_id']} is a {run['status']} `trendcast {run['command']}`. What can be repeated is a committed "
            "`trendcast run`; see `trendcast runs`."
        )
    if not run.get("inputs"):
        raise UsageError(
            f"{run['run_id']} was made by an older trendcast, which did not record its vars: it cannot be repeated."
        )


def _period_end(start: dt.date, grain: str) -> dt.date:
    """Return the last day of a period: only then is it complete."""
    if grain == "month":
        return start.replace(day=calendar.monthrange(start.year, start.month)[1])
    return start + dt.timedelta(days={"day": 0, "week": 6}[grain])


def _settings(output: dict[str, Any]) -> dict[str, Any]:
    """Return the profile's settings of DuckDB, such as its memory limit."""
    return {name: output[name] for name in ("settings", "config_options") if name in output}


def _compared(made: pa.Table, again: pa.Table) -> dict[str, Any]:
    """Count rows that differ and measure by how much."""
    keys = ["model", "series_id", "lead"]
    made, again = (table.sort_by([(key, "ascending") for key in keys]) for table in (made, again))
    rows = {"then": len(made), "now": len(again)}
    if made.select(keys) != again.select(keys):
        return {"rows": rows, "differing": max(rows.values()), "largest_difference": None}
    names = ("mean", *QUANTILE_NAMES)
    apart = np.abs(
        np.stack([made[name].to_numpy() for name in names])
        - np.stack([again[name].to_numpy() for name in names])
    )
    return {
        "rows": rows,
        "differing": int((apart > 0).any(axis=0).sum()),
        "largest_difference": float(apart.max(initial=0.0)),
    }


def _differences(
    then: dict[str, Any], now: dict[str, Any], inputs: dict[str, Any], workspace: Workspace
) -> dict[str, dict[str, Any]]:
    """Return the recorded inputs that are others now."""
    found = {name: {"then": then[name], "now": now[name]} for name in COMPARED}
    recorded, current = json.loads(then["versions"]), pipeline.versions()
    for name in sorted(recorded.keys() | current.keys()):
        found[f"version of {name}"] = {"then": recorded.get(name), "now": current.get(name)}
    here = pipeline.threads(workspace.output)
    for name in sorted(inputs["threads"].keys() | here.keys()):
        found[f"threads: {name}"] = {"then": inputs["threads"].get(name), "now": here.get(name)}
    declared = declared_vars(workspace.dbt.project_dir)
    for name, value in inputs["vars"].items():
        if name not in declared:
            found[f"var {name}"] = {"then": value, "now": "no such var"}
    return {name: both for name, both in found.items() if both["then"] != both["now"]}
