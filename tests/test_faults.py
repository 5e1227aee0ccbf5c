"""What a process that is killed leaves behind: nothing half-written, and a next run that just works."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import duckdb
import pytest

from tests.conftest import Shop
from trendcast.ledger import ROW_TABLES

# Shares of a whole run: parsing, building features, training, committing, building marts.
MOMENTS = (0.1, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9)


def lines() -> list[dict[str, object]]:
    return [
        {
            "order_id": f"{day}-{k}",
            "product_id": f"p{k}",
            "ordered_at": f"2025-{1 + day // 28:02}-{1 + day % 28:02}",
            "quantity": 1 + (day * k) % 5,
            "revenue": 3.0,
        }
        for day in range(140)
        for k in range(1, 6)
    ]


def wait_until_free(shop: Shop) -> None:
    """Give the kernel a moment to end dbt and to drop its lock."""
    for _ in range(100):
        try:
            duckdb.connect(shop.path, read_only=True).close()
        except duckdb.IOException:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the warehouse is still locked ten seconds after the kill")


def counted(shop: Shop) -> dict[str, int]:
    """Rows per run in the ledger, which must be those the run says it wrote; and what the mart serves."""
    for table in ROW_TABLES:
        wrong = shop.query(
            f"""
            select coalesce(rows.run_id, runs.run_id) as run_id
            from (select run_id, count(*) as n from analytics_trendcast.{table} group by 1) as rows
            full join (
                select run_id, {table}_rows as n from analytics_trendcast.runs
                where status = 'committed' and {table}_rows > 0
            ) as runs using (run_id)
            where rows.n is distinct from runs.n
            """
        )
        assert wrong == [], f"{table} of {wrong}"
    served = shop.query("select count(*) as n from analytics_marts.fct_forecasts")
    runs = shop.query(
        "select count(*) as n from analytics_trendcast.runs where status = 'committed'"
    )
    return {"served": served[0]["n"], "runs": runs[0]["n"]}


@pytest.mark.slow
def test_killed_at_any_moment_the_ledger_is_whole_and_the_next_run_succeeds(
    make_shop: Callable[..., Shop],
) -> None:
    shop = make_shop(lines(), models=["ridge"])
    began = time.monotonic()
    assert shop.run("run").returncode == 0
    duration = time.monotonic() - began
    before = counted(shop)
    assert before == {"served": 5 * 7, "runs": 1}
    for moment in MOMENTS:
        process = subprocess.Popen(
            shop.command("run"),
            env=shop.environment,
            cwd=shop.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(moment * duration)
        process.kill()  # SIGKILL, and to trendcast alone: a dbt under way has to notice by itself
        process.wait()
        wait_until_free(shop)
        after = counted(shop)
        assert after["served"] == before["served"]
        assert after["runs"] >= before["runs"]
        before = after
    done = shop.run("run")
    assert done.returncode == 0, done.stderr
    assert counted(shop)["runs"] == before["runs"] + 1
    committed = {
        r["run_id"]
        for r in shop.query(
            "select run_id from analytics_trendcast.runs where status = 'committed'"
        )
    }
    folders = {p.name for p in shop.artifacts_dir.iterdir() if p.is_dir()}
    assert folders == committed
