"""A Postgres server of the tests' own, and shops on it.

The server is Debian's, started on loopback with a throw-away data folder. It refuses to run as root, so for root it runs as the
user `postgres` or `nobody`. Its databases sort text as people do, not byte by byte as DuckDB does: nothing may hang on that.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.conftest import Rows, Shop, as_table, skip_or_fail

REQUIRE = "TRENDCAST_REQUIRE_POSTGRES"
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "jit=off")


@dataclass(frozen=True)
class Server:
    """A running server; anyone on this machine may log in."""

    port: int

    def output(self, database: str = "postgres") -> dict[str, Any]:
        """Return a dbt profile's output for one of its databases."""
        return {
            "type": "postgres",
            "host": "127.0.0.1",
            "port": self.port,
            "user": "postgres",
            "password": "",
            "dbname": database,
            "schema": "analytics",
        }

    def new_database(self, *, bytewise: bool = False) -> str:
        """Make an empty database and return its name; one that sorts as DuckDB does, where asked for."""
        from trendcast.warehouse import connect

        name = f"shop_{uuid.uuid4().hex[:8]}"
        with connect(self.output(), read_only=False) as warehouse:
            how = " template template0 locale_provider libc locale 'C'" if bytewise else ""
            warehouse.execute(f"create database {name}{how}")
        return name


@dataclass
class PostgresShop(Shop):
    """A shop in a database of its own."""

    output: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command on this shop."""
        ours = {
            "TRENDCAST_TARGET": "postgres",
            **{
                f"TRENDCAST_POSTGRES_{name.upper()}": str(self.output[name])
                for name in ("host", "port", "user", "password", "dbname")
            },
        }
        return super().environment | ours

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        return self.table(sql).to_pylist()

    def table(self, sql: str) -> pa.Table:
        """Return the rows of a query as Arrow."""
        from trendcast.warehouse import connect

        with connect(self.output, read_only=True) as warehouse:
            return warehouse.query(sql)

    def write(self, table: str, rows: Rows) -> None:
        """Create or replace a table of the schema ``raw``."""
        from trendcast.warehouse.postgres import PostgresWarehouse

        with PostgresWarehouse.open(self.output, read_only=False) as warehouse:
            warehouse.write("raw", table, as_table(rows))


def missing() -> str | None:
    """Say what is not installed; None where all is."""
    try:
        import adbc_driver_postgresql  # noqa: F401
        import dbt.adapters.postgres  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed (extra: postgres)"
    return None if binaries() else "no Postgres server is installed (Debian: postgresql)"


def binaries() -> Path | None:
    """Return the folder of the server's programs; Debian keeps them off the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else next((p.parent for p in versions), None)


@contextmanager
def running() -> Iterator[Server]:
    """Start a server with a data folder that is gone afterwards; skip loudly, or fail, where none is installed."""
    why = missing()
    if why:
        skip_or_fail(f"{why}: NOTHING was tested on Postgres", REQUIRE)
    programs = binaries()
    assert programs is not None
    # Not below pytest's folder, which only its own user may enter.
    folder = Path(tempfile.mkdtemp(prefix="trendcast_postgres_"))
    user: list[str] = []
    if os.geteuid() == 0:
        owner = _unprivileged()
        shutil.chown(folder, owner.pw_name)
        user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"

    def run(program: str, *args: str) -> None:
        done = subprocess.run(
            [*user, str(programs / program), *args], cwd=folder, capture_output=True, text=True
        )
        log = folder / "log"
        told = log.read_text() if log.exists() else ""
        assert done.returncode == 0, done.stderr + done.stdout + told

    try:
        run(
            *(
                "initdb",
                "-D",
                str(data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
            ),
            *("--locale=C", "--locale-provider=icu", "--icu-locale=en-US"),
        )
        options = " ".join(
            [f"-p {port} -k {folder} -c listen_addresses=127.0.0.1", *(f"-c {s}" for s in SETTINGS)]
        )
        log = str(folder / "log")
        run("pg_ctl", "-D", str(data), "-l", log, "-o", options, "-w", "-t", "60", "start")
        try:
            yield Server(port)
        finally:
            with suppress(AssertionError):
                run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("there is neither a user postgres nor nobody to run the server as")
