"""Checks of the shop's data: each message says what came, what is valid and where."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from trendcast.checks import check_contracts, check_orders, check_panel, check_plan
from trendcast.errors import DataError
from trendcast.features import Features
from trendcast.project import Project
from trendcast.warehouse.duckdb import DuckDBWarehouse

MAPPING = {"product_id": "sku", "ordered_at": "sold_at", "quantity": "qty"}


@pytest.fixture
def warehouse() -> Iterator[DuckDBWarehouse]:
    with DuckDBWarehouse.open({"path": ":memory:"}, read_only=False) as opened:
        opened.execute("create schema raw")
        yield opened


def lines(n: int = 40, **columns: list[Any]) -> dict[str, list[Any]]:
    """Order lines of ``n`` days."""
    days = [dt.datetime(2026, 1, 1) + dt.timedelta(days=i) for i in range(n)]
    return {"sku": ["a"] * n, "sold_at": days, "qty": [2] * n, "paid": [9.9] * n} | columns


Check = Callable[..., None]


@pytest.fixture
def check(warehouse: DuckDBWarehouse, project: Project) -> Check:
    """Return a check of order lines with a mapping and settings of one's own."""

    def run(
        rows: dict[str, list[Any]] | pa.Table | None,
        mapping: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if rows is not None:
            table = rows if isinstance(rows, pa.Table) else pa.table(rows)
            warehouse.lookup("given", table)
            warehouse.execute("create or replace table raw.sales as select * from given")
        ours = {"horizon": 7, "grain": "day", "order_timezone": None}
        given = ours | {"order_columns": mapping or MAPPING} | settings
        check_orders(
            warehouse,
            replace(
                project,
                orders='"raw"."sales"',
                orders_schema="raw",
                settings=replace(project.settings, **given),
            ),
        )

    return run


def refusal(check: Check, *args: Any, **settings: Any) -> str:
    with pytest.raises(DataError) as raised:
        check(*args, **settings)
    return str(raised.value)


# --- What is fine ---


def test_good_lines_pass(check: Check) -> None:
    check(lines())
    check(
        lines(
            sold_at=[f"2026-01-01 {i // 60:02}:{i % 60:02}:00" for i in range(39)] + ["2026-03-01"]
        )
    )
    check(lines(), MAPPING | {"quantity": "qty * 2", "revenue": "paid", "customer_id": None})


def test_some_bad_lines_pass(check: Check) -> None:
    """Single lines are refused later, one by one and with their reason."""
    check(lines(qty=["2"] * 30 + ["many"] * 5 + [None] * 3 + ["-1", "1e99"]))
    check(lines(sku=[None] * 39 + ["a"]))


@pytest.mark.parametrize("text", ["infinity", "-infinity", "4713-01-01 (BC)", "0000-00-00"])
def test_dates_outside_of_time_do_not_count(check: Check, text: str) -> None:
    days = [f"2026-01-{1 + i % 31:02}" for i in range(39)]
    check(lines(sold_at=[*days, text]))
    assert "one is" in refusal(check, lines(sold_at=[text] * 40))


def test_the_demo_may_be_loaded_later(warehouse: DuckDBWarehouse, project: Project) -> None:
    check_orders(warehouse, project)


# --- What is not ---


def test_missing_table(check: Check) -> None:
    told = refusal(check, None)
    assert 'order lines "raw"."sales" do not exist' in told
    assert "shop_schema and orders_table" in told


@pytest.mark.parametrize("column", ["product_id", "ordered_at", "quantity"])
@pytest.mark.parametrize("how", ["absent", "null"])
def test_required_mapping(check: Check, column: str, how: str) -> None:
    mapping = {k: v for k, v in MAPPING.items() if k != column}
    if how == "null":
        mapping |= {column: None}
    told = refusal(check, lines(), mapping)
    assert f"does not map '{column}', which is required" in told
    others = [name for name in MAPPING if name != column]
    assert f"It maps: {', '.join(others)}." in told


@pytest.mark.parametrize("column", ["product_id", "ordered_at", "quantity", "revenue"])
def test_missing_column(check: Check, column: str) -> None:
    told = refusal(check, lines(), MAPPING | {column: "no_such_column"})
    assert f"order_columns.{column} is 'no_such_column'" in told
    assert '"raw"."sales" cannot give' in told
    assert "It has the columns: sku, sold_at, qty, paid." in told


def test_expression_that_is_not_sql(check: Check) -> None:
    told = refusal(check, lines(), MAPPING | {"quantity": "qty +* 2"})
    assert "order_columns.quantity is 'qty +* 2'" in told
    assert "It has the columns: sku" in told


@pytest.mark.parametrize(
    ("column", "expression", "example", "valid"),
    [
        ("ordered_at", "qty", "'2'", "as a date"),
        ("quantity", "sold_at", "'2026-01-01 00:00:00'", "number above zero"),
        ("revenue", "'EUR ' || paid", "'EUR 9.9'", "as decimal(18, 6)"),
        ("discount", "sku", "'a'", "as decimal(18, 6)"),
        ("loaded_at", "sku", "'a'", "as timestamp"),
    ],
)
def test_wrong_type(check: Check, column: str, expression: str, example: str, valid: str) -> None:
    told = refusal(check, lines(), MAPPING | {column: expression})
    assert (
        f'None of the 40 values of order_columns.{column} ({expression}) in "raw"."sales"' in told
    )
    assert f"one is {example}." in told
    assert valid in told


def test_an_optional_column_may_be_all_null(check: Check) -> None:
    check(lines(paid=[None] * 40), MAPPING | {"revenue": "paid"})


@pytest.mark.parametrize(
    "kind", ["date", "timestamp", "timestamptz", "timestamp_ns", "timestamp_s", "varchar"]
)
def test_dates_of_every_type_pass(check: Check, kind: str) -> None:
    check(lines(), MAPPING | {"ordered_at": f"cast(sold_at as {kind})"})


@pytest.mark.parametrize(
    "kind", ["tinyint", "hugeint", "float", "double", "decimal(9, 2)", "varchar"]
)
def test_quantities_of_every_type_pass(check: Check, kind: str) -> None:
    check(lines(), MAPPING | {"quantity": f"cast(qty as {kind})"})


def test_unreadable_dates(check: Check) -> None:
    told = refusal(check, lines(sold_at=["31.12.2025"] * 40))
    assert "None of the 40 values of order_columns.ordered_at (sold_at) in" in told
    assert "one is '31.12.2025'" in told
    assert "ISO 8601" in told
    # The remedy it names works.
    days = [f"{day:02}.01.2026" for day in range(1, 32)]
    check(
        pa.table({"sku": ["a"] * 31, "sold_at": days, "qty": [1] * 31}),
        MAPPING | {"ordered_at": "strptime(sold_at, '%d.%m.%Y')"},
    )


@pytest.mark.parametrize("values", [[0] * 40, [-3] * 40, ["three"] * 40, [None] * 39 + [0]])
def test_no_positive_quantity(check: Check, values: list[Any]) -> None:
    told = refusal(check, lines(qty=values))
    assert "None of the 40 values of order_columns.quantity (qty) in" in told
    assert "is a number above zero" in told
    assert repr(str(next(v for v in values if v is not None))) in told


def test_empty_table(check: Check) -> None:
    empty = pa.table(lines()).slice(0, 0)
    assert refusal(check, empty).startswith('"raw"."sales" is empty')


@pytest.mark.parametrize(
    ("n", "grain", "horizon", "periods"),
    [(7, "day", 7, "7 days"), (27, "week", 3, "3 weeks"), (90, "month", 2, "2 months")],
)
def test_horizon_not_shorter_than_history(
    check: Check, n: int, grain: str, horizon: int, periods: str
) -> None:
    told = refusal(check, lines(n), grain=grain, horizon=horizon)
    last = dt.date(2026, 1, 1) + dt.timedelta(days=n - 1)
    assert f"horizon of {horizon} {grain}s is not shorter than the history" in told
    assert f"span 2026-01-01 to {last}, {periods}" in told
    check(lines(n), grain=grain, horizon=horizon - 1)


# --- The panel dbt built ---


@pytest.fixture
def panel(warehouse: DuckDBWarehouse, project: Project) -> Callable[..., Features]:
    """Return features with ``n`` periods of history, ``folds`` cutoffs before the last, and refused lines."""

    def make(n: int, folds: int, n_series: int = 1, **settings: Any) -> Features:
        chosen = replace(project.settings, **({"horizon": 7, "backtest_step": 7} | settings))
        warehouse.execute(
            f"create or replace table int_series as select 100 as first_t from range({n_series})"
        )
        warehouse.execute(
            f"create or replace table int_cutoffs as select range as fold, "
            f"cast({99 + n} - {chosen.backtest_step} * range as integer) as cutoff_t, "
            f"date '2026-01-01' as cutoff from range({folds + 1})"
        )
        warehouse.execute(
            "create or replace table int_order_lines_rejected as select * from "
            "(values ('absurd_quantity'), ('unreadable_date'), ('absurd_quantity')) t(rejection_reason)"
        )
        names = {name: name for name in ("int_series", "int_cutoffs", "int_order_lines_rejected")}
        ours = replace(project, relations=dict(project.relations) | names, settings=chosen)
        return Features(warehouse, ours)

    return make


def test_enough_history_passes(panel: Callable[..., Features]) -> None:
    check_panel(panel(24, folds=2, backtest_folds=2), folds=True)
    check_panel(panel(10, folds=0, backtest_folds=2), folds=False)


def test_too_short_a_history_says_what_is_needed(panel: Callable[..., Features]) -> None:
    with pytest.raises(
        DataError, match=r"history of 23 days is too short.*2 backtest folds 7 apart.*needs 10 days"
    ):
        check_panel(panel(23, folds=2, backtest_folds=2), folds=True)
    with pytest.raises(DataError, match=r"0 backtest folds"):
        check_panel(panel(9, folds=0, backtest_folds=2), folds=False)


def test_folds_that_reach_before_the_first_sale(panel: Callable[..., Features]) -> None:
    with pytest.raises(DataError, match="5 backtest folds 7 apart"):
        check_panel(panel(24, folds=2, backtest_folds=5), folds=True)


def test_no_line_left_lists_the_reasons(panel: Callable[..., Features]) -> None:
    with pytest.raises(DataError) as raised:
        check_panel(panel(24, folds=2, n_series=0), folds=True)
    assert "Refused: absurd_quantity (2), unreadable_date (1)." in str(raised.value)


@pytest.mark.parametrize(
    ("promoted", "told"),
    [
        ("t <= 123", True),  # the plan ends with the past
        ("t <= 124", False),
        ("false", False),
        ("t = 116 and series_id = 1", False),  # one of 700 is few
    ],
)
def test_a_plan_that_ends_with_the_past_is_told(
    warehouse: DuckDBWarehouse, panel: Callable[..., Features], promoted: str, told: bool
) -> None:
    features = panel(24, folds=0)
    warehouse.execute(
        f"""
        create or replace table ftr_known as
        select series_id, t, cast({promoted} as integer) as promotion_display, 0 as promotion_feature, 0 as promotion_discount
        from range(100) as series(series_id), range(100, 131) as periods(t)
        """
    )
    relations = dict(features.project.relations) | {"ftr_known": "ftr_known"}
    notes = check_plan(Features(warehouse, replace(features.project, relations=relations)))
    assert len(notes) == told
    if told:
        assert "No promotion is planned for the 7 days after 2026-01-01" in notes[0]
        assert "100% of series" in notes[0]


def test_a_date_without_a_time_is_no_utc_timestamp(check: Check) -> None:
    """Taken as midnight UTC, an order in New York would belong to the day before."""
    dates = pa.table(lines()).set_column(
        1, "sold_at", pa.array([d.date() for d in lines()["sold_at"]])
    )
    told = refusal(check, dates, order_timezone="America/New_York")
    assert "sold_at" in told and "America/New_York" in told and "order_timezone" in told
    check(dates)


# --- Data contracts ---

LIMITS: dict[str, Any] = {
    **{"freshness_days": None, "volume_low": 0.1, "volume_high": 10, "volume_lines": 30},
    **{"cutoff": None, "as_of": None, "order_columns": MAPPING},
}
Contracts = Callable[..., tuple[dict[str, Any], list[str]]]


@pytest.fixture
def contracts(warehouse: DuckDBWarehouse, project: Project) -> Contracts:
    """Return a check of the contracts on days of so many lines each, the last of them yesterday or ``ended`` days ago."""

    def run(
        per_day: list[int], *, ended: int = 0, before: Any = None, sql: str = "", **limits: Any
    ) -> tuple[dict[str, Any], list[str]]:
        warehouse.lookup("days", pa.table({"i": range(len(per_day)), "n": per_day}))
        warehouse.execute(
            "create or replace table raw.sales as select 'a' as sku, "
            f"cast(current_date - ({len(per_day) + ended} - cast(i as integer)) as date) + interval 10 hour as sold_at, 2 as qty "
            "from days, range(1000) as lines(k) where k < n"
        )
        if sql:
            warehouse.execute(sql)
        settings = replace(
            project.settings,
            order_columns=MAPPING,
            order_timezone=None,
            order_date="cast(sold_at as date)",
        )
        ours = replace(
            project,
            orders='"raw"."sales"',
            settings=settings,
            sources={"order_lines": '"raw"."sales"'},
        )
        return check_contracts(warehouse, ours, LIMITS | limits, before)

    return run


def broken(contracts: Contracts, *args: Any, **limits: Any) -> str:
    with pytest.raises(DataError) as raised:
        contracts(*args, **limits)
    told = str(raised.value)
    assert told.endswith("`trendcast run --no-data-checks` goes on.")
    return told


def test_data_as_usual_pass(contracts: Contracts) -> None:
    columns = {"sku": "VARCHAR", "sold_at": "TIMESTAMP", "qty": "INTEGER"}
    now, notes = contracts([40] * 70)
    assert now == {"order_lines": {"relation": '"raw"."sales"', "columns": columns}}
    assert notes == []
    contracts([40] * 69 + [4], before=now)
    contracts([3] * 69 + [1])  # too few for there to be a usual
    contracts([100] * 20 + [1])  # too short for there to be one


@pytest.mark.parametrize(("last", "told"), [(3, "the rest of the day"), (401, "loaded twice")])
def test_a_last_day_of_an_unusual_number_of_lines(
    contracts: Contracts, last: int, told: str
) -> None:
    text = broken(contracts, [40] * 69 + [last])
    day = dt.date.today() - dt.timedelta(days=1)
    assert f"has {last} lines of {day:%A, %Y-%m-%d}; usual on that weekday are 40" in text
    assert "the median of 8 weeks" in text
    assert "0.1 to 10 times as many" in text and told in text
    contracts([40] * 69 + [last], volume_low=0, volume_high=100)
    contracts([40] * 69 + [last], volume_lines=41)


def test_the_volume_is_that_of_the_weekday_and_of_whole_days(contracts: Contracts) -> None:
    # A shop that is all but closed one day a week, and today's few lines.
    week = [4, 300, 300, 300, 300, 300, 300]
    contracts((week * 10)[:64])
    contracts([300] * 70 + [1], ended=-1)
    # A day of the past, where the forecast is from there.
    past = dt.date.today() - dt.timedelta(days=3)
    assert "has 2 lines" in broken(contracts, [40] * 67 + [2, 40, 40], cutoff=str(past))


def test_old_lines(contracts: Contracts) -> None:
    contracts([40] * 70, freshness_days=2)
    told = broken(contracts, [40] * 70, ended=9, freshness_days=2)
    day = dt.date.today() - dt.timedelta(days=10)
    assert f"is of {day} 10:00 (order_columns.ordered_at)" in told
    assert "freshness_days allows 2" in told
    # From a date of the past, old lines are what is wanted.
    contracts([40] * 70, ended=9, freshness_days=2, as_of=str(day))
    # One dated ahead does not make the rest fresh.
    ahead = "insert into raw.sales values ('a', timestamp '2999-01-01', 1)"
    assert f"{day}" in broken(contracts, [40] * 70, ended=9, freshness_days=2, sql=ahead)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("alter table raw.sales alter sold_at type varchar", "sold_at has become VARCHAR; in the last run it was TIMESTAMP, and order_columns.ordered_at reads it"),
        ("alter table raw.sales drop column qty", "no longer has the column qty (INTEGER in the last run), which order_columns.quantity reads. It has: sku, sold_at."),
    ],
)  # fmt: skip
def test_drift_of_a_column_that_is_read(contracts: Contracts, sql: str, told: str) -> None:
    before, _ = contracts([40] * 70)
    assert told in broken(contracts, [40] * 70, before=before, sql=sql)


def test_drift_that_does_no_harm_is_noted(contracts: Contracts) -> None:
    before, _ = contracts([40] * 70, sql="alter table raw.sales add column note varchar")
    _, notes = contracts(
        [40] * 70,
        before=before,
        sql="alter table raw.sales add column channel varchar; alter table raw.sales alter qty type bigint",
    )
    assert notes == [
        '"raw"."sales" has a new column channel (VARCHAR).',
        '"raw"."sales" no longer has the column note, which nothing reads.',
        '"raw"."sales".qty has become BIGINT; it was INTEGER.',
    ]
    elsewhere = {"order_lines": before["order_lines"] | {"relation": '"raw"."other"'}}
    assert contracts([40] * 70, before=elsewhere)[1] == []
