-- One row per direction and model: how good its probabilities were on the backtest's folds that older ones could
-- be learnt from, and whether it is the one in force: the logistic regression only where it was better than the
-- forecast's own chance by a standard error (Breiman, Friedman, Olshen & Stone 1984).
{%- set regressors = ['momentum', 'acceleration', 'growth'] %}
with chances as (

    select
        learnt.direction,
        learnt.fold,
        states.series_id,
        states.came_true,
        states.forecast_chance as forecast,
        {{ trendcast.logistic('learnt', 'states', regressors, offset='log_odds') }} as logistic,
        learnt.n_true / learnt.n_rows as base_rate
    from {{ ref('int_trend_rows') }} as states
    inner join {{ ref('int_trend_coefficients') }} as learnt
        on states.fold = learnt.fold and states.direction = learnt.direction
    where states.came_true is not null

),

modelled as (

    {% for model in ('forecast', 'logistic', 'base_rate') %}
    select
        direction,
        '{{ model }}' as model,
        fold,
        series_id,
        came_true,
        {{ model }} as probability,
        power({{ model }} - came_true, 2) - power(forecast - came_true, 2) as excess
    from chances
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

ranked as (

    select
        modelled.*,
        -- Equal but for the last bits, which are the engine's, is equal.
        rank() over (
            partition by direction, model
            order by cast(probability as {{ trendcast.type_fine() }})
        ) as low_rank,
        count(*) over (partition by direction, model, cast(probability as {{ trendcast.type_fine() }})) as ties
    from modelled

),

summed as (

    select
        direction,
        model,
        count(*) as n_forecasts,
        cast(sum(came_true) as {{ trendcast.type_double() }}) as n_true,
        {% for name, expression in {
            'mean_probability': 'probability',
            'brier_score': 'power(probability - came_true, 2)',
            'excess': 'excess',
            'squared_excess': 'power(excess, 2)',
        }.items() %}
        cast(avg(cast({{ expression }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }}) as {{ name }},
        {% endfor %}
        -- Mann & Whitney (1947), ties counted by half.
        sum(case when came_true = 1 then low_rank + (ties - 1) / 2.0e0 end) as true_ranks
    from ranked
    group by 1, 2

),

judged as (

    select
        summed.*,
        model = 'logistic'
        and excess + sqrt(greatest(squared_excess - power(excess, 2), 0) / n_forecasts) < 0 as is_better
    from summed

),

-- The regression or, where it is not better, the forecast.
beaten as (

    select
        judged.*,
        max(case when is_better then 1 else 0 end) over (partition by direction) = 1 as is_beaten
    from judged

),

final as (

    select
        direction,
        model,
        n_forecasts,
        n_true / n_forecasts as share_came_true,
        mean_probability,
        brier_score,
        (true_ranks - n_true * (n_true + 1) / 2) / nullif(n_true * (n_forecasts - n_true), 0) as auc,
        is_better or (model = 'forecast' and not is_beaten) as is_in_force
    from beaten

)

select *
from final
