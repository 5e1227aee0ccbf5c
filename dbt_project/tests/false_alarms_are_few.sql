-- Intervals that older folds calibrated call about as many backtested actuals unusual as the var `anomaly_rate` says.
-- Three times that is more than chance: the errors have changed, or the folds are too few to calibrate.
{{ config(severity='warn') }}
select
    fold,
    measure,
    demand_class,
    n_errors,
    false_alarm_rate
from {{ ref('int_anomaly_bounds') }}
where n_errors >= 1000 and false_alarm_rate > 3 * {{ trendcast.number_between('anomaly_rate', 0, 1) }}
