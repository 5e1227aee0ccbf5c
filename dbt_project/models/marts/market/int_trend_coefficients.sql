-- One row per fold and direction: a logistic regression of what the forecast's own chance leaves unsaid, learnt on
-- the backtest's older folds alone. Of each coefficient it is believed beforehand that it is 0, give or take a
-- half, so that a short backtest leaves the forecast's chance as it is.
{%- set regressors = ['momentum', 'acceleration', 'growth'] %}
with folds as (

    select distinct fold
    from {{ ref('int_trend_rows') }}

),

older as (

    select
        folds.fold,
        known.direction,
        known.log_odds,
        {% for name in regressors %}
        known.{{ name }},
        {% endfor %}
        known.came_true
    from folds
    inner join {{ ref('int_trend_rows') }} as known
        on folds.fold < known.fold
    where known.came_true is not null

),

{{ trendcast.logistic_regression(
    'older', ['fold', 'direction'], regressors, 'came_true', rounds=5, offset='log_odds', prior_std=0.5) }}

select
    fold,
    direction,
    b_one,
    {% for name in regressors %}
    b_{{ name }},
    {% endfor %}
    n_rows,
    n_true
from logistic_fit
