"""Dagster: the forecast is an asset with its accuracy as metadata, the published copy an asset downstream of it.

Dagster and trendcast may live in different environments, so the command line is called; --json is read into metadata.
"""

import json
import os
import subprocess

import dagster as dg

# The folder with dbt_project.yml, and the command to call.
PROJECT = os.environ.get("TRENDCAST_PROJECT", "/opt/shop")
TRENDCAST = os.environ.get("TRENDCAST_BIN", "trendcast")


def trendcast(context: dg.AssetExecutionContext, *arguments: str) -> dict:
    """Return what ``trendcast <arguments> --json`` prints; its message is the failure's."""
    done = subprocess.run(
        [TRENDCAST, *arguments, "--json"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    if done.stderr.strip():
        context.log.info(done.stderr)
    if done.returncode:
        raise dg.Failure(description=done.stderr.strip())
    return json.loads(done.stdout)


class Run(dg.Config):
    """What a run does."""

    train: bool = False


@dg.asset(group_name="forecast", kinds={"dbt", "duckdb"})
def forecasts(context: dg.AssetExecutionContext, config: Run) -> dg.MaterializeResult:
    """The forecast in force, in the mart fct_forecasts."""
    told = trendcast(context, "run") if config.train else trendcast(context, "run", "--no-train")
    best = told["accuracy"][0]
    return dg.MaterializeResult(
        metadata={
            "run_id": told["run_id"],
            "cutoff": told["cutoff"],
            "series": told["n_series"],
            "wape": best["wape"],
            "saved of the baseline's WAPE": best["forecast_value_added"],
            "seconds": sum(told["timings"].values()),
        }
    )


@dg.asset(deps=[forecasts], group_name="forecast", kinds={"duckdb", "parquet"})
def published_marts(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The read-only copy that BI tools read."""
    told = trendcast(context, "publish")
    return dg.MaterializeResult(
        metadata={"version": told["version"], "rows": told["rows"], "where": told["where"]}
    )


daily = dg.define_asset_job("daily", selection=[forecasts, published_marts])
train = {"ops": {"forecasts": {"config": {"train": True}}}}

defs = dg.Definitions(
    assets=[forecasts, published_marts],
    jobs=[daily],
    schedules=[
        dg.ScheduleDefinition(name="forecast_daily", job=daily, cron_schedule="0 5 * * 1-6"),
        dg.ScheduleDefinition(
            name="train_weekly", job=daily, cron_schedule="0 3 * * 0", run_config=train
        ),
    ],
)
