-- One row per series and period of the backtest: what its champion had forecast from the nearest cutoff, what came, and
-- by how many standard deviations that was off.
with errors as (

    select
        series_id,
        measure,
        target_date,
        fold,
        lead,
        demand_class,
        actual,
        mean,
        sqrt({{ trendcast.quantile_variance() }}) as std,
        row_number() over (partition by series_id, target_date order by lead) as nearness
    from {{ ref('int_champion_backtests') }}
    where actual is not null

),

final as (

    select
        series_id,
        measure,
        target_date,
        fold,
        lead,
        demand_class,
        actual,
        mean,
        std,
        -- A forecast of nothing, for sure, is off by as many as there were.
        (actual - mean) / case when std > 0 then std else 1 end as error_z
    from errors
    where nearness = 1

)

select *
from final
