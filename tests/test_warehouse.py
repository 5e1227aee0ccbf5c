"""The DuckDB warehouse: quoting, locks, transactions, appends and fingerprints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import held
from tests.engines import require_held
from trendcast.errors import ProjectError, WarehouseError, WarehouseLockedError
from trendcast.warehouse import connect, quote
from trendcast.warehouse.duckdb import DuckDBWarehouse


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.duckdb"


@pytest.fixture
def warehouse(path: Path) -> Iterator[DuckDBWarehouse]:
    with DuckDBWarehouse.open({"path": path}, read_only=False) as opened:
        yield opened


def rows(warehouse: DuckDBWarehouse, sql: str) -> list[dict[str, object]]:
    return warehouse.query(sql).to_pylist()


# --- Names and values ---


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1, alphabet=st.characters(exclude_characters="\0", codec="utf-8")))
@example('"; drop table t; --')
def test_quoted_names_are_only_names(name: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"create table t as select 7 as {quote(name)}")
        assert connection.execute(f"select {quote(name)} from t").fetchone() == (7,)
        assert connection.execute("describe t").fetchone()[0] == name


def test_parameters_are_values_and_never_sql(warehouse: DuckDBWarehouse) -> None:
    text = "x'); drop table t; --"
    warehouse.execute("create table t (name varchar)")
    warehouse.execute("insert into t values (?)", [text])
    found = warehouse.query("select name from t where name = ?", [text]).to_pylist()
    assert found == [{"name": text}]


def test_safe_cast_is_null_where_the_value_cannot_be_read(warehouse: DuckDBWarehouse) -> None:
    as_number = warehouse.safe_cast("v", "decimal(18, 6)")
    found = rows(
        warehouse, f"select v, cast({as_number} as double) as n from (values ('2.5'), ('two')) t(v)"
    )
    assert {row["v"]: row["n"] for row in found} == {"2.5": 2.5, "two": None}


def test_errors_keep_the_engines_words(warehouse: DuckDBWarehouse) -> None:
    for run in (warehouse.query, warehouse.execute, warehouse.columns):
        with pytest.raises(WarehouseError, match="no_such_table"):
            run("no_such_table" if run == warehouse.columns else "select * from no_such_table")


# --- Opening ---


def test_unknown_engine_lists_the_valid_ones() -> None:
    with pytest.raises(ProjectError, match=r"'oracle'.*duckdb"):
        connect({"type": "oracle"}, read_only=True)


def test_reading_a_missing_file_does_not_make_one(path: Path) -> None:
    with pytest.raises(WarehouseError, match=f"{path} does not exist"):
        connect({"type": "duckdb", "path": str(path)}, read_only=True)
    assert not path.exists()


def test_a_file_that_is_no_warehouse_is_an_error(path: Path) -> None:
    path.write_text("order_id,quantity\n" * 1000)
    with pytest.raises(WarehouseError, match="cannot be opened"):
        connect({"type": "duckdb", "path": str(path)}, read_only=False)


def test_read_only_cannot_write(path: Path) -> None:
    DuckDBWarehouse.open({"path": path}, read_only=False).close()
    with (
        DuckDBWarehouse.open({"path": path}, read_only=True) as reader,
        pytest.raises(WarehouseError, match="read-only"),
    ):
        reader.execute("create table t as select 1")


def test_settings_of_the_profile_apply(path: Path) -> None:
    output = {
        "type": "duckdb",
        "path": str(path),
        "threads": 7,
        "settings": {"threads": 1},
        "config_options": {"storage_compatibility_version": "v1.0.0"},
    }
    with connect(output, read_only=False) as warehouse:
        sql = "select current_setting('threads') as n, current_setting('storage_compatibility_version') as v"
        assert warehouse.query(sql).to_pylist() == [{"n": 1, "v": "v1.0.0"}]


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the warehouse open for writing."""
    with held(path) as process:
        yield process


@pytest.mark.parametrize("read_only", [True, False])
def test_a_locked_file_names_who_holds_it(
    path: Path, holder: subprocess.Popen[str], read_only: bool
) -> None:
    with pytest.raises(WarehouseLockedError, match=f"in use by process {holder.pid} ") as raised:
        connect({"type": "duckdb", "path": str(path)}, read_only=read_only)
    assert str(path) in str(raised.value)
    holder.kill()
    holder.wait()
    connect({"type": "duckdb", "path": str(path)}, read_only=read_only).close()


def test_closing_frees_the_file(path: Path) -> None:
    with DuckDBWarehouse.open({"path": path}, read_only=False) as warehouse:
        warehouse.execute("create table t as select 1 as x")
    code = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('insert into t values (2)')"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


# --- Writing ---


def test_a_transaction_is_all_or_nothing(warehouse: DuckDBWarehouse) -> None:
    warehouse.execute("create table t (x integer)")
    with pytest.raises(ZeroDivisionError), warehouse.transaction():
        warehouse.append("t", pa.table({"x": [1, 2]}))
        raise ZeroDivisionError
    assert rows(warehouse, "select x from t") == []
    # A statement that fails leaves nothing either, and the connection can go on.
    with pytest.raises(WarehouseError, match="no number"), warehouse.transaction():
        warehouse.append("t", pa.table({"x": [1]}))
        warehouse.append("t", pa.table({"x": ["no number"]}))
    with warehouse.transaction():
        warehouse.append("t", pa.table({"x": [3]}))
        warehouse.append("t", pa.table({"x": [4]}))
    assert rows(warehouse, "select x from t order by x") == [{"x": 3}, {"x": 4}]


def test_the_first_error_is_the_one_told(warehouse: DuckDBWarehouse) -> None:
    with pytest.raises(ZeroDivisionError), warehouse.transaction():
        warehouse.execute("rollback")  # as the engine does by itself when its disk is full
        raise ZeroDivisionError


def test_append_goes_by_name(warehouse: DuckDBWarehouse) -> None:
    warehouse.execute("create table t (a integer, b varchar, c double)")
    assert warehouse.append("t", pa.table({"b": ["x", "y"], "a": [1, 2]})) == 2
    assert rows(warehouse, "select * from t order by a") == [
        {"a": 1, "b": "x", "c": None},
        {"a": 2, "b": "y", "c": None},
    ]
    with pytest.raises(WarehouseError, match="no_such_column"):
        warehouse.append("t", pa.table({"no_such_column": [1]}))


def test_appended_rows_do_not_stay_registered(warehouse: DuckDBWarehouse) -> None:
    warehouse.execute("create table t (a integer)")
    warehouse.append("t", pa.table({"a": [1]}))
    assert not warehouse.exists("_appended")


def test_a_lookup_is_not_written(path: Path) -> None:
    with DuckDBWarehouse.open({"path": path}, read_only=False) as warehouse:
        warehouse.lookup("weights", pa.table({"w": [0.5]}))
        assert rows(warehouse, "select w from weights") == [{"w": 0.5}]
    with DuckDBWarehouse.open({"path": path}, read_only=True) as warehouse:
        assert not warehouse.exists("weights")
        require_held(warehouse)


def test_exists_and_columns(warehouse: DuckDBWarehouse) -> None:
    warehouse.execute('create schema "my shop"')
    warehouse.execute('create table "my shop"."order lines" ("the id" integer, sold timestamp)')
    assert warehouse.exists('"my shop"."order lines"')
    assert not warehouse.exists('"my shop"."orders"')
    assert not warehouse.exists('"no schema"."order lines"')
    assert not warehouse.exists('"no catalogue"."my shop"."order lines"')
    columns = warehouse.columns('"my shop"."order lines"')
    assert list(columns.items()) == [("the id", "INTEGER"), ("sold", "TIMESTAMP")]


# --- Fingerprints ---


def test_fingerprint_is_of_the_rows_and_not_their_order(warehouse: DuckDBWarehouse) -> None:
    def of(values: str) -> str:
        warehouse.execute(f'create or replace table t as from (values {values}) t(a, "b c")')
        return warehouse.fingerprint("t", ["a", "b c"])

    base = of("(1, 'x'), (2, 'y'), (3, null)")
    assert base == of("(3, null), (1, 'x'), (2, 'y')")
    others = {
        of("(1, 'x'), (2, 'y')"),
        of("(1, 'x'), (2, 'y'), (3, '')"),
        of("(1, 'y'), (2, 'x'), (3, null)"),
        of("(1, 'x'), (2, 'y'), (3, null), (3, null)"),
        # Pairs of equal rows cancel out in an exclusive or.
        of("(1, 'x'), (2, 'y'), (3, null), (4, 'z'), (4, 'z')"),
        of("(1, 'x'), (2, 'y'), (3, null), (5, 'z'), (5, 'z')"),
    }
    assert len(others | {base}) == 7


def test_fingerprint_reads_only_the_columns_given(warehouse: DuckDBWarehouse) -> None:
    warehouse.execute("create table t as select 1 as a, 2 as b")
    before = warehouse.fingerprint("t", ["a"]), warehouse.fingerprint("t", ["a", "b"])
    warehouse.execute("update t set b = 3")
    assert warehouse.fingerprint("t", ["a"]) == before[0]
    assert warehouse.fingerprint("t", ["a", "b"]) != before[1]


def test_fingerprint_is_the_same_in_another_process(path: Path) -> None:
    code = (
        "import sys\n"
        "from trendcast.warehouse.duckdb import DuckDBWarehouse\n"
        "w = DuckDBWarehouse.open({'path': sys.argv[1]}, read_only=True)\n"
        "print(w.fingerprint('t', ['a', 'b']))\n"
    )
    with DuckDBWarehouse.open({"path": path}, read_only=False) as warehouse:
        warehouse.execute("create table t as select range as a, range * 0.5 as b from range(5000)")
        here = warehouse.fingerprint("t", ["a", "b"])
    there = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    assert there.stdout.strip() == here
