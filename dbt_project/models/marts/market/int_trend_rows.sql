-- One row per fold, series and direction of demand and of the price: the forecast's own chance that the next
-- horizon goes that way, what else is known of it at the cutoff, and for the backtest whether it did.
{%- set theta = trendcast.number_between('price_threshold', 0, 10) %}
with demand as (

    select
        fold,
        series_id,
        p_rising,
        p_falling,
        -- Half a unit, so that growth from nothing is finite; 0 for a series too young.
        coalesce(ln((last_level + 0.5e0) / (previous_level + 0.5e0)), 0) as momentum,
        coalesce(
            ln((last_level + 0.5e0) / (previous_level + 0.5e0))
            - ln((previous_level + 0.5e0) / (earlier_level + 0.5e0)), 0
        ) as acceleration,
        ln((expected_level + 0.5e0) / (last_level + 0.5e0)) as growth,
        case when actual_level > upper_level then 1.0e0 when actual_level is not null then 0.0e0 end as is_rising,
        case when actual_level < lower_level then 1.0e0 when actual_level is not null then 0.0e0 end as is_falling
    from {{ ref('int_levels') }}

),

bounds as (

    select
        prices.*,
        ({{ 'ln(' ~ (1 + theta) ~ 'e0)' }} - expected_change) / change_std as upper_z,
        ({{ 'ln(' ~ ([1 - theta, 1e-9] | max) ~ ')' }} - expected_change) / change_std as lower_z
    from {{ ref('int_price_levels') }} as prices

),

price as (

    select
        fold,
        series_id,
        1 - ({{ trendcast.normal_cdf('upper_z') }}) as p_rising,
        {{ trendcast.normal_cdf('lower_z') }} as p_falling,
        coalesce(ln(last_price / previous_price), 0) as momentum,
        coalesce(ln(last_price / previous_price) - ln(previous_price / earlier_price), 0) as acceleration,
        expected_change as growth,
        case
            when actual_price > last_price * {{ 1 + theta }} then 1.0e0 when actual_price is not null then 0.0e0
        end as is_rising,
        case
            when actual_price < last_price * {{ [1 - theta, 0] | max }} then 1.0e0
            when actual_price is not null then 0.0e0
        end as is_falling
    from bounds

),

directed as (

    {% for source, prefix in [('demand', ''), ('price', 'price_')] %}
    {%- set last = loop.last %}
    {%- for direction in ('rising', 'falling') %}
    select
        fold,
        series_id,
        '{{ prefix ~ direction }}' as direction,
        p_{{ direction }} as forecast_chance,
        momentum,
        acceleration,
        growth,
        cast(is_{{ direction }} as {{ trendcast.type_double() }}) as came_true
    from {{ source }}
    {{ 'union all' if not (last and loop.last) }}
    {%- endfor %}
    {%- endfor %}

),

final as (

    select
        directed.*,
        ln(
            greatest(least(forecast_chance, 0.999), 0.001) / (1 - greatest(least(forecast_chance, 0.999), 0.001))
        ) as log_odds
    from directed

)

select *
from final
