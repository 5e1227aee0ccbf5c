"""What each part of the LSTM brings: the network alone, as it is and with one thing changed, on windows before the last.

``python -m benchmarks.lstm_parts --data DIR [--sets hospital,carparts] [--windows 1,2] [--parts "no dropout"] [--json]``. Scaled pinball
loss over that of the network as it is, geometric mean over the windows; above one the part helps. One seed: two per cent are chance.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Report, arguments, say
from benchmarks.datasets import DATASETS
from benchmarks.lstm import panel_of
from benchmarks.metrics import Truth
from trendcast.models.lstm import LSTMConfig, LSTMForecaster
from trendcast.models.tables import forecast_table
from trendcast.panel import Panel

AS_IS = "as it is"
SEED = 7
Part = Callable[[Panel], tuple[Panel, LSTMConfig]]


def _set(**settings: object) -> Part:
    return lambda panel: (panel, LSTMConfig.from_settings(settings))


def _without(role: str) -> Part:
    """Leave all columns of a role out of the panel."""
    empty: dict[str, Any] = {f"{role}_columns": ()}
    if role in ("history", "season"):
        empty[f"{role}_units"] = ()
    if role == "static":
        empty["static_categories"] = ()
    return lambda panel: (
        replace(panel, **empty, **{role: getattr(panel, role)[:, :0]}),
        LSTMConfig(),
    )


PARTS: dict[str, Part] = {
    AS_IS: _set(),
    "no embeddings of what a series is": _without("static"),
    "nothing known of the future": _without("known"),
    "no features of history at the cutoff": _without("history"),
    "no features by season": _without("season"),
    "early stopping always": _set(validation_cutoffs=2),
    "no dropout": _set(dropout=0.0),
    "all series weigh alike": _set(weight_power=0.0),
    "gru": _set(cell="gru"),
    "rnn": _set(cell="rnn"),
    "one network": _set(n_seeds=1),
}


def main() -> None:
    """Measure and print."""
    parser = arguments("What each part of the LSTM brings.")
    parser.add_argument("--sets", default="hospital,carparts", help="comma-separated")
    parser.add_argument("--windows", default="1,2", help="windows before the last, comma-separated")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of them, comma-separated")
    args = parser.parse_args()
    names = [AS_IS, *(name for name in args.parts.split(",") if name != AS_IS)]
    if unknown := set(names) - set(PARTS):
        raise SystemExit(f"Unknown parts {sorted(unknown)}. Valid: {', '.join(PARTS)}.")
    report = Report("lstm_parts")
    for of in args.sets.split(","):
        losses: dict[str, list[float]] = {name: [] for name in names}
        for window in map(int, args.windows.split(",")):
            with tempfile.TemporaryDirectory() as text:
                folder = Path(text)
                split = DATASETS[of].prepare(args.data, folder / "benchmark.duckdb", window)
                panel, dates = panel_of(split, folder)
            season = split.dataset.mase_season or split.dataset.season_length
            truth = Truth.of(split.train, split.truth, season)
            for name in names:
                changed, config = PARTS[name](panel)
                forecast = LSTMForecaster(config).fit(changed, seed=SEED).predict(changed)
                rows = forecast_table(forecast, dates)
                names_of = {"series_id": "unique_id", "target_date": "ds"}
                rows = rows.rename_columns([names_of.get(c, c) for c in rows.column_names])
                losses[name].append(truth.score(rows)["scaled_pinball"])
                say(f"{of}, window {window}: {name} {losses[name][-1]:.4f}")
        report.figures[f"{of}_series"] = len(truth.series)
        report.figures[f"{of}_scaled_pinball"] = round(statistics.mean(losses[AS_IS]), 4)
        for name in names[1:]:
            logs = np.log(losses[name]) - np.log(losses[AS_IS])
            report.ratios[f"{of}: {name}"] = round(math.exp(logs.mean()), 3)
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
