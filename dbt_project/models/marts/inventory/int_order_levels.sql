-- One row per fold and series: the demand to expect until an order placed at the next review arrives, and the stock
-- position to order up to. Fold 0 is the forecast in force; the folds of the backtest are what `trendcast simulate
-- inventory` replays, each with what its cutoff knew of forecasts and of the spread of their sums.
{{ config(materialized='view') }}
{%- set horizon = trendcast.settings().horizon %}
{%- set unit = '/ unit_price' if trendcast.settings().measure == 'revenue' else '' %}
with protected as (

    select
        *,
        lead_periods + review_periods as protection_periods
    from {{ ref('int_supply') }}

),

supply as (

    select
        protected.*,
        {% for span in ['lead', 'protection'] %}
        -- The forecast may end before the order arrives: it is then carried on at its mean.
        least({{ span }}_periods, {{ horizon }}) as {{ span }}_measured,
        greatest(cast({{ span }}_periods as {{ trendcast.type_double() }}) / {{ horizon }}, 1) as {{ span }}_stretch,
        {% endfor %}
        {{ trendcast.normal_quantile('service_level') }} as service_z,
        case
            when critical_ratio is not null
                then {{ trendcast.normal_quantile('least(greatest(critical_ratio, 0.0001), 0.9999)') }}
        end as newsvendor_z
    from protected

),

planned as (

    select
        supply.*,
        ends.fold,
        ends.cutoff,
        ends.demand_class,
        ends.cumulated_mean * supply.protection_stretch as protection_mean,
        ends.cumulated_variance * power(supply.protection_stretch, 2) as protection_variance,
        -- Delivery at once has no lead time demand.
        coalesce(arrivals.cumulated_mean, 0) * supply.lead_stretch as lead_mean,
        coalesce(arrivals.cumulated_variance, 0) * power(supply.lead_stretch, 2) as lead_variance
    from supply
    inner join {{ ref('int_cumulated_forecasts') }} as ends
        on supply.series_id = ends.series_id and supply.protection_measured = ends.lead
    left join {{ ref('int_cumulated_forecasts') }} as arrivals
        on
            ends.series_id = arrivals.series_id
            and ends.fold = arrivals.fold
            and supply.lead_measured = arrivals.lead

),

spread as (

    select
        planned.*,
        {% for span in ['lead', 'protection'] %}
        -- What the lead time itself varies adds up to demand per period, squared, times its variance (Silver, Pyke &
        -- Thomas 2017, 6.10).
        planned.{{ span }}_variance * coalesce(spread_of_{{ span }}.variance_factor, 1)
        + power(
            planned.protection_mean / planned.protection_periods
            * planned.lead_time_std_days / {{ trendcast.settings().days_per_period }}, 2
        ) as {{ span }}_total_variance,
        {% endfor %}
        spread_of_protection.is_measured,
        spread_of_protection.variance_factor
    from planned
    {% for span in ['lead', 'protection'] %}
    left join {{ ref('int_sum_spread') }} as spread_of_{{ span }}
        on
            planned.fold = spread_of_{{ span }}.fold
            and planned.demand_class = spread_of_{{ span }}.demand_class
            {{ trendcast.and_leading('spread_of_' ~ span) }}
            and planned.{{ span }}_measured = spread_of_{{ span }}.periods
    {% endfor %}

),

levelled as (

    select
        *,
        lead_mean {{ unit }} as lead_time_demand,
        sqrt(lead_total_variance) {{ unit }} as lead_time_demand_std,
        protection_mean {{ unit }} as protection_demand,
        {% for level in ['service', 'newsvendor'] %}
        {{ trendcast.gamma_quantile('protection_mean', 'protection_total_variance', level ~ '_z') }} {{ unit }}
            as {{ level }}_quantile,
        {% endfor %}
        sqrt(protection_total_variance) {{ unit }} as protection_demand_std
    from spread

),

final as (

    select
        fold,
        series_id,
        cutoff,
        demand_class,
        lead_periods,
        review_periods,
        service_level,
        critical_ratio,
        is_measured,
        variance_factor,
        lead_time_demand,
        lead_time_demand_std,
        protection_demand,
        protection_demand_std,
        service_quantile - protection_demand as safety_stock,
        {{ trendcast.covering_quantity('service_quantile') }} as service_units,
        {{ trendcast.covering_quantity('newsvendor_quantile') }} as newsvendor_units
    from levelled

)

select *
from final
