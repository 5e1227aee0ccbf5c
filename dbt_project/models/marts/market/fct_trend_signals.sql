-- One row per series: whether its next horizon rises or falls against its last one, how surely, what is about to
-- be hot, and where the price goes.
{%- set sure = trendcast.number_between('trend_probability', 0, 1) %}
with chances as (

    select
        series_id,
        {% for direction in ('rising', 'falling', 'price_rising', 'price_falling') %}
        max(case when direction = '{{ direction }}' then chance end) as p_{{ direction }},
        max(case when direction = '{{ direction }}' then model end) as {{ direction }}_model,
        {% endfor %}
        count(*) as n_directions
    from {{ ref('int_trend_chances') }}
    where fold = 0
    group by 1

),

levels as (

    select
        levels.fold,
        levels.series_id,
        levels.cutoff,
        levels.earlier_level,
        levels.previous_level,
        levels.last_level,
        levels.expected_level,
        levels.expected_level_std,
        levels.sale_periods,
        levels.is_measured,
        {{ trendcast.category_of('series') }} as category,
        chances.p_rising,
        chances.p_falling,
        greatest(1 - chances.p_rising - chances.p_falling, 0) as p_stable,
        chances.rising_model,
        chances.falling_model,
        chances.p_price_rising,
        chances.p_price_falling
    from {{ ref('int_levels') }} as levels
    inner join {{ ref('dim_series') }} as series
        on levels.series_id = series.series_id
    inner join chances
        on levels.series_id = chances.series_id
    where levels.fold = 0

),

described as (

    select
        levels.*,
        -- Half a unit, so that growth from nothing is finite.
        ln((last_level + 0.5e0) / (previous_level + 0.5e0)) as momentum,
        ln((last_level + 0.5e0) / (previous_level + 0.5e0))
        - ln((previous_level + 0.5e0) / (earlier_level + 0.5e0)) as acceleration,
        last_level / nullif(sum(last_level) over (partition by category), 0) as last_share,
        expected_level / nullif(sum(expected_level) over (partition by category), 0) as expected_share,
        case
            when p_rising >= p_falling and p_rising >= p_stable then 'rising'
            when p_falling >= p_stable then 'falling'
            else 'stable'
        end as direction,
        greatest(p_rising, p_falling, p_stable) as probability
    from levels

),

-- What came of such probabilities on the backtest, as if 20 more forecasts of them had been right.
backed as (

    select
        described.*,
        (coalesce(calibration.n_forecasts * calibration.share_came_true, 0) + 20 * described.probability)
        / (coalesce(calibration.n_forecasts, 0) + 20) as confidence
    from described
    left join {{ ref('fct_trend_calibration') }} as calibration
        on
            described.direction = calibration.direction
            and cast(least(floor(described.probability * 10), 9) as integer) = calibration.tenth

),

judged as (

    select
        backed.*,
        confidence >= {{ sure }} as is_sure,
        direction = 'rising'
        and confidence >= {{ sure }}
        and last_level >= {{ trendcast.number_between('trend_support', 0, 1000000000) }} as is_hot
    from backed

),

ranked as (

    select
        judged.*,
        case when is_hot then cast(row_number() over (
            partition by is_hot order by confidence * (expected_level - last_level) desc, series_id
        ) as integer) end as hot_rank
    from judged

),

final as (

    select
        ranked.series_id,
        ranked.cutoff,
        ranked.category,
        ranked.direction,
        ranked.probability,
        ranked.confidence,
        ranked.is_sure,
        ranked.p_rising,
        ranked.p_falling,
        ranked.rising_model,
        ranked.falling_model,
        ranked.last_level,
        ranked.expected_level,
        ranked.expected_level_std,
        ranked.expected_level / nullif(ranked.last_level, 0) - 1 as expected_growth,
        ranked.momentum,
        ranked.acceleration,
        case when changes.change_probability >= 0.99 then changes.change_date end as change_date,
        changes.change_probability,
        changes.level_before as level_before_change,
        changes.level_after as level_after_change,
        ranked.last_share,
        ranked.expected_share,
        ranked.is_hot,
        ranked.hot_rank,
        ranked.last_level as support,
        ranked.sale_periods,
        ranked.is_measured as is_spread_measured,
        prices.last_price,
        prices.previous_price,
        prices.last_price / prices.previous_price - 1 as price_change,
        prices.last_price * exp(prices.expected_change) as expected_price,
        exp(prices.expected_change) - 1 as expected_price_change,
        case
            when prices.last_price is null then 'unknown'
            when
                1 - ranked.p_price_rising - ranked.p_price_falling
                > greatest(ranked.p_price_rising, ranked.p_price_falling)
                then 'stable'
            when ranked.p_price_rising >= ranked.p_price_falling then 'rising'
            else 'falling'
        end as price_direction,
        ranked.p_price_rising,
        ranked.p_price_falling
    from ranked
    left join {{ ref('int_price_levels') }} as prices
        on ranked.series_id = prices.series_id and prices.fold = 0
    left join {{ ref('int_change_points') }} as changes
        on ranked.series_id = changes.series_id

)

select *
from final
