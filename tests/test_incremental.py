"""A build after the first makes only what is new or came late, and the result is that of a full build, row by row."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.conftest import REPO, Shop

KEPT = ("int_order_lines_checked", "int_sales", "int_sales_filled", "ftr_history")
COMPARED = (
    *KEPT,
    "int_line_bounds",
    "int_series",
    "int_cutoffs",
    "ftr_known",
    "ftr_calendar",
    "ftr_category",
)
FIRST = dt.datetime(2025, 1, 1, 9)
DAYS = 150
VARS: dict[str, Any] = {
    "windows": [3, 8, 15],
    "robust_bound": 5,
    "robust_bound_lines": 3,
    "static_attributes": ["category"],
}


def line(
    order: str, product: str, day: int, quantity: float = 2, loaded: int | None = None
) -> dict[str, Any]:
    """An order line; loaded the morning after, unless it came late."""
    return {
        "order_id": order,
        "customer_id": f"c{(day * 7 + len(order)) % 13}",
        "product_id": product,
        "ordered_at": FIRST + dt.timedelta(days=day),
        "quantity": float(quantity),
        "revenue": round(abs(quantity) * (3 + day % 3), 2),
        "discount": 0.5 * (day % 4 == 0),
        "loaded_at": FIRST + dt.timedelta(days=(day if loaded is None else loaded) + 1),
    }


def history() -> list[dict[str, Any]]:
    """What the shop had sold by the evening of day 139."""
    rng = np.random.default_rng(5)
    lines = []
    for k, share in enumerate((1.0, 0.7, 0.3, 0.1)):
        for day in range(DAYS - 10):
            if rng.random() < share:
                lines.append(line(f"o{k}-{day}", f"p{k}", day, int(rng.integers(1, 5))))
    lines.append(line("absurd", "p0", 70, 2000))
    lines.append(line("odd", "p1", 71, -1))
    return lines


# What arrives in each load after that.
LOADS: list[list[dict[str, Any]]] = [
    [line(f"n{k}", f"p{k}", 140) for k in range(3)],
    # A late line, one that was typical then but is not with it, a return, a copy of an old line, a refused one.
    [line("n4", "p0", 141), line("late", "p1", 100, 4, loaded=141)]
    + [line(f"late{k}", "p2", 3, 0.5, loaded=141) for k in range(25)]
    + [line("back", "p1", 140, -1, loaded=141), line("o0-0", "p0", 0, 1, loaded=141)]
    + [line("none", "p3", 141, 0)],
    # A product that is new, one that turns out to be older, and days without a line of most.
    [line("new", "p9", 145), line("older", "p3", 0, loaded=146), line("n5", "p0", 146)],
]


def append(shop: Shop, lines: list[dict[str, Any]]) -> None:
    with duckdb.connect(shop.path) as connection:
        names = ", ".join(lines[0])
        values = [tuple(row.values()) for row in lines]
        marks = ", ".join("?" * len(lines[0]))
        connection.executemany(f"insert into raw.order_lines ({names}) values ({marks})", values)


def tables(shop: Shop) -> dict[str, list[dict[str, Any]]]:
    """Rows of every table, without what tells builds apart."""
    out = {}
    with duckdb.connect(shop.path, read_only=True) as connection:
        for name in COMPARED:
            columns = connection.execute(
                "select column_name from information_schema.columns where table_name = ? "
                "and column_name not in ('built_at', 'built_with') order by 1",
                [name],
            ).fetchall()
            chosen = ", ".join(f'"{c}"' for (c,) in columns)
            sql = f"select {chosen} from analytics_trendcast.{name} order by all"
            out[name] = connection.sql(sql).to_arrow_table().to_pylist()
    return out


def rebuilt(shop: Shop, name: str) -> tuple[int, int]:
    """Rows of a table that the last build made, and all of its rows."""
    row = shop.query(
        f"select count(*) filter (built_at = (select max(built_at) from analytics_trendcast.{name})) as made, "
        f"count(*) as every from analytics_trendcast.{name}"
    )[0]
    return row["made"], row["every"]


def assert_as_full(shop: Shop, fresh: Callable[[Shop], Shop]) -> None:
    """Compare with a full build of the same order lines, which must have something to compare."""
    full = fresh(shop)
    full.build(tests=False, full_refresh=True)
    got, expected = tables(shop), tables(full)
    for name in COMPARED:
        assert expected[name], name
        assert len(got[name]) == len(expected[name]), name
        for row, wanted in zip(got[name], expected[name], strict=True):
            assert row == wanted, (
                name,
                {k: (row[k], wanted[k]) for k in row if row[k] != wanted[k]},
            )


@pytest.fixture
def fresh(tmp_path) -> Callable[[Shop], Shop]:
    """Return ``fresh(shop)``: a copy of the shop in a folder of its own, which dbt need not parse again."""

    def make(shop: Shop) -> Shop:
        folder = tmp_path / f"fresh{len(list(tmp_path.iterdir()))}"
        shutil.copytree(shop.folder, folder)
        return replace(shop, folder=folder)

    return make


@pytest.fixture(scope="module")
def built(make_shop: Callable[..., Shop]) -> Shop:
    """The shop after its first build; copy it to change it."""
    products = [{"product_id": f"p{k}", "category": f"cat{k % 2}"} for k in range(10)]
    shop = make_shop(history(), products, **VARS)
    shop.build(tests=False)
    return shop


@pytest.mark.slow
def test_loads_one_after_another_give_what_a_full_build_gives(
    built: Shop, fresh: Callable[[Shop], Shop]
) -> None:
    shop = fresh(built)
    for load in LOADS:
        append(shop, load)
        shop.build(tests=False)
        assert_as_full(shop, fresh)
        made, every = rebuilt(shop, "ftr_history")
        assert 0 < made < every
    reasons = shop.query(
        "select order_id, rejection_reason as reason from analytics_trendcast.int_order_lines_checked"
    )
    refused = {row["order_id"]: row["reason"] for row in reasons if row["reason"]}
    assert refused["absurd"] == "absurd_quantity" and refused["none"] == "zero_quantity"
    # The late halves made two a lot for p2: what was typical of its later months has changed.
    assert any(k.startswith("o2-") for k in refused)


def test_a_new_day_makes_a_row_a_series(built: Shop, fresh: Callable[[Shop], Shop]) -> None:
    shop = fresh(built)
    append(shop, [line("n", f"p{k}", 146) for k in range(3)])
    shop.build(tests=False)
    n_series = shop.query("select count(*) as n from analytics_trendcast.int_series")[0]["n"]
    assert rebuilt(shop, "ftr_history")[0] == n_series * 7
    # A load that overlaps with the last: its line says that it was loaded before the newest one read.
    append(shop, [line("overlapping", "p3", 143, loaded=145)])
    shop.build(tests=False)
    made, every = rebuilt(shop, "ftr_history")
    assert 0 < made < every
    assert_as_full(shop, fresh)


def test_a_build_that_died_half_way_is_caught_up(
    built: Shop, fresh: Callable[[Shop], Shop]
) -> None:
    shop = fresh(built)
    append(shop, LOADS[0])
    shop.build("+int_sales", tests=False)
    append(shop, LOADS[1])
    shop.build("+int_sales_filled", tests=False)
    shop.build(tests=False)
    assert_as_full(shop, fresh)


@pytest.mark.slow
def test_what_no_load_tells_begins_anew(built: Shop, fresh: Callable[[Shop], Shop]) -> None:
    """A line changed in place, lines deleted, another catalogue, other settings."""
    changes = [
        "update raw.order_lines set quantity = 9 where order_id = 'o0-5'",
        "delete from raw.order_lines where order_id = 'o0-6'",
        # The only line of its series within the lookback, and all lines of a series.
        "delete from raw.order_lines where order_id = (select max_by(order_id, loaded_at) from raw.order_lines "
        "where product_id = 'p0')",
        "delete from raw.order_lines where product_id = 'p3'",
        "update raw.products set category = 'other' where product_id = 'p1'",
    ]
    for sql in changes:
        shop = fresh(built)
        with duckdb.connect(shop.path) as connection:
            connection.execute(sql)
        shop.build(tests=False)
        assert rebuilt(shop, "ftr_history")[0] == rebuilt(shop, "ftr_history")[1], sql
        assert_as_full(shop, fresh)
    for vars in ({"windows": [2, 5, 9]}, {"features": {"ewm": False}}, {"cutoff": "2025-03-31"}):
        shop = fresh(replace(built, vars=built.vars | vars))
        shop.build(tests=False)
        assert_as_full(shop, fresh)


def test_every_var_the_panel_may_depend_on_is_in_the_digest() -> None:
    """A new var must be put where it belongs: in panel_vars(), or here because the panel does not depend on it."""
    import re

    import yaml

    project = yaml.safe_load((REPO / "dbt_project" / "dbt_project.yml").read_text())
    text = (REPO / "dbt_project" / "macros" / "incremental.sql").read_text()
    body = text[text.index("macro panel_vars()") :]
    listed = set(re.findall(r"'(\w+)'", body[: body.index("endmacro")]))
    elsewhere = {
        # Tables and columns of plans, reviews and events: read anew by every build.
        *("promotions_table", "events_table", "prices_table", "reviews_table", "launches_table"),
        *("launch_columns", "neighbour_groups"),
        *(
            "promotion_columns",
            "event_columns",
            "price_columns",
            "review_columns",
            "review_timezone",
        ),
        *("holiday_country", "holiday_subdivision"),
        # Whether a run begins at all.
        *("freshness_days", "volume_low", "volume_high", "volume_lines"),
        # Forecasting.
        *(
            "horizon",
            "backtest_folds",
            "backtest_step",
            "models",
            "champion_metric",
            "champion_margin",
            "seed",
        ),
        *(
            "train_periods",
            "train_stride",
            "train_rows",
            "classical",
            "lightgbm",
            "lstm",
            "window_branches",
        ),
        # Decisions: the marts are built anew each time.
        *("service_level", "lead_time_days", "lead_time_std_days", "review_days", "pack_size"),
        *("minimum_order", "whole_units", "order_cost", "unit_cost_share", "holding_cost_rate"),
        *("shortage_cost_share", "lead_correlation", "supply_table", "supply_columns"),
        *("purchase_orders_table", "purchase_order_columns", "anomaly_rate", "psi_limit"),
        *("tracking_alpha", "tracking_limit", "revision_limit", "stale_forecast_periods"),
        *("stale_model_periods", "trend_threshold", "trend_probability", "trend_support"),
        "price_threshold",
        *("demand_groups", "group_correlation", "budget_rows"),
        *("response_group", "response_periods", "price_elasticity", "price_elasticity_std"),
        *("promotion_depths", "customer_item", "customer_items", "customer_days"),
    }
    assert listed | elsewhere == set(project["vars"]["trendcast"])
    assert not listed & elsewhere
