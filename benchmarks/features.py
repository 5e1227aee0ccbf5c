"""Builds panel and features from a sales table, warehouse to warehouse, against mlforecast and polars.

``python -m benchmarks.features --data DIR --peers PYTHON [--json]``. DIR holds M5's sales_daily.parquet (store_id,
item_id, date, sales). PYTHON is an interpreter that has benchmarks/requirements-peers.txt. Every side reads
the same table of a DuckDB file in a process of its own, fills gaps to the cutoff, computes 12 lags and 12
trailing statistics for each of 12.3 million rows, and writes them back to the file. Ours runs the SQL that the project's
macros compile to, and writes the panel as a table as well.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import feature_sides
from benchmarks.common import Report, arguments, median, say
from benchmarks.feature_sides import LAGS, STATISTICS, WINDOWS

REPO = Path(__file__).resolve().parent.parent
MEMORY_LIMIT = "4GB"
PEERS = {"mlforecast": ["pandas", "mlforecast"], "polars": ["polars"]}
# Series of M5 are taken this way: every `keep`-th of them, `copies` times.
SIZES = {"3k": {"keep": 10, "copies": 1}, "30k": {"keep": 1, "copies": 1}}
SIZES["150k"] = {"keep": 1, "copies": 5}

SALES = """
    create table series as
    select
        series_id,
        cast(row_number() over (order by series_id) as integer) as series_no,
        min(ds - date '1970-01-01') as first_t
    from sales
    group by series_id
"""
PANEL = """
    create table panel as
    with sold as (
        select
            series.series_no,
            series.first_t,
            sales.ds - date '1970-01-01' as sale_t,
            sales.quantity,
            lead(sales.ds - date '1970-01-01', 1, date '{last_date}' - date '1970-01-01' + 1) over (
                partition by series.series_no order by sales.ds
            ) - (sales.ds - date '1970-01-01') as periods
        from sales
        inner join series on sales.series_id = series.series_id
    ),
    spread as ({repeated})
    select
        series_no,
        cast(sale_t + since_sale as integer) as t,
        cast(sale_t + since_sale - first_t + 1 as integer) as row_number,
        since_sale > 0 as is_filled,
        case when since_sale = 0 then quantity else 0 end as y
    from spread
"""
FEATURES = """
    create table features as
    with {windows}
    select series.series_id, date '1970-01-01' + windowed.t as ds, windowed.y, {columns}
    from windowed
    inner join series on windowed.series_no = series.series_no
"""


def statements(last_date: str, project_dir: Path) -> list[str]:
    """Return our SQL: the project's macros, compiled by dbt."""
    windows = (
        "{{ trendcast.windows('panel', columns=['y'], derived={'y_square': 'y * y'}, "
        f"lags={{'y': {list(LAGS)}}}, sums={{'y': {list(WINDOWS)}, 'y_square': {list(WINDOWS)}}}, "
        f"minima={{'y': {list(WINDOWS)}}}, maxima={{'y': {list(WINDOWS)}}}) }}}}"
    )
    columns = [f"y_lag_{k} as lag_{k}" for k in LAGS]
    for w in WINDOWS:
        of = {
            "mean": f"{{{{ trendcast.mean_of('y', {w}) }}}}",
            "std": f"sqrt({{{{ trendcast.variance_of('y', 'y_square', {w}, sample=true) }}}})",
            "min": f"y_min_{w}",
            "max": f"y_max_{w}",
        }
        columns += [f"{of[s]} as {s}_{w}" for s in STATISTICS]
    repeated = "{{ trendcast.repeated('sold', 'periods', 'since_sale') }}"
    return [
        SALES,
        _compiled(PANEL.format(last_date=last_date, repeated=repeated), project_dir),
        _compiled(FEATURES.format(windows=windows, columns=", ".join(columns)), project_dir),
    ]


def _compiled(sql: str, project_dir: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TRENDCAST_DUCKDB_PATH": str(Path(folder, "none.duckdb"))}
        command = [sys.executable, "-m", "dbt.cli.main", "--quiet", "compile", "--inline", sql]
        command += ["--project-dir", str(project_dir), "--profiles-dir", str(REPO / "profiles")]
        command += ["--target-path", folder, "--log-path", folder]
        command += ["--vars", json.dumps({"window_branches": threads()})]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"dbt could not compile the macros:\n{done.stdout}{done.stderr}")
    return done.stdout


def threads() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0))


def run(side: str, path: Path, *, python: str = sys.executable, **job: Any) -> dict[str, Any]:
    """Run one side in a new process; return its figures."""
    job = {"side": side, "path": str(path), "threads": threads(), **job}
    job.setdefault("memory_limit", MEMORY_LIMIT)
    done = subprocess.run(
        [python, feature_sides.__file__, json.dumps(job)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check_peers(python: str) -> None:
    """Say what to install where the peers' interpreter lacks one of them."""
    modules = sorted({m for wanted in PEERS.values() for m in wanted} | {"duckdb", "pyarrow"})
    done = subprocess.run([python, "-c", f"import {', '.join(modules)}"], capture_output=True)
    if done.returncode:
        raise SystemExit(
            f"{python} cannot import {', '.join(modules)}. Make an environment for the peers and pass its "
            "interpreter:\n"
            "  uv venv peers && uv pip install --python peers/bin/python -r benchmarks/requirements-peers.txt\n"
            "  python -m benchmarks.features --data DIR --peers peers/bin/python"
        )


def main() -> None:
    """Measure and print."""
    parser = arguments("Panel and features, warehouse to warehouse.")
    parser.add_argument("--peers", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument(
        "--project-dir", type=Path, default=REPO / "dbt_project", help="project whose macros to use"
    )
    parser.add_argument("--no-growth", action="store_true", help="leave 3k and 150k series out")
    args = parser.parse_args()
    check_peers(args.peers)
    file = args.data / "sales_daily.parquet"
    if not file.is_file():
        raise SystemExit(
            f"{file} is not there; --data wants the folder with M5's sales_daily.parquet"
        )
    with tempfile.TemporaryDirectory(prefix="trendcast_features_") as folder:
        report = measure(file, Path(folder), args)
    report.print(as_json=args.json)


def measure(file: Path, folder: Path, args: Any) -> Report:
    """Run all sides in turn, `runs` times, then ours on less and more series."""
    source = folder / "30k.duckdb"
    shop = run("prepare", source, file=str(file), **SIZES["30k"])
    sql = statements(shop["last_date"], args.project_dir)
    sides: dict[str, dict[str, Any]] = {"ours": {"imports": ["duckdb"], "statements": sql}}
    for name, modules in PEERS.items():
        sides[name] = {"python": args.peers, "imports": ["duckdb", *modules]}
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in [*sides, "plain_write"]}
    for k in range(args.runs):
        for side, job in sides.items():
            say(f"run {k + 1} of {args.runs}: {side} ...")
            path = Path(shutil.copy(source, folder / f"{side}.duckdb"))
            found[side].append(run(side, path, last_date=shop["last_date"], **job))
        found["plain_write"].append(run("plain_write", folder / "ours.duckdb", imports=["duckdb"]))
    report = Report("features")
    figures = report.figures
    for side, runs in found.items():
        figures[f"{side}_seconds"] = median(r["seconds"] for r in runs)
        figures[f"{side}_cpu_seconds"] = median(r["cpu_seconds"] for r in runs)
        figures[f"{side}_peak_mb"] = median((r["peak_mb"] for r in runs), 0)
        if side in PEERS:
            figures[f"{side}_import_seconds"] = median(r["import_seconds"] for r in runs)
            other = run(
                "compare",
                folder / "ours.duckdb",
                other=str(folder / f"{side}.duckdb"),
                shift=int(side == "mlforecast"),
            )
            figures[f"{side}_largest_difference"] = other["largest"]
            figures[f"{side}_nulls_that_differ"] = other["nulls_that_differ"]
            figures[f"{side}_rows_compared"] = other["rows_compared"]
    fastest = min(PEERS, key=lambda side: figures[f"{side}_seconds"])
    report.ratios = {
        "time": round(figures["ours_seconds"] / figures[f"{fastest}_seconds"], 3),
        "peak_memory": round(figures["ours_peak_mb"] / figures[f"{fastest}_peak_mb"], 3),
        "cpu_time": round(figures["ours_cpu_seconds"] / figures[f"{fastest}_cpu_seconds"], 3),
    }
    figures |= {
        "fastest_peer": fastest,
        "rows": shop["rows"],
        "series": shop["series"],
        "ours_rows_per_second": round(shop["rows"] / figures["ours_seconds"]),
        "share_of_plain_scan_and_write": round(
            figures["plain_write_seconds"] / figures["ours_seconds"], 3
        ),
        "runs": args.runs,
    }
    for side in sides:
        (folder / f"{side}.duckdb").unlink()
    if not args.no_growth:
        grow(file, folder, sql, args.runs, report)
    return report


def grow(file: Path, folder: Path, sql: list[str], runs: int, report: Report) -> None:
    """Run ours on 3k, 30k and 150k series under the same memory limit."""
    found: dict[str, list[dict[str, Any]]] = {size: [] for size in SIZES}
    rows = {}
    for size, how in SIZES.items():
        source = folder / f"{size}.duckdb"
        if not source.is_file():
            run("prepare", source, file=str(file), **how)
    for k in range(runs):
        for size in SIZES:
            say(f"growth, run {k + 1} of {runs}: {size} series ...")
            path = Path(shutil.copy(folder / f"{size}.duckdb", folder / "grown.duckdb"))
            found[size].append(run("ours", path, imports=["duckdb"], statements=sql))
            rows[size] = run("count", path)["rows"]
            path.unlink()
    for size, figures in found.items():
        seconds = median((r["seconds"] for r in figures), 3)
        report.figures[f"growth_{size}_rows"] = rows[size]
        report.figures[f"growth_{size}_seconds"] = seconds
        report.figures[f"growth_{size}_microseconds_per_row"] = round(1e6 * seconds / rows[size], 3)
        report.figures[f"growth_{size}_peak_mb"] = median((r["peak_mb"] for r in figures), 0)
    report.ratios["time_per_row_150k_to_30k"] = round(
        report.figures["growth_150k_microseconds_per_row"]
        / report.figures["growth_30k_microseconds_per_row"],
        3,
    )
    report.ratios["time_per_row_3k_to_30k"] = round(
        report.figures["growth_3k_microseconds_per_row"]
        / report.figures["growth_30k_microseconds_per_row"],
        3,
    )


if __name__ == "__main__":
    main()
