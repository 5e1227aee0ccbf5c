"""A local Spark of the tests' own, with executors that are processes of their own, and shops on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import REPO, Rows, Shop, as_table, skip_or_fail
from trendcast.project import read_output

REQUIRE = "TRENDCAST_REQUIRE_SPARK"
# Two executors with a core and a gigabyte each.
MASTER = "local-cluster[2,1,1024]"
EXECUTOR = "CoarseGrainedExecutorBackend"


@dataclass(frozen=True)
class Cluster:
    """A Spark Connect server with executors; its tables and how to find it are in a folder."""

    folder: Path
    driver_memory: str = "2g"

    @property
    def environment(self) -> dict[str, str]:
        """What says where it is."""
        return {
            "TRENDCAST_TARGET": "spark",
            "TRENDCAST_SPARK_REMOTE": MASTER,
            "TRENDCAST_SPARK_FOLDER": str(self.folder),
            "TRENDCAST_SPARK_DRIVER_MEMORY": self.driver_memory,
            "TRENDCAST_SPARK_CODEGEN": "false",  # shops of tests are small
            "SPARK_LOCAL_CONNECT_DISCOVERY": str(self.folder / "server" / "connect.json"),
        }

    def output(self, schema: str = "analytics") -> dict[str, Any]:
        """Return the shipped profile's output for it."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            output = read_output(REPO / "dbt_project", REPO / "profiles", "spark")
        return output | {"schema": schema}

    def executors(self) -> list[int]:
        """Return the executors' process ids: the server's children."""
        found = self.folder / "server" / "connect.json"
        if not found.exists():
            return []
        server = str(json.loads(found.read_text())["pid"])
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid,args", "--ppid", server],
            capture_output=True,
            text=True,
            check=False,
        )
        return [int(line.split()[0]) for line in listed.stdout.splitlines() if EXECUTOR in line]

    @property
    def address(self) -> dict[str, str]:
        """What says where the server is, as one that another machine runs."""
        found = json.loads((self.folder / "server" / "connect.json").read_text())
        return {
            "TRENDCAST_SPARK_REMOTE": f"sc://localhost:{found['port']}",
            "SPARK_CONNECT_AUTHENTICATE_TOKEN": found["token"],
        }


def killing_its_executor(function: Callable[..., pa.Table], told: Path) -> Callable[..., pa.Table]:
    """Return a function for executors that first kills the one it runs on, once; ``told`` then holds its process id."""

    # Nested, for executors cannot import what tests define and are sent this one whole.
    def killing(*args: Any) -> pa.Table:
        try:
            file = os.open(told, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return function(*args)
        # A daemon of the executor forked this process.
        with open(f"/proc/{os.getppid()}/stat") as stat:
            executor = int(stat.read().rsplit(")", 1)[1].split()[1])
        os.write(file, str(executor).encode())
        os.kill(executor, signal.SIGKILL)
        time.sleep(60)  # and what it would have answered is lost
        raise AssertionError("The executor lives.")

    return killing


@dataclass
class SparkShop(Shop):
    """A shop on the cluster."""

    cluster: Cluster | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command on this shop."""
        assert self.cluster is not None
        return super().environment | self.cluster.environment

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        return self.table(sql).to_pylist()

    def table(self, sql: str) -> pa.Table:
        """Return the rows of a query as Arrow."""
        from trendcast.warehouse import connect

        assert self.cluster is not None
        with connect(self.cluster.output(), read_only=True) as warehouse:
            return warehouse.query(sql)

    def write(self, table: str, rows: Rows) -> None:
        """Create or replace a table of the schema ``raw``."""
        from trendcast.warehouse import connect

        assert self.cluster is not None
        with connect(self.cluster.output(), read_only=False) as warehouse:
            warehouse.write("raw", table, as_table(rows))


def missing() -> str | None:
    """Say what is not installed; None where all is."""
    try:
        import dbt.adapters.spark  # type: ignore[import-not-found]  # noqa: F401
        import pyspark.sql.connect  # noqa: F401
    except ImportError as error:
        return f"{error.name or error} is not installed (extra: spark)"
    from trendcast.warehouse.spark import java_version

    version = java_version()
    if version != "17":
        found = f"Java {version} is there" if version else "there is no Java"
        return f"Spark needs Java 17 and {found} (Debian: openjdk-17-jre-headless; else JAVA_HOME)"
    if not shutil.which("ps"):
        return "ps is not installed (Debian: procps)"
    return None


@contextmanager
def running(folder: Path, driver_memory: str = "2g") -> Iterator[Cluster]:
    """Have a cluster while inside; skip loudly, or fail, where Spark is not installed."""
    why = missing()
    if why:
        skip_or_fail(f"{why}: NOTHING was tested on Spark", REQUIRE)
    cluster = Cluster(folder, driver_memory)
    (folder / "server").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            if name.startswith("SPARK_"):
                patch.setenv(name, value)
        # A session of this process with another server would be taken for one with this.
        patch.setattr("pyspark.sql.connect.session.SparkSession._default_session", None)
        patch.setattr("pyspark.sql.connect.session.SparkSession._active_session", threading.local())
        try:
            yield cluster
        finally:
            subprocess.run(
                [sys.executable, "-m", "pyspark.sql.connect.local_server", "--stop"],
                capture_output=True,
                check=False,
            )
