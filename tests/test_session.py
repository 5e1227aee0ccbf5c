"""`trendcast.open`: frames for notebooks that say what the warehouse says, errors that help, and imports that are quick."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import altair
import duckdb
import pandas as pd
import pytest

import trendcast
from tests.conftest import REPO, Shop
from trendcast import pipeline
from trendcast.errors import TrendcastError, UsageError
from trendcast.session import Session


def opened(shop: Shop) -> Session:
    return trendcast.open(shop.project_dir, profiles_dir=REPO / "profiles", vars=shop.vars)


@pytest.fixture(scope="module")
def demo(demo_run: Shop) -> Iterator[Session]:
    with demo_run.entered():
        yield opened(demo_run)


def test_importing_it_is_quick() -> None:
    code = "import sys, trendcast; trendcast.open; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO
    )
    heavy = {
        "tensorflow",
        "keras",
        "dbt",
        "pandas",
        "numpy",
        "pyarrow",
        "duckdb",
        "altair",
        "typer",
    }
    assert "trendcast" in done.stdout.split()
    assert not heavy & set(done.stdout.split())


def test_a_session_imports_no_model_and_no_dbt(demo_run: Shop) -> None:
    """Reading is for notebooks, where the seconds of TensorFlow would be felt."""
    code = (
        "import sys, trendcast, json\n"
        "shop = trendcast.open(sys.argv[1], profiles_dir=sys.argv[2], vars=json.loads(sys.argv[3]))\n"
        "assert len(shop.forecast()) and len(shop.accuracy()) and len(shop.series())\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    arguments = [str(demo_run.project_dir), str(REPO / "profiles"), json.dumps(demo_run.vars)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=demo_run.folder,
        env=demo_run.environment,
    )
    assert done.returncode == 0, done.stderr
    assert not {"tensorflow", "keras", "lightgbm", "dbt", "altair"} & set(done.stdout.split())


# --- Forecasts ---


def test_the_forecast_in_force_is_the_mart(demo: Session, demo_run: Shop) -> None:
    found = demo.forecast()
    columns = ", ".join(c for c in found.columns)
    rows = demo_run.query(
        f"select {columns} from analytics_marts.fct_forecasts order by series_id, target_date"
    )
    assert len(found) == len(rows) > 1000
    assert found["mean"].tolist() == [row["mean"] for row in rows]
    assert found["q975"].tolist() == [row["q975"] for row in rows]
    assert [at.date() for at in found["target_date"]] == [row["target_date"] for row in rows]
    assert pd.api.types.is_datetime64_any_dtype(found["cutoff"])


def test_series_and_models_are_chosen(demo: Session, demo_run: Shop) -> None:
    some = ["YOGURT", "CHEESE"]
    found = demo.forecast(some, model=["ridge", "lstm"])
    (run,) = demo_run.query("select run_id from analytics_trendcast.runs")
    rows = demo_run.query(
        "select series_id, model, mean from analytics_trendcast.forecasts where "
        f"series_id in ('YOGURT', 'CHEESE') and model in ('ridge', 'lstm') and run_id = '{run['run_id']}' "
        "order by series_id, model, target_date"
    )
    assert found[["series_id", "model", "mean"]].to_dict("records") == rows
    assert len(rows) == 2 * 2 * 28
    assert set(demo.forecast("YOGURT")["series_id"]) == {"YOGURT"}
    # A column of the frame of series will do.
    assert set(demo.forecast(demo.series(category=some)["series_id"])["series_id"]) == set(some)
    assert demo.forecast([]).empty


def test_series_by_attribute(demo: Session, demo_run: Shop) -> None:
    found = demo.series(department="GROCERY")
    (count,) = demo_run.query(
        "select count(*) as n from analytics_marts.dim_series where department = 'GROCERY'"
    )
    assert len(found) == count["n"] > 10
    assert found["total_quantity"].is_monotonic_decreasing
    assert len(demo.series(department=["GROCERY"], demand_class="smooth")) < len(found)
    (every,) = demo_run.query("select count(*) as n from analytics_marts.dim_series")
    assert len(demo.series()) == every["n"]


def test_explanations_are_of_the_forecast_in_force(demo: Session) -> None:
    parts, forecast = demo.explanations(["YOGURT", "CHEESE"]), demo.forecast(["YOGURT", "CHEESE"])
    keys = ["series_id", "model", "target_date"]
    total = parts.groupby(keys)["contribution"].sum()
    pd.testing.assert_series_equal(
        total, forecast.set_index(keys)["mean"].sort_index(), check_names=False
    )
    with pytest.raises(UsageError, match="Did you mean 'YOGURT'"):
        demo.explanations("YOGHURT")


def test_actuals_end_at_the_cutoff(demo: Session) -> None:
    actuals, forecast = demo.actuals("YOGURT"), demo.forecast("YOGURT")
    assert actuals["ds"].max() == forecast["cutoff"].iloc[0]
    assert actuals["actual"].notna().all() and len(actuals) == 182


def test_accuracy_is_of_all_or_by_group(demo: Session) -> None:
    every = demo.accuracy()
    assert set(every["model"]) == set(
        pipeline.summarize(demo.workspace)["accuracy"][i]["model"] for i in range(6)
    )
    assert every["wql"].is_monotonic_increasing
    by_class = demo.accuracy("demand_class")
    assert "all" not in set(by_class["demand_class"]) and set(by_class["lead_bucket"]) == {"all"}
    counted = by_class.groupby("model")["n_forecasts"].sum()
    # Of some series only, so it has no total.
    assert counted.pop("analogy") == by_class.query("demand_class == 'new'")["n_forecasts"].min()
    assert counted.equals(every.set_index("model")["n_forecasts"].sort_index())
    both = demo.accuracy(["demand_class", "lead_bucket"])
    assert len(both) > len(by_class) and "all" not in set(both["lead_bucket"])


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda shop: shop.forecast("YOGHURT"), "Unknown series 'YOGHURT'. Did you mean 'YOGURT'?"),
        (lambda shop: shop.forecast(["YOGURT", "x"]), r"Unknown series 'x'.* and \d+ more"),
        (lambda shop: shop.forecast(model="lstmm"), "Unknown model 'lstmm'. Did you mean 'lstm'?"),
        (lambda shop: shop.series(departement="x"), "Unknown column 'departement'. Did you mean 'department'"),
        (lambda shop: shop.series(department="GROCERIES"), "Unknown value of department 'GROCERIES'. Did you mean 'GROCERY'"),
        (lambda shop: shop.accuracy("class"), "Unknown grouping 'class'. Valid: demand_class, lead_bucket"),
        (lambda shop: shop.plot([]), "draws 1 to 12 series; came: 0"),
        (lambda shop: shop.plot(shop.series()["series_id"]), "draws 1 to 12 series; came: 295"),
        (lambda shop: shop.run(models=["rigde"]), "Did you mean 'ridge'"),
        (lambda shop: shop.run(select=["nothing_at_all"]), "matches no model"),
    ],
)  # fmt: skip
def test_wrong_names_are_errors_that_help(
    demo: Session, ask: Callable[[Session], object], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        ask(demo)


def test_a_model_the_run_has_not(small_run: Shop) -> None:
    with small_run.entered():
        shop = opened(small_run)
        with pytest.raises(UsageError, match="no model 'lstm'. It has: ridge, seasonal_naive"):
            shop.forecast(model="lstm")


def test_wrong_settings_are_errors() -> None:
    with pytest.raises(UsageError, match="Did you mean 'horizon'"):
        trendcast.open(REPO / "dbt_project", profiles_dir=REPO / "profiles", vars={"horzion": 14})
    with pytest.raises(UsageError, match="No dbt_project.yml in"):
        trendcast.open("nowhere")


def test_ids_are_values_and_never_sql(small_run: Shop, copied: Callable[[Shop], Shop]) -> None:
    shop = copied(small_run)
    hostile = "'; drop table analytics_marts.fct_forecasts; --{} :asked"
    with duckdb.connect(shop.path) as connection:
        connection.execute("update analytics_marts.fct_forecasts set series_id = ?", [hostile])
    with shop.entered():
        session = opened(shop)
        assert set(session.forecast(hostile)["series_id"]) == {hostile}
        with pytest.raises(UsageError, match="Unknown series"):
            session.forecast(hostile + "x")


# --- Before a run, and while others work ---


def test_before_anything_is_built_it_says_what_to_do(small_run: Shop, tmp_path: Path) -> None:
    shop = Shop(tmp_path, small_run.vars)
    shop.write("order_lines", small_run.query("select * from raw.order_lines"))
    with shop.entered():
        session = opened(shop)
        for read in (session.forecast, session.series, session.accuracy, session.actuals):
            with pytest.raises(TrendcastError, match="is not built. Run `trendcast run`"):
                read()
        assert session.runs() == []
        assert "There is no committed run yet" in session._repr_html_()


def test_a_session_holds_no_lock(
    demo: Session, demo_run: Shop, copied: Callable[[Shop], Shop]
) -> None:
    shop = copied(demo_run)
    with shop.entered():
        session = opened(shop)
        session.forecast("YOGURT")
        duckdb.connect(shop.path).close()  # for writing


# --- What a notebook shows ---


def test_a_notebook_shows_the_run_and_its_accuracy(demo: Session, demo_run: Shop) -> None:
    (run,) = demo_run.query("select run_id from analytics_trendcast.runs")
    shown = demo._repr_html_()
    assert run["run_id"] in shown and "quantity by category and day" in shown
    assert shown.count("<tr") == 1 + 6


def test_text_in_a_notebook_is_text(demo: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(demo.workspace.output, "path", "<script>.duckdb")
    assert "<script>" not in demo._repr_html_()


def test_the_fan_chart_has_the_rows(demo: Session) -> None:
    chart = demo.plot("YOGURT").to_dict()  # which checks it against Vega-Lite's schema
    assert chart["title"] == "YOGURT (ensemble, 80% and 95% intervals)"
    fields = [
        (layer["encoding"]["y"]["field"], layer["encoding"].get("y2", {}).get("field"))
        for layer in chart["layer"]
    ]
    assert fields == [("q025", "q975"), ("q10", "q90"), ("actual", None), ("mean", None)]
    drawn = {layer["encoding"]["y"]["field"]: layer["data"]["name"] for layer in chart["layer"]}
    ahead, past = (chart["datasets"][drawn[field]] for field in ("mean", "actual"))
    assert [row["mean"] for row in ahead] == demo.forecast("YOGURT")["mean"].tolist()
    assert [row["actual"] for row in past] == demo.actuals("YOGURT")["actual"].tolist()
    assert {row["series_id"] for row in [*ahead, *past]} == {"YOGURT"}


def test_several_series_and_another_model_are_drawn(demo: Session) -> None:
    charts = demo.plot(["YOGURT", "CHEESE"], model="ridge")
    assert isinstance(charts, altair.ConcatChart)
    titles = [chart["title"] for chart in charts.to_dict()["concat"]]
    assert [title.split(",")[0] for title in titles] == ["YOGURT (ridge", "CHEESE (ridge"]


def test_without_altair_it_says_how_to_install_it(
    demo: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(UsageError, match=r"pip install 'trendcast\[plot\]'"):
        demo.plot("YOGURT")


# --- Running ---


@pytest.mark.slow
def test_it_runs_what_the_commands_run(small_run: Shop, copied: Callable[[Shop], Shop]) -> None:
    shop = copied(small_run)
    with shop.entered():
        session = opened(shop)
        assert session.is_current()
        rows = session.rescore()["rows"]
        assert rows["forecasts"] == 14
        assert rows["explanations"] >= 14  # each forecast has a level, and what else is not 0
        assert session.train(models=["ridge"])["command"] == "train"
        assert session.backtest()["rows"] == {"backtests": 14}
        summary = session.run(backtest=False)
        assert summary["run_id"] == session.runs(1)[0]["run_id"] == session.summary()["run_id"]
        assert [run["command"] for run in session.runs()] == [
            "run",
            "backtest",
            "train",
            "forecast",
            "run",
        ]
        assert session.publish()["run_id"] == summary["run_id"]
        assert session.report(shop.folder / "page.html")["n_series"] == 1
        assert session.forecast("only")["run_id"].unique().tolist() == [summary["run_id"]]
