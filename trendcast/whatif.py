"""What-if scenarios: other prices or a promotion, against the forecast in force.

A scenario is one row of the ledger table ``scenarios`` for each series: the base forecast over the horizon, the price there is and
the one asked for, the elasticity and the effect of the promotion, all as they are now. The arithmetic on that is SQL, the view
``fct_scenarios``: at a constant elasticity ``e`` units sell at ``(new price / price) ** e``. Only a series' own price counts; what
series take from each other is not in it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trendcast.errors import DataError, UsageError, WarehouseError, one_of
from trendcast.portfolio import listed, narrowed
from trendcast.warehouse import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

SETTINGS = ("price", "promotion")
PROMOTIONS = ("display", "feature", "discount")
MARTS = (
    *("dim_series", "fct_forecasts", "int_cumulated_forecasts", "int_sum_spread", "int_supply"),
    *("fct_price_response", "fct_promotion_response", "fct_scenarios"),
)
OWN_PRICE_ONLY = "Each series answers to its own price and promotion alone: what the series take from each other is not in it."
_PERCENT = re.compile(r"([+-])([0-9]+(?:\.[0-9]+)?)\s*%")
_AMOUNT = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")


@dataclass(frozen=True)
class Change:
    """What a scenario sets: a price, or a factor of the price there is, and a kind of promotion; None for what stays."""

    text: str
    price: float | None = None
    factor: float | None = None
    promotion: str | None = None

    @property
    def has_price(self) -> bool:
        """Whether prices are others than they are."""
        return self.price is not None or self.factor is not None


def parse(settings: Mapping[str, Any]) -> Change:
    """Read what a scenario sets.

    Parameters
    ----------
    settings
        ``price``: ``-10%`` or ``+5%`` of the price there is, or an amount such as ``1.99``; ``promotion``: ``display``, ``feature`` or
        ``discount``.

    Raises
    ------
    UsageError
        Nothing is set, a name is unknown, or a price is no number above zero.
    """
    if not settings:
        raise UsageError(
            "A scenario sets something: --set price=-10%, --set price=1.99 or --set promotion=display."
        )
    for name in settings:
        if name not in SETTINGS:
            raise one_of("setting", name, list(SETTINGS))
    text = ", ".join(f"{name}={value}" for name, value in settings.items())
    price = factor = None
    if "price" in settings:
        price, factor = _price(str(settings["price"]).strip())
    promotion = settings.get("promotion")
    if promotion is not None and promotion not in PROMOTIONS:
        raise one_of("promotion", str(promotion), list(PROMOTIONS))
    return Change(text, price, factor, promotion)


def _price(text: str) -> tuple[float | None, float | None]:
    """Return a price or a factor of the one there is."""
    percent, amount = _PERCENT.fullmatch(text), _AMOUNT.fullmatch(text)
    if percent:
        factor = 1 + float(percent[1] + percent[2]) / 100
        if factor <= 0 or math.isinf(factor):
            raise UsageError(
                f"A price must stay a number above zero; came: price={text}. Take less off than 100%."
            )
        return None, factor
    if not amount:
        raise UsageError(
            f"price takes a change with its sign, such as -10% or +5%, or an amount above zero, such as 1.99; came: {text!r}"
        )
    price = float(text)
    if price <= 0 or math.isinf(price):
        raise UsageError(
            f"A price must be a number above zero, for nobody knows what is sold for nothing; came: price={text}"
        )
    return price, None


@dataclass(frozen=True)
class Plan:
    """A scenario that is ready to be written: rows of ``scenarios`` but for the run's id, and how many series have no price."""

    rows: pa.Table
    n_without_price: int


def plan(warehouse: Warehouse, project: Project, change: Change, where: Mapping[str, Any]) -> Plan:
    """Put together what a scenario is worked out with, for the series that it is about.

    Parameters
    ----------
    where
        Columns of ``dim_series`` with the value wanted, or several; all of them must hold. Empty for every series.

    Raises
    ------
    WarehouseError
        The marts were never built.
    UsageError
        There is no such column or value, or no series has all of them.
    DataError
        Nothing is known that the change could act on: no price, or no measured effect of the promotion.
    """
    for name in MARTS:
        if not warehouse.exists(project.relation(name)):
            raise WarehouseError(
                f"{project.relation(name)} does not exist. Run `trendcast run` or `dbt build` first."
            )
    series = project.relation("dim_series")
    measure = project.settings.measure
    if measure == "average_price":
        raise UsageError(
            "A scenario is about what is sold at other prices: the var `measure` must be quantity or revenue, or a list with one "
            "of them; it is average_price."
        )
    of_units = f"measure = {literal(measure)}" if len(project.settings.measures) > 1 else "true"
    sql = f"select series_id from {series} where {of_units} and :narrowed"
    asked = warehouse.query(sql.replace(":narrowed", narrowed(warehouse, series, where)))
    warehouse.lookup("asked_series", asked)
    matched = len(asked)
    if not matched:
        told = " and ".join(f"{k}={' or '.join(listed(v))}" for k, v in where.items())
        raise UsageError(
            f"No series has {told or 'ever sold'}: each of these has some, but none all."
        )
    if change.promotion:
        _require_measured(warehouse, project, change.promotion)
    rows = _rows(warehouse, project, change, _named(change, where))
    if not len(rows):
        raise DataError(
            f"None of the {matched:,} series has a forecast over the whole horizon. Run `trendcast run` first."
        )
    priced = rows.filter(rows.column("scenario_price").is_valid()) if change.has_price else rows
    if not len(priced):
        raise DataError(
            f"None of the {matched:,} series has a price: map revenue in the var `order_columns`, which prices come from."
        )
    if not change.has_price and priced.column("promotion_log_effect").null_count == len(priced):
        raise DataError(
            f"What a {change.promotion} does is not measured for any of the {matched:,} series: their groups had none, or too few."
        )
    return Plan(priced, len(rows) - len(priced))


def _require_measured(warehouse: Warehouse, project: Project, promotion: str) -> None:
    found = warehouse.query(
        f"select distinct effect from {project.relation('fct_promotion_response')} "
        f"where effect in ({', '.join(map(literal, PROMOTIONS))}) order by effect"
    )
    measured = found.column("effect").to_pylist()
    if not measured:
        raise DataError(
            "No effect of promotions is measured, so a scenario cannot have one: the shop has no promotion plan (the var "
            "`promotions_table`), or it never had promotions of this kind."
        )
    if promotion not in measured:
        raise one_of("measured promotion", promotion, measured)


def _named(change: Change, where: Mapping[str, Any]) -> str:
    """Return a scenario's name: what was asked for."""
    told = [f"{column}={' or '.join(listed(value))}" for column, value in where.items()]
    name = " where ".join([change.text, *([" and ".join(told)] if told else [])])
    return name if len(name) <= 200 else f"{name[:197]}..."


def _rows(warehouse: Warehouse, project: Project, change: Change, scenario: str) -> pa.Table:
    """Read what the scenario is worked out with; the series asked for are on this connection."""
    by_revenue = project.settings.measure == "revenue"
    per_price = "/ supply.unit_price" if by_revenue else ""
    relation = project.relation
    return warehouse.query(
        f"""
        with supply as (
            select
                series_id, unit_cost, ', ' || defaults_used || ',' like '%, unit_cost,%' as is_unit_cost_assumed,
                case when unit_price > 0 then unit_price end as unit_price
            from {relation("int_supply")}
        )
        select
            sums.series_id,
            ? as scenario,
            sums.cutoff,
            sums.target_date as last_date,
            base.run_id as base_run_id,
            base.model as base_model,
            sums.cumulated_mean {per_price} as base_units,
            sums.cumulated_variance * spread.variance_factor {per_price} {per_price} as base_variance,
            supply.unit_price,
            case
                when supply.unit_price is not null
                    then coalesce(cast(? as double precision), supply.unit_price * cast(? as double precision))
            end as scenario_price,
            supply.unit_cost,
            supply.is_unit_cost_assumed,
            response.elasticity,
            response.elasticity_std_error,
            response.elasticity_source,
            response.lowest_price,
            response.highest_price,
            cast(? as varchar) as promotion,
            effects.log_effect * effects.typical_intensity as promotion_log_effect,
            effects.log_effect_std_error * effects.typical_intensity as promotion_log_std_error
        from {relation("int_cumulated_forecasts")} as sums
        inner join {relation("int_sum_spread")} as spread
            on sums.fold = spread.fold and sums.measure = spread.measure
            and sums.demand_class = spread.demand_class and sums.lead = spread.periods
        inner join {relation("fct_forecasts")} as base
            on sums.series_id = base.series_id and sums.lead = base.lead
        inner join supply on sums.series_id = supply.series_id
        inner join {relation("fct_price_response")} as response on sums.series_id = response.series_id
        left join {relation("fct_promotion_response")} as effects
            on sums.series_id = effects.series_id and effects.effect = ?
        inner join asked_series on sums.series_id = asked_series.series_id
        where sums.fold = 0 and sums.lead = ?
        order by {warehouse.text_order("sums.series_id")}
        """,
        [
            *(scenario, change.price, 1.0 if change.factor is None else change.factor),
            *(change.promotion, change.promotion, project.settings.horizon),
        ],
    )


def described(warehouse: Warehouse, planned: Plan) -> dict[str, Any]:
    """Tell what a scenario is about, before anything is written."""
    warehouse.lookup("planned_scenario", planned.rows)
    found: dict[str, Any] = warehouse.query(
        """
        select
            min(scenario) as scenario, min(cutoff) as cutoff, count(*) as n_series,
            count(case when elasticity_source = 'default' and scenario_price <> unit_price then 1 end)
                as n_elasticity_assumed,
            count(
                case when elasticity + 1.644854 * elasticity_std_error >= 0 and scenario_price <> unit_price then 1 end
            ) as n_elasticity_unsure,
            count(
                case
                    when scenario_price <> unit_price
                        and (lowest_price is null or scenario_price < lowest_price or scenario_price > highest_price)
                        then 1
                end
            ) as n_price_unseen,
            count(case when promotion is not null and promotion_log_effect is null then 1 end)
                as n_promotion_unmeasured,
            count(case when is_unit_cost_assumed then 1 end) as n_unit_cost_assumed,
            min(unit_price) as lowest_unit_price, max(unit_price) as highest_unit_price,
            min(scenario_price) as lowest_scenario_price, max(scenario_price) as highest_scenario_price
        from planned_scenario
        """
    ).to_pylist()[0]
    return found | {
        "cutoff": str(found["cutoff"]),
        "n_without_price": planned.n_without_price,
        "notes": [OWN_PRICE_ONLY],
    }


def outcome(warehouse: Warehouse, project: Project, scenario_id: str) -> dict[str, Any]:
    """Return a scenario's totals, and the ten series that it moves most.

    Intervals are of single series: errors of one elasticity are shared, so those of a total do not follow from them.
    """
    relation = project.relation("fct_scenarios")
    totals = [
        f"sum({side}_{what}) as {side}_{what}"
        for what in ("units", "revenue", "margin")
        for side in ("base", "scenario")
    ]
    (total,) = warehouse.query(
        f"select {', '.join(totals)} from {relation} where scenario_id = ?", [scenario_id]
    ).to_pylist()
    largest = warehouse.query(
        f"""
        select
            series_id, unit_price, scenario_price, elasticity, elasticity_source, is_elasticity_assumed,
            is_elasticity_unsure, is_price_unseen, is_promotion_unmeasured, base_units, scenario_units, scenario_units_lower, scenario_units_upper,
            base_revenue, scenario_revenue, extra_margin, extra_margin_lower, extra_margin_upper
        from {relation} where scenario_id = ?
        order by coalesce(abs(extra_margin), abs(extra_units)) desc, series_id limit 10
        """,
        [scenario_id],
    ).to_pylist()
    return {"totals": total, "largest": largest}
