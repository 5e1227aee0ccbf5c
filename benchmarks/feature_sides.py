"""The work of each side of ``benchmarks.features``, one process a side; the peers' environment runs it too.

``PYTHON feature_sides.py JOB`` with JOB a JSON object; prints a JSON object with the seconds and the peak memory.
Every side reads table ``sales`` (series_id, ds, quantity; only periods with a sale) of a DuckDB file, fills
the gaps up to the last date and writes table ``features`` into the same file: the lags, and mean, standard
deviation, smallest and largest value over trailing windows, fewer rows at a series' start.

Imports nothing of trendcast: the peers' environment doesn't have it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

LAGS = (1, 2, 3, 4, 5, 6, 7, 14, 21, 28, 56, 91)
WINDOWS = (7, 28, 91)
STATISTICS = ("mean", "std", "min", "max")
COLUMNS = [f"lag_{k}" for k in LAGS] + [f"{s}_{w}" for w in WINDOWS for s in STATISTICS]


def connect(job: dict[str, Any]) -> Any:
    """Open the warehouse with the job's threads and memory limit."""
    import duckdb

    connection = duckdb.connect(job["path"], config={"storage_compatibility_version": "v1.0.0"})
    connection.execute(f"set threads = {int(job['threads'])}")
    connection.execute(f"set memory_limit = '{job['memory_limit']}'")
    connection.execute("set preserve_insertion_order = false")
    return connection


def ours(job: dict[str, Any]) -> None:
    """Run the SQL that the project's macros compile to."""
    with connect(job) as connection:
        for statement in job["statements"]:
            connection.execute(statement)


def mlforecast(job: dict[str, Any]) -> None:
    """Pull into pandas, fill gaps and compute with mlforecast, write back."""
    import pandas as pd
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMax, RollingMean, RollingMin, RollingStd
    from utilsforecast.preprocessing import fill_gaps

    rolling = {"mean": RollingMean, "std": RollingStd, "min": RollingMin, "max": RollingMax}
    # Lag transforms start at the row before: `mean_7` of a date is what the other sides say of the day before.
    transforms = [
        rolling[s](w, min_samples=2 if s == "std" else 1) for w in WINDOWS for s in STATISTICS
    ]
    names = [_mlforecast_name(s, w) for w in WINDOWS for s in STATISTICS]
    with connect(job) as connection:
        sales = connection.execute(
            "select series_id as unique_id, cast(ds as timestamp) as ds, quantity as y from sales"
        ).df()
        # Codes instead of text: measured faster, and what its documentation advises.
        sales["unique_id"] = sales["unique_id"].astype("category")
        panel = fill_gaps(sales, freq="D", end=pd.Timestamp(job["last_date"]))
        del sales
        panel["y"] = panel["y"].fillna(0)
        forecast = MLForecast(
            models=[],
            freq="D",
            lags=list(LAGS),
            lag_transforms={1: transforms},
            num_threads=job["threads"],
        )
        features = forecast.preprocess(  # noqa: F841  # DuckDB reads it by name
            panel, static_features=[], dropna=False
        )
        del panel
        renamed = ", ".join(
            f'"{old}" as {new}' for old, new in zip(names, COLUMNS[len(LAGS) :], strict=True)
        )
        lags = ", ".join(f"lag{k} as lag_{k}" for k in LAGS)
        connection.execute(
            "create table features as "
            f"select cast(unique_id as varchar) as series_id, cast(ds as date) as ds, y, {lags}, {renamed} from features"
        )


def _mlforecast_name(statistic: str, window: int) -> str:
    return (
        f"rolling_{statistic}_lag1_window_size{window}_min_samples{2 if statistic == 'std' else 1}"
    )


def polars(job: dict[str, Any]) -> None:
    """Pull Arrow, fill gaps and compute with polars, write back."""
    import datetime as dt
    import os

    os.environ["POLARS_MAX_THREADS"] = str(job["threads"])
    import polars as pl

    y = pl.col("y")
    lags = [y.shift(k).over("series_id").alias(f"lag_{k}") for k in LAGS]
    rolling = [
        getattr(y, f"rolling_{s}")(w, min_samples=1).over("series_id").alias(f"{s}_{w}")
        for w in WINDOWS
        for s in STATISTICS
    ]
    with connect(job) as connection:
        table = connection.execute(
            "select series_id, ds, quantity as y from sales"
        ).to_arrow_table()
        sales = pl.DataFrame(table)
        del table
        last_date = dt.date.fromisoformat(job["last_date"])
        spine = (
            sales.group_by("series_id")
            .agg(pl.col("ds").min().alias("first_date"))
            .sort("series_id")
            .with_columns(pl.date_ranges("first_date", pl.lit(last_date)).alias("ds"))
            .explode("ds")
            .select("series_id", "ds")
        )
        panel = spine.join(
            sales, on=["series_id", "ds"], how="left", maintain_order="left"
        ).with_columns(y.fill_null(0))
        del sales, spine
        features = panel.with_columns(*lags, *rolling)  # noqa: F841
        del panel
        connection.execute("create table features as select * from features")


def plain_write(job: dict[str, Any]) -> None:
    """Scan the features and write them once more: the floor for any side."""
    with connect(job) as connection:
        connection.execute("create table copied as select * from features")


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Write table `sales` of every `keep`-th series, `copies` times over; return what it holds."""
    with connect(job) as connection:
        connection.execute(
            """
            create table sales as
            select item_id || '/' || store_id || '/' || copy as series_id, date as ds, cast(sales as double) as quantity
            from read_parquet($file), range($copies) as copies(copy)
            where sales > 0 and hash(item_id, store_id) % $keep = 0
            """,
            {k: job[k] for k in ("file", "copies", "keep")},
        )
        found = connection.execute(
            "select count(distinct series_id), max(ds), "
            "(select sum(days) from (select max(max(ds)) over () - min(ds) + 1 as days "
            "from sales group by series_id)) from sales"
        ).fetchone()
    return {"series": found[0], "last_date": str(found[1]), "rows": int(found[2])}


def compare(job: dict[str, Any]) -> dict[str, Any]:
    """Return the largest difference between ours and another side's, over a sample of the series."""
    shifted = job["shift"]  # 1 where the other side's windows end one row earlier
    differences = []
    for name in COLUMNS:
        ahead = shifted if not name.startswith("lag") else 0
        theirs = f"case when not isnan(b{ahead}.{name}) then b{ahead}.{name} end"
        differences.append(f"max(abs(a.{name} - {theirs}) / greatest(abs(a.{name}), 1))")
        differences.append(f"count(*) filter ((a.{name} is null) <> ({theirs} is null))")
    with connect(job) as connection:
        connection.execute(f"attach '{job['other']}' as other (read_only)")
        sample = "hash(series_id) % 50 = 0"
        row = connection.execute(
            f"select {', '.join(differences)}, count(*) "
            f"from (select * from features where {sample}) as a "
            f"inner join (select * from other.features where {sample}) as b0 "
            "on a.series_id = b0.series_id and a.ds = b0.ds "
            f"inner join (select * from other.features where {sample}) as b1 "
            f"on a.series_id = b1.series_id and a.ds + {shifted} = b1.ds"
        ).fetchone()
    return {
        "largest": max(row[0:-1:2]),
        "nulls_that_differ": sum(row[1:-1:2]),
        "rows_compared": row[-1],
    }


def count(job: dict[str, Any]) -> dict[str, Any]:
    """Return how many rows of features there are."""
    with connect(job) as connection:
        return {"rows": connection.execute("select count(*) from features").fetchone()[0]}


SIDES = {f.__name__: f for f in (ours, mlforecast, polars, plain_write, prepare, compare, count)}


def peak_mb() -> float:
    """Return this process's peak resident memory; a new program's ru_maxrss starts at its parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**10
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def main() -> None:
    """Do one job; time it without the imports."""
    job = json.loads(sys.argv[1])
    start = time.perf_counter()
    for module in job.get("imports", ()):
        __import__(module)
    imported = time.perf_counter()
    cpu = time.process_time()
    result = SIDES[job["side"]](job) or {}
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - imported,
                "cpu_seconds": time.process_time() - cpu,
                "import_seconds": imported - start,
                "peak_mb": peak_mb(),
                **result,
            }
        )
    )


if __name__ == "__main__":
    main()
