-- One row per series and period: actuals up to the forecast's cutoff, then the forecast with its bands.
{%- set periods = 2 * trendcast.settings().windows[2] %}
{%- set null_value = 'cast(null as ' ~ trendcast.type_double() ~ ')' %}
with forecasts as (

    select *
    from {{ ref('fct_forecasts') }}

),

made as (

    select
        series_id,
        max(cutoff) as cutoff,
        max(measure) as measure
    from forecasts
    group by 1

),

actuals as (

    select
        history.series_id,
        history.ds,
        history.y,
        made.measure
    from {{ ref('ftr_history') }} as history
    inner join made
        on history.series_id = made.series_id and history.ds <= made.cutoff
    where history.t > {{ trendcast.last_cutoff() }} - {{ periods }}

)

select
    series_id,
    ds,
    'actual' as kind,
    cast(null as {{ dbt.type_string() }}) as model,
    y as actual,
    {{ null_value }} as mean,
    {{ null_value }} as lower_95,
    {{ null_value }} as lower_80,
    {{ null_value }} as median,
    {{ null_value }} as upper_80,
    {{ null_value }} as upper_95,
    measure
from actuals
union all
select
    series_id,
    target_date as ds,
    'forecast' as kind,
    model,
    {{ null_value }} as actual,
    mean,
    q025 as lower_95,
    q10 as lower_80,
    q50 as median,
    q90 as upper_80,
    q975 as upper_95,
    measure
from forecasts
