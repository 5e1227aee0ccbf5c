"""Fixtures: the demo shop run once, and small shops of one's own in warehouses that live for one session."""

from __future__ import annotations

import datetime as dt
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pyarrow as pa
import pytest

from trendcast import cli, pipeline
from trendcast import dbt as dbt_module
from trendcast.dbt import FEATURES, Dbt
from trendcast.pipeline import Workspace
from trendcast.project import Project

REPO = Path(__file__).resolve().parent.parent
ORDER_COLUMNS = (
    "order_id",
    "customer_id",
    "product_id",
    "location_id",
    "ordered_at",
    "quantity",
    "revenue",
    "discount",
    "currency",
    "status",
    "loaded_at",
)
# The smallest LSTM that still goes through every step of training.
SMALL_LSTM = {"n_seeds": 1, "steps_per_epoch": 10, "max_epochs": 2, "units": 16, "hidden": 16}
SMALL_LIGHTGBM = {"max_rows": 20_000, "max_rounds": 30, "train_cutoffs": 12}
# Files of slow tests that take more than five minutes.
LONGEST = ("test_spark", "test_docs", "test_postgres")

Rows = Any  # list of dicts, pyarrow table or pandas frame


@dataclass
class Shop:
    """A shop in a warehouse of its own, with the command line pointed at it.

    Parameters
    ----------
    folder
        Holds the warehouse, the model files and what dbt writes.
    vars
        dbt vars of every command.
    project_dir
        The dbt project.
    data_tests
        Whether a command in this process runs dbt's tests of the data, which take a third of a small shop's run.
    """

    folder: Path
    vars: dict[str, Any] = field(default_factory=dict)
    project_dir: Path = REPO / "dbt_project"
    data_tests: bool = True

    @property
    def path(self) -> Path:
        """The warehouse file."""
        return self.folder / "shop.duckdb"

    @property
    def artifacts_dir(self) -> Path:
        """Where the model files go by default."""
        return self.folder / "trendcast_artifacts"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command on this shop."""
        # A relative path is the same profile in every folder, so a copy of a shop need not be parsed again.
        ours = {
            "TRENDCAST_DUCKDB_PATH": self.path.name,
            "DBT_TARGET_PATH": str(self.folder / "target"),
            "DBT_LOG_PATH": str(self.folder / "logs"),
            # Nobody reads dbt's file of what it did, and to write it takes a tenth of a small shop's run.
            "DBT_LOG_LEVEL_FILE": "none",
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRENDCAST_", "DBT_"))}
        return kept | ours

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this process work on the shop: its environment, and its folder, for the warehouse's path is relative."""
        with pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - set(self.environment):
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            yield

    @contextmanager
    def opened(self) -> Iterator[Workspace]:
        """The shop as the pipeline sees it; its features and marts are built, and stay as they are."""
        with self.entered(), pytest.MonkeyPatch.context() as patch:
            profiles_dir = self.project_dir.parent / "profiles"
            workspace = Workspace.open(
                project_dir=self.project_dir, profiles_dir=profiles_dir, vars=self.vars
            )
            patch.setattr(pipeline, "_build", lambda *_, **__: None)
            yield workspace

    def command(self, *args: str) -> list[str]:
        """Return the command line of ``trendcast <args>`` on this shop, the first its name; later options win."""
        at = ["--project-dir", str(self.project_dir), "--profiles-dir", str(REPO / "profiles")]
        with_vars = ["--vars", json.dumps(self.vars)] if self.vars else []
        return [sys.executable, "-m", "trendcast", *args[0].split(), *at, *with_vars, *args[1:]]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run ``trendcast <args>`` in this process, which has imported everything; whatever it exits with."""
        command, code = self.command(*args), 0
        told, complained = io.StringIO(), io.StringIO()
        with self.entered(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", command[2:])
            if not self.data_tests:
                build = Dbt.build
                patch.setattr(
                    Dbt, "build", lambda *args, **how: build(*args, **how | {"tests": False})
                )
            try:
                with redirect_stdout(told), redirect_stderr(complained):
                    cli.main()
            except SystemExit as left:
                code = int(left.code or 0)
        return subprocess.CompletedProcess(command, code, told.getvalue(), complained.getvalue())

    def run_apart(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run ``trendcast <args>`` as a user does, in a process of its own."""
        return subprocess.run(
            self.command(*args),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )

    def json(self, *args: str) -> Any:
        """Run ``trendcast <args> --json``, which must succeed, and return what it printed."""
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stderr or done.stdout
        return json.loads(done.stdout)

    def build(self, *select: str, **how: Any) -> None:
        """Build the features, or what is selected, with dbt."""
        with self.entered():
            self._dbt.build(select or FEATURES, **how)

    def compiled(self, *select: str) -> Path:
        """Have dbt render the features' SQL, or what is selected, and return the folder of the models."""
        with self.entered():
            self._dbt.compile(select or FEATURES)
        return self.folder / "target" / "compiled" / "trendcast" / "models"

    @property
    def _dbt(self) -> Dbt:
        return Dbt(self.project_dir, REPO / "profiles", vars=self.vars)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with duckdb.connect(self.path, read_only=True) as connection:
            return connection.sql(sql).to_arrow_table().to_pylist()

    def write(self, table: str, rows: Rows) -> None:
        """Create or replace a table of the schema ``raw``."""
        # As in profiles.yml, so that what older clients must be able to open is what we test.
        config = {"storage_compatibility_version": "v1.0.0"}
        with duckdb.connect(self.path, config=config) as connection:
            connection.register("rows", as_table(rows))
            connection.execute("create schema if not exists raw")
            connection.execute(f"create or replace table raw.{table} as select * from rows")


def as_table(rows: Rows) -> pa.Table:
    """Return rows as an Arrow table."""
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, list):
        return pa.Table.from_pylist(rows)
    return pa.Table.from_pandas(rows, preserve_index=False)


HOLD = """
import duckdb, sys, time
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(120)
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has a warehouse open for writing."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def pytest_configure() -> None:
    """Have dbt served by a process that keeps the project's macros, but for trendcast in a process of its own."""
    dbt_module.SERVER = "tests.dbt_server"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, and the one that is all about the demo; end with those that look at it too."""
    about: dict[Path, list[bool]] = {}
    for item in items:
        about.setdefault(item.path, []).append("demo_run" in getattr(item, "fixturenames", ()))
    share = {path: sum(tests) / len(tests) for path, tests in about.items()}
    first = {path for path, demos in share.items() if demos > 0.5 or path.stem in LONGEST}
    items.sort(key=lambda item: 0 if item.path in first else 1 + (share[item.path] > 0))


def skip_or_fail(missing: str, require: str) -> NoReturn:
    """Skip what cannot be tested here, saying why; fail where the variable ``require`` is set, as in CI."""
    if os.environ.get(require):
        pytest.fail(missing)
    pytest.skip(missing)


def shared(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[], Shop]) -> Shop:
    """Return a copy of a shop that the first process of the session to need it has made."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    kept, copy = base / name, tmp_path_factory.mktemp(name) / "copy"
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            made = make()
            (made.folder / "vars.json").write_text(json.dumps(made.vars))
            made.folder.rename(kept)
    shutil.copytree(kept, copy)
    return Shop(copy, json.loads((copy / "vars.json").read_text()))


def shop_vars(lines: pa.Table, products: pa.Table | None = None, **vars: Any) -> dict[str, Any]:
    """Return the vars of a small shop whose tables are in the schema ``raw``; columns with canonical names are mapped."""
    settings: dict[str, Any] = {
        "shop_schema": "raw",
        "orders_table": "order_lines",
        "products_table": None,
        "promotions_table": None,
        "order_columns": {name: name for name in ORDER_COLUMNS if name in lines.column_names},
        "order_scope": None,
        "order_timezone": None,
        "series_key": ["product_id"],
        "static_attributes": [],
        "horizon": 7,
        "backtest_folds": 1,
    }
    if products is not None:
        settings["products_table"] = "products"
        settings["product_columns"] = {name: name for name in products.column_names}
    return settings | vars


@pytest.fixture(scope="session")
def make_shop(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shop]:
    """Return ``make(order_lines, products=None, **vars)``; columns with canonical names are mapped."""

    def make(order_lines: Rows, products: Rows = None, **vars: Any) -> Shop:
        lines = as_table(order_lines)
        listed = None if products is None else as_table(products)
        shop = Shop(tmp_path_factory.mktemp("shop"), shop_vars(lines, listed, **vars))
        shop.write("order_lines", lines)
        if listed is not None:
            shop.write("products", listed)
        return shop

    return make


def made_small(shop: Shop) -> Shop:
    """Have a shop built without the marts of decisions and without data tests, which take most of a small shop's run.

    For tests of what a run does, where it ends and how it goes on; other shops have all marts and their tests.
    """
    decisions = ("customers", "market", "marketing", "inventory", "compatibility")
    folder = shop.folder / "project"
    ignore = shutil.ignore_patterns("target", "logs", "demo_shop", *decisions)
    shutil.copytree(REPO / "dbt_project", folder / "dbt_project", ignore=ignore)
    (folder / "profiles").symlink_to(REPO / "profiles")
    shop.project_dir, shop.data_tests = folder / "dbt_project", False
    return shop


def after_a_run(make_shop: Callable[..., Shop], order_lines: Rows, **vars: Any) -> Shop:
    """A small shop after a run of models that learn in few steps, with two folds."""
    lstm = SMALL_LSTM | {"steps_per_epoch": 3, "max_epochs": 1}
    shop = make_shop(order_lines, lstm=lstm, lightgbm=SMALL_LIGHTGBM, backtest_folds=2, **vars)
    made_small(shop)
    done = shop.run("run")
    assert done.returncode == 0, done.stderr or done.stdout
    return shop


def with_part_of_the_demo(folder: Path) -> Path:
    """Copy the dbt project into a folder, with a quarter of the demo shop's order lines; return where it is."""
    project_dir = folder / "dbt_project"
    shutil.copytree(
        REPO / "dbt_project", project_dir, ignore=shutil.ignore_patterns("target", "logs")
    )
    whole, part = REPO / "dbt_project" / "demo_shop", project_dir / "demo_shop"
    duckdb.sql(f"""
        copy (
            select lines.* from '{whole}/transactions.parquet' as lines
            inner join '{whole}/products.parquet' as products on lines.product_id = products.product_id
            where left(product_category, 1) in ('B', 'P') or product_category in ('YOGURT', 'CHEESE')
        ) to '{part}/transactions.parquet'
    """)
    return project_dir


@pytest.fixture(scope="session")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    """The shipped project with its default vars, as dbt is called for it."""
    target = tmp_path_factory.mktemp("target")
    return Dbt(REPO / "dbt_project", REPO / "profiles", target_path=target)


@pytest.fixture(scope="session")
def manifest(dbt: Dbt) -> dict[str, Any]:
    """The manifest of the shipped project with its default vars, parsed once."""
    return dbt.parse()


@pytest.fixture(scope="session")
def project(manifest: dict[str, Any]) -> Project:
    """The shipped project with its default vars."""
    return Project.from_manifest(manifest)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The demo shop after one real `trendcast run` with small models; read it, and leave it as it is."""

    def make() -> Shop:
        shop = Shop(
            tmp_path_factory.mktemp("demo"), {"lstm": SMALL_LSTM, "lightgbm": SMALL_LIGHTGBM}
        )
        done = shop.run_apart("run")
        assert done.returncode == 0, done.stderr or done.stdout
        return shop

    return shared(tmp_path_factory, "demo_run", make)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, make_shop: Callable[..., Shop]) -> Shop:
    """A shop of one series, its only store, after `trendcast run` of a regression; copy it to change it."""

    def make() -> Shop:
        days = [dt.datetime(2026, 1, 1, 12) + dt.timedelta(days=i) for i in range(80)]
        lines = [
            {
                "order_id": str(i),
                "product_id": "tea",
                "location_id": "only",
                "ordered_at": day,
                "quantity": 1 + i * i % 5,
            }
            for i, day in enumerate(days)
        ]
        lines.append(lines[-1] | {"order_id": "nowhere", "location_id": None})
        shop = make_shop(lines, series_key=["location_id"], models=["ridge"])
        done = shop.run("run")
        assert done.returncode == 0, done.stderr or done.stdout
        return shop

    return shared(tmp_path_factory, "small_run", make)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Shop], Shop]:
    """Return ``copied(shop)``: the same shop in a folder of the test's own."""

    def copy(shop: Shop) -> Shop:
        shutil.copytree(shop.folder, tmp_path / "copy", symlinks=True)
        return replace(shop, folder=tmp_path / "copy")

    return copy
