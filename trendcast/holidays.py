"""Public holidays for engines on which dbt cannot ask the `holidays` library: a table that SQL reads in its place."""

from __future__ import annotations

import datetime as dt
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trendcast.errors import ProjectError, UsageError
from trendcast.vars import package_dir
from trendcast.warehouse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trendcast.warehouse import Warehouse

#: The dbt Python model that asks the library where the engine runs it, in the package's folder.
MODEL = "models/intermediate/int_public_holidays.py"
#: As the macro holidays_table() has it.
TABLE = "trendcast_holidays"
#: Years after this one for which holidays are listed at least.
YEARS_AHEAD = 3


def load(warehouse: Warehouse, schema: str, project_dir: Path, vars: Mapping[str, Any]) -> int:
    """List the holidays of the var ``holiday_country``, unless they are there; return how many were written.

    From the year of the var ``min_order_date`` to some after this one: dates that are not needed cost nothing.

    Raises
    ------
    UsageError
        The library does not know the country or its part; names the valid ones.
    """
    country, part = vars["holiday_country"], vars["holiday_subdivision"] or ""
    if country is None or not (vars["features"] or {}).get("holidays", True):
        return 0
    relation = f"{quote(schema)}.{quote(TABLE)}"
    last = dt.date.today().year + YEARS_AHEAD
    newest = warehouse.query(
        f"select max(date_day) as newest from {relation} where country = ? and subdivision = ?",
        [country, part],
    )
    newest_day = newest.column("newest")[0].as_py()
    if newest_day is not None and newest_day.year >= last - 1:
        return 0
    years = range(dt.date.fromisoformat(str(vars["min_order_date"])[:10]).year, last + 1)
    try:
        days = _library(project_dir)(country, part or None, years)
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = [(day, name) for day in sorted(days) for name in days.get_list(day)]
    table = pa.table(
        {
            "country": pa.repeat(pa.scalar(country), len(rows)),
            "subdivision": pa.repeat(pa.scalar(part), len(rows)),
            "date_day": pa.array([day for day, _ in rows], pa.date32()),
            "name": [name for _, name in rows],
        }
    )
    others = warehouse.query(
        f"select * from {relation} where not (country = ? and subdivision = ?)", [country, part]
    )
    warehouse.write(
        schema,
        TABLE,
        pa.concat_tables([others.select(table.column_names), table], promote_options="permissive"),
    )
    return len(table)


def _library(project_dir: Path) -> Any:
    """Return the function of the dbt Python model that asks the library, so that there is one of it."""
    path = package_dir(project_dir) / MODEL
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ProjectError(f"{path} is missing. Install the package again: dbt deps")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.public_holidays
