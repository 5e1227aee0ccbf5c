"""Spark: a cluster, through Spark Connect. Arrow goes in and out in batches; the session's confs are the profile's."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import re
import socket
import subprocess
import sys
import warnings
from contextlib import contextmanager, suppress
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trendcast.errors import ProjectError, UsageError, WarehouseError, WarehouseLockedError
from trendcast.streams import from_stream, to_stream
from trendcast.warehouse.base import literal, quote

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that pandas 3 is newer than what it knows
    from pyspark.errors import AnalysisException, PySparkException
    from pyspark.sql import SparkSession, functions
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: What the table that rows are appended to has behind the name of the view that shows them, as the macro ledger_log has it.
LOG = "_log"
# What a statement says that is not there.
_ABSENT = ("TABLE_OR_VIEW_NOT_FOUND", "SCHEMA_NOT_FOUND", "NO_SUCH_CATALOG_EXCEPTION")
# What a session may do that writes nothing.
_READS = re.compile(r"\s*(select|with|create or replace temporary view|describe)\b", re.IGNORECASE)
# Texts, names in quotes, comments, and what Spark has another word for outside of them.
_TOKENS = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/"
    r"|(?<=\bas )(varchar)\b|\b(double precision)\b|\b(row)(?=\()",
    re.DOTALL | re.IGNORECASE,
)
_WORDS = {"varchar": "string", "double precision": "double", "row": "struct"}
# Rows of an Arrow table that are sent at once; Spark sends batches of the same size.
_BATCH_ROWS = 100_000
# Rows that this process holds of what it appends, a file each.
_FILE_ROWS = 1_000_000
# Rows that the driver is asked for at once. It holds a job's results until they are fetched, and refuses more than
# spark.driver.maxResultSize of them, a gigabyte.
_JOB_ROWS = 1_000_000
# Shards of `by_shard` whose results the driver is asked for at once.
_JOB_SHARDS = 64


class SparkWarehouse:
    """A session on a Spark Connect server, with the settings of its dbt profile."""

    engine = "spark"
    has_workers = True
    in_process = False

    def __init__(self, session: SparkSession, schema: str, *, read_only: bool) -> None:
        self._session = session
        self._schema = schema
        self._read_only = read_only

    @classmethod
    def open(cls, output: Mapping[str, Any], *, read_only: bool) -> SparkWarehouse:
        """Connect to the server of a profile's output, which is started where it is a local one; see `trendcast.warehouse.connect`."""
        if output.get("method") != "session":
            raise ProjectError(
                f"The profile's method is {output.get('method')!r}; on Spark trendcast needs 'session', with the address of a Spark "
                "Connect server as spark.remote in server_side_parameters. dbt alone runs with the others, too."
            )
        settings = {str(k): str(v) for k, v in (output.get("server_side_parameters") or {}).items()}
        if "spark.remote" not in settings:
            raise ProjectError(
                "The profile has no spark.remote in server_side_parameters: set it to local[*] or to the address of a Spark "
                "Connect server, sc://host:port."
            )
        where = settings["spark.remote"]
        # It would print each error that is caught here, with the stack of the JVM.
        logging.getLogger("SQLQueryContextLogger").disabled = True
        # Where the server is a new one its executors run this Python.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if where.startswith("local"):
            # It and its executors talk on loopback, whatever this machine is called and whether that name is known.
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # that a server which is up already keeps its memory and folders
            builder = SparkSession.builder
            for name, value in settings.items():
                builder = builder.config(name, value)
            try:
                # Temporary views are for one session alone.
                first = builder.getOrCreate()
                # It would ask the server to clean up at the end, and again for minutes where that has gone.
                atexit.unregister(first.client._on_exit)
                session = first.newSession()
                runtime = {k: v for k, v in settings.items() if k.startswith("spark.sql.")}
                for name, value in runtime.items():
                    if session.conf.isModifiable(name):
                        session.conf.set(name, value)
                folder = session.conf.get("spark.sql.warehouse.dir", "")
            except (PySparkException, OSError) as error:
                raise WarehouseError(
                    f"Spark ({where}) cannot be opened: {_said(error)}. A local server needs Java 17 (JAVA_HOME), and there is "
                    f"{java_version() or 'none'}; else check the profile's spark.remote (TRENDCAST_SPARK_REMOTE)."
                ) from error
        _require_folder(settings, folder or "")
        return cls(session, str(output["schema"]), read_only=read_only)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the rows of a query; ``?`` stands for a parameter."""
        with _errors():
            return _plain(self._sql(sql, parameters).toArrow())

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Return the rows of a query a batch at a time, for results that should not be held whole; in no order.

        Many rows are asked for in several jobs, each for those with some of all hashes.
        """
        with _errors():
            jobs = -(-self._count([sql]) // _JOB_ROWS)
            client = self._session._client
            for job in range(jobs):
                mine = f" where pmod(xxhash64(*), {jobs}) = {job}" if jobs > 1 else ""
                frame = self._sql(f"select * from ({sql}\n) as parted{mine}")
                # What toLocalIterator does, but for making a Python object of every row.
                plan = frame._plan.to_proto(client)
                for part in client.to_table_as_iterator(plan, frame._plan.observations):
                    if isinstance(part, pa.Table):
                        yield from _plain(part).to_batches(_BATCH_ROWS)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement for its effect."""
        if not _READS.match(sql):
            self._require_writable()
        with _errors():
            self._sql(sql, parameters).collect()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is appended to the ledger inside is seen at once, when the run's own row is there, and that is appended last.

        Tables of files have no transactions that span several: what has been written before something goes wrong stays, unseen.
        """
        self._require_writable()
        yield

    def append(self, relation: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Append rows by column name and return how many."""
        self._require_writable()
        log = _beside(relation, LOG)
        target = log if self.exists(log) else relation
        types = self.columns(target)
        unknown = [name for name in rows.schema.names if name not in types]
        if unknown:
            raise WarehouseError(f"{relation} has no column {', '.join(unknown)}.")
        listed = ", ".join(map(quote, rows.schema.names))
        cast = ", ".join(f"cast({quote(n)} as {types[n]}) as {quote(n)}" for n in rows.schema.names)
        n = 0
        for part in _parts(rows):
            with _errors():
                # One file, whose name is given when it is whole: it is there or it is not.
                self._frame(part).coalesce(1).createOrReplaceTempView("_appended")
                try:
                    sql = f"insert into {target} ({listed}) select {cast} from _appended"
                    self._sql(sql).collect()
                finally:
                    self._session.catalog.dropTempView("_appended")
            n += len(part)
        return n

    def write(self, schema: str, table: str, rows: pa.Table) -> int:
        """Make a table of a schema, or replace it, and return how many rows it has."""
        relation = f"{quote(schema)}.{quote(table)}"
        self.execute(f"create schema if not exists {quote(schema)}")
        # Aside first, for rows that were read from it are gone with it.
        aside = _beside(relation, "_new")
        with _errors():
            self._frame(rows.schema.empty_table()).createOrReplaceTempView("_written")
            try:
                self._sql(f"drop table if exists {aside}").collect()
                self._sql(f"create table {aside} using parquet as select * from _written").collect()
            finally:
                self._session.catalog.dropTempView("_written")
        n = self.append(aside, rows)
        with _errors():
            self._sql(f"drop table if exists {relation}").collect()
            self._sql(f"alter table {aside} rename to {relation}").collect()
        return n

    def lookup(self, name: str, rows: pa.Table) -> None:
        """Make rows readable under ``name`` on this connection only; nothing is written."""
        with _errors():
            self._frame(rows).createOrReplaceTempView(name)

    @contextmanager
    def held(self, name: str, rows: str | pa.Table) -> Iterator[None]:
        """Rows are readable under ``name`` inside: those of a query, made each time they are read, or of this process."""
        if isinstance(rows, str):
            self.execute(f"create or replace temporary view {quote(name)} as {rows}")
        else:
            self.lookup(name, rows)
        try:
            yield
        finally:
            self._session.catalog.dropTempView(name)

    def by_shard(
        self,
        queries: Mapping[str, str],
        key: str,
        function: Callable[[Mapping[str, pa.Table]], pa.Table],
        schema: pa.Schema,
        shard_rows: int,
        n_rows: int | None = None,
    ) -> pa.Table:
        """Have the executors apply a function to shards of several queries' rows; see `trendcast.warehouse.base`.

        The function goes to each executor once a job, with the tasks' code. A shard is a task of its own, so that what an
        executor that died was at is done again by another.
        """
        with _errors():
            frames = {name: self._sql(sql) for name, sql in queries.items()}
            if n_rows is None:
                n_rows = self._count(queries.values())
            needed = -(-n_rows // shard_rows)
            shards = max(needed, int(self._session.conf.get("spark.sql.shuffle.partitions")))
            jobs = max(1, -(-needed // _JOB_SHARDS))
            parts = [
                frame.select(
                    functions.pmod(functions.xxhash64(key), functions.lit(shards)).alias("shard"),
                    functions.struct(*frame.columns).alias(name),
                )
                for name, frame in frames.items()
            ]
            # One column of rows for each query, null in those of the others.
            every = reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), parts)

            def apply(shard: pa.Table) -> pa.Table:
                return function({name: _rows_of(shard.column(name)) for name in queries})

            made = [
                every.where(functions.pmod("shard", functions.lit(jobs)) == job)
                .repartition(-(-shards // jobs), "shard")
                .groupBy("shard")
                .applyInArrow(apply, from_arrow_schema(schema))
                .toArrow()
                for job in range(jobs)
            ]
            return pa.concat_tables(_plain(rows).cast(schema) for rows in made)

    def attach(self, path: str, name: str) -> None:
        """Refuse: Spark reads no other warehouse's file."""
        raise UsageError(f"Spark cannot read {path} as {name}: only DuckDB attaches files.")

    def exists(self, relation: str) -> bool:
        """Whether the table or view exists."""
        try:
            self._sql(f"select 1 from {relation} limit 0").schema  # noqa: B018
        except AnalysisException as error:
            if error.getCondition() in _ABSENT:
                return False
            raise WarehouseError(_said(error)) from error
        return True

    def columns(self, relation: str) -> dict[str, str]:
        """Column names and types of a table or view, in order."""
        with _errors():
            schema = self._sql(f"select * from {relation} as described limit 0").schema
        return {field.name: field.dataType.simpleString().upper() for field in schema.fields}

    def safe_cast(self, expression: str, data_type: str) -> str:
        """SQL that is null where the expression cannot be read as the type."""
        return f"try_cast({expression} as {data_type})"

    def days_between(self, first: str, last: str) -> str:
        """SQL of the days from one date to another, a whole number."""
        return f"datediff({last}, {first})"

    def text_order(self, expression: str) -> str:
        """SQL to order texts by as Python does: as Spark does by itself, byte by byte."""
        return expression

    def fingerprint(self, relation: str, columns: Sequence[str]) -> str:
        """Digest of a relation's rows that does not depend on their order."""
        # The hash passes over nulls, so where they are goes into it.
        listed = ", ".join(f"{quote(column)}, isnull({quote(column)})" for column in columns)
        rows = self.query(
            f"select count(*) as n, bit_xor(h) as x, sum(pmod(h, 1000003)) as s "
            f"from (select xxhash64({listed}) as h from {relation}) as digests"
        ).to_pylist()[0]
        return hashlib.sha256(f"{rows['n']}:{rows['x']}:{rows['s']}".encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """Return ``storage_version`` and ``memory_limit``, both None: the cluster's memory is not this machine's."""
        return {"storage_version": None, "memory_limit": None}

    def is_prepared(self) -> bool:
        """Whether the table is there that SQL needs of this engine; the macro prepare_engine makes it."""
        return self.exists(f"{quote(self._schema)}.trendcast_holidays")

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Hold a lock under a name: a table, which the metastore makes once however many ask. It says who has it.

        Raises
        ------
        WarehouseLockedError
            Another process has it; names it. One of this machine that has died has not.
        """
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        lock = f"{quote(self._schema)}.{quote(f'trendcast_lock_{digest}')}"
        host, me = socket.gethostname(), f"trendcast {os.getpid()}@{socket.gethostname()}"
        self.execute(f"create schema if not exists {quote(self._schema)}")
        for _ in range(2):
            try:
                with _errors():
                    self._sql(
                        f"create table {lock} (holder string) using parquet comment {literal(me)}"
                    ).collect()
                break
            except WarehouseError:
                holder = self._comment(lock)
                found = re.fullmatch(r"trendcast (\d+)@(.+)", holder)
                if not found or found[2] != host or _lives(int(found[1])):
                    raise WarehouseLockedError(
                        f"Another trendcast run is under way on this Spark ({holder or 'it has just ended'}). Wait for it or stop "
                        f"it, then run again. Where it has died on another machine: drop table {lock}."
                    ) from None
                self.execute(f"drop table if exists {lock}")
        else:
            raise WarehouseLockedError(
                "Another trendcast run has just begun on this Spark. Wait for it."
            )
        try:
            yield
        finally:
            with suppress(WarehouseError):
                self.execute(f"drop table if exists {lock}")

    def close(self) -> None:
        """Let go of the session; a local server stays up for the next command."""
        with suppress(PySparkException):
            # Once, for where the server has gone it would be asked again for ten minutes.
            self._session.client.set_retry_policies([])
            self._session.stop()

    def __enter__(self) -> SparkWarehouse:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _count(self, queries: Iterable[str]) -> int:
        """Return how many rows several queries have together."""
        counts = " + ".join(f"(select count(*) from ({sql}\n) as counted)" for sql in queries)
        return int(self._sql(f"select {counts} as n").toArrow().column("n")[0].as_py())

    def _sql(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return self._session.sql(_spelt(sql), args=list(parameters) or None)

    def _frame(self, rows: pa.Table) -> Any:
        """Return rows of this process as a frame; many as streams, which the executors open.

        The driver makes an object of each row it is given, which has many times the row's size.
        """
        schema = from_arrow_schema(rows.schema, prefer_timestamp_ntz=False)
        if not len(rows):
            return self._session.createDataFrame([], schema)
        if len(rows) <= _BATCH_ROWS:
            return self._session.createDataFrame(rows)
        opened = to_arrow_schema(schema, timezone="UTC")

        def open_streams(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for stream in batch.column("stream").to_pylist():
                    yield from from_stream(stream).cast(opened).to_batches()

        starts = range(0, len(rows), _BATCH_ROWS)
        streams = [to_stream(rows.slice(n, _BATCH_ROWS), compression="zstd") for n in starts]
        frame = self._session.createDataFrame(pa.table({"stream": streams}))
        # Spark takes what comes of a few streams for little, and would send it through the driver to join it.
        return frame.mapInArrow(open_streams, schema).hint("merge")

    def _comment(self, relation: str) -> str:
        """Return a table's comment, empty where it has none or is gone."""
        with suppress(WarehouseError):
            described = self.query(f"describe table extended {relation}").to_pylist()
            return next((r["data_type"] for r in described if r["col_name"] == "Comment"), "")
        return ""

    def _require_writable(self) -> None:
        if self._read_only:
            raise WarehouseError("This session is read-only: it was opened to read.")


def java_version() -> str | None:
    """Return the number of the Java that a local server would be started with; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else "java"
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.search(r'version "(\d+)', said.stderr)
    return found[1] if found else None


def _require_folder(settings: Mapping[str, str], folder: str) -> None:
    """Refuse a local server that another project has started: its tables would go to that one's folder.

    Raises
    ------
    ProjectError
        The server that is up works on another folder than the profile's.
    """
    ours = settings.get("spark.sql.warehouse.dir")
    if not settings["spark.remote"].startswith("local") or not ours:
        return
    theirs = folder.removeprefix("file:")
    if Path(theirs).resolve() != Path(ours.removeprefix("file:")).resolve():
        raise ProjectError(
            f"The Spark server that is up works on {theirs}, the profile on {ours}. Stop it with "
            "`python -m pyspark.sql.connect.local_server --stop`, or set SPARK_LOCAL_CONNECT_DISCOVERY to a file of this project's, "
            "for a server of its own."
        )


def _spelt(sql: str) -> str:
    """Write types and rows as Spark does."""
    return _TOKENS.sub(lambda m: _WORDS[m[m.lastindex].lower()] if m.lastindex else m[0], sql)


def _parts(rows: pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Return rows in tables of about `_FILE_ROWS`."""
    if isinstance(rows, pa.Table):
        rows = rows.to_reader(_FILE_ROWS)
    held: list[pa.RecordBatch] = []
    for batch in rows:
        held.append(batch)
        if sum(map(len, held)) >= _FILE_ROWS:
            yield pa.Table.from_batches(held, rows.schema)
            held = []
    if sum(map(len, held)):
        yield pa.Table.from_batches(held, rows.schema)


def _beside(relation: str, suffix: str) -> str:
    """Return a relation's name with something behind it."""
    mark = relation[-1] if relation[-1] in '`"' else ""
    return f"{relation.removesuffix(mark)}{suffix}{mark}"


def _plain(table: pa.Table) -> pa.Table:
    """Return timestamps without their zone, which is UTC, and decimals in floating point, which other engines compute in."""

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_timestamp(kind):
            return pa.timestamp("us")
        return pa.float64() if pa.types.is_decimal(kind) and kind.scale else kind

    return table.cast(pa.schema([pa.field(f.name, plain(f.type)) for f in table.schema]))


def _rows_of(column: pa.ChunkedArray) -> pa.Table:
    """Return what a column of structs holds as a table, without its nulls."""
    present = column.drop_null().combine_chunks()
    fields = present.type.fields
    return _plain(
        pa.table([present.field(i) for i in range(len(fields))], names=[f.name for f in fields])
    )


def _lives(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _said(error: Exception) -> str:
    """Return Spark's own words, without the stack of the JVM."""
    return str(error).split("\n\nJVM stacktrace:")[0].strip()


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the driver's errors into ours, keeping Spark's words."""
    try:
        yield
    except PySparkException as error:
        raise WarehouseError(_said(error)) from error
