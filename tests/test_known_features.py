"""What is known in advance, and what optional sources give, against plain Python that shares no code with the SQL."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import holidays
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Shop
from trendcast.errors import DbtError

FIRST, LAST, HORIZON = dt.date(2023, 12, 20), dt.date(2024, 2, 14), 7
EPOCH = dt.date(1970, 1, 1)
DAY = dt.timedelta(days=1)
EVENTS = [dt.date(2024, 2, 11), dt.date(2024, 2, 22)]  # the last one is after the horizon's end
WINDOWS = [3, 5, 9]
REACH, LONG = WINDOWS[1], WINDOWS[2]


def day_number(day: dt.date) -> int:
    return (day - EPOCH).days


def days(first: dt.date, last: dt.date) -> list[dt.date]:
    return [first + DAY * i for i in range((last - first).days + 1)]


def sold(product: str, first: dt.date = FIRST, store: str = "s") -> list[dict[str, Any]]:
    """Return an order line on the product's first day and one on the last day of all."""
    line = {"product_id": product, "location_id": store, "quantity": 2.0}
    return [line | {"order_id": f"{product}{store}{d}", "ordered_at": d} for d in (first, LAST)]


def rows(shop: Shop, model: str, order: str = "t") -> list[dict[str, Any]]:
    return shop.query(f"select * from analytics_trendcast.{model} order by {order}")


def promotions() -> list[dict[str, Any]]:
    """Plan for tea: before the first sale, overlapping, adjacent, nested, at the horizon's end and beyond it."""
    spans = [
        (FIRST - 3 * DAY, FIRST - 2 * DAY),
        (FIRST + 6 * DAY, FIRST + 10 * DAY),
        (FIRST + 7 * DAY, FIRST + 8 * DAY),
        (FIRST + 10 * DAY, FIRST + 12 * DAY),
        (FIRST + 13 * DAY, FIRST + 13 * DAY),
        (FIRST + 15 * DAY, FIRST + 15 * DAY),
        (LAST + 2 * DAY, LAST + 3 * DAY),
        (LAST + (HORIZON + 2) * DAY, LAST + (HORIZON + 4) * DAY),
    ]
    plan = [{"product_id": "tea", "start_date": a, "end_date": b, "feature": 0.5} for a, b in spans]
    return [*plan, plan[1] | {"product_id": "not sold"}]


def prices() -> list[dict[str, Any]]:
    """List prices of tea: a gap, a cut of two days, and the coming price; one price without an end for the other."""
    spans = [
        (FIRST - 30 * DAY, FIRST + 9 * DAY, 2.0),
        (FIRST + 12 * DAY, FIRST + 20 * DAY, 2.0),
        (FIRST + 21 * DAY, FIRST + 22 * DAY, 1.25),
        (FIRST + 23 * DAY, LAST + 2 * DAY, 2.0),
        (LAST + 3 * DAY, LAST + 90 * DAY, 3.1),
    ]
    listed = [
        {"product_id": "tea", "start_date": a, "end_date": b, "price": p} for a, b, p in spans
    ]
    return [
        *listed,
        {"product_id": "cocoa", "start_date": FIRST, "end_date": None, "price": 5.0},
        {"product_id": "cocoa", "start_date": LAST + 2 * DAY, "end_date": None, "price": 4.0},
    ]


def reviews() -> list[dict[str, Any]]:
    at = dt.datetime(2024, 1, 5, 12)
    return [
        {"product_id": "tea", "reviewed_at": dt.datetime(2023, 6, 1), "rating": "5"},
        {"product_id": "tea", "reviewed_at": at, "rating": "2"},
        {"product_id": "tea", "reviewed_at": at.replace(hour=23), "rating": "3"},
        {"product_id": "tea", "reviewed_at": at + 9 * DAY, "rating": "4"},
        {"product_id": "tea", "reviewed_at": at + 9 * DAY, "rating": "great"},
        {"product_id": "tea", "reviewed_at": at + 99 * DAY, "rating": "1"},
        {"product_id": "cocoa", "reviewed_at": at + 20 * DAY, "rating": "1"},
    ]


def stock() -> list[dict[str, Any]]:
    """Tea at two stores, on changes only."""
    changes = [(FIRST - 9 * DAY, "s", 4), (FIRST + 5 * DAY, "s", 0), (FIRST + 8 * DAY, "s", 3)]
    changes += [(FIRST + 2 * DAY, "u", 0), (FIRST + 7 * DAY, "u", 1)]
    return [
        {"product_id": "tea", "location_id": store, "date": day, "on_hand": n}
        for day, store, n in changes
    ]


@pytest.fixture(scope="module")
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """A shop with every optional source."""
    made = make_shop(
        [*sold("tea"), *sold("cocoa", FIRST + 11 * DAY)],
        horizon=HORIZON,
        windows=WINDOWS,
        holiday_country="US",
        holiday_subdivision="CA",
        events_table="events",
        promotions_table="promotions",
        promotion_columns={
            name: name for name in ("product_id", "start_date", "end_date", "feature")
        },
        prices_table="prices",
        price_columns={name: name for name in ("product_id", "start_date", "end_date", "price")},
        reviews_table="reviews",
        inventory_table="inventory",
        inventory_snapshots="changes",
    )
    made.write("events", [{"date": d, "name": "Big day"} for d in EVENTS])
    made.write("promotions", promotions())
    made.write("prices", prices())
    made.write("reviews", reviews())
    made.write("inventory", stock())
    made.build()
    return made


def expected_calendar(day: dt.date, named: set[dt.date]) -> dict[str, float]:
    """Describe a day from the names of the columns."""
    angle = 2 * math.pi * day.weekday() / 7
    month_end = [d for d in days(day - 3 * DAY, day + 3 * DAY) if (d + DAY).day == 1]
    middle = [d for d in days(day - 3 * DAY, day + 3 * DAY) if d.day == 15]
    return {
        "is_holiday": float(day in named),
        "holiday_lead": float(day + DAY in named),
        "holiday_lag": float(day - DAY in named),
        "since_holiday": min([(day - h).days for h in named if h <= day] + [14]) / 14,
        "until_holiday": min([(h - day).days for h in named if h >= day] + [14]) / 14,
        "payday": float(any(abs((d - day).days) <= 1 for d in month_end + middle)),
        "month": day.month,
        "month_day": day.day,
        "days_in_period": 1,
        "week_sin_1": math.sin(angle),
        "week_cos_1": math.cos(angle),
        "week_sin_2": math.sin(2 * angle),
        "week_cos_2": math.cos(2 * angle),
    }


def test_calendar_and_holidays(shop: Shop) -> None:
    named = {*holidays.country_holidays("US", subdiv="CA", years=range(2023, 2026)), *EVENTS}
    assert dt.date(2024, 3, 31) in named  # Cesar Chavez Day, of California alone
    found = rows(shop, "ftr_calendar")
    assert [r["ds"] for r in found] == days(FIRST, LAST + HORIZON * DAY)
    for row in found:
        for column, value in expected_calendar(row["ds"], named).items():
            assert row[column] == pytest.approx(value, abs=1e-12), (row["ds"], column)
    assert {r["until_holiday"] for r in found} >= {0.0, 1 / 14}


def expected_promotion(day: dt.date) -> dict[str, float]:
    promoted = {
        d
        for p in promotions()
        if p["product_id"] == "tea"
        for d in days(p["start_date"], p["end_date"])
    }
    since = min([(day - d).days for d in promoted if d <= day] + [REACH])
    until = min([(d - day).days for d in promoted if d >= day] + [REACH])
    before = after = 0
    while day - before * DAY in promoted:
        before += 1
    while day + after * DAY in promoted:
        after += 1
    return {
        "since_promotion": since / REACH,
        "until_promotion": until / REACH,
        "promotion_elapsed": min(before, REACH) / REACH,
        "promotion_remaining": min(after, REACH) / REACH,
    }


def test_distances_to_promotions(shop: Shop) -> None:
    found = rows(shop, "ftr_known", "series_id, t")
    tea = [r for r in found if r["series_id"] == "tea"]
    assert [r["t"] for r in tea] == [day_number(d) for d in days(FIRST, LAST + HORIZON * DAY)]
    for row in tea:
        for column, value in expected_promotion(EPOCH + row["t"] * DAY).items():
            assert row[column] == pytest.approx(value), (row["t"], column)
    # The promotion after the horizon's end is planned, so it is known.
    assert tea[-1]["until_promotion"] == pytest.approx(2 / REACH)
    cocoa = [r for r in found if r["series_id"] == "cocoa"]
    assert {
        (r["since_promotion"], r["until_promotion"], r["promotion_elapsed"]) for r in cocoa
    } == {(1.0, 1.0, 0.0)}


def test_list_prices(shop: Shop) -> None:
    found = {(r["series_id"], r["t"]): r for r in rows(shop, "ftr_known")}
    listed = [p for p in prices() if p["product_id"] == "tea"]
    past: list[float] = []
    for day in days(FIRST, LAST + HORIZON * DAY):
        price = next((p["price"] for p in listed if p["start_date"] <= day <= p["end_date"]), None)
        row = found["tea", day_number(day)]
        assert row["planned_price"] == price
        change = math.log(price / (sum(past[-LONG:]) / len(past[-LONG:]))) if price and past else 0
        assert row["planned_price_change"] == pytest.approx(change), day
        past += [price] if price else []
    last = found["cocoa", day_number(LAST + DAY)], found["cocoa", day_number(LAST + 2 * DAY)]
    assert [r["planned_price"] for r in last] == [5.0, 4.0]
    assert last[1]["planned_price_change"] == pytest.approx(math.log(4 / 5))


def test_reviews_as_of_the_day(shop: Shop) -> None:
    expected = []
    for product in ("cocoa", "tea"):
        for day in days(FIRST, LAST):
            known = [
                r
                for r in reviews()
                if r["product_id"] == product
                and r["reviewed_at"].date() <= day
                and r["rating"].isdigit()
            ]
            if known:
                ratings = [float(r["rating"]) for r in known]
                today = sum(r["reviewed_at"].date() == day for r in known)
                expected.append(
                    {
                        "product_id": product,
                        "t": day_number(day),
                        "rating_mean": sum(ratings) / len(ratings),
                        "review_count": len(ratings),
                        "reviews_recent": today,
                    }
                )
    assert rows(shop, "int_reviews", "product_id, t") == expected


def test_share_of_days_in_stock(shop: Shop) -> None:
    """The series is by product, so its stores are counted together."""
    found = rows(shop, "int_stock")
    assert [r["t"] for r in found] == [day_number(d) for d in days(FIRST, LAST)]
    for row in found:
        day = EPOCH + row["t"] * DAY
        last = {r["location_id"]: r["on_hand"] for r in stock() if r["date"] <= day}
        assert row["in_stock_share"] == pytest.approx(sum(n > 0 for n in last.values()) / len(last))


def test_reviews_and_stock_do_not_know_the_future(
    shop: Shop, copied: Callable[[Shop], Shop]
) -> None:
    """As `trendcast audit` cuts: the same rows up to a date, whether what came after it is there or not."""
    cut = dt.date(2024, 1, 12)
    whole = {
        model: [r for r in rows(shop, model, "all") if r["t"] <= day_number(cut)]
        for model in ("int_reviews", "int_stock")
    }
    past = copied(shop)
    past.vars |= {"as_of": str(cut), "cutoff": str(cut)}
    past.build("+int_reviews", "+int_stock")
    assert past.query("select max(reviewed_at) as last from analytics_trendcast.stg_reviews") == [
        {"last": dt.datetime(2024, 1, 5, 23)}
    ]
    for model, known in whole.items():
        assert known
        assert rows(past, model, "all") == known


@pytest.mark.slow
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(-20, 90), st.integers(0, 15)), min_size=1, max_size=12),
    st.lists(st.integers(-40, 100), max_size=6),
)
def test_any_plan_and_any_events(
    make_shop: Callable[..., Shop], spans: list[tuple[int, int]], events: list[int]
) -> None:
    """Each day of a shop's plan is its own product's, so one build checks many single promotions beside their union."""
    plan = [
        {"product_id": product, "start_date": FIRST + a * DAY, "end_date": FIRST + (a + n) * DAY}
        for i, (a, n) in enumerate(spans)
        for product in ("all", f"only {i}")
    ]
    names = sorted({p["product_id"] for p in plan})
    shop = make_shop(
        [line for name in names for line in sold(name)],
        horizon=HORIZON,
        windows=WINDOWS,
        holiday_country=None,
        events_table="events",
        promotions_table="promotions",
        promotion_columns={name: name for name in ("product_id", "start_date", "end_date")},
    )
    named = {FIRST + e * DAY for e in events}
    shop.write("promotions", plan)
    table = [{"date": d, "name": "e"} for d in named] or [
        {"date": dt.date(1999, 1, 1), "name": "e"}
    ]
    shop.write("events", table)
    shop.build("+ftr_known")
    for row in rows(shop, "ftr_calendar"):
        for column, value in expected_calendar(row["ds"], named).items():
            assert row[column] == pytest.approx(value, abs=1e-12), (row["ds"], column)
    promoted = {
        name: {
            d for p in plan if p["product_id"] == name for d in days(p["start_date"], p["end_date"])
        }
        for name in names
    }
    for row in rows(shop, "ftr_known"):
        day, on = EPOCH + row["t"] * DAY, promoted[row["series_id"]]
        since = min([(day - d).days for d in on if d <= day] + [REACH]) / REACH
        until = min([(d - day).days for d in on if d >= day] + [REACH]) / REACH
        assert (row["since_promotion"], row["until_promotion"]) == (since, until), row
        assert (row["promotion_elapsed"] > 0) == (day in on) == (row["promotion_remaining"] > 0)


@pytest.mark.parametrize("grain", ["week", "month"])
def test_other_grains(make_shop: Callable[..., Shop], grain: str) -> None:
    """Shares of the period's days, from its first day on though the first sale is later."""
    first, last = dt.date(2022, 1, 12), dt.date(2024, 6, 30)
    lines = [
        {"order_id": str(d), "product_id": "p", "ordered_at": d, "quantity": 1}
        for d in (first, last)
    ]
    shop = make_shop(lines, grain=grain, horizon=2, holiday_country="DE", holiday_subdivision="BY")
    shop.build("+ftr_calendar")
    named = set(holidays.country_holidays("DE", subdiv="BY", years=range(2021, 2026)))
    found = rows(shop, "ftr_calendar")
    begin = first.replace(day=1) if grain == "month" else dt.date(2022, 1, 10)
    assert found[0]["ds"] == begin
    for row, following in zip(found, [*found[1:], None], strict=True):
        if following is None:
            break
        inside = days(row["ds"], following["ds"] - DAY)
        assert row["days_in_period"] == len(inside)
        each = [expected_calendar(d, named) for d in inside]
        for column in ("is_holiday", "since_holiday", "until_holiday", "payday", "week_cos_1"):
            mean = sum(e[column] for e in each) / len(inside)
            assert row[column] == pytest.approx(mean, abs=1e-9), (row["ds"], column)
        assert row["holiday_lead"] == following["is_holiday"]
        assert following["holiday_lag"] == row["is_holiday"]
        middle = row["ds"] + (3 * DAY if grain == "week" else 0 * DAY)
        assert row["month"] == middle.month
        assert row["month_day"] == (middle.day if grain == "week" else (len(inside) + 1) / 2)
        for k in (1, 2, 3):
            angles = [k * 2 * math.pi * (d.month - 1 + d.day / 31) / 12 for d in inside]
            suffix = "" if k == 1 else f"_{k}"
            sine, cosine = sum(map(math.sin, angles)), sum(map(math.cos, angles))
            assert row[f"year_sin{suffix}"] == pytest.approx(sine / len(inside), abs=1e-9)
            assert row[f"year_cos{suffix}"] == pytest.approx(cosine / len(inside), abs=1e-9)


@pytest.mark.parametrize(
    ("vars", "said"),
    [
        (
            {"holiday_country": "XX"},
            ["'holiday_country' must be null or an ISO code", "'XX'", "DE"],
        ),
        (
            {"holiday_country": "DE", "holiday_subdivision": "XX"},
            ["'holiday_subdivision' must be null or a part of DE", "BY"],
        ),
    ],
)
def test_an_unknown_country_is_refused(
    make_shop: Callable[..., Shop], vars: dict[str, Any], said: list[str]
) -> None:
    shop = make_shop(sold("tea"), **vars)
    with pytest.raises(DbtError) as error:
        shop.build("+int_holidays")
    for text in said:
        assert text in str(error.value)


def test_a_shop_without_optional_sources(make_shop: Callable[..., Shop]) -> None:
    """No holidays, no plan, nothing counted: typed empty tables, and columns that say so."""
    shop = make_shop(sold("tea"), holiday_country=None)
    shop.build()
    for model in ("int_holidays", "int_promotions", "int_prices", "int_reviews", "int_stock"):
        assert rows(shop, model, "1") == []
    assert {
        (r["is_holiday"], r["since_holiday"], r["until_holiday"], r["holiday_lead"])
        for r in rows(shop, "ftr_calendar")
    } == {(0.0, 1.0, 1.0, 0.0)}
    assert {
        (r["since_promotion"], r["until_promotion"], r["promotion_elapsed"], r["planned_price"])
        for r in rows(shop, "ftr_known")
    } == {(1.0, 1.0, 0.0, None)}
