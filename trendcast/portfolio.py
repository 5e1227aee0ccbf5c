"""Parts of a portfolio: rows whose columns have one of the values asked for, and errors that name the nearest ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trendcast.errors import one_of
from trendcast.warehouse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trendcast.warehouse import Warehouse


def narrowed(warehouse: Warehouse, relation: str, where: Mapping[str, Any]) -> str:
    """Return the condition that each column of a relation named has one of the values asked for.

    It holds on this connection. Values come as a table and not as parameters, for there may be thirty thousand.

    Parameters
    ----------
    where
        Column to a value or several; None is any value. Compared as text.

    Raises
    ------
    UsageError
        The relation has no such column, or no row has such a value.
    """
    columns = list(warehouse.columns(relation))
    conditions = []
    for column, wanted in where.items():
        if column not in columns:
            raise one_of("column", column, columns)
        if wanted is None:
            continue
        values, name = listed(wanted), f"wanted_{column}"
        warehouse.lookup(name, pa.table({"value": pa.array(values, pa.string())}))
        text = f"cast({quote(column)} as varchar)"
        _require(
            warehouse, column, values, f"select distinct {text} as value from {relation}", name
        )
        conditions.append(f"{text} in (select value from {quote(name)})")
    return " and ".join(conditions) or "true"


def listed(value: Any) -> list[str]:
    """Return one value, or several, as different texts."""
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    return list(dict.fromkeys(map(str, value if several else [value])))


def _require(
    warehouse: Warehouse, column: str, wanted: Sequence[str], present: str, lookup: str
) -> None:
    found = warehouse.query(
        f"select value from ({present}) as present where value in (select value from {quote(lookup)})"
    )
    missing = set(wanted) - set(found.column("value").to_pylist())
    if missing:
        valid = warehouse.query(f"select value from ({present}) as present where value is not null")
        what = "series" if column == "series_id" else f"value of {column}"
        came = next(value for value in wanted if value in missing)
        raise one_of(what, came, sorted(valid.column("value").to_pylist()))
