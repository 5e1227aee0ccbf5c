-- One row per model, fold, series and lead of the latest committed backtest; of the SQL baseline while there is none.
{{ config(materialized='view') }}
{%- set quantiles = trendcast.quantile_levels().keys() | list %}
with ledger as (

    select
        backtests.model,
        backtests.fold,
        backtests.series_id,
        backtests.cutoff,
        backtests.target_date,
        backtests.lead,
        backtests.demand_class,
        backtests.error_scale,
        backtests.actual,
        backtests.mean,
        backtests.{{ quantiles | join(', backtests.') }},
        {{ trendcast.measure_of('measured') }} as measure
    from {{ ref('backtests') }} as backtests
    {{ trendcast.join_measure('backtests.series_id') }}
    where backtests.run_id = ({{ trendcast.latest_run('backtests') }})

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
        {{ trendcast.by_measure({
            'quantity': 'history.y', 'revenue': 'history.y', 'average_price': 'history.actual'
        }, 'measured.measure') }} as actual,
        baseline.mean,
        baseline.{{ quantiles | join(', baseline.') }},
        {{ trendcast.measure_of('measured') }} as measure
    from {{ ref('ftr_baseline') }} as baseline
    inner join {{ ref('ftr_history') }} as history
        on baseline.series_id = history.series_id and baseline.target_t = history.t
    {{ trendcast.join_measure('baseline.series_id') }}
    where
        baseline.fold > 0
        {{ 'and ' ~ trendcast.by_measure({
            'quantity': 'true', 'revenue': 'true', 'average_price': 'history.actual is not null'
        }, 'measured.measure') if trendcast.forecasts_prices() }}
        and not exists ({{ trendcast.latest_run('backtests') }})

)

select *
from ledger
union all
select *
from baseline
