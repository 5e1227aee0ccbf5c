"""Peers' forecasts on a split, run by another Python: ``python peers.py train.parquet out.parquet '{...}'``.

It imports nothing of trendcast, so that it runs where only benchmarks/requirements-peers.txt is installed. The JSON
names grain, horizon, season_length and models. Ends stdout with one JSON object: seconds and errors by model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import pandas as pd  # noqa: TID253

INTERVALS = (50, 80, 90, 95)
LEVELS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
QUANTILES = ("q025", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q975")
NAMES = {("lo", 95): "q025", ("lo", 90): "q05", ("lo", 80): "q10", ("lo", 50): "q25"}
NAMES |= {("hi", 50): "q75", ("hi", 80): "q90", ("hi", 90): "q95", ("hi", 95): "q975"}
# How neuralforecast trains here: on the CPU, and without a word.
QUIETLY = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
QUIETLY |= {"enable_progress_bar": False, "enable_model_summary": False}
FREQUENCY = {"day": "D", "week": "W-MON", "month": "MS"}


def statistical(name: str, train: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Forecast with a model of statsforecast."""
    from statsforecast import StatsForecast, models
    from statsforecast.utils import ConformalIntervals

    season = about["season_length"]
    conformal = ConformalIntervals(n_windows=2, h=about["horizon"])
    made = {
        "SeasonalNaive": lambda: models.SeasonalNaive(season),
        "Naive": lambda: models.Naive(),
        "AutoETS": lambda: models.AutoETS(season_length=season),
        "AutoTheta": lambda: models.AutoTheta(season_length=season),
        "CrostonOptimized": lambda: models.CrostonOptimized(prediction_intervals=conformal),
        "TSB": lambda: models.TSB(0.1, 0.1, prediction_intervals=conformal),
    }[name]()
    engine = StatsForecast(
        [made], FREQUENCY[about["grain"]], n_jobs=about["jobs"], fallback_model=models.Naive()
    )
    if "Croston" in name or name == "TSB":
        # Conformal intervals need a history longer than their windows; the others get a naive's.
        sizes = train.groupby("unique_id").size()
        long = sizes.index[sizes > 2 * about["horizon"] + 1]
        parts = [train[train.unique_id.isin(long)], train[~train.unique_id.isin(long)]]
        found = [engine.forecast(df=parts[0], h=about["horizon"], level=list(INTERVALS))]
        if len(parts[1]):
            rest = StatsForecast([models.Naive(alias=name)], FREQUENCY[about["grain"]])
            found.append(rest.forecast(df=parts[1], h=about["horizon"], level=list(INTERVALS)))
        return renamed(pd.concat(found), name)
    return renamed(engine.forecast(df=train, h=about["horizon"], level=list(INTERVALS)), name)


def boosted(name: str, train: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Forecast with mlforecast and LightGBM, recursive as it does by default, on a like set of features."""
    import lightgbm
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import ExponentiallyWeightedMean, RollingMean, RollingStd
    from mlforecast.utils import PredictionIntervals

    season, horizon = about["season_length"], about["horizon"]
    windows = {"day": (7, 28, 91), "week": (4, 13, 52), "month": (3, 6, 12)}[about["grain"]]
    dates = {"day": ["dayofweek", "day", "month"], "week": ["week"], "month": ["month"]}
    sizes = train.groupby("unique_id").size()
    long = sizes.index[sizes > 3 * horizon + season + 1]
    enough = train[train.unique_id.isin(long)]
    engine = MLForecast(
        {
            name: lightgbm.LGBMRegressor(
                objective="tweedie" if (train.y >= 0).all() else "l2",
                n_estimators=400,
                learning_rate=0.05,
                num_leaves=63,
                subsample=0.7,
                subsample_freq=1,
                colsample_bytree=0.7,
                random_state=7,
                n_jobs=about["jobs"],
                verbose=-1,
            )
        },
        FREQUENCY[about["grain"]],
        lags=[1, 2, 3, season, 2 * season],
        lag_transforms={
            1: [
                *(RollingMean(w, min_samples=1) for w in windows),
                RollingStd(windows[1], min_samples=2),
                ExponentiallyWeightedMean(0.3),
            ],
            season: [RollingMean(windows[0], min_samples=1)],
        },
        date_features=dates[about["grain"]],
        num_threads=about["jobs"],
    )
    engine.fit(
        enough,
        static_features=[],
        dropna=False,
        prediction_intervals=PredictionIntervals(n_windows=2, h=horizon),
    )
    found = [renamed(engine.predict(horizon, level=list(INTERVALS)), name)]
    if len(long) < len(sizes):
        found.append(statistical("SeasonalNaive", train[~train.unique_id.isin(long)], about))
    return pd.concat(found)


def neural(name: str, train: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Forecast with a network of neuralforecast, its own defaults but for quantiles and what scales a series.

    Networks trained on quantiles have no mean; the mean of the nine is taken for it.
    """
    import torch
    from neuralforecast import NeuralForecast
    from neuralforecast import models as networks
    from neuralforecast.losses.pytorch import DistributionLoss, MQLoss

    torch.set_num_threads(about["jobs"])
    season, horizon = about["season_length"], about["horizon"]
    # A negative binomial must see counts unscaled, which goes well only where all of them are small.
    counts = (train.y >= 0).all() and (train.y % 1 == 0).all() and (train.y == 0).mean() > 0.25
    spread = DistributionLoss(
        "NegativeBinomial" if counts else "StudentT", level=list(INTERVALS), return_params=False
    )
    shortest = int(train.groupby("unique_id").size().min())
    network = getattr(networks, name)(
        h=horizon,
        input_size=max(min(2 * max(season, horizon), 4 * horizon), 8),
        loss=spread if name == "DeepAR" else MQLoss(level=list(INTERVALS)),
        scaler_type="identity" if name == "DeepAR" and counts else "standard",
        start_padding_enabled=shortest < 3 * max(season, horizon),
        random_seed=7,
        **QUIETLY,
    )
    engine = NeuralForecast([network], FREQUENCY[about["grain"]])
    engine.fit(train)
    rows = engine.predict().reset_index(drop=True)
    sides = {f"{name}-{side}-{level}": ours for (side, level), ours in NAMES.items()}
    sides[f"{name}-median"] = "q50"
    out = rows.rename(columns=lambda column: sides.get(column.removesuffix(".0"), column))
    out["mean"] = rows[name] if name == "DeepAR" else out[list(QUANTILES)].mean(axis=1)
    return tidy(out)


def autogluon(name: str, train: pd.DataFrame, about: dict) -> pd.DataFrame:
    """Forecast with AutoGluon's ensemble of what it can train here: no weights are downloaded."""
    from autogluon.timeseries import TimeSeriesDataFrame, TimeSeriesPredictor

    frame = TimeSeriesDataFrame.from_data_frame(
        train[["unique_id", "ds", "y"]], id_column="unique_id", timestamp_column="ds"
    )
    with tempfile.TemporaryDirectory() as folder:
        predictor = TimeSeriesPredictor(
            prediction_length=about["horizon"],
            freq=FREQUENCY[about["grain"]],
            target="y",
            quantile_levels=list(LEVELS),
            eval_metric="WQL",
            path=folder,
            verbosity=1,
        )
        predictor.fit(
            frame,
            presets="high_quality",
            excluded_model_types=["Chronos", "Chronos2", "Toto", "Toto2"],
            time_limit=about["seconds"],
            random_seed=7,
        )
        # Without its index it is no frame of series, and it would say so.
        rows = pd.DataFrame(predictor.predict(frame)).reset_index()
    columns = {str(level): q for q, level in zip(QUANTILES, LEVELS, strict=True)}
    columns |= {"item_id": "unique_id", "timestamp": "ds"}
    return tidy(rows.rename(columns=columns))


def renamed(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Give the columns of Nixtla's intervals the ledger's names."""
    columns = {name: "mean"}
    columns |= {f"{name}-{side}-{level}": ours for (side, level), ours in NAMES.items()}
    out = rows.rename(columns=columns)
    out["q50"] = out["mean"]
    return tidy(out)


def tidy(out: pd.DataFrame) -> pd.DataFrame:
    """Keep what is scored; demand is not negative, and the quantiles are ordered."""
    quantiles = list(QUANTILES)
    out[quantiles] = out[quantiles].clip(lower=0).cummax(axis=1)
    out["mean"] = out["mean"].clip(lower=0)
    return out[["unique_id", "ds", "mean", *quantiles]].fillna(0)


KINDS = {"LightGBM": boosted, "AutoGluon": autogluon}
KINDS |= dict.fromkeys(("LSTM", "NHITS", "DeepAR"), neural)


def main() -> None:
    """Run the models asked for, one after the other."""
    train_path, out_path, text = sys.argv[1:4]
    about = json.loads(text)
    train = pd.read_parquet(train_path)
    train["ds"] = pd.to_datetime(train["ds"])
    told, made = {}, []
    for name in about["models"]:
        start = time.perf_counter()
        try:
            rows = KINDS.get(name, statistical)(name, train, about)
            made.append(rows.assign(model=name))
            told[name] = {"seconds": round(time.perf_counter() - start, 1)}
        except Exception as error:  # one peer that cannot take a data set must not end the others
            told[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    if made:
        out = pd.concat(made)
        out["ds"] = pd.to_datetime(out["ds"]).dt.date
        out.to_parquet(out_path, index=False)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
