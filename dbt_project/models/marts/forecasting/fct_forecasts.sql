-- One row per series and target period: the champion's forecast of the latest committed run that has the series, or the
-- SQL baseline.
{%- set quantiles = trendcast.quantile_levels().keys() | list %}
with runs as (

    {{ trendcast.runs_in_force() | indent(4) }}

),

-- A run of a part of the portfolio leaves the other series the forecasts they have.
newest as (

    select
        forecasts.series_id,
        min(runs.run_rank) as run_rank
    from {{ ref('forecasts') }} as forecasts
    inner join runs
        on forecasts.run_id = runs.run_id
    group by 1

),

latest as (

    select forecasts.*
    from {{ ref('forecasts') }} as forecasts
    inner join runs
        on forecasts.run_id = runs.run_id
    inner join newest
        on forecasts.series_id = newest.series_id and runs.run_rank = newest.run_rank

),

-- The best-ranked model of the series' class that the run has; an unranked model comes last.
ranked as (

    select
        latest.*,
        series.demand_class,
        {{ trendcast.measure_of('series') }} as measure,
        row_number() over (
            partition by latest.series_id, latest.lead
            order by coalesce(champions.champion_rank, 1000), latest.model
        ) as model_rank
    from latest
    left join {{ ref('dim_series') }} as series
        on latest.series_id = series.series_id
    left join {{ ref('fct_champions') }} as champions
        on
            latest.model = champions.model
            {{ trendcast.and_same_measure('series', 'champions') }}
            and series.demand_class = champions.demand_class

),

served as (

    select distinct series_id
    from latest

),

-- Stands in for every series until a run exists, and after that for series newer than the run.
baseline as (

    select
        baseline.*,
        {{ trendcast.measure_of('measured') }} as measure
    from {{ ref('ftr_baseline') }} as baseline
    left join served
        on baseline.series_id = served.series_id
    {{ trendcast.join_measure('baseline.series_id') }}
    where baseline.fold = 0 and served.series_id is null

)

select
    series_id,
    target_date,
    lead,
    cutoff,
    model,
    run_id,
    demand_class,
    mean,
    {{ quantiles | join(',\n    ') }},
    measure
from ranked
where model_rank = 1
union all
select
    series_id,
    target_date,
    lead,
    cutoff,
    'seasonal_naive' as model,
    cast(null as {{ dbt.type_string() }}) as run_id,
    demand_class,
    mean,
    {{ quantiles | join(',\n    ') }},
    measure
from baseline
