"""Accuracy on public data sets, on the real path (warehouse, dbt, CLI), beside peers on the same split.

``python -m benchmarks.accuracy --data DIR [--sets m5,hospital] [--peers-python PATH] [--autogluon-python PATH]
[--window 1] [--peers-only] [--json]``.
Only lines up to the cutoff are in the warehouse. ``--window 0``, the last window of each set, is for reporting;
settings are chosen on ``--window 1`` and the backtests before it, never on the last.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import Report, arguments, say
from benchmarks.datasets import DATASETS, Split
from benchmarks.metrics import QUANTILES, WRMSSE, Truth, owa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPO = Path(__file__).resolve().parent.parent
OURS = "trendcast"  # what fct_forecasts serves: each class by its champion
NAIVE = "seasonal_naive"
PEERS = ("Naive", "SeasonalNaive", "AutoETS", "AutoTheta", "CrostonOptimized", "TSB", "LightGBM")
PEERS += ("LSTM", "NHITS", "DeepAR")
AUTOGLUON = ("AutoGluon",)
AUTOGLUON_SECONDS = 600
SHOWN = ("mase", "mase_of_median", "wape", "bias", "wql", "scaled_pinball")
SHOWN += ("coverage_80", "coverage_95", "coverage_80_split", "coverage_95_split")
SHOWN += ("smape", "owa", "wrmsse", "seconds", "peak_gb")


def our_environment(warehouse: Path, folder: Path) -> dict[str, str]:
    """Return the variables that let the project work on a warehouse and leave its files in a folder."""
    return {
        "TRENDCAST_DUCKDB_PATH": str(warehouse),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
    }


def run_trendcast(split: Split, warehouse: Path, folder: Path) -> dict[str, Any]:
    """Run the main job in a new process; return its wall time, peak memory and summary."""
    environment = os.environ | our_environment(warehouse, folder)
    at = ["--project-dir", str(REPO / "dbt_project"), "--profiles-dir", str(REPO / "profiles")]
    command = [sys.executable, "-m", "trendcast", "run", "--json", "--vars", json.dumps(split.vars)]
    out = folder / "run.json"
    start = time.perf_counter()
    with out.open("w") as file:
        process = subprocess.Popen([*command, *at], env=environment, stdout=file)
        # Of this process and those it waited for, unlike what getrusage tells of all children so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"trendcast run failed on {split.dataset.name}; see above")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gb": round(usage.ru_maxrss / 2**20, 2),
        "summary": json.loads(out.read_text().splitlines()[-1]),
    }


def our_forecasts(warehouse: Path) -> dict[str, pa.Table]:
    """Return the forecast in force and that of every model."""
    columns = f"series_id as unique_id, target_date as ds, mean, {', '.join(QUANTILES)}"
    with duckdb.connect(warehouse, read_only=True) as connection:
        found = {
            OURS: connection.sql(
                f"select {columns} from analytics_marts.fct_forecasts"
            ).to_arrow_table()
        }
        names = connection.sql(
            "select distinct model from analytics_trendcast.forecasts order by 1"
        )
        for (name,) in names.fetchall():
            found[name] = connection.sql(
                f"select {columns} from analytics_trendcast.forecasts where model = ?",
                params=[name],
            ).to_arrow_table()
    return found


def peer_forecasts(
    split: Split, python: Path, folder: Path, peers: Sequence[str]
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Run the peers; return their forecasts and what each told."""
    about = {
        "grain": split.dataset.grain,
        "horizon": split.dataset.horizon,
        "season_length": split.dataset.season_length,
        "models": peers,
        "jobs": 2,
        "seconds": AUTOGLUON_SECONDS,
    }
    train, out = folder / "train.parquet", folder / "peers.parquet"
    pq.write_table(split.train, train)
    out.unlink(missing_ok=True)
    command = [str(python), str(REPO / "benchmarks" / "peers.py"), str(train), str(out)]
    # The peer's Python must not find our packages.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [*command, json.dumps(about)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    if not out.exists():  # none of them could
        return {}, told
    rows = pq.read_table(out)
    names = rows.column("model")
    return {name: rows.filter(pa.compute.equal(names, name)) for name in peers}, told


def benchmark(
    name: str,
    data: Path,
    window: int,
    pythons: Mapping[Path, Sequence[str]],
    *,
    peers_only: bool = False,
) -> dict[str, Any]:
    """Score one data set; returns model to scores."""
    dataset = DATASETS[name]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        warehouse = folder / "benchmark.duckdb"
        split = dataset.prepare(data, warehouse, window)
        truth = Truth.of(split.train, split.truth, dataset.mase_season or dataset.season_length)
        say(f"{name}: {len(truth.series):,} series, {dataset.horizon} after {split.cutoff}")
        forecasts: dict[str, pa.Table] = {}
        told: dict[str, Any] = {}
        phases: dict[str, float] = {}
        if not peers_only:
            ran = run_trendcast(split, warehouse, folder)
            forecasts = our_forecasts(warehouse)
            told[OURS] = {"seconds": ran["seconds"], "peak_gb": ran["peak_gb"]}
            phases = ran["summary"]["timings"]
        for python, peers in pythons.items():
            say(f"{name}: {', '.join(peers)} ...")
            theirs, theirs_told = peer_forecasts(split, python, folder, peers)
            # A peer of the same name as a model of ours is told apart.
            forecasts |= {f"peer {k}": rows for k, rows in theirs.items() if len(rows)}
            told |= {f"peer {k}": v for k, v in theirs_told.items()}
        scores = {
            model: truth.score(rows) | told.get(model, {}) for model, rows in forecasts.items()
        }
        if name.startswith("m5"):
            score = WRMSSE(truth, _revenue(split, truth))
            for model, rows in forecasts.items():
                whole, levels = score(truth.align(rows)[0])
                scores[model] |= {"wrmsse": whole, "wrmsse_levels": [round(v, 4) for v in levels]}
        if dataset.mase_season == 1 and "peer Naive" in scores:
            for values in scores.values():
                values["owa"] = owa(values, scores["peer Naive"])
    failed = {model: t["error"] for model, t in told.items() if "error" in t}
    return {"scores": scores, "failed": failed, "phases": phases}


def _revenue(split: Split, truth: Truth) -> np.ndarray:
    """Return each series' revenue of the last 28 days."""
    found = dict(
        zip(*(split.revenue.column(c).to_pylist() for c in ("unique_id", "y")), strict=True)
    )
    return np.array([float(found.get(name) or 0) for name in truth.series])


def geometric_means(sets: dict[str, Any], measure: str) -> dict[str, float]:
    """Return each model's geometric mean relative to the seasonal naive, over sets where all models have it."""
    models = set.intersection(
        *({m for m, s in found["scores"].items() if measure in s} for found in sets.values())
    )
    return {
        model: float(
            np.exp(
                np.mean(
                    [
                        np.log(found["scores"][model][measure] / found["scores"][NAIVE][measure])
                        for found in sets.values()
                    ]
                )
            )
        )
        for model in sorted(models)
    }


def main() -> None:
    """Measure and print."""
    parser = arguments("Accuracy on public data sets, beside peers.")
    parser.add_argument("--sets", default=",".join(DATASETS), help="comma-separated")
    parser.add_argument("--peers-python", type=Path, help="a Python with requirements-peers.txt")
    parser.add_argument("--peers", default=",".join(PEERS), help="which of them, comma-separated")
    parser.add_argument(
        "--autogluon-python", type=Path, help="a Python with requirements-autogluon.txt"
    )
    parser.add_argument("--window", type=int, default=0, help="windows before the last; tune on 1")
    parser.add_argument(
        "--peers-only", action="store_true", help="leave trendcast out, where a run of it is known"
    )
    args = parser.parse_args()
    pythons: dict[Path, Sequence[str]] = {}
    if args.peers_python:
        pythons[args.peers_python] = args.peers.split(",")
    if args.autogluon_python:
        pythons[args.autogluon_python] = AUTOGLUON
    report = Report("accuracy")
    sets: dict[str, Any] = {}
    for name in args.sets.split(","):
        if name not in DATASETS:
            raise SystemExit(f"Unknown set {name!r}. Valid: {', '.join(DATASETS)}.")
        sets[name] = benchmark(name, args.data, args.window, pythons, peers_only=args.peers_only)
        _show(name, sets[name])
    for measure in ("mase", "mase_of_median", "scaled_pinball") if not args.peers_only else ():
        for model, value in geometric_means(sets, measure).items():
            report.ratios[f"{measure}_{model}_to_{NAIVE}"] = round(value, 4)
    report.figures = {"window": args.window} | {
        f"{name}_{model}_{measure}": value
        for name, found in sets.items()
        for model, scores in found["scores"].items()
        for measure, value in scores.items()
        if measure in SHOWN
    }
    if args.json:
        report.print(as_json=True)


def _show(name: str, found: dict[str, Any]) -> None:
    """Print one set's table, best scaled pinball loss first."""
    columns = [c for c in SHOWN if any(c in s for s in found["scores"].values())]
    print(f"{name:<24}" + "".join(f"{c:>16}" for c in columns))
    for model, scores in sorted(
        found["scores"].items(), key=lambda kv: kv[1].get("scaled_pinball", np.inf)
    ):
        cells = (f"{scores[c]:>16.4f}" if c in scores else " " * 16 for c in columns)
        print(f"{model:<24}" + "".join(cells))
    for model, reason in found["failed"].items():
        print(f"  {model}: {reason}")
    if found["phases"]:
        print(f"  trendcast's seconds: {found['phases']}", flush=True)


if __name__ == "__main__":
    main()
