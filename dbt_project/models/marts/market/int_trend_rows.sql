-- One row per fold, series and direction of its measure, and of the price: the forecast's own chance that the next
-- horizon goes that way, what else is known of it at the cutoff, and for the backtest whether it did.
{%- set prices = trendcast.forecasts_prices() %}
{%- set prefix = trendcast.by_measure({
    'quantity': "'" ~ trendcast.direction_prefix('quantity') ~ "'",
    'revenue': "'" ~ trendcast.direction_prefix('revenue') ~ "'",
    'average_price': "'" ~ trendcast.direction_prefix('average_price') ~ "'",
}) %}
{%- set theta = trendcast.number_between('price_threshold', 0, 10) %}
with demand as (

    select
        fold,
        series_id,
        {{ prefix }} as prefix,
        p_rising,
        p_falling,
        -- 0 for a series too young.
        coalesce({{ trendcast.level_ratio('last_level', 'previous_level') }}, 0) as momentum,
        coalesce(
            {{ trendcast.level_ratio('last_level', 'previous_level') }}
            - {{ trendcast.level_ratio('previous_level', 'earlier_level') }}, 0
        ) as acceleration,
        {{ trendcast.level_ratio('expected_level', 'last_level') }} as growth,
        case when actual_level > upper_level then 1.0e0 when actual_level is not null then 0.0e0 end as is_rising,
        case when actual_level < lower_level then 1.0e0 when actual_level is not null then 0.0e0 end as is_falling
    from {{ ref('int_levels') }}

),

{% if not prices -%}
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
        'price_' as prefix,
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

{% endif -%}
directed as (

    {% for source in (['demand'] if prices else ['demand', 'price']) %}
    {%- set last = loop.last %}
    {%- for direction in ('rising', 'falling') %}
    select
        fold,
        series_id,
        prefix || '{{ direction }}' as direction,
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
