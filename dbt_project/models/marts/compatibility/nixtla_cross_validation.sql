-- One row per series, cutoff and target period of the backtest: the champion's forecast under the names of Nixtla's
-- cross_validation().
select
    series_id as unique_id,
    target_date as ds,
    cutoff,
    actual as y,
    mean as trendcast,
    {{ trendcast.nixtla_intervals() }}
from {{ ref('int_champion_backtests') }}
