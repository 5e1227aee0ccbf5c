"""DuckDB: embedded, one writer at a time."""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from trendcast.errors import WarehouseError, WarehouseLockedError
from trendcast.warehouse.base import WithoutWorkers, all_or_nothing, literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa


_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}


class DuckDBWarehouse(WithoutWorkers):
    """A DuckDB file opened with the settings of its dbt profile."""

    engine = "duckdb"
    in_process = True

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: str) -> None:
        self._connection = connection
        self.path = path

    @classmethod
    def open(cls, output: Mapping[str, Any], *, read_only: bool) -> DuckDBWarehouse:
        """Open the file of a profile's output; see `trendcast.warehouse.connect`."""
        path = str(output.get("path", ":memory:"))
        if read_only and not Path(path).exists():
            raise WarehouseError(
                f"The warehouse file {path} does not exist. Run `trendcast run` or `dbt build` first, or "
                "point the profile's `path` (TRENDCAST_DUCKDB_PATH) at your file."
            )
        config = {str(k): v for k, v in (output.get("config_options") or {}).items()}
        # dbt's `threads` counts models built at a time, so it is no limit on DuckDB's own threads.
        config |= {str(k): v for k, v in (output.get("settings") or {}).items()}
        try:
            connection = duckdb.connect(path, read_only=read_only, config=config)
        except duckdb.IOException as error:
            raise _explain(error, path) from error
        except duckdb.Error as error:
            raise WarehouseError(f"The warehouse {path} cannot be opened: {error}") from error
        return cls(connection, path)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the rows of a query; ``?`` stands for a parameter."""
        with _errors():
            return self._connection.sql(sql, params=list(parameters)).to_arrow_table()

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Return the rows of a query a batch at a time, for results that should not be held whole."""
        with _errors():
            yield from self._connection.sql(sql).to_arrow_reader(100_000)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement for its effect."""
        with _errors():
            self._connection.execute(sql, list(parameters)).fetchall()

    def transaction(self) -> AbstractContextManager[None]:
        """All statements inside take effect together, or none of them."""
        return all_or_nothing(self.execute)

    def append(self, relation: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Append rows by column name and return how many."""
        self._connection.register("_appended", rows)
        try:
            with _errors():
                counted = self._connection.execute(
                    f"insert into {relation} by name select * from _appended"
                ).fetchone()
        finally:
            # After a failure inside a transaction this is refused too, and would hide the failure.
            with suppress(duckdb.Error):
                self._connection.unregister("_appended")
        return int(counted[0]) if counted else 0

    def write(self, schema: str, table: str, rows: pa.Table) -> int:
        """Make a table of a schema, or replace it, and return how many rows it has."""
        relation = f"{quote(schema)}.{quote(table)}"
        self.execute(f"create schema if not exists {quote(schema)}")
        self.execute(f"drop table if exists {relation}")
        self._connection.register("_written", rows)
        try:
            self.execute(f"create table {relation} as select * from _written")
        finally:
            with suppress(duckdb.Error):
                self._connection.unregister("_written")
        return len(rows)

    def lookup(self, name: str, rows: pa.Table) -> None:
        """Make rows readable under ``name`` on this connection only; nothing is written."""
        self._connection.register(name, rows)

    @contextmanager
    def held(self, name: str, rows: str | pa.Table) -> Iterator[None]:
        """Rows are readable under ``name`` inside: those of a query, made once, or of this process, which are not copied."""
        if isinstance(rows, str):
            self.execute(f"create or replace temporary table {quote(name)} as {rows}")
        else:
            self._connection.register(name, rows)
        try:
            yield
        finally:
            if isinstance(rows, str):
                self.execute(f"drop table temp.{quote(name)}")
            else:
                self._connection.unregister(name)

    def attach(self, path: str, name: str) -> None:
        """Make another warehouse's file readable under ``name`` on this connection."""
        try:
            self._connection.execute(f"attach {literal(path)} as {quote(name)} (read_only)")
        except duckdb.IOException as error:
            raise _explain(error, path) from error
        except duckdb.Error as error:
            raise WarehouseError(f"The warehouse {path} cannot be opened: {error}") from error

    def exists(self, relation: str) -> bool:
        """Whether the table or view exists."""
        try:
            self._connection.execute(f"select 1 from {relation} limit 0").fetchall()
        except duckdb.CatalogException:
            return False
        except duckdb.BinderException:
            return False
        return True

    def columns(self, relation: str) -> dict[str, str]:
        """Column names and types of a table or view, in order."""
        with _errors():
            described = self._connection.execute(f"describe select * from {relation}").fetchall()
        return {row[0]: row[1] for row in described}

    def safe_cast(self, expression: str, data_type: str) -> str:
        """SQL that is null where the expression cannot be read as the type."""
        return f"try_cast({expression} as {data_type})"

    def days_between(self, first: str, last: str) -> str:
        """SQL of the days from one date to another, a whole number."""
        return f"({last} - {first})"

    def text_order(self, expression: str) -> str:
        """SQL to order texts by as Python does: as DuckDB does by itself."""
        return expression

    def fingerprint(self, relation: str, columns: Sequence[str]) -> str:
        """Digest of a relation's rows that does not depend on their order."""
        listed = ", ".join(quote(column) for column in columns)
        rows = self.query(
            f"select count(*) as n, bit_xor(hash({listed})) as x, sum(hash({listed}) % 1000003) as s "
            f"from {relation}"
        ).to_pylist()[0]
        return hashlib.sha256(f"{rows['n']}:{rows['x']}:{rows['s']}".encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """Return ``storage_version`` (the oldest client that opens the file; None where none is said) and ``memory_limit``, bytes."""
        (row,) = self.query(
            "select tags['storage_version'] as version, current_setting('memory_limit') as memory "
            "from duckdb_databases() where database_name = current_database()"
        ).to_pylist()
        version = re.match(r"v[\d.]+", row["version"] or "")
        amount, unit = row["memory"].split()
        return {
            "storage_version": version[0] if version else None,
            "memory_limit": int(float(amount) * _UNITS[unit]),
        }

    def is_prepared(self) -> bool:
        """Whether the engine has what SQL needs: always."""
        return True

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._connection.close()

    def __enter__(self) -> DuckDBWarehouse:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the driver's errors into ours, keeping DuckDB's words."""
    try:
        yield
    except duckdb.Error as error:
        raise WarehouseError(str(error)) from error


def _explain(error: duckdb.IOException, path: str) -> WarehouseError:
    """Say who holds the lock where that is what went wrong."""
    text = str(error)
    held = re.search(r"held in (.+?) \(PID (\d+)\)(?: by user (\S+))?", text)
    if held:
        program, pid, user = held.groups()
        who = f"process {pid} ({program}{', user ' + user.rstrip('.') if user else ''})"
        return WarehouseLockedError(
            f"The warehouse {path} is in use by {who}; DuckDB takes one writer at a time. "
            "Wait for it or stop it, then run again. BI tools should read a copy, see `trendcast publish`."
        )
    if "lock" in text.lower():
        return WarehouseLockedError(f"The warehouse {path} is locked by another process: {text}")
    return WarehouseError(f"The warehouse {path} cannot be opened: {text}")
