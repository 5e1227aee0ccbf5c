"""Point in time: what the features say of a day does not depend on anything that came after it.

The demo shop's features are built on all of the year, on the year cut at a date, and on the year with absurd
sales after that date. Up to the date, every row must be the same.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from tests.conftest import REPO
from trendcast.dbt import BEFORE_LEDGER, Dbt
from trendcast.project import Project

CUT = "2017-09-13"
LOCAL_DATE = (
    "cast(transaction_timestamp at time zone 'UTC' at time zone 'America/New_York' as date)"
)
# Model, and the condition on its rows that are known at the cut (promotions are planned, so the plan may go on).
COMPARED = {
    "ftr_history": f"ds <= date '{CUT}'",
    "int_sales": f"t <= date '{CUT}' - date '1970-01-01'",
    "int_sales_filled": f"ds <= date '{CUT}'",
    "ftr_known": f"t <= date '{CUT}' - date '1970-01-01' + 28",
    "ftr_calendar": f"ds <= date '{CUT}' + 28",
    "ftr_static": "true",
}


def build(folder: Path, project_dir: Path) -> Path:
    """Build the demo shop's features into a warehouse in the folder."""
    path = folder / "shop.duckdb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRENDCAST_DUCKDB_PATH", str(path))
        dbt = Dbt(project_dir, REPO / "profiles", target_path=folder / "target")
        dbt.build(BEFORE_LEDGER, tests=False)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("whole"), REPO / "dbt_project")


def changed(whole: Path, folder: Path, statements: str, project_dir: Path) -> Path:
    """Copy the raw tables of a warehouse, change them, and build the features anew."""
    path = folder / "shop.duckdb"
    config = {"storage_compatibility_version": "v1.0.0"}
    with duckdb.connect(path, config=config) as connection:
        connection.execute(f"attach '{whole}' as original (read_only)")
        connection.execute("create schema demo_shop")
        tables = connection.execute(
            "select table_name from duckdb_tables() "
            "where database_name = 'original' and schema_name = 'demo_shop'"
        ).fetchall()
        for (table,) in tables:
            connection.execute(
                f"create table demo_shop.{table} as select * from original.demo_shop.{table}"
            )
        connection.execute("detach original")
        connection.execute(statements)
    return build(folder, project_dir)


CUT_OFF = f"delete from demo_shop.transactions where {LOCAL_DATE} > date '{CUT}'"
ABSURD = f"""
    insert into demo_shop.transactions
    select * replace (quantity * 500 as quantity, sales_value * 9 as sales_value, basket_id + 1 as basket_id)
    from demo_shop.transactions
    where {LOCAL_DATE} > date '{CUT}' and quantity between 1 and 15
"""


def differences(first: Path, second: Path, project: Project) -> dict[str, int]:
    """Count, by model, the rows known at the cut that only one of two warehouses has."""
    counts = {}
    with duckdb.connect() as connection:
        connection.execute(f"attach '{first}' as a (read_only); attach '{second}' as b (read_only)")
        for model, known in COMPARED.items():
            _, schema, name = project.relation(model).replace('"', "").split(".")
            # A series that starts after the cut is no part of what was known.
            of_known_series = (
                f"series_id in (select series_id from a.{schema}.int_series "
                f"where first_t <= date '{CUT}' - date '1970-01-01')"
                if model != "ftr_calendar"
                else "true"
            )
            rows = [
                f"select * from {side}.{schema}.{name} where {known} and {of_known_series}"
                for side in ("a", "b")
            ]
            counted = connection.execute(
                f"select (select count(*) from ({rows[0]} except all {rows[1]})) "
                f"+ (select count(*) from ({rows[1]} except all {rows[0]})), "
                f"(select count(*) from ({rows[0]}))"
            ).fetchone()
            assert counted is not None
            assert counted[1] > 0, f"nothing of {model} was compared"
            counts[model] = counted[0]
    return counts


@pytest.mark.parametrize(
    "statements", [pytest.param(CUT_OFF, id="cut off"), pytest.param(ABSURD, id="absurd future")]
)
def test_no_row_up_to_the_cut_depends_on_what_follows(
    whole: Path, tmp_path: Path, project: Project, statements: str
) -> None:
    other = changed(whole, tmp_path, statements, REPO / "dbt_project")
    assert differences(whole, other, project) == dict.fromkeys(COMPARED, 0)


@pytest.mark.slow
def test_a_frame_that_sees_one_row_ahead_is_caught(
    whole: Path, tmp_path: Path, project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Test the test: with a leaking frame in the trailing macro, the comparison must find differences."""
    leaking = tmp_path / "dbt_project"
    shutil.copytree(REPO / "dbt_project", leaking, ignore=shutil.ignore_patterns("target", "logs"))
    macro = leaking / "macros" / "windows.sql"
    text = macro.read_text()
    assert "preceding and current row" in text
    macro.write_text(text.replace("preceding and current row", "preceding and 1 following"))
    leaked = build(tmp_path_factory.mktemp("leaking"), leaking)
    cut = changed(leaked, tmp_path_factory.mktemp("cut"), CUT_OFF, leaking)
    found = differences(leaked, cut, project)
    assert found["ftr_history"] > 0
    assert found["ftr_known"] == 0
