-- Whatever series are grouped by, the groups' means add up to the forecast.
with summed as (

    select
        group_by,
        grain,
        sum(mean) as total
    from {{ ref('int_group_periods') }}
    where fold = 0
    group by 1, 2

),

forecast as (

    select sum(mean) as total
    from {{ ref('fct_forecasts') }}
    where {{ trendcast.is_in_units() }}

)

select
    summed.*,
    forecast.total as forecast_total
from summed
cross join forecast
where abs(summed.total - forecast.total) > 0.000001 * (1 + forecast.total)
