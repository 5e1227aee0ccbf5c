"""What trendcast needs of a database."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from trendcast.errors import UsageError, WarehouseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa


def quote(identifier: str) -> str:
    """Quote an identifier for SQL text.

    Names of columns and tables may come from a user's YAML, so every one passes through here; values
    never do, they are bound as parameters.
    """
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write text as an SQL string, for statements that take no parameters, such as ATTACH."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def all_or_nothing(execute: Callable[[str], None], begin: str = "begin") -> Iterator[None]:
    """What is executed inside takes effect together, or not at all."""
    execute(begin)
    try:
        yield
    except BaseException:
        # What went wrong matters more than a transaction the engine has already given up.
        with suppress(WarehouseError):
            execute("rollback")
        raise
    execute("commit")


class Warehouse(Protocol):
    """A connection that reads Arrow and appends Arrow; relations are dbt's rendered names."""

    #: dbt's name of the engine, the ``type`` of a profile's output.
    engine: str
    #: Whether `by_shard` works: the engine has workers that run Python.
    has_workers: bool
    #: Whether the engine is in this process, so that what it reads goes over no wire.
    in_process: bool

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Return the rows of a query; ``?`` stands for a parameter."""

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Return the rows of a query a batch at a time, for results that should not be held whole."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Run a statement for its effect."""

    def transaction(self) -> AbstractContextManager[None]:
        """All statements inside take effect together, or none of them."""

    def append(self, relation: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Append rows by column name and return how many."""

    def write(self, schema: str, table: str, rows: pa.Table) -> int:
        """Make a table of a schema, or replace it, and return how many rows it has."""

    def lookup(self, name: str, rows: pa.Table) -> None:
        """Make rows readable under ``name`` on this connection only; nothing is written."""

    def held(self, name: str, rows: str | pa.Table) -> AbstractContextManager[None]:
        """Rows are readable under ``name`` on this connection inside: those of a query, or of this process."""

    def by_shard(
        self,
        queries: Mapping[str, str],
        key: str,
        function: Callable[[Mapping[str, pa.Table]], pa.Table],
        schema: pa.Schema,
        shard_rows: int,
        n_rows: int | None = None,
    ) -> pa.Table:
        """Have the engine's workers apply a function to shards of several queries' rows at once; return all that it returns.

        Rows with the same ``key``, a column of every query, go to the same shard. The function is given the shard's rows by the
        queries' names, about ``shard_rows`` in all, and returns rows of the ``schema``. Rows are counted first unless ``n_rows`` says
        how many there are at most.
        """

    def attach(self, path: str, name: str) -> None:
        """Make another warehouse's file readable under ``name`` on this connection."""

    def exists(self, relation: str) -> bool:
        """Whether the table or view exists."""

    def columns(self, relation: str) -> dict[str, str]:
        """Column names and types of a table or view, in order."""

    def safe_cast(self, expression: str, data_type: str) -> str:
        """SQL that is null where the expression cannot be read as the type."""

    def days_between(self, first: str, last: str) -> str:
        """SQL of the days from one date to another, a whole number."""

    def text_order(self, expression: str) -> str:
        """SQL to order texts by as Python does, by their characters' numbers and not as a language has it."""

    def fingerprint(self, relation: str, columns: Sequence[str]) -> str:
        """Digest of a relation's rows that does not depend on their order."""

    def about(self) -> dict[str, Any]:
        """Return ``storage_version`` (the oldest client that opens the file; None where none is said) and ``memory_limit``, bytes.

        Both are None where the engine is a server, whose memory is not this machine's.
        """

    def is_prepared(self) -> bool:
        """Whether what SQL needs of the engine beside its own functions is there; the macro prepare_engine makes it."""

    def close(self) -> None:
        """Let go of the warehouse and its lock."""

    def __enter__(self) -> Warehouse: ...

    def __exit__(self, *exc: object) -> None: ...


class WithoutWorkers:
    """An engine that runs no Python where its rows are."""

    engine: str
    has_workers = False

    def by_shard(self, *_: Any, **__: Any) -> pa.Table:
        """Refuse, naming the engine."""
        raise UsageError(
            f"The engine {self.engine} has no workers that run Python: only spark has."
        )
