-- One row per series: what to order now, and the levels, chances and costs that say so. Units, whatever the measure.
{%- set days = trendcast.settings().days_per_period %}
{%- set unit = '/ supply.unit_price' if trendcast.settings().measure == 'revenue' else '' %}
with levels as (

    select *
    from {{ ref('int_order_levels') }}
    where fold = 0

),

-- Demand and deliveries of the periods to come beside what is in stock.
arriving as (

    select
        forecasts.series_id,
        forecasts.lead,
        sum(orders.quantity) as arrived
    from {{ ref('int_cumulated_forecasts') }} as forecasts
    inner join {{ ref('int_open_orders') }} as orders
        on
            forecasts.series_id = orders.series_id
            and orders.expected_date <= {{ trendcast.period_end('forecasts.target_date') }}
    where forecasts.fold = 0
    group by 1, 2

),

projected as (

    select
        forecasts.series_id,
        forecasts.lead,
        forecasts.target_date,
        forecasts.cumulated_mean {{ unit }} as demand,
        lag(forecasts.cumulated_mean {{ unit }}, 1, 0) over (
            partition by forecasts.series_id order by forecasts.lead
        ) as demand_before,
        supply.on_hand,
        supply.lead_periods,
        coalesce(arriving.arrived, 0) as arrived
    from {{ ref('int_cumulated_forecasts') }} as forecasts
    inner join {{ ref('int_supply') }} as supply
        on forecasts.series_id = supply.series_id
    left join arriving
        on forecasts.series_id = arriving.series_id and forecasts.lead = arriving.lead
    where forecasts.fold = 0

),

cover as (

    select
        series_id,
        max(demand) as horizon_demand,
        max(lead) as horizon,
        -- A period counts by the share of its demand that what is on hand covers.
        sum(case
            when on_hand >= demand then 1
            when on_hand > demand_before then (on_hand - demand_before) / (demand - demand_before)
            when on_hand is not null then 0
        end) as periods_covered,
        max(case when lead <= lead_periods then arrived else 0 end) as arriving_in_lead_time,
        min(case when demand > on_hand + arrived then target_date end) as projected_stockout_date
    from projected
    group by 1

),

valued as (

    select
        levels.*,
        supply.supplier,
        supply.lead_time_days,
        supply.lead_time_std_days,
        supply.pack_size,
        supply.minimum_order,
        supply.unit_price,
        supply.unit_cost,
        supply.holding_cost,
        supply.shortage_cost,
        supply.on_hand,
        supply.stock_counted_on,
        supply.on_order,
        supply.on_hand + supply.on_order as stock_position,
        supply.defaults_used,
        supply.on_hand + cover.arriving_in_lead_time as stock_in_lead_time,
        cover.projected_stockout_date,
        case
            when supply.on_hand >= cover.horizon_demand
                then supply.on_hand / nullif(cover.horizon_demand, 0) * cover.horizon
            else cover.periods_covered
        end * {{ days }} as days_of_cover,
        levels.protection_demand / (levels.lead_periods + levels.review_periods) / {{ days }} as daily_demand,
        levels.lead_periods + levels.review_periods > cover.horizon as is_beyond_horizon
    from levels
    inner join {{ ref('int_supply') }} as supply
        on levels.series_id = supply.series_id
    inner join cover
        on levels.series_id = cover.series_id

),

raised as (

    select
        valued.*,
        service_units as reorder_point,
        newsvendor_units as newsvendor_quantity,
        -- Harris (1913): what an order costs against what holding half of it costs.
        sqrt(
            2.0e0 * {{ trendcast.number_between('order_cost', 0, 1000000000) }} * daily_demand
            / nullif(holding_cost, 0)
        ) as economic_order_quantity
    from valued

),

levelled as (

    select
        raised.*,
        reorder_point + {{ 'ceil' if var('whole_units') }}(coalesce(economic_order_quantity, 0)) as order_up_to_level
    from raised

),

ordered as (

    select
        levelled.*,
        case
            when stock_position is null then null
            when stock_position > reorder_point or stock_position >= order_up_to_level then 0
            else ceil(greatest(order_up_to_level - stock_position, minimum_order) / pack_size) * pack_size
        end as recommended_quantity
    from levelled

),

final as (

    select
        series_id,
        cutoff,
        case
            when recommended_quantity is null then 'count_stock'
            when recommended_quantity > 0 then 'order'
            else 'wait'
        end as action,
        recommended_quantity,
        recommended_quantity * unit_cost as order_value,
        supplier,
        on_hand,
        stock_counted_on,
        on_order,
        stock_position,
        days_of_cover,
        1 - {{ trendcast.gamma_cdf(
            'stock_in_lead_time + ' ~ trendcast.half_unit(), 'lead_time_demand', '(lead_time_demand_std * lead_time_demand_std)'
        ) }} as stockout_probability,
        projected_stockout_date,
        service_level,
        reorder_point,
        safety_stock,
        order_up_to_level,
        economic_order_quantity,
        newsvendor_quantity,
        critical_ratio,
        lead_time_demand,
        lead_time_demand_std,
        protection_demand,
        protection_demand_std,
        variance_factor,
        lead_time_days,
        lead_time_std_days,
        cast(review_periods * {{ days }} as {{ trendcast.type_double() }}) as review_days,
        pack_size,
        minimum_order,
        unit_price,
        unit_cost,
        holding_cost,
        shortage_cost,
        demand_class,
        is_beyond_horizon,
        is_measured as is_spread_measured,
        defaults_used <> '' as uses_defaults,
        defaults_used
    from ordered

)

select *
from final
