"""What old runs have left goes, and nothing that is still read."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Shop
from trendcast import ledger
from trendcast.prune import superseded

COUNTS = {f"{table}_rows": 0 for table in ledger.ROW_TABLES}


def made(n: int, command: str, **more: Any) -> dict[str, Any]:
    """Return a row of ``runs``: the n-th, of all series, a cutoff a day."""
    when = dt.datetime(2026, 1, 1) + dt.timedelta(days=n)
    row = {"run_id": f"r{n:03}", "command": command, "status": "committed", "panel": "day"}
    row |= {"finished_at": when, "cutoff": when.date(), "models": '["ridge"]'}
    row |= {"series_filter": None, "trained_run_id": None} | COUNTS
    if command in ("run", "forecast"):
        row["forecasts_rows"] = 10
    if command in ("run", "backtest"):
        row["backtests_rows"] = 10
    return row | more


def gone(runs: list[dict[str, Any]], keep: int) -> list[str]:
    return [run["run_id"] for run in superseded(runs, keep)]


def test_of_nightly_runs_the_newest_stay() -> None:
    runs = [made(n, "run") for n in range(10)]
    assert gone(runs, 4) == [f"r{n:03}" for n in range(6)]
    # The last two cutoffs' are compared with each other, however few are asked to stay.
    assert gone(runs, 1) == [f"r{n:03}" for n in range(8)]
    assert gone(runs, 10) == gone(runs, 99) == gone([], 1) == []


def test_what_is_in_force_since_the_last_run_of_all_series_stays() -> None:
    same_day = {"cutoff": dt.date(2026, 1, 9)}
    runs = [
        made(0, "run", **same_day),
        made(1, "run", **same_day),
        *(
            made(n, "forecast", series_filter='{"department": "MEAT"}', **same_day)
            for n in range(2, 5)
        ),
    ]
    assert gone(runs, 1) == ["r000"]


def test_the_newest_of_every_kind_stays() -> None:
    runs = [made(0, "backtest"), made(1, "customers", next_purchases_rows=5)]
    runs += [made(n, "forecast") for n in range(2, 8)]
    assert gone(runs, 1) == ["r002", "r003", "r004", "r005"]


def test_models_that_a_command_may_ask_for_stay() -> None:
    runs = [
        made(0, "train", models='["ridge", "lstm"]'),
        made(1, "train", models='["lightgbm"]'),
        made(2, "train", models='["ridge"]'),
        made(3, "train", models='["ridge", "lstm"]'),
        *(made(n, "forecast", trained_run_id="r002") for n in range(4, 7)),
    ]
    # r003 knows all that r000 does; r002 made forecasts that stay; nobody else has lightgbm.
    assert gone(runs, 1) == ["r000", "r004"]


def test_what_is_made_by_hand_and_what_failed_is_left_alone() -> None:
    runs = [made(0, "whatif", scenarios_rows=5), made(1, "tune", tuning_trials_rows=5)]
    runs += [made(n, "run", status="failed") for n in range(2, 5)]
    runs += [made(n, "run") for n in range(5, 9)]
    assert gone(runs, 1) == ["r005", "r006"]


def test_panels_are_pruned_apart() -> None:
    runs = [made(n, "run", panel="day" if n % 2 else "week") for n in range(10)]
    assert gone(runs, 3) == ["r000", "r001", "r002", "r003"]


RUNS = st.lists(
    st.tuples(
        st.sampled_from(["run", "train", "forecast", "backtest", "customers", "whatif"]),
        st.sampled_from(["committed", "failed", "pruned"]),
        st.sampled_from([None, '{"a": 1}']),
        st.integers(0, 3),
    ),
    max_size=30,
)


@given(RUNS, st.integers(1, 5))
def test_what_marts_read_never_goes(
    drawn: list[tuple[str, str, str | None, int]], keep: int
) -> None:
    """By the rules of the macros, said in other words than in the code."""
    runs = [
        made(n, command, status=status, series_filter=where, cutoff=dt.date(2026, 1, 1 + day))
        for n, (command, status, where, day) in enumerate(drawn)
    ]
    went = set(gone(runs, keep))
    stays = [r for r in runs if r["run_id"] not in went and r["status"] == "committed"]
    committed = [r for r in runs if r["status"] == "committed"]
    assert went <= {r["run_id"] for r in committed}
    for count in ("forecasts_rows", "backtests_rows"):
        before = [r["run_id"] for r in committed if r[count]]
        after = [r["run_id"] for r in stays if r[count]]
        assert before[-1:] == after[-1:]
    whole = [r for r in committed if r["forecasts_rows"] and r["series_filter"] is None]
    last = whole[-1]["run_id"] if whole else ""
    in_force = {r["run_id"] for r in committed if r["forecasts_rows"] and r["run_id"] >= last}
    assert in_force.isdisjoint(went)
    assert len({r["cutoff"] for r in stays if r["forecasts_rows"]}) >= min(
        2, len({r["cutoff"] for r in committed if r["forecasts_rows"]})
    )
    # Once more drops nothing more.
    assert gone([r for r in runs if r["run_id"] not in went], keep) == []


STATE = """
    select runs.run_id, runs.status, count(forecasts.run_id) as n
    from analytics_trendcast.runs left join analytics_trendcast.forecasts using (run_id)
    group by all order by run_id
"""
SERVED = "select * exclude (run_id) from analytics_marts.fct_forecasts order by all"


def test_a_ledger_is_pruned_and_goes_on(small_run: Shop, copied: Callable[[Shop], Shop]) -> None:
    shop = copied(small_run)
    (first,) = shop.query("select run_id from analytics_trendcast.runs")
    for command in ("train", "forecast", "forecast", "train", "forecast"):
        assert shop.run(command).returncode == 0
    before = shop.query(STATE)
    ids = [row["run_id"] for row in before]
    assert ids[0] == first["run_id"] and len(ids) == 6
    shop.build("fct_forecasts")
    served = shop.query(SERVED)

    told = shop.json("prune", "--keep", "1", "--dry-run")
    assert told["dry_run"] and told["runs"] == [ids[1], ids[2], ids[3]]
    assert shop.query(STATE) == before
    assert (shop.artifacts_dir / ids[1]).is_dir()

    told = shop.json("prune", "--keep", "1")
    assert told["runs"] == [ids[1], ids[2], ids[3]] and told["kept"] == 3
    assert told["rows"] == {
        "forecasts": 2 * before[2]["n"],
        "coefficients": told["rows"]["coefficients"],
        "explanations": told["rows"]["explanations"],
    }
    after = shop.query(STATE)
    assert [row["status"] for row in after] == [
        *("committed", "pruned", "pruned", "pruned", "committed", "committed")
    ]
    assert [row["n"] for row in after] == [before[0]["n"], 0, 0, 0, 0, before[5]["n"]]
    assert not (shop.artifacts_dir / ids[1]).exists()
    assert (shop.artifacts_dir / ids[4]).is_dir()
    for table in ledger.ROW_TABLES:
        rows = shop.query(f"select distinct run_id from analytics_trendcast.{table}")
        assert {row["run_id"] for row in rows} <= {ids[0], ids[4], ids[5]}

    shop.build("fct_forecasts")
    assert shop.query(SERVED) == served
    refused = shop.run("reproduce", ids[1])
    assert refused.returncode != 0
    assert "is a pruned `trendcast train`" in refused.stderr
    assert shop.run("forecast").returncode == 0
    assert "Nothing to drop" in shop.run("prune").stdout


def test_a_prune_that_dies_leaves_all_or_only_files(
    small_run: Shop, copied: Callable[[Shop], Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trendcast.warehouse.duckdb import DuckDBWarehouse

    shop = copied(small_run)
    for command in ("train", "train"):
        assert shop.run(command).returncode == 0
    before = shop.query(STATE)
    execute = DuckDBWarehouse.execute

    def dying(self: DuckDBWarehouse, sql: str, parameters: Any = ()) -> None:
        if sql.startswith("update"):
            raise KeyboardInterrupt
        execute(self, sql, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBWarehouse, "execute", dying)
        assert shop.run("prune", "--keep", "1").returncode != 0
    assert shop.query(STATE) == before

    with monkeypatch.context() as patch:
        patch.setattr("trendcast.prune.shutil.rmtree", lambda *_, **__: None)
        (dropped,) = shop.json("prune", "--keep", "1")["runs"]
    assert (shop.artifacts_dir / dropped).is_dir()
    assert shop.json("prune", "--keep", "1")["runs"] == []
    assert not (shop.artifacts_dir / dropped).exists()
    (row,) = shop.query(
        f"select models, artifacts from analytics_trendcast.runs where run_id = '{dropped}'"
    )
    assert json.loads(row["models"]) and json.loads(row["artifacts"])
