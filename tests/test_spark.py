"""Spark with executors that are processes of their own: the warehouse, whole runs, and DuckDB's results, row for row.

Without Spark or Java the tests are skipped, and fail where TRENDCAST_REQUIRE_SPARK is set.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.conftest import REPO, SMALL_LIGHTGBM, SMALL_LSTM, Shop
from tests.engines import (
    DEMO,
    NOT_ON,
    differences,
    done,
    every_source,
    require_held,
    require_same_demo,
)
from tests.spark import Cluster, SparkShop, killing_its_executor, running
from trendcast.errors import (
    ProjectError,
    UsageError,
    WarehouseError,
    WarehouseLockedError,
)
from trendcast.warehouse import connect, run_alone

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("spark")) as started:
        yield started


@pytest.fixture(scope="module")
def warehouse(cluster: Cluster) -> Iterator[Any]:
    with connect(cluster.output("warehouse"), read_only=False) as opened:
        opened.execute("create schema if not exists warehouse")
        yield opened


# --- The warehouse ---


def test_parameters_are_values_and_types_are_spelt(warehouse: Any) -> None:
    text = "x'); drop table t; -- \\ varchar"
    rows = pa.table({"name": [text, "other"], "why?": ["eh?", None]})
    warehouse.write("warehouse", "texts", rows)
    sql = 'select cast(name as varchar) as name, "why?" from warehouse.texts where name = ? -- as varchar'
    assert warehouse.query(sql, [text]).to_pylist() == [{"name": text, "why?": "eh?"}]
    assert warehouse.query(
        "select 'as varchar' as a, cast(1 as double precision) as b"
    ).to_pylist() == [{"a": "as varchar", "b": 1.0}]


def test_append_goes_by_name_and_casts(warehouse: Any) -> None:
    warehouse.execute(
        "create table warehouse.amounts (a integer, b string, c decimal(18, 6), d timestamp) using parquet"
    )
    at = dt.datetime(2026, 1, 2, 3, 4, 5, 678)
    rows = pa.table({"d": [at, None], "b": ["x", None], "a": [1, 2], "c": [2.5, None]})
    assert warehouse.append("warehouse.amounts", rows) == 2
    table = warehouse.query("select * from warehouse.amounts order by a")
    assert table.to_pylist() == [
        {"a": 1, "b": "x", "c": 2.5, "d": at},
        {"a": 2, "b": None, "c": None, "d": None},
    ]
    (batch,) = warehouse.batches("select * from warehouse.amounts where a = 1")
    assert batch.schema == table.schema and batch.to_pylist() == table.slice(0, 1).to_pylist()
    with pytest.raises(WarehouseError, match="no_such_column"):
        warehouse.append("warehouse.amounts", pa.table({"no_such_column": [1]}))
    columns = warehouse.columns("warehouse.amounts")
    assert list(columns.items()) == [
        *(("a", "INT"), ("b", "STRING")),
        *(("c", "DECIMAL(18,6)"), ("d", "TIMESTAMP")),
    ]


def test_what_may_be_large_is_not_joined_through_the_driver(warehouse: Any) -> None:
    """Until it has been counted: its Parquet has 1.2 MB, and Spark's own limit is 10."""
    for name, rows in (("few", 10), ("many", 300_000)):
        warehouse.execute(
            f"create table warehouse.{name} using parquet as select id from range({rows})"
        )
    sql = "explain select * from warehouse.many join warehouse.{} as other using (id)"
    plans = [warehouse.query(sql.format(name)).to_pylist()[0]["plan"] for name in ("few", "many")]
    assert ["BroadcastHashJoin" in plan for plan in plans] == [True, False]


def test_many_rows_of_this_process_do_not_become_objects_of_the_driver(
    warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go as streams, of which Spark guesses a size that is far too small; few go as they are."""
    few = pa.table(
        {
            "id": pa.array([0, 1, 2], pa.int32()),
            "text": ["a", None, "c"],
            "at": pa.array([None, dt.datetime(2026, 1, 2, 3, 4, 5, 6), None], pa.timestamp("us")),
            "day": pa.array([dt.date(2026, 1, 2), None, None]),
            "share": [0.1, float("nan"), None],
            "flag": [True, None, False],
            "listed": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
        }
    )
    warehouse.lookup("few", few)
    monkeypatch.setattr("trendcast.warehouse.spark._BATCH_ROWS", 2)
    warehouse.lookup("many", few)
    for name in ("few", "many"):
        assert warehouse.query(f"select * from {name} order by id").to_pydict() == {
            **few.to_pydict(),
            "share": [0.1, pytest.approx(float("nan"), nan_ok=True), None],
        }
    warehouse.execute("create table warehouse.joined using parquet as select 1 as a")
    plan = "explain select * from warehouse.joined join {} on joined.a = {}.id"
    plans = [warehouse.query(plan.format(n, n)).to_pylist()[0]["plan"] for n in ("few", "many")]
    assert ["BroadcastHashJoin" in plan for plan in plans] == [True, False]
    assert ["MapInArrow" in plan for plan in plans] == [False, True]


def test_a_small_driver_sends_on_as_many_rows_as_a_training_learns_from(tmp_path: Path) -> None:
    """Three million keys, joined where the tables are; as objects of the driver they leave no room in a gigabyte."""
    n, n_series = 3_000_000, 1000
    numbers = np.arange(n, dtype=np.int32)
    names = ("place", "cutoff_t", "season_t", "target_t", "lead_bucket")
    keys = pa.table({"code": numbers % n_series, **{name: numbers for name in names}})
    codes = np.arange(n_series, dtype=np.int32)
    series = pa.table({"code": codes, "name": [f"s{k}" for k in codes]})
    with running(tmp_path / "small", driver_memory="1g") as small:
        with connect(small.output("small"), read_only=False) as warehouse:
            warehouse.lookup("numbered", series)
            with warehouse.held("keyed", keys):
                found = warehouse.query(
                    "select count(distinct name) as names, count(*) as n, sum(target_t) as total "
                    "from keyed inner join numbered on keyed.code = numbered.code"
                )
    assert found.to_pylist() == [{"names": n_series, "n": n, "total": n * (n - 1) // 2}]


def test_what_is_written_is_held_in_parts(warehouse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trendcast.warehouse.spark._FILE_ROWS", 4)
    warehouse.execute("create table warehouse.parts (x bigint) using parquet")
    rows = pa.table({"x": range(9)})
    assert warehouse.append("warehouse.parts", rows.to_reader(3)) == 9
    assert warehouse.append("warehouse.parts", rows.slice(0, 0)) == 0
    found = warehouse.query(
        "select x, input_file_name() as file from warehouse.parts order by x"
    ).to_pydict()
    assert found["x"] == list(range(9))
    assert len(set(found["file"][:6])) == 1 and len(set(found["file"])) == 2
    for n in (9, 0):  # the second time in place of the first
        assert warehouse.write("warehouse", "written", rows.slice(0, n)) == n
        read = warehouse.query("select x, input_file_name() as file from warehouse.written")
        assert sorted(read["x"].to_pylist()) == list(range(n))
        assert len(set(read["file"].to_pylist())) == -(-n // 4)


def test_many_rows_are_asked_for_in_several_jobs(
    warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's results stay in the driver until they are fetched, so no job may have them all."""
    asked: list[int] = []

    # Of the test's own, for executors cannot import it.
    def staged(tables: Any) -> pa.Table:
        from pyspark import TaskContext

        ids, stage = tables["numbers"]["id"], TaskContext.get().stageId()
        return pa.table({"id": ids, "stage": pa.repeat(pa.scalar(stage, pa.int64()), len(ids))})

    def shards(rows: int) -> pa.Table:
        schema = pa.schema({"id": "int64", "stage": "int64"})
        return warehouse.by_shard({"numbers": sql}, "id", staged, schema, rows)

    sql = (
        "select id, cast(id % 7 as string) as name, nullif(id % 3, 0) as x from range(1000) -- all"
    )
    whole = list(warehouse.batches(sql))
    assert len(set(shards(100)["stage"].to_pylist())) == 1
    monkeypatch.setattr("trendcast.warehouse.spark._JOB_ROWS", 300)
    monkeypatch.setattr("trendcast.warehouse.spark._JOB_SHARDS", 2)
    count = warehouse._sql
    monkeypatch.setattr(warehouse, "_sql", lambda sql, *p: (asked.append(1), count(sql, *p))[1])
    parts = list(warehouse.batches(sql))
    assert sum(asked) == 1 + 4 and len(parts) >= 4
    tables = [pa.Table.from_batches(batches).sort_by("id") for batches in (whole, parts)]
    assert tables[0].equals(tables[1]) and len(tables[0]) == 1000
    assert list(warehouse.batches("select id from range(0)")) == []
    rows = shards(100)
    assert sorted(rows["id"].to_pylist()) == list(range(1000))
    assert len(set(rows["stage"].to_pylist())) == 5


def test_reading_writes_nothing_but_lookups(cluster: Cluster, warehouse: Any) -> None:
    with connect(cluster.output("warehouse"), read_only=True) as reader:
        reader.lookup("weights", pa.table({"w": [0.5]}))
        reader.lookup("weights", pa.table({"w": [0.25, None]}))
        assert reader.query("select w from weights").column("w").to_pylist() == [0.25, None]
        require_held(reader)
        with pytest.raises(WarehouseError, match="read-only"):
            reader.execute("create table warehouse.t as select 1 as x")
        with pytest.raises(WarehouseError, match="read-only"):
            reader.append("warehouse.texts", pa.table({"name": ["x"]}))
    assert not warehouse.exists("weights")
    for name in ('"warehouse"."no_table"', '"no schema"."t"'):
        assert not warehouse.exists(name)


def test_fingerprint_is_of_the_rows_and_not_their_order(warehouse: Any) -> None:
    def of(*rows: tuple[Any, Any]) -> str:
        table = pa.table(
            {"a": [a for a, _ in rows], "b": pa.array([b for _, b in rows], pa.string())}
        )
        warehouse.lookup("rows", table)
        return str(warehouse.fingerprint("rows", ["a", "b"]))

    base = of((1, "x"), (2, "y"), (3, None))
    assert base == of((3, None), (1, "x"), (2, "y"))
    others = {
        of((1, "x"), (2, "y")),
        of((1, "x"), (2, "y"), (3, "")),
        of((1, "y"), (2, "x"), (3, None)),
    }
    assert len(others | {base}) == 4


def test_one_run_at_a_time_and_who_died_holds_nobody_up(cluster: Cluster) -> None:
    output = cluster.output("warehouse")
    with run_alone(output, "ledger"):
        with run_alone(output, "another ledger"):
            pass
        with pytest.raises(WarehouseLockedError, match=rf"trendcast {os.getpid()}@"):
            with run_alone(output, "ledger"):
                pass
    hold = (
        "import json, os, sys\nfrom trendcast.warehouse import run_alone\n"
        "with run_alone(json.loads(sys.argv[1]), 'ledger'):\n    os._exit(9)"
    )
    ran = subprocess.run([sys.executable, "-c", hold, json.dumps(output)], capture_output=True)
    assert ran.returncode == 9, ran.stderr
    with run_alone(output, "ledger"):
        pass


def test_what_a_profile_cannot_be_is_told(cluster: Cluster, tmp_path: Path) -> None:
    output = cluster.output()
    with pytest.raises(ProjectError, match=r"method is 'thrift'.*spark\.remote"):
        connect(output | {"method": "thrift"}, read_only=True)
    settings = output["server_side_parameters"]
    with pytest.raises(ProjectError, match=r"no spark\.remote"):
        without = {k: v for k, v in settings.items() if k != "spark.remote"}
        connect(output | {"server_side_parameters": without}, read_only=True)
    other = settings | {"spark.sql.warehouse.dir": str(tmp_path / "warehouse")}
    with pytest.raises(ProjectError, match="SPARK_LOCAL_CONNECT_DISCOVERY"):
        connect(output | {"server_side_parameters": other}, read_only=True)


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trendcast.warehouse.spark", None)
    with pytest.raises(ProjectError, match=r"pip install 'trendcast\[spark\]'"):
        connect({"type": "spark"}, read_only=True)


def test_a_job_whose_executor_is_killed_ends_with_the_same_rows(
    cluster: Cluster, warehouse: Any, tmp_path: Path
) -> None:
    schema = pa.schema([("id", pa.int64()), ("twice", pa.int64())])
    queries = {"numbers": "select id from range(1000)", "none": "select id, 'x' as y from range(0)"}
    before = set(cluster.executors())
    assert len(before) == 2
    told = tmp_path / "killed"

    # Of the test's own, for executors cannot import it.
    def doubled(tables: Any) -> pa.Table:
        ids = tables["numbers"]["id"].to_pylist()
        return pa.table({"id": ids, "twice": [2 * x for x in ids]}, schema=schema)

    rows = warehouse.by_shard(queries, "id", killing_its_executor(doubled, told), schema, 250)
    assert int(told.read_text()) in before - set(cluster.executors())
    assert rows.sort_by("id").to_pydict() == {
        "id": list(range(1000)),
        "twice": list(range(0, 2000, 2)),
    }


# --- Shops ---


@pytest.fixture(scope="module")
def shops(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, SparkShop]:
    """The same shop, with every optional source, on DuckDB and on Spark after a run."""
    tables, vars = every_source()
    # Short enough that a cycle of an order is over within the newest fold.
    vars |= {"backtest_folds": 2, "lead_time_days": 2, "review_days": 2}
    folder = tmp_path_factory.mktemp("shops")
    duck, spark = Shop(folder / "duckdb", vars), SparkShop(folder / "spark", vars, cluster=cluster)
    for shop in (duck, spark):
        shop.folder.mkdir()
        for name, rows in tables.items():
            shop.write(name, rows)
    done(duck, "run", apart=False)
    done(spark, "run")
    return duck, spark


def test_every_model_of_a_small_shop_is_duckdbs(shops: tuple[Shop, SparkShop]) -> None:
    assert differences(*shops) == {}


FORECASTS = (
    "select model, series_id, lead, mean, q10, q50, q90 from analytics_trendcast.forecasts "
    "where run_id in (select max(run_id) from analytics_trendcast.runs where forecasts_rows > 0) "
    "order by model, series_id, lead"
)


def farthest(ours: pa.Table, theirs: pa.Table) -> float:
    """Return how far two tables of the same forecasts are apart at most, relative to their size or to one."""
    keys = ["model", "series_id", "lead"]
    assert ours.select(keys).to_pylist() == theirs.select(keys).to_pylist() and len(ours)
    off = 0.0
    for name in ("mean", "q10", "q50", "q90"):
        a, b = ours[name].to_numpy(), theirs[name].to_numpy()
        off = max(off, float((abs(a - b) / np.maximum(1, abs(a))).max()))
    return off


def rows_read(patch: pytest.MonkeyPatch) -> list[int]:
    """Note how many rows each answer of Spark has."""
    from trendcast.warehouse.spark import SparkWarehouse

    seen: list[int] = []
    query, batches, by_shard = (
        getattr(SparkWarehouse, name) for name in ("query", "batches", "by_shard")
    )

    def noted(rows: pa.Table) -> pa.Table:
        seen.append(len(rows))
        return rows

    def counted(self: Any, sql: str) -> Iterator[pa.RecordBatch]:
        parts = list(batches(self, sql))
        seen.append(sum(map(len, parts)))
        yield from parts

    patch.setattr(SparkWarehouse, "query", lambda *args: noted(query(*args)))
    patch.setattr(SparkWarehouse, "by_shard", lambda *args: noted(by_shard(*args)))
    patch.setattr(SparkWarehouse, "batches", counted)
    return seen


@dataclass(frozen=True)
class Forecasts:
    """What models trained on either engine forecast there."""

    duckdb: pa.Table
    spark: pa.Table
    shop: SparkShop
    #: In Spark's answers.
    rows_read: list[int]


@pytest.fixture(scope="module")
def forecasts(shops: tuple[Shop, SparkShop]) -> Forecasts:
    learnt = {
        "models": ["ridge", "lightgbm", "lstm", "ensemble"],
        "lightgbm": SMALL_LIGHTGBM,
        "lstm": SMALL_LSTM,
    }
    duck, spark = (replace(shop, vars=shop.vars | learnt) for shop in shops)
    assert isinstance(spark, SparkShop)
    for shop in (duck, spark):
        for step in ("backtest", "train"):
            done(shop, step, apart=False)
    done(duck, "forecast", apart=False)
    with pytest.MonkeyPatch.context() as patch:
        read = rows_read(patch)
        done(spark, "forecast", apart=False)
    with duckdb.connect(duck.path, read_only=True) as connection:
        expected = connection.sql(FORECASTS).to_arrow_table()
    return Forecasts(expected, spark.table(FORECASTS), spark, read)


def test_executors_forecast_what_duckdbs_process_does(forecasts: Forecasts) -> None:
    # Models read features in single precision, and what they learn is as near as that.
    assert farthest(forecasts.duckdb, forecasts.spark) < 0.05


@pytest.mark.whole
def test_in_parts_and_with_an_executor_killed_the_forecasts_are_the_same(
    forecasts: Forecasts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trendcast.warehouse.spark import SparkWarehouse

    models = ["ridge", "lstm"]
    spark = replace(forecasts.shop, vars=forecasts.shop.vars | {"models": models})
    assert spark.cluster is not None
    before, told = set(spark.cluster.executors()), tmp_path / "killed"
    by_shard = SparkWarehouse.by_shard
    monkeypatch.setattr(
        SparkWarehouse,
        "by_shard",
        lambda self, queries, key, function, *rest: by_shard(
            self, queries, key, killing_its_executor(function, told), *rest
        ),
    )
    monkeypatch.setattr("trendcast.features.PART_ROWS", 400)
    parts = rows_read(monkeypatch)
    done(spark, "forecast", apart=False)
    assert int(told.read_text()) in before
    # The network rounds a little differently when it is given other series beside a series.
    made = pa.array(["seasonal_naive", *models])  # the baseline always is
    expected = forecasts.spark.filter(pc.is_in(forecasts.spark["model"], made))
    assert farthest(expected, spark.table(FORECASTS)) < 1e-6
    # Nothing that a panel has more of with every series was read whole.
    (history,) = spark.query("select count(*) as n from analytics_trendcast.ftr_history")
    assert max(parts) < history["n"] / 2 < max(forecasts.rows_read)


@pytest.mark.whole
def test_what_a_run_that_dies_has_written_stays_unseen(
    shops: tuple[Shop, SparkShop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies between the rows and its own row in ``runs``, which is the last; the next run is in nobody's way."""
    spark = shops[1]
    count = "select count(*) as n from analytics_trendcast.{}"
    before = {
        name: spark.query(count.format(name)) for name in ("forecasts", "forecasts_log", "runs")
    }
    die = (
        "import os\nfrom trendcast import ledger\n"
        "def die(*_):\n    os._exit(9)\n"
        "ledger.Run._append_row = die\n"
        "from trendcast.cli import main\nmain()\n"
    )
    command = spark.command("forecast")
    ran = subprocess.run(
        [command[0], "-c", die, *command[3:]],
        env=spark.environment,
        cwd=spark.folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 9, ran.stderr + ran.stdout
    after = {name: spark.query(count.format(name)) for name in before}
    assert after["forecasts"] == before["forecasts"] and after["runs"] == before["runs"]
    assert after["forecasts_log"][0]["n"] > before["forecasts_log"][0]["n"]
    done(spark, "forecast", "--series", "product_id=tea", apart=False)
    runs = spark.query("select n_series from analytics_trendcast.runs order by finished_at")
    assert runs[-1] == {"n_series": 2}


@pytest.mark.whole
@pytest.mark.parametrize("command", sorted(NOT_ON["spark"]))
def test_what_others_can_names_the_engine_and_the_alternative(
    shops: tuple[Shop, SparkShop], command: str
) -> None:
    arguments = ["20260101T000000-aaaaaa"] if command == "reproduce" else []
    ran = shops[1].run_apart(command, *arguments)
    assert ran.returncode == UsageError.exit_code
    assert f"`trendcast {command}` runs on duckdb" in ran.stderr
    assert "; the target is spark local-cluster" in ran.stderr
    assert len(ran.stderr.split("spark local-cluster")[1]) > 60  # and what to do


@pytest.mark.whole
def test_the_other_commands(shops: tuple[Shop, SparkShop], tmp_path: Path) -> None:
    spark = shops[1]

    def told(shop: Shop, *args: str) -> str:
        return done(shop, *args, apart=False)

    assert "committed" in told(spark, "runs")
    assert "fail" not in told(spark, "doctor")
    assert "series" in told(spark, "whatif", "--set", "price=-10%", "--where", "product_id=tea")
    (row,) = spark.query("select count(*) as n from analytics_marts.fct_scenarios")
    assert row["n"] == 2
    told(spark, "tune", "classical", "--trials", "1")
    told(spark, "customers")
    expected, replayed = (
        json.loads(told(shop, "simulate inventory", "--json"))["policies"] for shop in shops
    )
    assert expected and [pytest.approx(policy) for policy in expected] == replayed
    # A server by its address is the same, for dbt alone too.
    assert spark.cluster is not None
    there = spark.environment | spark.cluster.address
    for command in (spark.command("runs"), dbt_command(spark, "run", "--select", "dim_days")):
        ran = subprocess.run(command, env=there, cwd=spark.folder, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    page = tmp_path / "report.html"
    told(spark, "report", "--out", str(page))
    assert page.stat().st_size > 50_000


def dbt_command(shop: Shop, *args: str) -> list[str]:
    """Return the command line of dbt alone on a shop."""
    at = ["--project-dir", str(shop.project_dir), "--profiles-dir", str(REPO / "profiles")]
    return [sys.executable, "-m", "dbt.cli.main", *args, *at, "--vars", json.dumps(shop.vars)]


@pytest.mark.whole
def test_unit_tests_of_features(shops: tuple[Shop, SparkShop]) -> None:
    """Those of the models with most SQL of the engine's own; `dbt test` runs all."""
    spark = shops[1]
    select = "test_type:unit,path:models/intermediate test_type:unit,path:models/features"
    ran = subprocess.run(
        dbt_command(spark, "test", "--select", *select.split()),
        env=spark.environment | {"PYTHONWARNINGS": "ignore"},
        cwd=spark.folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert re.search(r"PASS=[4-9]\d WARN=0 ERROR=0 SKIP=0", ran.stdout), ran.stdout[-300:]


@pytest.mark.whole
def test_the_demo_is_duckdbs_row_for_row(
    cluster: Cluster, warehouse: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After all that look at the small shop, for it takes its place; that one's data is tested here, the demo's on DuckDB."""
    for schema in ("raw", "analytics_trendcast", "analytics_marts"):
        warehouse.execute(f"drop schema if exists {schema} cascade")
    demo = SparkShop(tmp_path, DEMO, data_tests=False, cluster=cluster)
    require_same_demo(demo, tmp_path_factory)


def test_a_command_ends_though_the_server_has_gone(cluster: Cluster) -> None:
    """The last of the file, for it stops the server."""
    code = (
        "import json, subprocess, sys\nfrom trendcast.warehouse import connect\n"
        "stop = [sys.executable, '-m', 'pyspark.sql.connect.local_server', '--stop']\n"
        "with connect(json.loads(sys.argv[1]), read_only=True) as warehouse:\n"
        "    warehouse.query('select 1 as x')\n"
        "    subprocess.run(stop, check=True)"
    )
    command = [sys.executable, "-c", code, json.dumps(cluster.output("warehouse"))]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
