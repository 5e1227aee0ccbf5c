-- One row per fold, series and direction: the chance in force that the next horizon goes that way, the logistic
-- regression's where fct_trend_accuracy says so and older folds could be learnt from, else the forecast's own.
with chosen as (

    select learnt.*
    from {{ ref('int_trend_coefficients') }} as learnt
    inner join {{ ref('fct_trend_accuracy') }} as judged
        on learnt.direction = judged.direction
    where judged.model = 'logistic' and judged.is_in_force

)

select
    states.fold,
    states.series_id,
    states.direction,
    states.came_true,
    case when chosen.fold is null then 'forecast' else 'logistic' end as model,
    cast(case
        when chosen.fold is null then states.forecast_chance
        else {{ trendcast.logistic('chosen', 'states', ['momentum', 'acceleration', 'growth'], offset='log_odds') }}
    end as {{ trendcast.type_double() }}) as chance
from {{ ref('int_trend_rows') }} as states
left join chosen
    on states.fold = chosen.fold and states.direction = chosen.direction
