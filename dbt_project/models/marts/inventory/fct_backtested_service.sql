-- One row per fold and series: demand over lead time and review interval after a cutoff of the backtest, and what of
-- it the position to order up to would have served. Series whose interval is longer than the horizon are left out.
{%- set unit = '/ supply.unit_price' if trendcast.settings().measure == 'revenue' else '' %}
with served as (

    select
        levels.fold,
        levels.series_id,
        levels.cutoff,
        levels.demand_class,
        levels.service_level,
        levels.service_units as order_up_to_level,
        ends.cumulated_actual {{ unit }} as demand
    from {{ ref('int_order_levels') }} as levels
    inner join {{ ref('int_supply') }} as supply
        on levels.series_id = supply.series_id
    inner join {{ ref('int_cumulated_forecasts') }} as ends
        on
            levels.fold = ends.fold
            and levels.series_id = ends.series_id
            and levels.lead_periods + levels.review_periods = ends.lead
    where levels.fold > 0 and ends.cumulated_actual is not null

)

select
    fold,
    series_id,
    cutoff,
    demand_class,
    service_level,
    order_up_to_level,
    demand,
    least(demand, order_up_to_level) as served_demand,
    demand <= order_up_to_level as is_without_stockout
from served
