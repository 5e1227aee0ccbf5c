-- One row per direction and tenth of its probability: how often the backtest's series, or their prices, went that
-- way, by what older folds knew. A probability is right where `share_came_true` is near `mean_probability`.
with called as (

    select
        chances.direction,
        chances.chance as probability,
        chances.came_true
    from {{ ref('int_trend_chances') }} as chances
    inner join {{ ref('int_levels') }} as levels
        on chances.fold = levels.fold and chances.series_id = levels.series_id
    where chances.fold > 0 and levels.is_measured and chances.came_true is not null

),

tenths as (

    select
        called.*,
        cast(least(floor(probability * 10), 9) as integer) as tenth
    from called

),

final as (

    select
        direction,
        tenth,
        count(*) as n_forecasts,
        avg(probability) as mean_probability,
        cast(avg(came_true) as {{ trendcast.type_double() }}) as share_came_true,
        avg(power(probability - came_true, 2)) as brier_score
    from tenths
    group by 1, 2

)

select *
from final
