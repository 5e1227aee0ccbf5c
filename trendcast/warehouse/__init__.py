"""The only place that talks to a database: one protocol, one module per engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trendcast.errors import ProjectError
from trendcast.warehouse.base import Warehouse, literal, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

ENGINES = ("duckdb", "postgres")

__all__ = ["ENGINES", "Warehouse", "connect", "literal", "quote"]


def connect(output: Mapping[str, Any], *, read_only: bool) -> Warehouse:
    """Open the warehouse a dbt profile's output describes.

    Parameters
    ----------
    output
        One rendered entry of a profile's ``outputs``.
    read_only
        True for everything but committing a run, so that other readers are not shut out.

    Raises
    ------
    ProjectError
        The profile's ``type`` is an engine trendcast does not run on.
    WarehouseLockedError
        Another process writes to the warehouse; the message names it.
    """
    engine = output.get("type")
    if engine == "duckdb":
        from trendcast.warehouse.duckdb import DuckDBWarehouse

        return DuckDBWarehouse.open(output, read_only=read_only)
    if engine == "postgres":
        try:
            from trendcast.warehouse.postgres import PostgresWarehouse
        except ImportError as error:
            raise ProjectError(
                f"The profile's type is 'postgres', whose driver is not installed ({error}). Install it with "
                "pip install 'trendcast[postgres]', or choose another target with --target."
            ) from error
        return PostgresWarehouse.open(output, read_only=read_only)
    raise ProjectError(
        f"The profile's type is {engine!r}; trendcast runs on: {', '.join(ENGINES)}. "
        "Choose another target with --target."
    )
