-- One row per series and period of the backtest: what its champion had forecast from the nearest cutoff, what came, and
-- by how many standard deviations that was off.
with errors as (

    select
        backtests.series_id,
        backtests.target_date,
        backtests.fold,
        backtests.lead,
        backtests.demand_class,
        backtests.actual,
        backtests.mean,
        sqrt({{ trendcast.quantile_variance('backtests.') }}) as std,
        row_number() over (partition by backtests.series_id, backtests.target_date order by backtests.lead) as nearness
    from {{ ref('int_backtests') }} as backtests
    inner join {{ ref('fct_champions') }} as champions
        on
            backtests.demand_class = champions.demand_class
            and backtests.model = champions.model
            and champions.champion_rank = 1
    where backtests.actual is not null

),

final as (

    select
        series_id,
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
