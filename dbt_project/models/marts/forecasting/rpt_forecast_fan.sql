-- One row per series and period: actuals up to the forecast's cutoff, then the forecast with its bands.
{%- set periods = 2 * trendcast.settings().windows[2] %}
with forecasts as (

    select *
    from {{ ref('fct_forecasts') }}

),

cutoff as (

    select max(cutoff) as cutoff
    from forecasts

)

select
    history.series_id,
    history.ds,
    'actual' as kind,
    cast(null as {{ dbt.type_string() }}) as model,
    history.y as actual,
    cast(null as {{ trendcast.type_double() }}) as mean,
    cast(null as {{ trendcast.type_double() }}) as lower_95,
    cast(null as {{ trendcast.type_double() }}) as lower_80,
    cast(null as {{ trendcast.type_double() }}) as median,
    cast(null as {{ trendcast.type_double() }}) as upper_80,
    cast(null as {{ trendcast.type_double() }}) as upper_95
from {{ ref('ftr_history') }} as history
cross join cutoff
where
    history.ds <= cutoff.cutoff
    and history.t > (select cutoff_t from {{ ref('int_cutoffs') }} where fold = 0) - {{ periods }}
union all
select
    series_id,
    target_date as ds,
    'forecast' as kind,
    model,
    cast(null as {{ trendcast.type_double() }}) as actual,
    mean,
    q025 as lower_95,
    q10 as lower_80,
    q50 as median,
    q90 as upper_80,
    q975 as upper_95
from forecasts
