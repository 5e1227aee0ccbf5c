"""Checks of the shop's data before anything is written: what came, what is valid, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trendcast.errors import DataError, WarehouseError

if TYPE_CHECKING:
    from trendcast.features import Features
    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

DEMO_SCHEMA = "demo_shop"
REQUIRED = ("product_id", "ordered_at", "quantity")
TYPES = {
    "ordered_at": "timestamp",
    "loaded_at": "timestamp",
    "quantity": "decimal(18, 6)",
    "revenue": "decimal(18, 6)",
    "discount": "decimal(18, 6)",
}
PERIOD_DAYS = {"day": 1.0, "week": 7.0, "month": 30.44}


def check_orders(warehouse: Warehouse, project: Project) -> None:
    """Check the raw order lines in one pass, before dbt touches anything.

    Raises
    ------
    DataError
        The table is missing or empty, a mapped column does not exist or cannot be read, no quantity is above
        zero, or the history is not longer than the horizon.
    """
    orders = project.orders
    if not warehouse.exists(orders):
        if project.orders_schema == DEMO_SCHEMA:
            return  # dbt's first build loads the demo shop
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
    _check_content(warehouse, project)


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


def _check_content(warehouse: Warehouse, project: Project) -> None:
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
        f"count({expression}) as n_{column}, count({reads[column]}) as n_{column}_read, "
        f"min(cast({expression} as varchar)) as example_{column}"
        for column, expression in typed.items()
    ]
    row = warehouse.query(
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

    def none_of(column: str) -> str:
        return f"None of the {n:,} values of order_columns.{column} ({mapping[column]}) in {project.orders}"

    if row["first_at"] is None:
        raise DataError(
            f"{none_of('ordered_at')} can be read as a date; one is {row['example_ordered_at']!r}. Valid: ISO 8601 "
            "like 2026-01-31 or 2026-01-31 12:00:00, or an SQL expression that parses yours, such as "
            "strptime(order_date, '%d.%m.%Y')."
        )
    if row["n_positive"] == 0:
        raise DataError(
            f"{none_of('quantity')} is a number above zero; one is {row['example_quantity']!r}. "
            "Correct the var order_columns."
        )
    for column in typed:
        if row[f"n_{column}"] and not row[f"n_{column}_read"]:
            raise DataError(
                f"{none_of(column)} can be read as {TYPES[column]}; one is {row[f'example_{column}']!r}. Map a "
                f"column or SQL expression of that type, or null if the shop has no {column}."
            )
    days = (row["last_at"] - row["first_at"]).days + 1
    periods = int(days // PERIOD_DAYS[settings.grain])
    if periods <= settings.horizon:
        raise DataError(
            f"The horizon of {settings.horizon} {settings.grain}s is not shorter than the history: the order lines "
            f"span {row['first_at']:%Y-%m-%d} to {row['last_at']:%Y-%m-%d}, {periods} {settings.grain}s. "
            "Lower the var horizon, or load more history."
        )


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
    missing = settings.backtest_folds + 1 - len(features.cutoffs) if folds else 0
    if history < needed or missing:
        have = features.last_cutoff.t - features.first_t + 1
        raise DataError(
            f"The history of {have} {settings.grain}s is too short for a horizon of {settings.horizon} with "
            f"{settings.backtest_folds if folds else 0} backtest folds {settings.backtest_step} apart: the earliest "
            f"cutoff needs {needed} {settings.grain}s before it. Lower the vars horizon, backtest_step or "
            "backtest_folds."
        )
