-- One row per direction and tenth of its probability: how often the backtest's series went that way, by what older
-- folds knew. A probability is right where `share_came_true` is near `mean_probability`.
with called as (

    select
        'rising' as direction,
        p_rising as probability,
        case when actual_level > upper_level then 1.0e0 else 0.0e0 end as came_true
    from {{ ref('int_levels') }}
    where fold > 0 and is_measured and actual_level is not null
    union all
    select
        'falling' as direction,
        p_falling as probability,
        case when actual_level < lower_level then 1.0e0 else 0.0e0 end as came_true
    from {{ ref('int_levels') }}
    where fold > 0 and is_measured and actual_level is not null

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
        avg(came_true) as share_came_true,
        avg(power(probability - came_true, 2)) as brier_score
    from tenths
    group by 1, 2

)

select *
from final
