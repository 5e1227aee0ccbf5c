"""Airflow with Cosmos: every dbt model of the features and of the marts is a task of its own, trendcast's steps are between.

Cosmos reads the project's manifest, so that Airflow needs no dbt to parse this file; `dbt parse` makes it in CI.
"""

from __future__ import annotations

import os
from pathlib import Path

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from cosmos import DbtTaskGroup, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import LoadMode, TestBehavior

PROJECT = Path(os.environ.get("TRENDCAST_PROJECT", "/opt/shop"))
PROFILES = Path(os.environ.get("DBT_PROFILES_DIR", PROJECT))
MANIFEST = Path(os.environ.get("TRENDCAST_MANIFEST", PROJECT / "target" / "manifest.json"))
BIN = Path(os.environ.get("TRENDCAST_BIN", "/opt/trendcast/bin/trendcast")).parent


def models(group_id: str, *select: str) -> DbtTaskGroup:
    """Return a group with a task for each dbt model selected."""
    return DbtTaskGroup(
        group_id=group_id,
        project_config=ProjectConfig(
            dbt_project_path=PROJECT, manifest_path=MANIFEST, project_name="trendcast"
        ),
        profile_config=ProfileConfig(
            profile_name="trendcast",
            target_name=os.environ.get("TRENDCAST_TARGET", "duckdb"),
            profiles_yml_filepath=PROFILES / "profiles.yml",
        ),
        execution_config=ExecutionConfig(dbt_executable_path=BIN / "dbt"),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            select=list(select),
            test_behavior=TestBehavior.AFTER_ALL,
        ),
    )


with DAG(
    dag_id="trendcast_cosmos",
    schedule="0 5 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1,  # DuckDB takes one writer: no two models at a time
    tags=["forecast"],
) as dag:
    features = models("features", "tag:trendcast_features", "tag:trendcast_ledger")
    forecast = BashOperator(
        task_id="forecast",
        bash_command=f"{BIN / 'trendcast'} forecast",
        cwd=str(PROJECT),
        append_env=True,
    )
    marts = models("marts", "tag:trendcast_marts")
    publish = BashOperator(
        task_id="publish",
        bash_command=f"{BIN / 'trendcast'} publish",
        cwd=str(PROJECT),
        append_env=True,
    )
    features >> forecast >> marts >> publish
