-- One row per series: whether its next horizon rises or falls against its last one, how surely, and what is about to be
-- hot.
{%- set sure = trendcast.number_between('trend_probability', 0, 1) %}
with levels as (

    select
        levels.*,
        {{ trendcast.category_of('series') }} as category,
        1 - levels.p_rising - levels.p_falling as p_stable
    from {{ ref('int_levels') }} as levels
    inner join {{ ref('dim_series') }} as series
        on levels.series_id = series.series_id
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
        ranked.is_measured as is_spread_measured
    from ranked
    left join {{ ref('int_change_points') }} as changes
        on ranked.series_id = changes.series_id

)

select *
from final
