"""Training speed of the LSTM: windows a second, beside neuralforecast's LSTM of the same width, context and batch.

``python -m benchmarks.lstm --data DIR --peers-python PYTHON [--sets m5_store,carparts] [--runs 3] [--json]``. Both train so many steps and
four times as many; the difference is training alone, without building, tracing and reading. Ours reads all features, theirs only demand.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from benchmarks.accuracy import REPO, our_environment
from benchmarks.common import Report, arguments, say
from benchmarks.datasets import DATASETS
from trendcast.features import Features
from trendcast.models.lstm import Frame, LSTMConfig, LSTMForecaster
from trendcast.pipeline import Workspace, run

if TYPE_CHECKING:
    import datetime as dt

    from benchmarks.datasets import Split
    from trendcast.panel import Panel

UNITS, BATCH, STEPS = 64, 256, 60
WINDOW = 1  # of the data set: speed needs no last one


def seconds_of(panel: Panel, steps: int, **settings: Any) -> float:
    """Return how long training takes, the graph traced anew."""
    config = LSTMConfig(
        units=UNITS,
        hidden=UNITS,
        batch_size=BATCH,
        steps_per_epoch=steps,
        max_epochs=1,
        validation_cutoffs=0,
        n_seeds=1,
        **settings,
    )
    start = time.perf_counter()
    LSTMForecaster(config).fit(panel, seed=7)
    return time.perf_counter() - start


def panel_of(split: Split, folder: Path) -> tuple[Panel, dict[int, dt.date]]:
    """Build the features of a split whose warehouse is in the folder; return the panel and the day of each period."""
    os.environ |= our_environment(folder / "benchmark.duckdb", folder)
    workspace = Workspace.open(
        project_dir=REPO / "dbt_project", profiles_dir=REPO / "profiles", vars=split.vars
    )
    run(workspace, models=["seasonal_naive"], with_backtest=False)
    with workspace.connect() as warehouse:
        features = Features(warehouse, workspace.project)
        return features.panel, dict(features.dates)


def rate(short: float, long: float) -> float:
    """Return windows a second from the times of `STEPS` steps and of four times as many."""
    return 3 * STEPS * BATCH / (long - short)


def main() -> None:
    """Measure and print."""
    parser = arguments("Training speed of the LSTM beside neuralforecast's.")
    parser.add_argument("--peers-python", type=Path, required=True)
    parser.add_argument("--sets", default="m5_store,carparts", help="comma-separated")
    args = parser.parse_args()
    report = Report("lstm", figures={"units": UNITS, "batch": BATCH, "steps": 3 * STEPS})
    for name in args.sets.split(","):
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            split = DATASETS[name].prepare(args.data, folder / "benchmark.duckdb", WINDOW)
            say(f"{name}: features ...")
            panel, _ = panel_of(split, folder)
            pq.write_table(split.train, folder / "train.parquet")
            context = Frame.of(panel, LSTMConfig()).context
            about = {
                "grain": split.dataset.grain,
                "horizon": split.dataset.horizon,
                "context": context,
                "units": UNITS,
                "batch": BATCH,
                "steps": STEPS,
            }
            command = [args.peers_python, REPO / "benchmarks" / "lstm_peer.py"]
            ours, theirs, periods = [], [], []
            for k in range(args.runs):
                say(f"{name}: {k + 1} of {args.runs} ...")
                ours.append(rate(seconds_of(panel, STEPS), seconds_of(panel, 4 * STEPS)))
                one = [seconds_of(panel, n, patch=1, context=context) for n in (STEPS, 4 * STEPS)]
                periods.append(rate(*one))
                clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
                done = subprocess.run(
                    [*command, folder / "train.parquet", json.dumps(about)],
                    env=clean,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    check=True,
                    text=True,
                )
                told = json.loads(done.stdout.splitlines()[-1])
                theirs.append(rate(*told["seconds"]))
        us, them = statistics.median(ours), statistics.median(theirs)
        report.ratios[f"{name}_windows_a_second"] = round(us / them, 3)
        report.ratios[f"{name}_windows_a_second_patch_1"] = round(
            statistics.median(periods) / them, 3
        )
        report.figures |= {
            f"{name}_context": context,
            f"{name}_trendcast": round(us),
            f"{name}_trendcast_patch_1": round(statistics.median(periods)),
            f"{name}_neuralforecast": round(them),
            f"{name}_neuralforecast_peak_gb": told["peak_gb"],
        }
    report.figures["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
