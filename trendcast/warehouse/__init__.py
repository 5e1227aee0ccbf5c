"""The only place that talks to a database: one protocol, one module per engine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trendcast.errors import ProjectError, UsageError
from trendcast.warehouse.base import Warehouse, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trendcast.warehouse.postgres import PostgresWarehouse
    from trendcast.warehouse.spark import SparkWarehouse

SERVERS = ("postgres", "spark")
ENGINES = ("duckdb", *SERVERS)

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
    if engine in SERVERS:
        return _server(engine).open(output, read_only=read_only)
    raise ProjectError(
        f"The profile's type is {engine!r}; trendcast runs on: {', '.join(ENGINES)}. "
        "Choose another target with --target."
    )


def _server(engine: str) -> type[PostgresWarehouse] | type[SparkWarehouse]:
    """Return the class of an engine that is a process of its own, whose driver is an extra."""
    try:
        if engine == "postgres":
            from trendcast.warehouse.postgres import PostgresWarehouse

            return PostgresWarehouse
        from trendcast.warehouse.spark import SparkWarehouse

        return SparkWarehouse
    except ImportError as error:
        raise ProjectError(
            f"The profile's type is {engine!r}, whose driver is not installed ({error}). Install it with "
            f"pip install 'trendcast[{engine}]', or choose another target with --target."
        ) from error


def is_server(output: Mapping[str, Any]) -> bool:
    """Whether the engine is a process of its own, with many writers, and not a file that one process opens."""
    return output.get("type") != "duckdb"


def place(output: Mapping[str, Any]) -> str:
    """Say where the warehouse is: its file, its server and database, or its cluster."""
    if not is_server(output):
        return str(output.get("path", ":memory:"))
    if output.get("type") == "spark":
        settings = output.get("server_side_parameters") or {}
        remote = str(settings.get("spark.remote"))
        folder = settings.get("spark.sql.warehouse.dir") if remote.startswith("local") else None
        return f"{remote} ({folder})" if folder else remote
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
    opened = _server(str(output.get("type"))).open(output, read_only=False)
    with opened as warehouse, warehouse.exclusive(name):
        yield
