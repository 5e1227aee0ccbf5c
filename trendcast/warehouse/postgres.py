"""Postgres: a server, many writers. Arrow goes in and out in binary, by COPY, through ADBC."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import adbc_driver_manager.dbapi as dbapi
import adbc_driver_postgresql.dbapi as driver
import pyarrow as pa
import pyarrow.compute as pc

from trendcast.errors import UsageError, WarehouseError, WarehouseLockedError
from trendcast.warehouse.base import WithoutWorkers, all_or_nothing, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

# What a statement says that is there and is not, by Postgres' error codes: table, schema, another database.
_ABSENT = ("42P01", "3F000", "0A000")
# Appended at once, of which Postgres' own count may come too late for the next query's plan.
_MANY_ROWS = 1000
# The keys of a profile's output that libpq knows, by libpq's names for them.
_SETTINGS = {
    "host": "host",
    "port": "port",
    "user": "user",
    "password": "password",
    "pass": "password",
    "dbname": "dbname",
    "database": "dbname",
    "connect_timeout": "connect_timeout",
    "sslmode": "sslmode",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
    "sslrootcert": "sslrootcert",
    "keepalives_idle": "keepalives_idle",
}
# Texts, names in quotes, comments, and the question marks outside of them.
_TOKENS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|(\?)", re.DOTALL)


class PostgresWarehouse(WithoutWorkers):
    """A session on a Postgres server, with the settings of its dbt profile."""

    engine = "postgres"
    in_process = False

    def __init__(self, connection: dbapi.Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    @classmethod
    def open(cls, output: Mapping[str, Any], *, read_only: bool) -> PostgresWarehouse:
        """Connect to the server of a profile's output; see `trendcast.warehouse.connect`."""
        settings = {_SETTINGS[k]: v for k, v in output.items() if k in _SETTINGS and v is not None}
        # What the server's administrator, and another run that has to wait, sees of us.
        settings["application_name"] = f"trendcast {os.getpid()}@{socket.gethostname()}"
        info = " ".join(f"{key}={_quoted(str(value))}" for key, value in settings.items())
        where = f"{settings.get('host')}:{settings.get('port')}/{settings.get('dbname')}"
        try:
            connection = driver.connect(info, autocommit=True)
        except dbapi.Error as error:
            raise WarehouseError(
                f"The Postgres database {where} cannot be opened: {_said(error)}. Check that the server runs, and the "
                "profile's host, port, user, password and dbname (TRENDCAST_POSTGRES_HOST, ...)."
            ) from error
        warehouse = cls(connection, str(output["schema"]))
        try:
            if output.get("search_path"):
                warehouse.execute(f"set search_path to {output['search_path']}")
            if output.get("role"):
                warehouse.execute(f"set role {quote(str(output['role']))}")
            # A parallel plan adds up in another order each time, and a float's sum is of the order.
            warehouse.execute("set max_parallel_workers_per_gather = 0")
            warehouse.execute("set extra_float_digits = 1")
            if read_only:
                warehouse.execute("set default_transaction_read_only = on")
        except WarehouseError:
            connection.close()
            raise
        return warehouse

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the rows of a query; ``?`` stands for a parameter."""
        with _errors(), self._connection.cursor() as cursor:
            cursor.execute(_numbered(sql), list(parameters) or None)
            table = cursor.fetch_arrow_table()
        columns = [_plain(c, f) for c, f in zip(table.columns, table.schema, strict=True)]
        return pa.table(columns, names=table.column_names)

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Return the rows of a query a batch at a time, for results that should not be held whole."""
        with _errors(), self._connection.cursor() as cursor:
            cursor.execute(sql)
            for batch in cursor.fetch_record_batch():
                columns = [_plain(c, f) for c, f in zip(batch.columns, batch.schema, strict=True)]
                yield pa.record_batch(columns, names=batch.schema.names)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement for its effect."""
        with _errors(), self._connection.cursor() as cursor:
            cursor.execute(_numbered(sql), list(parameters) or None)

    def transaction(self) -> AbstractContextManager[None]:
        """All statements inside take effect together, or none of them."""
        return all_or_nothing(self.execute)

    def append(self, relation: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Append rows by column name and return how many."""
        # By way of a table of the session: COPY takes no type but the column's own, an insert casts.
        listed = ", ".join(map(quote, rows.schema.names))
        count = self._ingest("_appended", rows)
        try:
            self.execute(
                f"insert into {relation} ({listed}) select {listed} from pg_temp._appended"
            )
            if count >= _MANY_ROWS:  # and what reads them next must not plan for none
                self.execute(f"analyze {relation}")
        finally:
            with suppress(WarehouseError):
                self._drop("_appended")
        return count

    def lookup(self, name: str, rows: pa.Table) -> None:
        """Make rows readable under ``name`` on this connection only; nothing is written."""
        # Tables of a session are for it alone, but a read-only transaction may not make one.
        with all_or_nothing(self.execute, "begin read write"):
            self._ingest(name, rows)
            self.execute(f"analyze pg_temp.{quote(name)}")

    @contextmanager
    def held(self, name: str, rows: str | pa.Table) -> Iterator[None]:
        """Rows are readable under ``name`` inside: those of a query, made once, or of this process, which are sent."""
        if isinstance(rows, str):
            with all_or_nothing(self.execute, "begin read write"):
                self._drop(name)
                self.execute(f"create temporary table {quote(name)} as {rows}")
        else:
            self.lookup(name, rows)
        try:
            yield
        finally:
            with suppress(WarehouseError), all_or_nothing(self.execute, "begin read write"):
                self._drop(name)

    def write(self, schema: str, table: str, rows: pa.Table) -> int:
        """Make a table of a schema, or replace it, and return how many rows it has."""
        self.execute(f"create schema if not exists {quote(schema)}")
        with _errors(), self._connection.cursor() as cursor:
            count = int(cursor.adbc_ingest(table, rows, mode="replace", db_schema_name=schema))
        self.execute(f"analyze {quote(schema)}.{quote(table)}")
        return count

    def attach(self, path: str, name: str) -> None:
        """Refuse: Postgres reads no other warehouse's file."""
        raise UsageError(f"Postgres cannot read {path} as {name}: only DuckDB attaches files.")

    def exists(self, relation: str) -> bool:
        """Whether the table or view exists."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(f"select 1 from {relation} limit 0")
                cursor.fetch_arrow_table()
        except dbapi.Error as error:
            if error.sqlstate in _ABSENT:
                return False
            raise WarehouseError(_said(error)) from error
        return True

    def columns(self, relation: str) -> dict[str, str]:
        """Column names and types of a table or view, in order."""
        with _errors(), self._connection.cursor() as cursor:
            cursor.execute(f"select * from {relation} as described limit 0")
            schema = cursor.fetch_arrow_table().schema
        return {field.name: _type(field) for field in schema}

    def safe_cast(self, expression: str, data_type: str) -> str:
        """SQL that is null where the expression cannot be read as the type."""
        digits = re.findall(r"\d+", data_type)
        function = f"{quote(self._schema)}.trendcast_{'decimal' if digits else 'timestamp'}"
        return f"cast({function}({', '.join([expression, *digits])}) as {data_type})"

    def days_between(self, first: str, last: str) -> str:
        """SQL of the days from one date to another, a whole number."""
        return f"({last} - {first})"

    def text_order(self, expression: str) -> str:
        """SQL to order texts by as Python does, whatever the database's collation."""
        return f'{expression} collate "C"'

    def fingerprint(self, relation: str, columns: Sequence[str]) -> str:
        """Digest of a relation's rows that does not depend on their order."""
        digest = f"hash_record_extended(row({', '.join(map(quote, columns))}), 0)"
        rows = self.query(
            f"select count(*) as n, bit_xor(h) as x, cast(sum(mod(h, 1000003)) as bigint) as s "
            f"from (select {digest} as h from {relation}) as digests"
        ).to_pylist()[0]
        return hashlib.sha256(f"{rows['n']}:{rows['x']}:{rows['s']}".encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """Return ``storage_version`` and ``memory_limit``, both None: the server's memory is not this machine's."""
        return {"storage_version": None, "memory_limit": None}

    def is_prepared(self) -> bool:
        """Whether the functions are there that SQL needs of this engine; the macro prepare_engine makes them."""
        return self.exists(f"{quote(self._schema)}.trendcast_holidays")  # made together with them

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold an advisory lock of the database under a name, which ends with the session at the latest.

        Raises
        ------
        WarehouseLockedError
            Another session has it; names it.
        """
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        (row,) = self.query("select pg_try_advisory_lock(?) as got", [key]).to_pylist()
        if not row["got"]:
            holders = self.query(
                "select activity.pid, activity.application_name, host(activity.client_addr) as address "
                "from pg_locks as locks inner join pg_stat_activity as activity on locks.pid = activity.pid "
                "where locks.locktype = 'advisory' and locks.granted "
                "and ((locks.classid::bigint << 32) | locks.objid::bigint) = ?",
                [key],
            ).to_pylist()
            who = "; ".join(
                f"{h['application_name'] or 'a session'} from {h['address'] or 'the server itself'}, server process {h['pid']}"
                for h in holders
            )
            raise WarehouseLockedError(
                f"Another trendcast run is under way on this database ({who or 'it has just ended'}). Wait for it or stop it, "
                "then run again."
            )
        try:
            yield
        finally:
            with suppress(WarehouseError):
                self.query("select pg_advisory_unlock(?) as gone", [key])

    def close(self) -> None:
        """Let go of the session."""
        self._connection.close()

    def __enter__(self) -> PostgresWarehouse:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ingest(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Put rows into a table of the session, in place of an earlier one of the name."""
        self._drop(name)
        with _errors(), self._connection.cursor() as cursor:
            return int(cursor.adbc_ingest(name, rows, mode="create", temporary=True))

    def _drop(self, name: str) -> None:
        self.execute(f"drop table if exists pg_temp.{quote(name)}")


def _quoted(value: str) -> str:
    """Write a value of a connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _numbered(sql: str) -> str:
    """Write parameters as Postgres does, $1, $2, ..."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if not match[1]:
            return match[0]
        count += 1
        return f"${count}"

    return _TOKENS.sub(replace, sql)


def _type(field: pa.Field) -> str:
    """Return Postgres' name of a column's type, with the digits of a decimal."""
    about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    name = about.get("POSTGRESQL:type", str(field.type)).upper()
    digits = _digits(field)
    return f"{name}({digits[0]},{digits[1]})" if digits else name


def _digits(field: pa.Field) -> tuple[int, int] | None:
    """Return precision and scale of a column declared as a decimal that Arrow can hold."""
    about = field.metadata or {}
    if about.get(b"POSTGRESQL:type") != b"numeric":
        return None
    code = int(about.get(b"POSTGRESQL:typmod", b"-1")) - 4
    precision, scale = (code >> 16) & 0xFFFF, code & 0x7FF
    return (precision, scale) if code >= 0 and precision <= 38 else None


def _plain(column: pa.Array | pa.ChunkedArray, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    """Return a decimal, which comes as text, as a number: of its declared digits, else in floating point."""
    about = field.metadata or {}
    if about.get(b"POSTGRESQL:type") != b"numeric":
        return column
    text = column.cast(pa.string())
    digits = _digits(field)
    return pc.cast(text, pa.decimal128(*digits) if digits else pa.float64())


def _said(error: dbapi.Error) -> str:
    """Return Postgres' own words, without the driver's and the query."""
    text = str(error)
    found = re.search(r"(?:ERROR|FATAL): +(.*?)(?:\n\nQuery was:|\. SQLSTATE:|$)", text, re.DOTALL)
    return (found[1] if found else text.removeprefix("IO: ")).strip()


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the driver's errors into ours, keeping Postgres' words."""
    try:
        yield
    except dbapi.Error as error:
        raise WarehouseError(_said(error)) from error
