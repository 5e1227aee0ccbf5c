"""The panel and its features against a plain Python computation that shares no code with the SQL.

dbt compiles the models once for each set of vars; hypothesis then makes series of every awkward kind, and the
compiled SQL runs on them in memory.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from tests.conftest import REPO, Shop

SHORT, MEDIUM, LONG, SEASON = 3, 8, 15, 7
FIRST_T, CUTOFF_T = 19723, 19792  # 2024-01-01 and ten weeks less a day later
EPOCH = pd.Timestamp("1970-01-01")
WINDOWS = {"windows": [SHORT, MEDIUM, LONG]}
ZERO = {"quantity": "zero", "revenue": "zero", "discount": "zero", "price": "carry_forward"}
MODELS = {
    "int_series": "intermediate",
    "int_sales_filled": "intermediate",
    "int_demand": "intermediate",
    "ftr_history": "features",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {
        "gap_fill": {"quantity": "linear", "revenue": "mean", "price": "median"},
        "features": {"quantiles": True},
    },
    "spline": {"gap_fill": {"quantity": "spline", "revenue": "seasonal", "price": "zero"}},
    "drop": {"gap_fill": {"quantity": "drop", "revenue": "drop"}, "stockout_chance": 0.02},
    "hampel": {"outliers": "hampel", "outlier_threshold": 2, "features": {"holidays": False}},
    "robust_z": {"outliers": "robust_z", "outlier_threshold": 2, "features": {"holidays": False}},
}
QUICK = ("default", "linear")

# A sale: t, quantity, revenue, discount, customers, new customers.
Sale = tuple[int, float, float, float, int, int]


@st.composite
def sales(draw: st.DrawFn) -> dict[str, list[Sale]]:
    """Series that are sparse, constant, tied, of one row, ended long ago, or huge."""
    out: dict[str, list[Sale]] = {}
    for k in range(draw(st.integers(1, 4))):
        first = draw(st.integers(FIRST_T, CUTOFF_T))
        gaps = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, 7, 20]), max_size=60))
        quantities = draw(st.sampled_from([[1.0], [2.0, 2.0, 3.0], [1.0, 5.0, 400.0], [0.25, 1.5]]))
        price = draw(st.sampled_from([0.5, 3.99, 20.0]))
        rows: list[Sale] = []
        t = first
        for gap in [0, *gaps]:
            t += gap
            if t > CUTOFF_T:
                break
            quantity = draw(st.sampled_from(quantities))
            cut = draw(st.sampled_from([0.0, 0.0, 0.25]))
            revenue = round(quantity * price * (1 - cut), 2)
            customers = draw(st.integers(0, 3))
            fresh = draw(st.integers(0, customers))
            rows.append((t, quantity, revenue, round(quantity * price * cut, 2), customers, fresh))
        out[f"s{k}"] = rows
    return out


# --- The oracle ---


def filled(rows: list[Sale], policies: dict[str, str]) -> dict[str, list[float]]:
    """Values of each column for every period from the first sale to the cutoff, by policy."""
    by_t = {t: (q, r, d, r / q) for t, q, r, d, _, _ in rows}
    out: dict[str, list[float]] = {name: [] for name in ZERO}
    for position, name in enumerate(("quantity", "revenue", "discount", "price")):
        policy = policies.get(name, ZERO[name])
        seen: list[tuple[int, float]] = []
        for t in range(rows[0][0], CUTOFF_T + 1):
            if t in by_t:
                value = by_t[t][position]
                seen.append((t, value))
            else:
                value = gap_value(policy, seen, t)
            out[name].append(value)
    return out


def gap_value(policy: str, seen: list[tuple[int, float]], t: int) -> float:
    """What a period without a sale holds, from the sales seen so far."""
    values = [v for _, v in seen]
    if policy == "zero":
        return 0.0
    if policy in ("mean", "median"):
        return float(getattr(np, policy)(values))
    if policy == "seasonal":
        return next((v for s, v in reversed(seen) if (t - s) % SEASON == 0), values[-1])
    if policy in ("linear", "spline") and len(seen) > 1:
        points = seen[-2:] if policy == "linear" else seen[-3:]
        at = [s - points[-1][0] for s, _ in points]
        line = np.polyfit(at, [v for _, v in points], len(points) - 1)
        return float(np.clip(np.polyval(line, t - points[-1][0]), min(values), max(values)))
    return values[-1]


def demand_of(observed: list[float], vars: dict[str, Any]) -> tuple[list[float], list[bool]]:
    """Demand models see, and whether each row is a stockout."""
    out: list[float] = []
    stockout: list[bool] = []
    chance = vars.get("stockout_chance")
    for i in range(len(observed)):
        run = next((k for k, v in enumerate(observed[i::-1]) if v > 0), None)
        rows = min(i + 1, LONG)
        is_out = False
        if chance and run and run < rows:
            share = (sum(v > 0 for v in observed[i + 1 - rows : i + 1]) + 1) / (rows - run + 2)
            is_out = (1 - share) ** run < chance
        stockout.append(is_out)
        recent = range(max(0, i + 1 - MEDIUM), i + 1)
        kept = [observed[j] for j in recent if not stockout[j]]
        out.append((float(np.mean(kept)) if kept else 0.0) if is_out else observed[i])
    if "outliers" in vars:
        same = SEASON if vars["outliers"] == "hampel" else 1
        rows = 9 if vars["outliers"] == "hampel" else LONG
        centre = [float(np.median(out[i::-same][:rows])) for i in range(len(out))]
        away = [abs(v - m) for v, m in zip(out, centre, strict=True)]
        for i, m in enumerate(centre):
            scale = max(1.4826 * float(np.median(away[i::-same][:rows])), np.sqrt(m + 1))
            if away[i] > vars["outlier_threshold"] * scale:
                out[i] = m
    return out, stockout


def expected_history(shop: dict[str, list[Sale]], vars: dict[str, Any]) -> pd.DataFrame:
    """Compute ftr_history row by row, from its description and nothing else."""
    policies = vars.get("gap_fill", {})
    out = []
    for series_id, rows in shop.items():
        sold = {t: (customers, fresh) for t, *_, customers, fresh in rows}
        columns = filled(rows, policies)
        observed = columns["quantity"]
        demand, stockout = demand_of(observed, vars)
        share = [
            d / (d + r) if d + r else 0.0
            for d, r in zip(columns["discount"], columns["revenue"], strict=True)
        ]
        for i in range(len(demand)):
            t = rows[0][0] + i
            y = demand[: i + 1]
            short, medium, long = y[-SHORT:], y[-MEDIUM:], y[-LONG:]
            same = y[::-1][::SEASON]  # this weekday, newest first
            steps = [abs(y[j] - y[j - SEASON]) for j in range(SEASON, i + 1)]
            naive = [abs(y[j] - y[j - 1]) for j in range(1, i + 1)]
            level = max((np.mean(medium) + np.mean(long)) / 2, 1 / LONG)
            selling = [v for v in long if v > 0]
            prices = columns["price"][: i + 1]
            dropped = policies.get("quantity") == "drop" and t not in sold
            buying = [sold.get(s, (0, 0)) for s in range(rows[0][0], t + 1)][-MEDIUM:]
            buyers, fresh = (sum(column) for column in zip(*buying, strict=True))
            last = max((j for j, v in enumerate(y) if v > 0), default=None)
            out.append(
                {
                    "series_id": series_id,
                    "t": t,
                    "ds": EPOCH + pd.Timedelta(days=t),
                    "age": i,
                    "is_filled": t not in sold,
                    "y": y[-1],
                    "actual": np.nan if stockout[i] or dropped else observed[i],
                    "mean_short": np.mean(short),
                    "mean_medium": np.mean(medium),
                    "mean_long": np.mean(long),
                    "std_medium": np.std(medium),
                    "max_medium": max(medium),
                    "zero_share_medium": np.mean([v == 0 for v in medium]),
                    "trend_short": np.mean(short) - np.mean(medium),
                    "trend_long": np.mean(medium) - np.mean(long),
                    "last_sale_t": np.nan if last is None else rows[0][0] + last,
                    "since_last_sale": np.nan if last is None else (i - last) / MEDIUM,
                    "lag_1": y[-2] if i >= 1 else 0.0,
                    "lag_2": y[-3] if i >= 2 else 0.0,
                    "lag_3": y[-4] if i >= 3 else 0.0,
                    "season_lag_2": same[1] if len(same) > 1 else np.mean(short),
                    "season_lag_3": same[2] if len(same) > 2 else np.mean(short),
                    "season_lag_4": same[3] if len(same) > 3 else np.mean(short),
                    "ewm_short": ewm(y[-3 * SHORT :], SHORT),
                    "ewm_medium": ewm(y[-3 * MEDIUM :], MEDIUM),
                    "std_short": np.std(short),
                    "std_long": np.std(long),
                    "min_medium": min(medium),
                    "max_long": max(long),
                    "zero_share_long": np.mean([v == 0 for v in long]),
                    "mean_sale_long": np.mean(selling) if selling else 0.0,
                    "price_change": change(prices, LONG),
                    "price_change_medium": change(prices, MEDIUM),
                    "discount_depth_medium": np.mean(share[: i + 1][-MEDIUM:]),
                    **quantiles(medium, long, vars),
                    "customers_medium": buyers / len(buying),
                    "new_customer_share": fresh / buyers if buyers else 0.0,
                    "discount_depth": share[i],
                    "season_last": y[-1],
                    "season_mean_4": np.mean(same[:4]),
                    "season_mean_8": np.mean(same[:8]),
                    "season_error_sum": float(sum(steps)),
                    "error_scale": np.mean(steps) if steps else np.mean(naive) if naive else np.nan,
                    "demand_level": level,
                    "demand_variance": (2 * np.var(medium) + level) / 3,
                    "demand_class": demand_class(i, long, selling),
                }
            )
    return pd.DataFrame(out)


def ewm(values: Sequence[float], span: int) -> float:
    """Exponentially weighted mean, as pandas has it with adjust=True."""
    return float(pd.Series(values).ewm(span=span, adjust=True).mean().iloc[-1])


def quantiles(medium: list[float], long: list[float], vars: dict[str, Any]) -> dict[str, float]:
    """The columns of a group that is off by default."""
    if not vars.get("features", {}).get("quantiles"):
        return {}
    return {"median_medium": float(np.median(medium)), "q90_long": float(np.quantile(long, 0.9))}


def change(prices: list[float], window: int) -> float:
    """Log of the last price over the mean of its window; 0 where either is none."""
    mean = float(np.mean(prices[-window:]))
    return float(np.log(prices[-1] / mean)) if prices[-1] and mean else 0.0


def demand_class(age: int, long: list[float], selling: list[float]) -> str:
    """Syntetos, Boylan & Croston (2005)."""
    if age < MEDIUM:
        return "new"
    if not selling:
        return "dormant"
    regular = len(long) / len(selling) < 1.32
    steady = np.var(selling) / np.mean(selling) ** 2 < 0.49
    if regular:
        return "smooth" if steady else "erratic"
    return "intermittent" if steady else "lumpy"


# --- The SQL ---

Run = Callable[[dict[str, list[Sale]]], pd.DataFrame]


def compiled(shop: Shop) -> dict[str, str]:
    """Return the SQL of the models under test, reading tables by their bare names."""
    folder = shop.compiled()
    text = {name: (folder / kind / f"{name}.sql").read_text() for name, kind in MODELS.items()}
    return {name: re.sub(r'"shop"\."\w+"\.', "", sql) for name, sql in text.items()}


def runner(sql: dict[str, str]) -> Run:
    """Return ``run(sales)``: ftr_history of these sales."""

    def run(shop: dict[str, list[Sale]]) -> pd.DataFrame:
        with duckdb.connect(":memory:", config={"threads": 2}) as connection:
            rows = pd.DataFrame(
                [(s, *row) for s, rows in shop.items() for row in rows],
                columns=[
                    *("series_id", "t", "quantity", "revenue", "discount"),
                    *("customers", "new_customers"),
                ],
            )
            connection.register("rows", rows)
            connection.execute(
                f"""
                create table int_sales as select *, series_id as product_id, 1 as sale_lines from rows;
                create table int_cutoffs as select 0 as fold, {CUTOFF_T} as cutoff_t;
                create table ftr_calendar as
                    select cast(t as integer) as t, date '1970-01-01' + cast(t as integer) as ds
                    from range({FIRST_T}, {CUTOFF_T + 8}) as days(t);
                create table ftr_known as
                    select distinct on (series_id) series_id, 0 as promotion_display, 0 as promotion_feature,
                        0 as promotion_discount
                    from rows;
                create or replace table ftr_known as from ftr_known cross join ftr_calendar;
                """
            )
            for name in MODELS:
                connection.execute(f"create table {name} as {sql[name]}")
            return connection.sql(
                "select * exclude (built_at, built_with) from ftr_history order by series_id, t"
            ).df()

    return run


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in VARIANTS
    ],
)
def variant(
    request: pytest.FixtureRequest, make_shop: Callable[..., Shop]
) -> Iterator[tuple[dict[str, Any], Run]]:
    """Each set of vars, and the SQL compiled with it."""
    vars = VARIANTS[request.param]
    # Lines that name a customer: without one nothing is counted.
    line = {"order_id": "o", "customer_id": "c", "product_id": "p", "quantity": 1}
    shop = make_shop(
        [line | {"ordered_at": f"2024-01-{d:02}"} for d in range(1, 31)], **WINDOWS, **vars
    )
    yield vars, runner(compiled(shop))


def assert_equal(got: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert set(got.columns) == set(expected.columns)  # a new feature needs its oracle
    assert len(got) == len(expected)
    for column in expected:
        if expected[column].dtype.kind == "f":
            np.testing.assert_allclose(
                got[column].astype(float), expected[column], rtol=1e-7, atol=2e-6, err_msg=column
            )
        else:
            pd.testing.assert_series_equal(
                got[column], expected[column], check_dtype=False, check_freq=False, obj=column
            )


def test_every_feature_equals_plain_python(variant: tuple[dict[str, Any], Run]) -> None:
    vars, run = variant

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(sales())
    def check(shop: dict[str, list[Sale]]) -> None:
        assert_equal(run(shop), expected_history(shop, vars))

    check()


@pytest.mark.slow
def test_the_plain_windows_give_the_same(make_shop: Callable[..., Shop], tmp_path: Path) -> None:
    """Other engines have the default form of the windows macro; here DuckDB runs it, its own taken away."""
    folder = tmp_path / "dbt_project"
    shutil.copytree(REPO / "dbt_project", folder, ignore=shutil.ignore_patterns("target", "logs"))
    macro = folder / "macros" / "windows.sql"
    text = macro.read_text()
    for name in ("windows", "before"):
        assert f"macro duckdb__{name}(" in text
        text = text.replace(f"macro duckdb__{name}(", f"macro duckdb_s_own__{name}(")
    macro.write_text(text)
    # Lines that name a customer: without one nothing is counted.
    line = {"order_id": "o", "customer_id": "c", "product_id": "p", "quantity": 1}
    shop = make_shop([line | {"ordered_at": f"2024-01-{d:02}"} for d in range(1, 31)], **WINDOWS)
    shop.project_dir = folder
    sql = compiled(shop)
    assert "over ()" not in sql["ftr_history"]
    run = runner(sql)

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(sales())
    def check(shop: dict[str, list[Sale]]) -> None:
        assert_equal(run(shop), expected_history(shop, {}))

    check()
