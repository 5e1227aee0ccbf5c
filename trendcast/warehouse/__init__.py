"""The only place that talks to a database: one protocol, one module per engine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trendcast.errors import ProjectError, UsageError
from trendcast.warehouse.base import Warehouse, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENGINES = ("duckdb", "postgres")

__all__ = [
    "ENGINES",
    "Warehouse",
    "connect",
    "is_server",
    "literal",
    "place",
    "quote",
    "require_duckdb",
    "run_alone",
]


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


def is_server(output: Mapping[str, Any]) -> bool:
    """Whether the engine is a process of its own, with many writers, and not a file that one process opens."""
    return output.get("type") != "duckdb"


def place(output: Mapping[str, Any]) -> str:
    """Say where the warehouse is: its file, or its server and database."""
    if not is_server(output):
        return str(output.get("path", ":memory:"))
    return f"{output.get('host')}:{output.get('port')}/{output.get('dbname') or output.get('database')}"


def require_duckdb(output: Mapping[str, Any], command: str, instead: str) -> None:
    """Refuse a command that only DuckDB can do, with the engine there is and what to do instead.

    Raises
    ------
    UsageError
        The engine is another.
    """
    if is_server(output):
        raise UsageError(
            f"`trendcast {command}` runs on duckdb; the target is {output.get('type')} {place(output)}. {instead}"
        )


@contextmanager
def run_alone(output: Mapping[str, Any], name: str) -> Iterator[None]:
    """Be the one run of all machines that write to a server's database, under a name; of a file there is one writer anyway.

    Raises
    ------
    WarehouseLockedError
        Another run is under way; names it.
    """
    if not is_server(output):
        yield
        return
    from trendcast.warehouse.postgres import PostgresWarehouse

    with PostgresWarehouse.open(output, read_only=False) as warehouse, warehouse.exclusive(name):
        yield
