-- One row per model, fold, series and lead of the latest committed backtest; of the SQL baseline while there is none.
{{ config(materialized='view') }}
{%- set quantiles = trendcast.quantile_levels().keys() | list %}
with ledger as (

    select
        model,
        fold,
        series_id,
        cutoff,
        target_date,
        lead,
        demand_class,
        error_scale,
        actual,
        mean,
        {{ quantiles | join(', ') }}
    from {{ ref('backtests') }}
    where run_id = ({{ trendcast.latest_run('backtests') }})

),

baseline as (

    select
        'seasonal_naive' as model,
        baseline.fold,
        baseline.series_id,
        baseline.cutoff,
        baseline.target_date,
        baseline.lead,
        baseline.demand_class,
        baseline.error_scale,
        history.y as actual,
        baseline.mean,
        baseline.{{ quantiles | join(', baseline.') }}
    from {{ ref('ftr_baseline') }} as baseline
    inner join {{ ref('ftr_history') }} as history
        on baseline.series_id = history.series_id and baseline.target_t = history.t
    where
        baseline.fold > 0
        and not exists ({{ trendcast.latest_run('backtests') }})

)

select *
from ledger
union all
select *
from baseline
