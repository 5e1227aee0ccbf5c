"""Training speed of the LSTM with each batch shared among parts of the CPU, which stand for GPUs, and how near the forecasts are.

``python -m benchmarks.replicas --data DIR [--products 500] [--replicas 1,2] [--runs 3] [--json]``. A generated shop is kept in
DIR/replicas_PRODUCTS. Each count is trained in processes of its own, so many steps and four times as many; the difference is training alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import Report, arguments, median, say
from benchmarks.generated import generated
from benchmarks.lstm import STEPS, UNITS, rate, seconds_of
from trendcast.features import Features
from trendcast.models.lstm import LSTMConfig, LSTMForecaster


def train(folder: Path, products: int) -> None:
    """Train in this process; print the rate, and the mean forecast after `STEPS` steps as hex."""
    workspace = generated(folder, products)
    with workspace.connect() as warehouse:
        panel = Features(warehouse, workspace.project).panel
    found = rate(seconds_of(panel, STEPS), seconds_of(panel, 4 * STEPS))
    config = LSTMConfig(units=UNITS, hidden=UNITS, steps_per_epoch=STEPS, max_epochs=1, n_seeds=1)
    mean = LSTMForecaster(config).fit(panel, seed=7).predict(panel).mean
    print(json.dumps({"rate": found, "mean": mean.astype(np.float32).tobytes().hex()}))


def main() -> None:
    """Measure and print."""
    parser = arguments("Training speed of the LSTM on several parts of the CPU.")
    parser.add_argument("--products", type=int, default=500)
    parser.add_argument("--replicas", default="1,2", help="comma-separated counts, 1 first")
    parser.add_argument("--child", action="store_true", help="train in this process")
    args = parser.parse_args()
    folder = args.data.resolve() / f"replicas_{args.products}"
    if args.child:
        train(folder, args.products)
        return
    generated(folder, args.products)
    counts = [int(count) for count in args.replicas.split(",")]
    rates: dict[int, list[float]] = {count: [] for count in counts}
    means: dict[int, np.ndarray] = {}
    for k in range(args.runs):
        for count in counts:
            say(f"run {k + 1} of {args.runs}: {count} replicas ...")
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.replicas", *sys.argv[1:], "--child"],
                env=os.environ | {"TRENDCAST_DEVICE": "cpu", "TRENDCAST_REPLICAS": str(count)},
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            told = json.loads(done.stdout.splitlines()[-1])
            rates[count].append(told["rate"])
            means[count] = np.frombuffer(bytes.fromhex(told["mean"]), np.float32)
    report = Report("replicas", figures={"products": args.products, "runs": args.runs})
    one = counts[0]
    for count in counts:
        report.figures[f"windows_a_second_{count}"] = median(rates[count], 0)
        if count != one:
            apart = np.abs(means[count] / means[one] - 1).max()
            report.ratios[f"windows_a_second_{count}_to_{one}"] = round(
                median(rates[count]) / median(rates[one]), 3
            )
            report.figures[f"largest_relative_difference_{count}"] = f"{apart:.1e}"
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
