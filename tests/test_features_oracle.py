"""The SQL features against a plain pandas computation that shares no code with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import REPO, Shop
from trendcast.dbt import BEFORE_LEDGER, Dbt

SHORT, MEDIUM, LONG, SEASON = 3, 8, 15, 7
EPOCH = pd.Timestamp("1970-01-01")
FIRST, LAST = pd.Timestamp("2024-01-01"), pd.Timestamp("2024-04-20")


def order_lines(seed: int) -> pd.DataFrame:
    """Random series of every awkward kind: sparse, constant, tied, one day only, ended long ago."""
    rng = np.random.default_rng(seed)
    days = pd.date_range(FIRST, LAST)
    rows: list[dict[str, Any]] = []
    for k in range(30):
        share = rng.choice([0.02, 0.1, 0.4, 1.0])
        sizes = ([1], [2, 2, 3], [1, 5, 400], [0.25, 1.5])[rng.integers(4)]
        price = rng.uniform(0.5, 30)
        chosen = days[rng.random(len(days)) < share] if k else days[-1:]
        if k == 1:
            chosen = days[:1]
        for day in chosen:
            for _ in range(rng.integers(1, 4)):
                quantity = float(rng.choice(sizes))
                discount = round(float(rng.choice([0, 0, 0.5])) * quantity, 2)
                rows.append(
                    {
                        "order_id": f"o{len(rows)}",
                        "customer_id": f"c{rng.integers(9)}",
                        "product_id": f"p{k:02}",
                        "ordered_at": day + pd.Timedelta(hours=int(rng.integers(24))),
                        "quantity": quantity,
                        "revenue": round(price * quantity, 2),
                        "discount": discount,
                    }
                )
    rows.append(rows[-1] | {"product_id": "last day", "order_id": "z", "ordered_at": LAST})
    return pd.DataFrame(rows)


def expected_history(lines: pd.DataFrame) -> pd.DataFrame:
    """Compute ftr_history row by row, from its description and nothing else."""
    lines = lines.assign(day=lines["ordered_at"].dt.normalize())
    daily = lines.groupby(["product_id", "day"])[["quantity", "revenue", "discount"]].sum()
    out = []
    for product in sorted(lines["product_id"].unique()):
        sold = daily.loc[product]
        days = pd.date_range(sold.index.min(), LAST)
        quantity = [float(sold["quantity"].get(d, 0.0)) for d in days]
        last_price = np.nan
        prices: list[float] = []
        for d in days:
            if d in sold.index:
                last_price = sold["revenue"][d] / sold["quantity"][d]
            prices.append(last_price)
        for i, day in enumerate(days):
            y = quantity[: i + 1]
            short, medium, long = y[-SHORT:], y[-MEDIUM:], y[-LONG:]
            same = y[::-1][::SEASON]  # this weekday, newest first
            steps = [abs(y[j] - y[j - SEASON]) for j in range(SEASON, i + 1)]
            naive_steps = [abs(y[j] - y[j - 1]) for j in range(1, i + 1)]
            level = max((np.mean(medium) + np.mean(long)) / 2, 1 / LONG)
            sales = [v for v in long if v > 0]
            if i < MEDIUM:
                kind = "new"
            elif not sales:
                kind = "dormant"
            else:
                regular = len(long) / len(sales) < 1.32
                steady = np.var(sales) / np.mean(sales) ** 2 < 0.49
                kind = {
                    (True, True): "smooth",
                    (True, False): "erratic",
                    (False, True): "intermittent",
                    (False, False): "lumpy",
                }[(regular, bool(steady))]
            revenue = float(sold["revenue"].get(day, 0.0))
            discount = float(sold["discount"].get(day, 0.0))
            out.append(
                {
                    "series_id": product,
                    "ds": day,
                    "t": (day - EPOCH).days,
                    "age": i,
                    "is_filled": day not in sold.index,
                    "y": y[-1],
                    "mean_short": np.mean(short),
                    "mean_medium": np.mean(medium),
                    "mean_long": np.mean(long),
                    "std_medium": np.std(medium),
                    "max_medium": max(medium),
                    "zero_share_medium": np.mean([v == 0 for v in medium]),
                    "trend_short": np.mean(short) - np.mean(medium),
                    "trend_long": np.mean(medium) - np.mean(long),
                    "since_last_sale": next(j for j, v in enumerate(y[::-1]) if v > 0) / MEDIUM,
                    "price_change": np.log(
                        prices[i] / np.mean(prices[max(0, i + 1 - LONG) : i + 1])
                    ),
                    "discount_depth": discount / (discount + revenue) if revenue else 0.0,
                    "season_last": y[-1],
                    "season_mean_4": np.mean(same[:4]),
                    "season_mean_8": np.mean(same[:8]),
                    "error_scale": np.mean(steps) if steps else np.mean(naive_steps or [np.nan]),
                    "demand_level": level,
                    "demand_variance": (2 * np.var(medium) + level) / 3,
                    "demand_class": kind,
                }
            )
    return pd.DataFrame(out)


def built(shop: Shop) -> pd.DataFrame:
    """Build the features of a shop and read ftr_history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shop.folder)  # the warehouse is named by a relative path
        for name, value in shop.environment.items():
            patch.setenv(name, value)
        Dbt(REPO / "dbt_project", REPO / "profiles", vars=shop.vars).build(BEFORE_LEDGER)
    rows = pd.DataFrame(
        shop.query("select * from analytics_trendcast.ftr_history order by series_id, t")
    )
    return rows.assign(ds=pd.to_datetime(rows["ds"]))


def test_every_feature_equals_plain_pandas(make_shop: Callable[..., Shop]) -> None:
    lines = order_lines(seed=11)
    shop = make_shop(lines, windows=[SHORT, MEDIUM, LONG])
    got, expected = built(shop), expected_history(lines)
    assert set(got.columns) == set(expected.columns)  # a new feature needs its oracle
    assert len(got) == len(expected)
    assert set(expected["demand_class"]) >= {"new", "smooth", "intermittent", "dormant"}
    for column in expected:
        if expected[column].dtype.kind == "f":
            np.testing.assert_allclose(
                got[column].astype(float), expected[column], rtol=1e-5, atol=1e-6, err_msg=column
            )
        else:
            pd.testing.assert_series_equal(
                got[column], expected[column], check_dtype=False, check_freq=False, obj=column
            )
