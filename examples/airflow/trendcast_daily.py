"""Airflow: new orders are forecast every morning, and models are trained anew on Sundays.

Three BashOperators call the command line. A failed task says why in its log, and its exit code stops the ones after it.
"""

from __future__ import annotations

import os

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# The folder with dbt_project.yml, and a trendcast that is installed apart from Airflow's own packages.
PROJECT = os.environ.get("TRENDCAST_PROJECT", "/opt/shop")
TRENDCAST = os.environ.get("TRENDCAST_BIN", "/opt/trendcast/bin/trendcast")


def trendcast(task_id: str, arguments: str, **options: object) -> BashOperator:
    """Return a task that runs ``trendcast <arguments>`` in the project's folder."""
    return BashOperator(
        task_id=task_id,
        bash_command=f"{TRENDCAST} {arguments}",
        cwd=PROJECT,
        append_env=True,
        env={"NO_COLOR": "1"},
        **options,
    )


with DAG(
    dag_id="trendcast_daily",
    schedule="0 5 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # DuckDB takes one writer
    tags=["forecast"],
) as dag:
    # On Sundays with training and a backtest; on other days stored models forecast what is new. A run that failed goes on
    # from what it had finished.
    run = trendcast(
        "run",
        "run {{ '' if (logical_date or dag_run.run_after).isoweekday() == 7 else '--no-train' }}",
        retries=0,
    )
    publish = trendcast("publish", "publish", retries=2)
    report = trendcast("report", "report --out forecast.html", retries=2)
    run >> publish >> report
