"""Checks of the shop's data before anything is written: what came, what is valid, what to do."""

from __future__ import annotations

import datetime as dt
import re
from statistics import median
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from trendcast.errors import DataError, WarehouseError
from trendcast.warehouse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trendcast.features import Features
    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

#: Share of series and periods with a promotion below which it is no news that none is planned.
FEW_PROMOTED = 0.01
DEMO_SCHEMA = "demo_shop"
REQUIRED = ("product_id", "ordered_at", "quantity")
TYPES = {
    "ordered_at": "timestamp",
    "loaded_at": "timestamp",
    "quantity": "decimal(18, 6)",
    "revenue": "decimal(18, 6)",
    "discount": "decimal(18, 6)",
}
OVERRIDE = "If this is how the shop is, `trendcast run --no-data-checks` goes on."
#: Vars that end a forecast's knowledge at a date of the past.
PAST = ("cutoff", "as_of")
PERIOD_DAYS = {"day": 1.0, "week": 7.0, "month": 30.44}


def check_orders(warehouse: Warehouse, project: Project) -> dict[str, Any] | None:
    """Check the raw order lines in one pass, before dbt touches anything.

    Where the project stages its orders itself, nobody but it knows the raw tables: what came of them is checked after the
    build.

    Returns
    -------
    dict or None
        n_lines, first_at, last_at and, for each mapped column of `TYPES`, ``n_<column>`` and ``n_<column>_read``: how many
        values there are and how many can be read. None where there is nothing to check yet.

    Raises
    ------
    DataError
        The table is missing or empty, a mapped column does not exist or cannot be read, no quantity is above
        zero, or the history is not longer than the horizon.
    """
    if project.stages_orders_itself:
        return None
    orders = project.orders
    if not warehouse.exists(orders):
        if project.orders_schema == DEMO_SCHEMA and warehouse.engine == "duckdb":
            return None  # dbt's first build loads the demo shop
        if project.orders_schema == DEMO_SCHEMA:
            raise DataError(
                f"The demo shop is not in the warehouse, and dbt on {warehouse.engine} cannot load it: `trendcast demo` does. For "
                "orders of your own set the vars shop_schema and orders_table."
            )
        raise DataError(
            f"The order lines {orders} do not exist in the warehouse. Set the vars shop_schema and orders_table "
            "to where they are."
        )
    mapping = project.settings.order_columns
    for column in REQUIRED:
        if not mapping.get(column):
            raise DataError(
                f"The var order_columns does not map {column!r}, which is required. "
                f"It maps: {', '.join(k for k, v in mapping.items() if v)}."
            )
    for column, expression in mapping.items():
        if expression is not None:  # null: the shop has no such column
            _check_column(warehouse, project, column, str(expression))
    return _check_content(warehouse, project)


def _check_column(warehouse: Warehouse, project: Project, column: str, expression: str) -> None:
    """Ask the warehouse for no rows of the expression; its refusal says what is wrong."""
    try:
        warehouse.query(f"select {expression} as mapped from {project.orders} limit 0")
    except WarehouseError as error:
        has = ", ".join(warehouse.columns(project.orders))
        raise DataError(
            f"order_columns.{column} is {expression!r}, which {project.orders} cannot give: "
            f"{str(error).splitlines()[0]}\nIt has the columns: {has}. Correct the var order_columns."
        ) from error
    timezone = project.settings.order_timezone
    if column == "ordered_at" and timezone:
        (kind,) = warehouse.columns(
            f"(select {expression} as mapped from {project.orders})"
        ).values()
        if kind.upper() == "DATE":
            raise DataError(
                f"order_columns.ordered_at is {expression!r}, a date without a time, but the var order_timezone is "
                f"{timezone!r}: taken as midnight UTC, every order would move to another day. Set order_timezone "
                "to null."
            )


def _check_content(warehouse: Warehouse, project: Project) -> dict[str, Any]:
    """Check that dates span more than the horizon, and that no column is unreadable from top to bottom."""
    mapping, settings = project.settings.order_columns, project.settings
    typed = {column: str(mapping[column]) for column in TYPES if mapping.get(column)}
    # As staging reads them.
    reads = {
        column: warehouse.safe_cast(expression, TYPES[column])
        for column, expression in typed.items()
    }
    # Without 'infinity' and years before Christ, which Python's dates do not reach.
    at, first, last = (
        reads["ordered_at"],
        "cast('0001-01-01' as date)",
        "cast('9999-12-31' as date)",
    )
    in_time = f"case when {at} between {first} and {last} then {at} end"
    counts = [
        f"count({expression}) as n_{column}, count({reads[column]}) as n_{column}_read"
        for column, expression in typed.items()
    ]
    row: dict[str, Any] = warehouse.query(
        f"""
        select
            count(*) as n_lines,
            count(case when {reads["quantity"]} > 0 then 1 end) as n_positive,
            min({in_time}) as first_at,
            max({in_time}) as last_at,
            {", ".join(counts)}
        from {project.orders}
        """
    ).to_pylist()[0]
    n = row["n_lines"]
    if n == 0:
        raise DataError(f"{project.orders} is empty: there are no order lines to forecast from.")

    def none_of(column: str, what: str) -> str:
        example = warehouse.query(
            f"select min(cast({typed[column]} as varchar)) as example from {project.orders}"
        )
        return (
            f"None of the {n:,} values of order_columns.{column} ({mapping[column]}) in {project.orders} {what}; one is "
            f"{example.column('example')[0].as_py()!r}."
        )

    if row["first_at"] is None:
        raise DataError(
            f"{none_of('ordered_at', 'can be read as a date')} Valid: ISO 8601 "
            "like 2026-01-31 or 2026-01-31 12:00:00, or an SQL expression that parses yours, such as "
            "strptime(order_date, '%d.%m.%Y')."
        )
    if row["n_positive"] == 0:
        raise DataError(
            f"{none_of('quantity', 'is a number above zero')} Correct the var order_columns."
        )
    for column in typed:
        if row[f"n_{column}"] and not row[f"n_{column}_read"]:
            raise DataError(
                f"{none_of(column, f'can be read as {TYPES[column]}')} Map a column or "
                f"SQL expression of that type, or null if the shop has no {column}."
            )
    days = (row["last_at"] - row["first_at"]).days + 1
    periods = int(days // PERIOD_DAYS[settings.grain])
    if periods <= settings.horizon:
        raise DataError(
            f"The horizon of {settings.horizon} {settings.grain}s is not shorter than the history: the order lines "
            f"span {row['first_at']:%Y-%m-%d} to {row['last_at']:%Y-%m-%d}, {periods} {settings.grain}s. "
            "Lower the var horizon, or load more history."
        )
    return row


def count_periods(
    warehouse: Warehouse, project: Project, vars: Mapping[str, Any]
) -> dict[str, Any]:
    """Count order lines by period and by series, in one pass over them.

    Of a project that stages its orders itself the accepted lines are read, which must be built.

    Parameters
    ----------
    vars
        The value of every var.

    Returns
    -------
    dict
        first_d, last_d, n_periods (with lines), n_empty (without, between them), longest (periods from one with lines to the
        next), gap_after (the period it begins with), days_apart (median), n_series, n_rows (of the panel: from each series'
        first line to the end), until (the last date a line may have) and n_ahead: lines that are dated later.
    """
    settings = project.settings
    catalogue = ""
    if project.stages_orders_itself:
        lines, date, key = project.relation("int_order_lines"), "order_date", ["series_id"]
    else:
        lines, date = project.orders, settings.order_date
        products = project.sources.get("products")
        attributes = vars["product_columns"] if products and warehouse.exists(products) else {}
        key, theirs = list[str](), list[str]()
        ours = [f"{settings.order_columns['product_id']} as product_id"]
        for i, column in enumerate(settings.series_key):
            mapped = settings.order_columns.get(column)
            (ours if mapped else theirs).append(f"{mapped or attributes.get(column)} as key_{i}")
            key.append(f"key_{i}")
        if theirs and attributes:
            catalogue = (
                f"left join (select cast({attributes['product_id']} as varchar) as listed_id, {', '.join(theirs)} "
                f"from {products}) as catalogue on cast(product_id as varchar) = listed_id"
            )
        elif theirs:  # no catalogue yet: products are the most series there can be
            key = ["product_id"]
        lines = f"(select {date} as order_date, {', '.join(ours)} from {lines})"
    today = dt.datetime.now(ZoneInfo(settings.order_timezone or "UTC")).date()
    until = min([today, *(dt.date.fromisoformat(str(vars[n])[:10]) for n in PAST if vars[n])])
    keys = ", ".join(f"cast({column} as varchar)" for column in key)
    grain = settings.grain
    first, last = (_period_start(date, grain) for date in ("first_d", "last_d"))
    steps = _periods_between(warehouse, "before", "period", grain)
    of_series = _periods_between(warehouse, first, last, grain)
    found: dict[str, Any] = warehouse.query(
        f"""
        with dated as (
            select
                cast(order_date as date) as d,
                {_period_start("cast(order_date as date)", grain)} as period,
                row({keys}) as series,
                order_date > ? as is_ahead
            from {lines} as lines {catalogue}
            where order_date >= ?
        ),
        -- One pass: by period, by series, and all.
        grouped as (
            select
                period,
                grouping(period) as not_by_period,
                grouping(series) as not_by_series,
                min(d) filter (where not is_ahead) as first_d,
                max(d) filter (where not is_ahead) as last_d,
                count(*) filter (where is_ahead) as n_ahead
            from dated
            group by grouping sets ((period), (series), ())
        ),
        periods as (
            select period, lag(period) over (order by period) as before
            from grouped
            where not_by_period = 0 and first_d is not null
        ),
        apart as (
            select before, {steps} as steps, {warehouse.days_between("before", "period")} as days
            from periods where before is not null
        ),
        whole as (
            select * from grouped where not_by_period = 1 and not_by_series = 1
        ),
        begun as (
            select grouped.first_d, whole.last_d
            from grouped cross join whole
            where grouped.not_by_series = 0 and grouped.first_d is not null
        )
        select
            whole.first_d,
            whole.last_d,
            whole.n_ahead,
            (select count(*) from periods) as n_periods,
            (select cast(coalesce(sum(steps - 1), 0) as bigint) from apart) as n_empty,
            (select max(steps) from apart) as longest,
            (select before from apart order by steps desc, before limit 1) as gap_after,
            (select percentile_cont(0.5) within group (order by days) from apart) as days_apart,
            (select count(*) from begun) as n_series,
            (select cast(sum({of_series} + 1) as bigint) from begun) as n_rows
        from whole
        """,
        [until, dt.date.fromisoformat(str(vars["min_order_date"])[:10])],
    ).to_pylist()[0]
    return found | {"until": until}


def _period_start(date: str, grain: str) -> str:
    """SQL of the first day of a date's period."""
    return f"cast(date_trunc('{grain}', {date}) as date)"


def _periods_between(warehouse: Warehouse, first: str, last: str, grain: str) -> str:
    """SQL of the periods from one first day to another."""
    if grain == "month":
        years = f"extract(year from {last}) - extract(year from {first})"
        months = f"extract(month from {last}) - extract(month from {first})"
        return f"cast(12 * ({years}) + {months} as bigint)"
    days = {"day": 1, "week": 7}[grain]
    return f"cast({warehouse.days_between(first, last)} / {days} as bigint)"


# --- Data contracts ---

MAPPINGS = {
    "order_lines": "order_columns",
    "products": "product_columns",
    "promotions": "promotion_columns",
    "events": "event_columns",
    "prices": "price_columns",
    "reviews": "review_columns",
    "inventory": "inventory_columns",
    "launches": "launch_columns",
    "exchange_rates": "exchange_rate_columns",
    "supply": "supply_columns",
    "purchase_orders": "purchase_order_columns",
}
USUAL_WEEKS = 8
# With fewer weeks there is no usual.
LEAST_WEEKS = 4
Sources = dict[str, dict[str, Any]]


def check_contracts(
    warehouse: Warehouse, project: Project, vars: Mapping[str, Any], before: Sources | None
) -> tuple[Sources, list[str]]:
    """Stop a run whose data are not what they used to be: old, too few or too many, or of another type.

    Parameters
    ----------
    vars
        The value of every var.
    before
        The sources' columns in the last run, None for the first.

    Returns
    -------
    Sources
        The sources' columns now.
    list of str
        What has changed and does no harm, such as a new column.

    Raises
    ------
    DataError
        Says what came, what is usual and which var or flag decides.
    """
    if project.stages_orders_itself:
        return {}, []
    if not warehouse.exists(project.orders):
        return {}, []  # the demo, which dbt's first build loads
    now = source_columns(warehouse, project)
    notes = [note for name in now for note in _schema_drift(name, now, before or {}, vars)]
    if vars["freshness_days"] is not None:
        check_freshness(warehouse, project, vars)
    check_volume(warehouse, project, vars)
    return now, notes


def source_columns(warehouse: Warehouse, project: Project) -> Sources:
    """Return the relation and the columns, with their types, of each table of the shop."""
    return {
        name: {"relation": relation, "columns": warehouse.columns(relation)}
        for name, relation in project.sources.items()
        if warehouse.exists(relation)
    }


def _schema_drift(name: str, now: Sources, before: Sources, vars: Mapping[str, Any]) -> list[str]:
    if name not in before or before[name]["relation"] != now[name]["relation"]:
        return []
    relation = now[name]["relation"]
    old, new = before[name]["columns"], now[name]["columns"]
    mapping = {k: str(v) for k, v in (vars.get(MAPPINGS[name]) or {}).items() if v is not None}
    notes = [
        f"{relation} has a new column {column} ({new[column]})." for column in new.keys() - old
    ]
    for column, kind in old.items():
        uses = [
            f"{MAPPINGS[name]}.{key}"
            for key, text in mapping.items()
            if re.search(rf"(?<![\w]){re.escape(column)}(?![\w])", text, re.IGNORECASE)
        ]
        if column not in new:
            if uses:
                raise DataError(
                    f"{relation} no longer has the column {column} ({kind} in the last run), which {', '.join(uses)} "
                    f"reads. It has: {', '.join(new)}. Bring it back or correct the var. {OVERRIDE}"
                )
            notes.append(f"{relation} no longer has the column {column}, which nothing reads.")
        elif _family(kind) != _family(new[column]) and uses:
            raise DataError(
                f"{relation}.{column} has become {new[column]}; in the last run it was {kind}, and {', '.join(uses)} "
                f"reads it. {OVERRIDE}"
            )
        elif kind != new[column]:
            notes.append(f"{relation}.{column} has become {new[column]}; it was {kind}.")
    return sorted(notes)


def _family(kind: str) -> str:
    """Return what types that read alike have in common."""
    name = kind.upper().split("(")[0]
    number = name.endswith("INT") or name in ("INTEGER", "DECIMAL", "FLOAT", "DOUBLE")
    return "NUMBER" if number else re.sub(r"_(NS|MS|S)$", "", name)


def check_freshness(
    warehouse: Warehouse, project: Project, vars: Mapping[str, Any]
) -> tuple[str, dt.datetime | None]:
    """Return which order column says how new the lines are, and its newest time.

    Raises
    ------
    DataError
        It is longer ago than the var freshness_days allows.
    """
    mapping = project.settings.order_columns
    column = "loaded_at" if mapping.get("loaded_at") else "ordered_at"
    at = warehouse.safe_cast(str(mapping[column]), "timestamp")
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    # An order dated ahead does not make a table fresh.
    newest = warehouse.query(
        f"select max(case when {at} <= ? then {at} end) as newest from {project.orders}",
        [now + dt.timedelta(days=1)],
    )
    newest_at = newest.column("newest")[0].as_py()
    limit = vars["freshness_days"]
    if limit is None or vars["cutoff"] or vars["as_of"]:
        return column, newest_at  # a forecast from a date of the past is old on purpose
    if newest_at is None:
        raise DataError(
            f"No line of {project.orders} has a time up to now (order_columns.{column}), and the var freshness_days asks for "
            f"one of the last {limit} days. {OVERRIDE}"
        )
    if (now - newest_at).total_seconds() > limit * 86400:
        raise DataError(
            f"The newest line of {project.orders} is of {newest_at:%Y-%m-%d %H:%M} (order_columns.{column}), "
            f"{(now - newest_at).days} days ago; the var freshness_days allows {limit}. Load the newer lines. "
            f"{OVERRIDE}"
        )
    return column, newest_at


def check_volume(warehouse: Warehouse, project: Project, vars: Mapping[str, Any]) -> None:
    """Compare the lines of the last whole day with those usual on its weekday."""
    last = last_whole_day(project.settings.order_timezone)
    for name in PAST:
        if vars[name]:
            last = min(last, dt.date.fromisoformat(str(vars[name])[:10]))
    date = project.settings.order_date
    rows = warehouse.query(
        f"""
        with dated as (select {date} as d from {project.orders}),
        past as (select d from dated where d <= ? and d >= cast('0001-01-01' as date)),
        recent as (select d from past where d >= (select max(d) from past) - {7 * USUAL_WEEKS})
        select cast(d as date) as d, count(*) as n, (select min(d) from past) as first_d
        from recent group by d order by d
        """,
        [last],
    ).to_pylist()
    if not rows:
        return
    counts = {row["d"]: row["n"] for row in rows}
    day = max(counts)
    earlier = [day - dt.timedelta(days=7 * week) for week in range(1, USUAL_WEEKS + 1)]
    usual = sorted(counts.get(d, 0) for d in earlier if d >= rows[0]["first_d"])
    if len(usual) < LEAST_WEEKS or median(usual) < vars["volume_lines"]:
        return
    share = counts[day] / median(usual)
    if not vars["volume_low"] <= share <= vars["volume_high"]:
        few = share < 1
        raise DataError(
            f"{project.orders} has {counts[day]:,} lines of {day:%A, %Y-%m-%d}; usual on that weekday are "
            f"{median(usual):,.0f} (the median of {len(usual)} weeks). The vars volume_low and volume_high allow "
            f"{vars['volume_low']} to {vars['volume_high']} times as many. "
            + ("Load the rest of the day. " if few else "Look for lines loaded twice. ")
            + OVERRIDE
        )


def last_whole_day(timezone: str | None) -> dt.date:
    """Return yesterday on the shop's clock."""
    return dt.datetime.now(ZoneInfo(timezone) if timezone else None).date() - dt.timedelta(days=1)


def check_panel(features: Features, *, folds: bool) -> None:
    """Check what dbt made of the lines.

    Raises
    ------
    DataError
        No line was accepted, or the folds of the backtest reach back before the history can train a model.
    """
    settings = features.settings
    if features.n_series == 0:
        reasons = features.query(
            f"select rejection_reason, count(*) as n from {features.relation('int_order_lines_rejected')} "
            "group by rejection_reason order by n desc"
        ).to_pylist()
        listed = (
            ", ".join(f"{r['rejection_reason']} ({r['n']:,})" for r in reasons) or "there were none"
        )
        raise DataError(
            f"No order line is left to forecast from. Refused: {listed}. The lines are kept in "
            "int_order_lines_rejected; docs/cleaning.md says which var decides each."
        )
    cutoffs = features.cutoffs if folds else features.cutoffs[:1]
    earliest = cutoffs[-1]
    history = earliest.t - features.first_t + 1
    needed = settings.horizon + max(2, settings.horizon // 2)
    built, wanted = len(features.cutoffs) - 1, settings.backtest_folds
    missing = wanted - built if folds else 0
    reach = features.last_cutoff.t - wanted * settings.backtest_step
    if missing and reach >= features.first_t:
        raise DataError(
            f"The features were built with {built} folds of the backtest, and the var backtest_folds is {wanted} now. "
            "Build them anew: `dbt build`, or `trendcast run`, which does."
        )
    if history < needed or missing:
        have = features.last_cutoff.t - features.first_t + 1
        raise DataError(
            f"The history of {have} {settings.grain}s is too short for a horizon of {settings.horizon} with "
            f"{settings.backtest_folds if folds else 0} backtest folds {settings.backtest_step} apart: the earliest "
            f"cutoff needs {needed} {settings.grain}s before it. Lower the vars horizon, backtest_step or "
            "backtest_folds."
        )


def check_plan(features: Features) -> list[str]:
    """Say so where promotions end with the past: a model then takes it that nothing will be promoted.

    Returns
    -------
    list of str
        What to tell; nothing where the horizon has promotions too, or where there were few.
    """
    planned = [
        c
        for c in features.project.with_role("known")
        if (c.model, c.component) == ("ftr_known", "promotion")
    ]
    if not planned:
        return []
    cutoff, horizon = features.last_cutoff, features.settings.horizon
    is_promoted = " or ".join(f"{quote(c.name)} > 0" for c in planned)
    past, ahead = (
        features.query(
            f"select avg(case when {is_promoted} then 1.0 else 0.0 end) as share "
            f"from {features.relation('ftr_known')} where t > ? and t <= ?",
            [first, first + horizon],
        )
        .column("share")[0]
        .as_py()
        or 0.0
        for first in (cutoff.t - horizon, cutoff.t)
    )
    if ahead or past < FEW_PROMOTED:
        return []
    return [
        f"No promotion is planned for the {horizon} {features.settings.grain}s after {cutoff.date}; in the {horizon} up to it {past:.0%} "
        f"of series and {features.settings.grain}s had one. The forecast takes it that there will be none. If the plan is not there "
        "yet, load it into the source promotions and run again."
    ]
