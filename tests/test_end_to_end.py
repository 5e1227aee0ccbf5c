"""The main job on the demo shop: what BI reads afterwards, and that a second run says the same."""

from __future__ import annotations

import json
from collections.abc import Callable

import duckdb
import pytest

from tests.conftest import SMALL_LSTM, Shop

HORIZON, FOLDS = 28, 3
MODELS = ("seasonal_naive", "classical", "ridge", "lightgbm", "lstm", "ensemble")


def test_every_series_has_a_forecast_for_every_lead(demo_run: Shop) -> None:
    rows = demo_run.query(
        """
        select s.series_id, count(*) as leads, count(distinct target_date) as days, min(run_id) as run_id
        from analytics_marts.dim_series as s
        left join analytics_marts.fct_forecasts using (series_id)
        group by 1
        """
    )
    assert len(rows) == 295
    assert {(r["leads"], r["days"]) for r in rows} == {(HORIZON, HORIZON)}
    assert len({r["run_id"] for r in rows}) == 1


def test_backtest_holds_every_model_at_every_cutoff_beside_what_happened(demo_run: Shop) -> None:
    rows = demo_run.query(
        """
        select b.model, b.fold, count(*) as n, count(b.actual) as known, bool_and(b.actual = h.y) as true_actuals,
            bool_and(b.target_date > b.cutoff) as after_cutoff
        from analytics_trendcast.backtests as b
        join analytics_trendcast.ftr_history as h on b.series_id = h.series_id and b.target_date = h.ds
        where b.model <> 'analogy' -- of new series only
        group by 1, 2
        """
    )
    assert len(rows) == len(MODELS) * FOLDS
    assert all(
        r["n"] == r["known"] > 8000 and r["true_actuals"] and r["after_cutoff"] for r in rows
    )


def test_accuracy_mart_agrees_with_the_ledger(demo_run: Shop) -> None:
    """WAPE and coverage by hand from the ledger's rows."""
    (expected,) = demo_run.query(
        """
        select sum(abs(mean - actual)) / sum(actual) as wape, avg((actual between q10 and q90)::int) as coverage_80
        from analytics_trendcast.backtests where model = 'ridge'
        """
    )
    (got,) = demo_run.query(
        """
        select wape, coverage_80, forecast_value_added from analytics_marts.fct_forecast_accuracy
        where model = 'ridge' and demand_class = 'all' and lead_bucket = 'all'
        """
    )
    assert got["wape"] == pytest.approx(expected["wape"])
    assert got["coverage_80"] == pytest.approx(expected["coverage_80"])
    assert got["forecast_value_added"] > 0.15


def test_the_fan_joins_actuals_and_forecast_without_overlap(demo_run: Shop) -> None:
    rows = demo_run.query(
        """
        select kind, min(ds) as first, max(ds) as last, count(mean) as means, count(actual) as actuals
        from analytics_marts.rpt_forecast_fan where series_id = 'YOGURT' group by kind order by kind
        """
    )
    actual, forecast = rows
    assert (forecast["first"] - actual["last"]).days == 1
    assert (actual["means"], forecast["actuals"]) == (0, 0)
    assert forecast["means"] == HORIZON


def test_each_class_is_served_by_its_champion(demo_run: Shop) -> None:
    wrong = demo_run.query(
        """
        select f.demand_class, f.model from analytics_marts.fct_forecasts as f
        join analytics_marts.fct_champions as c using (demand_class)
        where c.champion_rank = 1 and c.model <> f.model
        """
    )
    assert wrong == []


def test_the_ensemble_is_as_its_weights_and_its_file_say(demo_run: Shop) -> None:
    """The mean by hand from the ledger's weights, the file's factors and the members' rows."""
    (run,) = demo_run.query("select run_id from analytics_trendcast.runs where command = 'run'")
    file = demo_run.artifacts_dir / run["run_id"] / "ensemble" / "ensemble.json"
    kept = json.loads(file.read_text())
    assert kept["members"] == list(MODELS[1:-1])
    rows = demo_run.query(
        """
        select f.series_id, f.lead, f.model, w.weight, f.mean, e.mean as served
        from analytics_trendcast.forecasts as f
        join analytics_trendcast.forecasts as e
            on f.series_id = e.series_id and f.lead = e.lead and e.model = 'ensemble'
        join analytics_trendcast.ftr_baseline as b
            on f.series_id = b.series_id and f.lead = b.lead and b.fold = 0
        join analytics_trendcast.weights as w
            on f.model = w.member and w.fold = 0 and w.lead_bucket = (f.lead + 6) // 7
            and w.demand_class = b.demand_class
        order by f.series_id, f.lead, f.model
        """
    )
    assert len(rows) == 295 * HORIZON * len(kept["members"])
    for start in range(0, len(rows), 97 * len(kept["members"])):
        group = rows[start : start + len(kept["members"])]
        alike = [1.0] * len(kept["members"])
        factors = kept["tilts"].get(group[0]["series_id"], alike)
        tilt = dict(zip(kept["members"], factors, strict=True))
        weight = [r["weight"] * tilt[r["model"]] for r in group]
        mean = sum(w * r["mean"] for w, r in zip(weight, group, strict=True)) / sum(weight)
        assert mean == pytest.approx(group[0]["served"])


def test_the_oldest_fold_has_nothing_to_learn_from(demo_run: Shop) -> None:
    rows = demo_run.query(
        """
        select max(abs(e.mean - members.mean)) as apart, min(n) as members
        from analytics_trendcast.backtests as e
        join (
            select series_id, lead, avg(mean) as mean, count(*) as n from analytics_trendcast.backtests
            where fold = 3 and model not in ('ensemble', 'seasonal_naive', 'analogy') group by 1, 2
        ) as members using (series_id, lead)
        -- New series are drawn to their neighbours afterwards.
        where e.model = 'ensemble' and e.fold = 3 and e.demand_class <> 'new'
        """
    )
    assert rows[0]["apart"] < 1e-9
    assert rows[0]["members"] == 4
    oldest = demo_run.query(
        "select distinct weight, n_rows from analytics_trendcast.weights where fold = 3"
    )
    assert oldest == [{"weight": pytest.approx(1 / 4), "n_rows": 0}]
    (served,) = demo_run.query(
        "select min(n_rows) as n from analytics_trendcast.weights where fold = 0"
    )
    assert served["n"] > 0


def test_the_run_records_what_repeats_it(demo_run: Shop) -> None:
    (run,) = demo_run.query("select * from analytics_trendcast.runs where command = 'run'")
    assert run["status"] == "committed"
    assert json.loads(run["settings"])["lstm"] == SMALL_LSTM
    assert {"duckdb", "tensorflow", "trendcast"} <= set(json.loads(run["versions"]))
    assert len(run["data_fingerprint"]) == len(run["config_fingerprint"]) == 64
    assert {a["path"].rsplit(".", 1)[1] for a in json.loads(run["artifacts"])} == {
        "json",
        "keras",
        "txt",
    }
    assert run["finished_at"] > run["started_at"]


def test_an_older_client_can_open_the_file(demo_run: Shop) -> None:
    """DuckDB 2.0 writes files that 1.x cannot read unless told the storage version."""
    with duckdb.connect(demo_run.path, read_only=True) as connection:
        tags = connection.sql("select tags from duckdb_databases() where not internal").fetchall()
    assert "v1.0.0" in str(tags)


def test_a_repeated_run_gives_identical_forecasts(
    demo_run: Shop, copied: Callable[[Shop], Shop]
) -> None:
    """Same seed and data, another process: the same hash, and the same rows to the last bit."""
    shop = copied(demo_run)
    first = shop.query(
        "select run_id, forecasts_sha256 from analytics_trendcast.runs where command = 'run' order by started_at"
    )[0]
    second = shop.json("run", "--no-backtest")
    assert second["forecasts_sha256"] == first["forecasts_sha256"]
    assert second["run_id"] != first["run_id"]
    different = shop.query(
        f"""
        select count(*) as n from (
            select * exclude (run_id) from analytics_trendcast.forecasts where run_id = '{first["run_id"]}'
            except
            select * exclude (run_id) from analytics_trendcast.forecasts where run_id = '{second["run_id"]}'
        )
        """
    )
    assert different == [{"n": 0}]


@pytest.mark.slow
@pytest.mark.whole
def test_on_the_demo_every_model_beats_the_baseline_and_the_ensemble_all(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # But for one network of the three, which take most of the time.
    shop = Shop(tmp_path_factory.mktemp("whole_demo"), {"lstm": {"n_seeds": 1}})
    summary = shop.json("run")
    wape = {row["model"]: row["wape"] for row in summary["accuracy"]}
    wql = {row["model"]: row["wql"] for row in summary["accuracy"]}
    for model in MODELS[1:]:
        assert wape[model] < 0.85 * wape["seasonal_naive"]
        assert wql[model] < 0.85 * wql["seasonal_naive"]
        assert wql["ensemble"] <= wql[model]
