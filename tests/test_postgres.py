"""Postgres: the warehouse, whole runs, and the same results as DuckDB's, row for row.

Without a server the tests are skipped, and fail where TRENDCAST_REQUIRE_POSTGRES is set.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import REPO, Shop, shop_vars
from tests.engines import (
    DEMO,
    DUCKDB_ONLY,
    PRODUCTS,
    compared,
    differences,
    done,
    every_source,
    lines_of,
    require_held,
    require_same_demo,
)
from tests.postgres import PostgresShop, Server, running
from trendcast.errors import ProjectError, UsageError, WarehouseError, WarehouseLockedError
from trendcast.features import Features
from trendcast.models.ridge import Ridge
from trendcast.project import Project
from trendcast.warehouse import connect, run_alone
from trendcast.warehouse.postgres import PostgresWarehouse

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        yield started


@pytest.fixture
def output(server: Server) -> dict[str, Any]:
    return server.output(server.new_database())


@pytest.fixture
def warehouse(output: dict[str, Any]) -> Iterator[Any]:
    with connect(output, read_only=False) as opened:
        yield opened


# --- The warehouse ---


def test_parameters_are_values_and_question_marks_in_texts_are_not(warehouse: Any) -> None:
    text = "x'); drop table t; --"
    warehouse.execute('create table t (name text, "why?" text)')
    warehouse.execute("insert into t values (?, 'eh?') -- what?", [text])
    found = warehouse.query('select name, "why?" from t where name = ? /* ? */', [text]).to_pylist()
    assert found == [{"name": text, "why?": "eh?"}]


def test_append_goes_by_name_and_casts(warehouse: Any) -> None:
    warehouse.execute("create table t (a integer, b varchar, c numeric(18, 6), d timestamp)")
    at = dt.datetime(2026, 1, 2, 3, 4, 5, 678)
    rows = pa.table({"d": [at, None], "b": ["x", None], "a": [1, 2], "c": [2.5, None]})
    assert warehouse.append("t", rows) == 2
    found = warehouse.query("select a, b, cast(c as double precision) as c, d from t order by a")
    assert found.to_pylist() == [
        {"a": 1, "b": "x", "c": 2.5, "d": at},
        {"a": 2, "b": None, "c": None, "d": None},
    ]
    with pytest.raises(WarehouseError, match="no_such_column"):
        warehouse.append("t", pa.table({"no_such_column": [1]}))
    assert not warehouse.exists("_appended")


def test_a_transaction_is_all_or_nothing(warehouse: Any) -> None:
    warehouse.execute("create table t (x integer)")
    with pytest.raises(ZeroDivisionError), warehouse.transaction():
        warehouse.append("t", pa.table({"x": [1, 2]}))
        raise ZeroDivisionError
    with pytest.raises(WarehouseError, match="integer"), warehouse.transaction():
        warehouse.append("t", pa.table({"x": [1]}))
        warehouse.append("t", pa.table({"x": ["no number"]}))
    with warehouse.transaction():
        warehouse.append("t", pa.table({"x": [3]}))
    assert warehouse.query("select x from t").to_pylist() == [{"x": 3}]


def test_reading_writes_nothing_but_lookups(output: dict[str, Any]) -> None:
    with connect(output, read_only=True) as reader:
        reader.lookup("weights", pa.table({"w": [0.5]}))
        reader.lookup("weights", pa.table({"w": [0.25, None]}))
        assert reader.query("select w from weights").column("w").to_pylist() == [0.25, None]
        require_held(reader)
        with pytest.raises(WarehouseError, match="read-only"):
            reader.execute("create table t as select 1 as x")
    with connect(output, read_only=True) as other:
        assert not other.exists("weights")


def test_numbers_come_as_numbers(warehouse: Any) -> None:
    sql = "select cast(1.5 as numeric(18, 6)) as exact, 0.1 as free, cast(null as numeric) as none"
    table = warehouse.query(sql)
    assert table.schema.types == [pa.decimal128(18, 6), pa.float64(), pa.float64()]
    assert table.column("free").to_pylist() == [0.1]
    (batch,) = warehouse.batches(sql)
    assert batch.schema == table.schema


def test_exists_and_columns(warehouse: Any) -> None:
    warehouse.execute('create schema "my shop"')
    warehouse.execute(
        'create table "my shop"."order lines" ("the id" integer, price numeric(9, 2))'
    )
    assert warehouse.exists('"my shop"."order lines"')
    for name in ('"my shop"."orders"', '"no schema"."t"', '"no database"."my shop"."order lines"'):
        assert not warehouse.exists(name)
    columns = warehouse.columns('"my shop"."order lines"')
    assert list(columns.items()) == [("the id", "INT4"), ("price", "NUMERIC(9,2)")]


def test_fingerprint_is_of_the_rows_and_not_their_order(warehouse: Any) -> None:
    def of(values: str) -> str:
        warehouse.execute("drop table if exists t")
        warehouse.execute(f"create table t as select * from (values {values}) as rows (a, b)")
        return str(warehouse.fingerprint("t", ["a", "b"]))

    base = of("(1, 'x'), (2, 'y'), (3, null)")
    assert base == of("(3, null), (1, 'x'), (2, 'y')")
    others = {
        of("(1, 'x'), (2, 'y')"),
        of("(1, 'x'), (2, 'y'), (3, '')"),
        of("(1, 'y'), (2, 'x'), (3, null)"),
    }
    assert len(others | {base}) == 4


def test_who_cannot_connect_is_told_why(output: dict[str, Any]) -> None:
    with pytest.raises(WarehouseError, match=r"no_such.*TRENDCAST_POSTGRES_HOST"):
        connect(output | {"dbname": "no_such"}, read_only=True)
    with pytest.raises(WarehouseError, match="127.0.0.1:1/"):
        connect(output | {"port": 1}, read_only=True)


def test_one_run_at_a_time(output: dict[str, Any]) -> None:
    with run_alone(output, "ledger"):
        with run_alone(output, "another ledger"):
            pass
        with pytest.raises(WarehouseLockedError, match=r"trendcast \d+@.* from 127\.0\.0\.1"):
            with run_alone(output, "ledger"):
                pass
    with run_alone(output, "ledger"):
        pass


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trendcast.warehouse.postgres", None)
    with pytest.raises(ProjectError, match=r"pip install 'trendcast\[postgres\]'"):
        connect({"type": "postgres"}, read_only=True)


# --- Shops ---


def on_both(
    server: Server, folder: Path, tables: dict[str, pa.Table], vars: dict[str, Any]
) -> tuple[Shop, PostgresShop]:
    """Return the same shop on either engine; ties that a text breaks are broken alike."""
    shops = (
        Shop(folder / "duckdb", vars),
        PostgresShop(
            folder / "postgres", vars, output=server.output(server.new_database(bytewise=True))
        ),
    )
    for shop in shops:
        shop.folder.mkdir()
        for name, rows in tables.items():
            shop.write(name, rows)
    return shops


def test_what_differs_is_seen() -> None:
    rows = pa.table({"k": ["a", "b"], "x": [1.0, None]})
    assert compared(rows, rows.take([1, 0])) is None
    assert compared(rows, pa.table({"k": ["a", "b"], "x": [1.0 + 1e-9, None]})) is None
    for other in (
        pa.table({"k": ["a", "c"], "x": [1.0, None]}),
        pa.table({"k": ["a", "b"], "x": [1.0 + 1e-5, None]}),
        pa.table({"k": ["a", "b"], "x": [1.0, 2.0]}),
        rows.slice(1),
    ):
        assert compared(rows, other) is not None


@pytest.fixture(scope="module")
def small(server: Server, tmp_path_factory: pytest.TempPathFactory) -> PostgresShop:
    """A shop on Postgres after a run of the regression, without the features of customers, which other shops here have."""
    lines = lines_of(100)
    vars = shop_vars(
        lines,
        PRODUCTS,
        static_attributes=["category"],
        models=["ridge"],
        backtest_folds=3,
        features={"customers": False},
    )
    folder = tmp_path_factory.mktemp("small")
    shop = PostgresShop(folder, vars, output=server.output(server.new_database()))
    shop.write("order_lines", lines)
    shop.write("products", PRODUCTS)
    done(shop, "run")
    return shop


def test_a_run_commits_and_serves_forecasts(small: PostgresShop) -> None:
    (run,) = small.query("select * from analytics_trendcast.runs")
    assert run["status"] == "committed" and run["forecasts_rows"] == 4 * 7 * 2
    served = small.query("select distinct run_id from analytics_marts.fct_forecasts")
    assert served == [{"run_id": run["run_id"]}]
    reasons = small.query(
        "select rejection_reason as why from analytics_trendcast.int_order_lines_rejected order by 1"
    )
    assert [row["why"] for row in reasons if row["why"] != "duplicate_line"] == [
        *("missing_product", "unreadable_date", "unreadable_quantity", "unreadable_revenue")
    ]


def test_steps_on_their_own(small: PostgresShop) -> None:
    before = small.query("select count(*) as n from analytics_trendcast.runs")[0]["n"]
    for step in ("train", "backtest", "forecast"):
        done(small, step)
    done(small, "forecast", "--series", "product_id=tea")
    after = small.query(
        "select command, n_series from analytics_trendcast.runs order by finished_at"
    )
    assert [row["command"] for row in after[before:]] == [
        "train",
        "backtest",
        "forecast",
        "forecast",
    ]
    assert after[-1]["n_series"] == 1
    assert "committed" in done(small, "runs")
    assert "fail" not in done(small, "doctor")


def test_rows_that_postgres_joins_and_adds_up_teach_what_gathered_ones_do(
    small: PostgresShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: by joins of keys, and by position in this process."""
    project = Project.from_manifest(
        json.loads((small.folder / "target" / "manifest.json").read_text())
    )
    fits = []
    with connect(small.output, read_only=True) as warehouse:
        for in_process in (False, True):
            monkeypatch.setattr(PostgresWarehouse, "in_process", in_process)
            features, model = Features(warehouse, project), Ridge()
            model.fit(features, features.last_cutoff.t, 1, lambda _: None)
            fits.append(model._fit)
    assert fits[0] == fits[1]
    assert fits[0].spread is not None


def test_old_runs_are_pruned_and_what_is_read_stays(small: PostgresShop) -> None:
    served = "select * from analytics_marts.fct_forecasts order by series_id, target_date"
    before = small.query(served)
    for _ in range(2):
        done(small, "train", apart=False)
    told = json.loads(done(small, "prune", "--keep", "1", "--json", apart=False))
    assert told["runs"]
    rows = small.query(
        "select run_id, status from analytics_trendcast.runs where status = 'pruned' order by 1"
    )
    assert [row["run_id"] for row in rows] == sorted(told["runs"])
    left = small.query("select distinct run_id from analytics_trendcast.coefficients")
    assert {row["run_id"] for row in left}.isdisjoint(told["runs"])
    done(small, "forecast", apart=False)
    small.build("fct_forecasts")
    after = small.query(served)
    assert [row["mean"] for row in after] == [row["mean"] for row in before]


def test_a_second_run_waits_for_the_first(small: PostgresShop, tmp_path: Path) -> None:
    with run_alone(
        small.output, 'trendcast "{dbname}"."analytics_trendcast"."runs"'.format(**small.output)
    ):
        ran = small.run_apart("forecast", "--artifacts-dir", str(tmp_path))
    assert ran.returncode == 1
    assert "Another trendcast run is under way on this database" in ran.stderr


@pytest.mark.parametrize("command", DUCKDB_ONLY)
def test_what_only_duckdb_can_names_the_engine_and_the_alternative(
    small: PostgresShop, command: str
) -> None:
    arguments = ["20260101T000000-aaaaaa"] if command == "reproduce" else []
    ran = small.run_apart(command, *arguments)
    assert ran.returncode == UsageError.exit_code
    assert f"`trendcast {command}` runs on duckdb; the target is postgres 127.0.0.1" in ran.stderr
    assert len(ran.stderr.split("postgres 127.0.0.1")[1]) > 60  # and what to do


def dbt(shop: Shop, *args: str) -> subprocess.CompletedProcess[str]:
    """Run dbt alone on a shop, as an analytics engineer does."""
    at = ["--project-dir", str(shop.project_dir), "--profiles-dir", str(REPO / "profiles")]
    return subprocess.run(
        [sys.executable, "-m", "dbt.cli.main", *args, *at, "--vars", json.dumps(shop.vars)],
        env=shop.environment,
        cwd=shop.folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.whole
def test_dbt_alone_does_not_forget_the_holidays(small: PostgresShop) -> None:
    ran = small.run_apart("run", "--vars", '{"holiday_country": "XX"}')
    assert ran.returncode == UsageError.exit_code and "Valid: AD, AE" in ran.stderr
    german = PostgresShop(small.folder, small.vars | {"holiday_country": "DE"}, output=small.output)
    ran = dbt(german, "compile", "--select", "int_holidays")
    assert ran.returncode and "Run `trendcast prepare`" in ran.stdout
    assert "public holidays were listed anew" in done(german, "prepare")
    ran = dbt(german, "build", "--select", "int_holidays")
    assert ran.returncode == 0, ran.stdout
    (row,) = german.query(
        "select count(*) as n from analytics_trendcast.int_holidays where name = 'Christmas Day'"
    )
    assert row["n"] == 1
    # As the other tests of this shop know it; with the views that went with the tables they are on.
    assert dbt(small, "run", "--select", "int_holidays+").returncode == 0


def test_the_marts_commands_and_the_report(small: PostgresShop, tmp_path: Path) -> None:
    rows = "select count(*) as n, count(distinct (series_id, t)) as d from analytics_trendcast.{}"
    panel = [small.query(rows.format(name)) for name in ("int_sales_filled", "ftr_history")]
    assert panel[0][0]["n"] == panel[0][0]["d"] == panel[1][0]["n"] > 300
    done(small, "run")
    # What a second build made has taken the place of what the first had.
    assert [small.query(rows.format(name)) for name in ("int_sales_filled", "ftr_history")] == panel
    assert "series" in done(small, "whatif", "--set", "price=-10%", "--where", "product_id=tea")
    (row,) = small.query("select count(*) as n from analytics_marts.fct_scenarios")
    assert row["n"] == 1
    assert "normal safety stock" in done(small, "simulate inventory")
    page = tmp_path / "report.html"
    done(small, "tune", "classical", "--trials", "1")
    (row,) = small.query("select count(*) as n from analytics_trendcast.tuning_trials")
    assert row["n"] > 0
    done(small, "report", "--out", str(page))
    assert page.stat().st_size > 50_000


def test_a_commit_that_fails_leaves_nothing(small: PostgresShop) -> None:
    """The run's own row is the last; where it is refused, no other row stays."""
    count = "select (select count(*) from analytics_trendcast.forecasts) as n"
    before = small.query(count)
    rule = "alter table analytics_trendcast.runs {} constraint refused {}"
    with connect(small.output, read_only=False) as warehouse:
        warehouse.execute(rule.format("add", "check (status <> 'committed') not valid"))
    ran = small.run_apart("forecast")
    with connect(small.output, read_only=False) as warehouse:
        warehouse.execute(rule.format("drop", ""))
    assert ran.returncode == 1 and "refused" in ran.stderr
    assert small.query(count) == before
    newest = small.query(
        "select status, error from analytics_trendcast.runs order by finished_at desc limit 1"
    )
    assert newest[0]["status"] == "failed" and "refused" in newest[0]["error"]
    done(small, "forecast")


def test_a_notebook_reads_it(small: PostgresShop) -> None:
    import trendcast

    with small.entered():
        shop = trendcast.open(
            small.project_dir, profiles_dir=REPO / "profiles", target="postgres", vars=small.vars
        )
        frame = shop.forecast("tea")
        assert len(frame) == 7 and frame["mean"].min() >= 0
        assert set(shop.series()["series_id"]) == set(PRODUCTS["product_id"].to_pylist())


def test_another_password_is_no_sql(small: PostgresShop) -> None:
    odd = small.output | {"password": "it's \\ a 'secret' dbname=other"}
    with connect(odd, read_only=True) as warehouse:
        assert warehouse.query("select current_database() as name").to_pylist() == [
            {"name": small.output["dbname"]}
        ]


def test_what_was_written_is_counted_at_once(server: Server) -> None:
    """Inside the transaction, where no autovacuum sees it."""
    counted = "select relname, reltuples from pg_class where relname in ('few', 'many', 'made') order by 1"
    with connect(server.output(server.new_database()), read_only=False) as warehouse:
        with warehouse.transaction():
            warehouse.execute("create schema counted")
            for name, n in (("few", 10), ("many", 2000)):
                warehouse.execute(f"create table counted.{name} (x bigint)")
                warehouse.append(f"counted.{name}", pa.table({"x": range(n)}))
            warehouse.write("counted", "made", pa.table({"x": range(30)}))
            assert warehouse.query(counted).column("reltuples").to_pylist() == [-1, 30, 2000]


def test_what_dbt_made_is_counted_at_once(small: PostgresShop) -> None:
    """By the hook, which Postgres tells from its autovacuum."""
    counted = "select relname from pg_stat_user_tables where analyze_count > 0"
    names = {row["relname"] for row in small.query(counted)}
    assert {"int_series", "int_sales_filled", "ftr_history"} <= names


@pytest.mark.slow
def test_every_model_of_a_small_shop_is_duckdbs(server: Server, tmp_path: Path) -> None:
    duck, postgres = on_both(server, tmp_path, *every_source())
    for shop in (duck, postgres):
        done(shop, "run", "--no-backtest")
    assert differences(duck, postgres) == {}
    ran = dbt(postgres, "test", "--select", "test_type:unit")
    ended = re.search(r"PASS=(\d+) WARN=0 ERROR=(\d+) SKIP=0", ran.stdout)
    assert ended, ran.stdout[-5000:]
    # The given rows of a few have columns that the demo's settings make.
    passed, failed = map(int, ended.groups())
    assert passed > 110 and failed == ran.stdout.count("Invalid column name"), ran.stdout[-5000:]


@pytest.mark.slow
@pytest.mark.whole
def test_the_demo_is_duckdbs_row_for_row(
    server: Server, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    postgres = PostgresShop(
        tmp_path, DEMO, output=server.output(server.new_database(bytewise=True))
    )
    require_same_demo(postgres, tmp_path_factory)
    ran = dbt(postgres, "test", "--select", "test_type:unit")
    assert ran.returncode == 0, ran.stdout[-5000:]
