"""Times neuralforecast's LSTM, run by another Python: ``python lstm_peer.py train.parquet '{...}'``; see benchmarks.lstm."""

from __future__ import annotations

import json
import resource
import sys
import time

import pandas as pd  # noqa: TID253
import torch
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MQLoss
from neuralforecast.models import LSTM
from peers import FREQUENCY, INTERVALS, QUIETLY


def seconds_of(train: pd.DataFrame, about: dict, steps: int) -> float:
    """Return how long training takes."""
    network = LSTM(
        h=about["horizon"],
        h_train=about["horizon"],
        input_size=about["context"],
        encoder_hidden_size=about["units"],
        encoder_n_layers=1,
        decoder_hidden_size=about["units"],
        loss=MQLoss(level=list(INTERVALS)),
        max_steps=steps,
        batch_size=about["batch"],
        windows_batch_size=about["batch"],
        val_check_steps=10 * steps,
        scaler_type="standard",
        start_padding_enabled=True,
        random_seed=7,
        **QUIETLY,
    )
    engine = NeuralForecast([network], FREQUENCY[about["grain"]])
    start = time.perf_counter()
    engine.fit(train)
    return time.perf_counter() - start


def main() -> None:
    """Train so many steps and four times as many."""
    about = json.loads(sys.argv[2])
    torch.set_num_threads(2)
    train = pd.read_parquet(sys.argv[1])
    train["ds"] = pd.to_datetime(train["ds"])
    seconds = [seconds_of(train, about, n * about["steps"]) for n in (1, 4)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_gb": round(peak, 2)}))


if __name__ == "__main__":
    main()
