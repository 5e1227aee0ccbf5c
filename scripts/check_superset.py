"""Installs Apache Superset aside, draws the fan chart from a published copy through its REST API, and exports the dashboard.

    .venv/bin/python scripts/check_superset.py FOLDER COPY [--export examples/superset/trendcast_dashboard.zip]

COPY is the folder that `trendcast publish` writes to. FOLDER keeps Superset's environment and its own database. By hand: minutes, 2 GB, a
network for the installation. What the chart's query returns is compared with the copy, and the export is imported again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import requests

BIN = Path(sys.executable).parent
PACKAGES = (
    *("apache-superset==6.1.0", "duckdb-engine==0.17.0", "duckdb", "rich", "cachetools"),
    "flask-caching==2.3.1",
)
CONFIG = """
import os
SECRET_KEY = os.environ["SUPERSET_SECRET_KEY"]
SQLALCHEMY_DATABASE_URI = "sqlite:///" + os.path.join(os.environ["SUPERSET_HOME"], "superset.db")
PREVENT_UNSAFE_DB_CONNECTIONS = False   # a file of DuckDB's is no server
TALISMAN_ENABLED = False
"""
# Superset draws the metrics X, X__yhat, X__yhat_lower and X__yhat_upper as a line with its interval. Means add up over series,
# bounds do not: they are there for one series alone.
FAN = {
    "demand": "sum(actual)",
    "demand__yhat": "sum(mean)",
    "demand__yhat_lower": "case when count(distinct series_id) = 1 then sum(lower_80) end",
    "demand__yhat_upper": "case when count(distinct series_id) = 1 then sum(upper_80) end",
}
ACCURACY = ("model", "wape", "forecast_value_added", "wql", "coverage_80", "coverage_95")


def metric(label: str, sql: str) -> dict[str, Any]:
    """Return a metric of a chart."""
    return {"expressionType": "SQL", "sqlExpression": sql, "label": label, "optionName": label}


def equal(column: str, value: str) -> dict[str, Any]:
    """Return a filter of a chart."""
    return {
        "expressionType": "SIMPLE",
        "subject": column,
        "operator": "==",
        "comparator": value,
        "clause": "WHERE",
    }


class Superset:
    """A Superset of one's own, and its REST API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.password = secrets.token_urlsafe(12)
        config = folder / "superset_config.py"
        config.write_text(CONFIG)
        self.environment = os.environ | {
            "UV_SYSTEM_CERTS": "true",
            "SUPERSET_HOME": str(folder),
            "SUPERSET_CONFIG_PATH": str(config),
            "SUPERSET_SECRET_KEY": secrets.token_urlsafe(42),
            "FLASK_APP": "superset.app:create_app()",
        }
        self.session = requests.Session()

    def install(self) -> None:
        """Make the environment, where there is none, and a new database."""
        venv = self.folder / "venv"
        if not venv.exists():
            self._run(BIN / "uv", "venv", "--quiet", "--python", sys.executable, venv)
            self._run(
                *(BIN / "uv", "pip", "install", "--quiet", "--python", venv / "bin" / "python"),
                *PACKAGES,
            )
        (self.folder / "superset.db").unlink(missing_ok=True)
        superset = venv / "bin" / "superset"
        self._run(superset, "db", "upgrade")
        self._run(
            *(superset, "fab", "create-admin", "--username", "admin", "--firstname", "a"),
            *("--lastname", "b", "--email", "a@example.com", "--password", self.password),
        )
        self._run(superset, "init")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server and log in."""
        log = (self.folder / "server.log").open("wb")
        process = subprocess.Popen(
            [self.folder / "venv" / "bin" / "superset", "run", "-p", str(self.port)],
            env=self.environment,
            stdout=log,
            stderr=log,
        )
        for _ in range(120):
            try:
                if self.session.get(f"{self.url}/health", timeout=2).ok:
                    break
            except requests.ConnectionError:
                time.sleep(1)
        login = {"username": "admin", "password": self.password, "provider": "db", "refresh": True}
        token = self.ask("POST", "security/login", json=login)["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"
        self.session.headers["X-CSRFToken"] = self.ask("GET", "security/csrf_token/")["result"]
        self.session.headers["Referer"] = self.url
        return process

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Return the API's answer; an error is the script's end."""
        answer = self.session.request(method, f"{self.url}/api/v1/{path}", timeout=120, **request)
        if not answer.ok:
            sys.exit(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        kind = answer.headers.get("Content-Type", "")
        return answer.json() if kind.startswith("application/json") else answer.content

    def _run(self, *command: str | Path) -> None:
        print("$", *command[:4], flush=True)
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def build(superset: Superset, file: Path) -> tuple[int, int, int]:
    """Connect the copy, and make the datasets, charts and dashboard; return the ids of fan chart, dataset and dashboard."""
    connect = {"engine_params": {"connect_args": {"read_only": True}}}
    database = superset.ask(
        "POST",
        "database/",
        json={
            "database_name": "trendcast",
            "sqlalchemy_uri": f"duckdb:///{file}",
            "extra": json.dumps(connect),
            "expose_in_sqllab": True,
        },
    )["id"]

    def dataset(table: str) -> int:
        given = {"database": database, "schema": "marts", "table_name": table}
        return int(superset.ask("POST", "dataset/", json=given)["id"])

    def chart(name: str, kind: str, source: int, **params: Any) -> int:
        params |= {"viz_type": kind, "datasource": f"{source}__table"}
        given = {
            "slice_name": name,
            "viz_type": kind,
            "datasource_id": source,
            "datasource_type": "table",
            "params": json.dumps(params),
        }
        return int(superset.ask("POST", "chart/", json=given)["id"])

    fans, accuracy = dataset("rpt_forecast_fan"), dataset("fct_forecast_accuracy")
    fan = chart(
        "Forecast with its 80% interval",
        "echarts_timeseries_line",
        fans,
        x_axis="ds",
        time_grain_sqla="P1D",
        metrics=[metric(label, sql) for label, sql in FAN.items()],
        groupby=[],
        adhoc_filters=[],
        row_limit=10_000,
        truncateYAxis=False,  # else the interval is not drawn
        rich_tooltip=True,
        show_legend=True,
        y_axis_title="units",
    )
    table = chart(
        "Accuracy in the backtest",
        "table",
        accuracy,
        query_mode="raw",
        all_columns=list(ACCURACY),
        adhoc_filters=[equal("demand_class", "all"), equal("lead_bucket", "all")],
        order_by_cols=['["wql", true]'],
        column_config={name: {"d3NumberFormat": ".3f"} for name in ACCURACY[1:]},
        show_cell_bars=False,
        row_limit=100,
    )
    layout: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "GRID_ID": {"type": "GRID", "id": "GRID_ID", "children": [], "parents": ["ROOT_ID"]},
        "HEADER_ID": {"type": "HEADER", "id": "HEADER_ID", "meta": {"text": "trendcast"}},
    }
    names = {fan: "Forecast with its 80% interval", table: "Accuracy in the backtest"}
    for i, (number, name) in enumerate(names.items()):
        row, cell = f"ROW-{i}", f"CHART-{i}"
        layout["GRID_ID"]["children"].append(row)
        layout[row] = {
            "type": "ROW",
            "id": row,
            "children": [cell],
            "parents": ["ROOT_ID", "GRID_ID"],
            "meta": {"background": "BACKGROUND_TRANSPARENT"},
        }
        layout[cell] = {
            "type": "CHART",
            "id": cell,
            "children": [],
            "parents": ["ROOT_ID", "GRID_ID", row],
            "meta": {
                "chartId": number,
                "sliceName": name,
                "width": 12,
                "height": 60 - 20 * i,
                "uuid": str(uuid.uuid4()),
            },
        }
    chooser = {
        "id": "NATIVE_FILTER-series",
        "type": "NATIVE_FILTER",
        "name": "Series",
        "filterType": "filter_select",
        "targets": [{"datasetId": fans, "column": {"name": "series_id"}}],
        "defaultDataMask": {"filterState": {}, "extraFormData": {}},
        "controlValues": {
            "multiSelect": False,
            "enableEmptyFilter": True,
            "defaultToFirstItem": True,
        },
        "cascadeParentIds": [],
        "scope": {"rootPath": ["ROOT_ID"], "excluded": [table]},
    }
    dashboard = superset.ask(
        "POST",
        "dashboard/",
        json={
            "dashboard_title": "trendcast",
            "slug": "trendcast",
            "published": True,
            "position_json": json.dumps(layout),
            "json_metadata": json.dumps({"native_filter_configuration": [chooser]}),
        },
    )["id"]
    for number in (fan, table):
        superset.ask("PUT", f"chart/{number}", json={"dashboards": [dashboard]})
    return fan, fans, int(dashboard)


def check(superset: Superset, fans: int, file: Path) -> str:
    """Compare what the fan chart's query returns with the copy; return what was compared."""
    with duckdb.connect(str(file), read_only=True) as copy:
        (series,) = copy.execute(
            "select series_id from marts.dim_series order by total_quantity desc, series_id limit 1"
        ).fetchone() or ("",)
        expected = copy.execute(
            f"select ds, {', '.join(FAN.values())} from marts.rpt_forecast_fan where series_id = ? group by ds order by ds",
            [series],
        ).fetchall()
    query = {
        "columns": [
            {
                "label": "ds",
                "sqlExpression": "ds",
                "columnType": "BASE_AXIS",
                "expressionType": "SQL",
                "timeGrain": "P1D",
            }
        ],
        "metrics": [metric(label, sql) for label, sql in FAN.items()],
        "filters": [{"col": "series_id", "op": "==", "val": series}],
        "orderby": [["ds", True]],
        "row_limit": 10_000,
    }
    (result,) = superset.ask(
        "POST",
        "chart/data",
        json={"datasource": {"id": fans, "type": "table"}, "queries": [query], "force": True},
    )["result"]
    rows = [tuple(row[label] for label in FAN) for row in result["data"]]
    assert rows == [tuple(row[1:]) for row in expected], "the chart's rows are not the copy's"
    assert len(rows) > 28
    return f"{len(rows)} periods of {series}"


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--export", type=Path)
    parser.add_argument(
        "--serve", action="store_true", help="Leave it running until Ctrl-C, to look at it."
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    file = (given.copy / "current" / "trendcast.duckdb").absolute()
    superset = Superset(given.folder.resolve())
    superset.install()
    process = superset.start()
    try:
        _, fans, dashboard = build(superset, file)
        print("The fan chart's query returns the copy's rows:", check(superset, fans, file))
        exported = superset.ask("GET", f"dashboard/export/?q=!({dashboard})")
        names = zipfile.ZipFile(io.BytesIO(exported)).namelist()
        assert sum("/charts/" in name for name in names) == 2
        superset.ask("DELETE", f"dashboard/{dashboard}")
        superset.ask(
            "POST",
            "dashboard/import/",
            files={"formData": ("dashboard.zip", exported, "application/zip")},
            data={"overwrite": "true"},
        )
        (again,) = superset.ask("GET", "dashboard/")["result"]
        assert again["dashboard_title"] == "trendcast"
        print(f"Exported and imported again: {len(names)} files, dashboard {again['id']}")
        if given.export:
            given.export.parent.mkdir(parents=True, exist_ok=True)
            given.export.write_bytes(_portable(exported, str(file)))
            print(f"Wrote {given.export}")
        if given.serve:
            print(
                f"{superset.url}/superset/dashboard/trendcast/ admin {superset.password}",
                flush=True,
            )
            process.wait()
    finally:
        process.terminate()
        process.wait()


def _portable(exported: bytes, file: str) -> bytes:
    """Return the export with a path in place of this machine's."""
    written = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(exported)) as old,
        zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            text = (
                old.read(name)
                .decode()
                .replace(file, "/data/trendcast_published/current/trendcast.duckdb")
            )
            new.writestr(zipfile.ZipInfo(name, (2026, 11, 25, 0, 0, 0)), text)
    return written.getvalue()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
