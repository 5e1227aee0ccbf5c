"""Proves that no feature knows the future: rebuild on less, and on an absurd future, and compare every row.

For each cut date the features are built three times, each in a throw-away warehouse that reads the shop's own
tables: on all order lines, on the lines up to the cut, and on all lines with absurd quantities after the cut.
What was known at the cut (history up to it, the plan up to the horizon after it) must be the same three times,
to the last bit. Where lines say when they were loaded, they are built once more, on the lines that had been loaded by
the evening after the cut; then the series are compared that no line came late for.
"""

from __future__ import annotations

import datetime as dt
import random
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trendcast.dbt import FEATURES
from trendcast.errors import DataError
from trendcast.project import Project, profile_name
from trendcast.warehouse import connect, literal, quote, require_duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trendcast.pipeline import Workspace
    from trendcast.warehouse import Warehouse

# Model, and how many horizons after the cut its rows are known.
COMPARED = {
    "int_sales_filled": 0,
    "ftr_history": 0,
    "ftr_known": 1,
    "ftr_calendar": 1,
    "ftr_static": None,
    "ftr_category": 0,
}
# Forecasts made in SQL, one set per cutoff: compared where both builds have a cutoff that is no later than the cut.
FORECASTS = ("ftr_baseline", "ftr_analogy")
# Columns that tell builds apart, and say nothing of what was known.
UNCOMPARED = "columns(lambda c: c not in ('built_at', 'built_with', 'fold'))"
CUT_OFF, AS_LOADED, ABSURD_FUTURE = "cut off", "as loaded", "absurd future"
ABSURD = 997  # what quantities after the cut are multiplied with, at most


@dataclass(frozen=True)
class Build:
    """Features built in a throw-away warehouse."""

    name: str
    path: Path
    project: Project


def audit(workspace: Workspace, *, cuts: int = 1, seed: int | None = None) -> list[dict[str, Any]]:
    """Audit the project's features at random cut dates.

    Parameters
    ----------
    cuts
        How many dates, drawn from the second half of the history.
    seed
        Of the draw; None for the project's.

    Returns
    -------
    list of dict
        One per cut, variant and model: cut, variant, model, compared rows, differing rows and differing columns.

    Raises
    ------
    DataError
        The history is too short to cut.
    """
    require_duckdb(
        workspace.output, "audit", "Audit the same dbt project on a DuckDB copy of the order lines."
    )
    found = []
    with tempfile.TemporaryDirectory(prefix="trendcast_audit_") as folder:
        whole = build(workspace, Path(folder), "whole", {})
        for cut_t, cut in _draw(
            whole, cuts, workspace.project.settings.seed if seed is None else seed
        ):
            for name, vars in variants(workspace, cut).items():
                without = _late_series(whole, cut) if name == AS_LOADED else None
                if without and not _leaves_series(whole, without, cut_t):
                    continue
                with workspace.progress.phase(f"audit {cut} {name}"):
                    other = build(workspace, Path(folder), f"{name}_{cut}", vars)
                _require_change(whole, other, cut)
                found += [
                    {"cut": cut, "variant": name} | row
                    for row in compare(whole, other, cut_t, without)
                ]
    return found


def variants(workspace: Workspace, cut: str) -> dict[str, dict[str, Any]]:
    """Return the vars of the two builds that must not differ from the whole one up to the cut."""
    settings = workspace.project.settings
    columns = dict(settings.order_columns)
    # As staging reads them: text that is no date or number is null and no error.
    quantity = f"try_cast({columns['quantity']} as decimal(18, 6))"
    # Not more than cleaning accepts, which judges by what was typical before: else most lines would only be missing.
    factor = ABSURD if settings.robust_bound is None else min(ABSURD, settings.robust_bound / 2)
    columns["quantity"] = (
        f"case when {settings.order_date} > date {literal(cut)} and {quantity} <= {settings.max_quantity} "
        f"then least({quantity} * {factor}, {settings.max_quantity}) else {quantity} end"
    )
    cut_off = {"as_of": cut, "cutoff": cut}
    found: dict[str, dict[str, Any]] = {CUT_OFF: cut_off}
    if not workspace.project.stages_orders_itself:  # who does reads no var order_columns
        found[ABSURD_FUTURE] = {"order_columns": columns}
    if settings.order_columns.get("loaded_at"):
        found[AS_LOADED] = cut_off | {"loaded_before": _loaded_before(cut)}
    return found


def _loaded_before(cut: str) -> str:
    """Return the end of the day after a cut: a night's load of the cut's lines is in time."""
    return str(dt.date.fromisoformat(cut) + dt.timedelta(days=2))


def _late_series(whole: Build, cut: str) -> str:
    """Query of the series that lines up to a cut came late for."""
    return (
        f"select series_id from {_inside('whole', whole, 'int_series')} where sales_id in ("
        f"select series_id from {_inside('whole', whole, 'int_order_lines_checked')} "
        f"where order_date <= date {literal(cut)} and series_id is not null "
        f"and (loaded_at is null or loaded_at >= timestamp {literal(_loaded_before(cut))}))"
    )


def _leaves_series(whole: Build, without: str, cut_t: int) -> bool:
    """Whether there is a series that begun by the cut and is not left out; a first load of everything is late for all."""
    with _both(whole, whole) as warehouse:
        rows = warehouse.query(
            f"select 1 from {_inside('whole', whole, 'int_series')} "
            f"where first_t <= {cut_t} and series_id not in ({without}) limit 1"
        )
    return len(rows) > 0


def build(workspace: Workspace, folder: Path, name: str, vars: dict[str, Any]) -> Build:
    """Build the features into a new warehouse that reads the shop's tables from the project's own."""
    target = folder / name.replace(" ", "_")
    target.mkdir()
    path = target / "audit.duckdb"
    profile = profile_name(workspace.dbt.project_dir)
    chosen = workspace.dbt.target or "audit"
    output = workspace.output | {
        "path": str(path),
        "attach": [
            {
                "path": str(Path(workspace.output["path"]).resolve()),
                "alias": "shop",
                "read_only": True,
            }
        ],
    }
    (target / "profiles.yml").write_text(
        yaml.safe_dump({profile: {"target": chosen, "outputs": {chosen: output}}})
    )
    dbt = replace(
        workspace.dbt,
        profiles_dir=target,
        target=chosen,
        vars=workspace.dbt.vars | {"shop_database": "shop"} | vars,
        target_path=target / "target",
    )
    dbt.build(FEATURES, tests=False)
    return Build(name, path, Project.from_manifest(dbt.manifest()))


def _draw(whole: Build, cuts: int, seed: int) -> list[tuple[int, str]]:
    """Draw cut dates from the second half of the history."""
    calendar, history = (whole.project.relation(m) for m in ("ftr_calendar", "ftr_history"))
    with connect({"type": "duckdb", "path": str(whole.path)}, read_only=True) as warehouse:
        rows = warehouse.query(
            f"""
            with extent as (select min(t) as first_t, max(t) as last_t from {history})
            select calendar.t, cast(later.ds - 1 as varchar) as last_day
            from {calendar} as calendar
            inner join {calendar} as later on calendar.t + 1 = later.t
            cross join extent
            where calendar.t > (first_t + last_t) / 2 and calendar.t < last_t
            order by calendar.t
            """
        ).to_pylist()
    if len(rows) < cuts:
        raise DataError(f"The history leaves {len(rows)} dates to cut at, too few for {cuts}.")
    chosen = random.Random(seed).sample(rows, cuts)
    return sorted((row["t"], row["last_day"]) for row in chosen)


@contextmanager
def _both(whole: Build, other: Build) -> Iterator[Warehouse]:
    """Open two builds side by side, as ``whole`` and ``other``."""
    with connect({"type": "duckdb", "path": ":memory:"}, read_only=False) as warehouse:
        for alias, one in (("whole", whole), ("other", other)):
            warehouse.attach(str(one.path), alias)
        yield warehouse


def _require_change(whole: Build, other: Build, cut: str) -> None:
    """Refuse to call a comparison a proof where nothing was cut, or nothing comes after the cut."""
    with _both(whole, other) as warehouse:
        lines = _inside("other", other, "int_order_lines_checked")
        if not other.name.startswith(ABSURD_FUTURE) and len(
            warehouse.query(f"select 1 from {lines} where order_date > date {literal(cut)} limit 1")
        ):
            raise DataError(
                f"The build on data cut off at {cut} has later order lines: your project's stg_order_lines does not keep to "
                "the vars as_of and loaded_before, so the audit would prove nothing. End it with "
                "where {{ trendcast.read_as_of('<date of order>', '<time of load, UTC>') }}."
            )
        rows = warehouse.query(
            f"select 1 from (select {UNCOMPARED} from {_inside('whole', whole, 'int_sales_filled')} "
            f"except all select {UNCOMPARED} from {_inside('other', other, 'int_sales_filled')}) limit 1"
        )
    if not len(rows):
        raise DataError(
            f"Nothing was sold after {cut}, so cutting there proves nothing. Try another --seed."
        )


def compare(
    whole: Build, other: Build, cut_t: int, without: str | None = None
) -> list[dict[str, Any]]:
    """Count the rows known at the cut that only one of two builds has, and name the columns that differ.

    With ``without``, a query of series_id, those series are left out, and so are tables that are not by series.
    """
    found = []
    with _both(whole, other) as warehouse:
        for model in (*COMPARED, *FORECASTS):
            condition = _known(whole, model, cut_t, COMPARED.get(model))
            if model in FORECASTS:
                condition = _made_by(whole, other, cut_t)
            if without:
                if "series_id" not in warehouse.columns(_inside("whole", whole, model)):
                    continue
                condition += f" and series_id not in ({without})"
            sides = [
                f"(select {UNCOMPARED} from {_inside(alias, one, model)} where {condition})"
                for alias, one in (("whole", whole), ("other", other))
            ]
            row = warehouse.query(
                f"""
                select
                    (select count(*) from {sides[0]}) as compared,
                    (select count(*) from (from {sides[0]} except all from {sides[1]}))
                    + (select count(*) from (from {sides[1]} except all from {sides[0]})) as differing
                """
            ).to_pylist()[0]
            if model in FORECASTS and not (row["compared"] or row["differing"]):
                continue  # no cutoff in common, or no series for it
            columns = _differing(warehouse, sides, model) if row["differing"] else []
            found.append({"model": model, **row, "columns": columns})
    return found


def _known(whole: Build, model: str, cut_t: int, horizons: int | None) -> str:
    """Condition on the rows of a model that were known at the cut, of series that had begun by then."""
    conditions = []
    if horizons is not None:
        conditions.append(f"t <= {cut_t + horizons * whole.project.settings.horizon}")
    if model not in ("ftr_calendar", "ftr_category"):
        begun = f"select series_id from {_inside('whole', whole, 'int_series')} where first_t <= {cut_t}"
        conditions.append(f"series_id in ({begun})")
    return " and ".join(conditions)


def _made_by(whole: Build, other: Build, cut_t: int) -> str:
    """Condition on the rows of a forecast that were made by the cut, at a cutoff of both builds."""
    cutoffs = " and ".join(
        f"cutoff_t in (select cutoff_t from {_inside(alias, one, 'int_cutoffs')})"
        for alias, one in (("whole", whole), ("other", other))
    )
    return f"cutoff_t <= {cut_t} and {cutoffs}"


def _inside(alias: str, one: Build, model: str) -> str:
    """Relation name of a model in an attached warehouse."""
    _, rest = one.project.relation(model).split(".", 1)
    return f"{alias}.{rest}"


def _differing(warehouse: Warehouse, sides: list[str], model: str) -> list[str]:
    """Names of the columns that differ where the keys are the same."""
    keys = [
        k
        for k in ("series_id", "category", "t", "cutoff_t", "lead")
        if k in warehouse.columns(sides[0])
    ]
    columns = [c for c in warehouse.columns(sides[0]) if c not in keys]
    counts = ", ".join(
        f"count(case when a.{quote(c)} is distinct from b.{quote(c)} then 1 end) as {quote(c)}"
        for c in columns
    )
    row = warehouse.query(
        f"select {counts} from {sides[0]} as a inner join {sides[1]} as b using ({', '.join(keys)})"
    ).to_pylist()[0]
    return [column for column, count in row.items() if count]
