-- One row per fold, series and lead of the backtest of each measure's and demand class' champion, beside what happened.
{{ config(materialized='view') }}
select backtests.*
from {{ ref('int_backtests') }} as backtests
inner join {{ ref('fct_champions') }} as champions
    on
        backtests.demand_class = champions.demand_class
        and backtests.model = champions.model
        {{ trendcast.and_same_measure('backtests', 'champions') }}
        and champions.champion_rank = 1
