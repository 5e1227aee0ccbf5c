-- One row per series and target period: the champion's forecast of the latest committed run that has the series, or the
-- SQL baseline; of a series with little or no history, the forecast by analogy.
{%- set medium = trendcast.settings().windows[1] %}
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

-- Which models it has of each; forecasts themselves are only read once it is known whose.
held as (

    select distinct
        forecasts.series_id,
        forecasts.run_id,
        forecasts.model
    from {{ ref('forecasts') }} as forecasts
    inner join runs
        on forecasts.run_id = runs.run_id
    inner join newest
        on forecasts.series_id = newest.series_id and runs.run_rank = newest.run_rank

),

-- The best-ranked model of the series' class that the run has; an unranked model comes last. A class that no backtest
-- met is served by the ensemble, or by analogy.
ranked as (

    select
        held.*,
        series.demand_class,
        row_number() over (
            partition by held.series_id
            order by
                coalesce(champions.champion_rank, 1000),
                case held.model when 'ensemble' then 0 when 'analogy' then 1 else 2 end,
                held.model
        ) as model_rank
    from held
    left join {{ ref('dim_series') }} as series
        on held.series_id = series.series_id
    left join {{ ref('fct_champions') }} as champions
        on
            held.model = champions.model
            {{ trendcast.and_same_measure('series', 'champions') }}
            and series.demand_class = champions.demand_class

),

chosen as (

    select *
    from ranked
    where model_rank = 1

),

borrowing as (

    select distinct series_id
    from {{ ref('ftr_analogy') }}
    where fold = 0

),

-- Stands in for every series until a run exists, and after that for series newer than the run.
unserved as (

    select
        series_id,
        target_date,
        lead,
        cutoff,
        'analogy' as model,
        demand_class,
        mean,
        {{ quantiles | join(', ') }}
    from {{ ref('ftr_analogy') }}
    where fold = 0
    union all
    select
        baseline.series_id,
        baseline.target_date,
        baseline.lead,
        baseline.cutoff,
        'seasonal_naive' as model,
        baseline.demand_class,
        baseline.mean,
        baseline.{{ quantiles | join(', baseline.') }}
    from {{ ref('ftr_baseline') }} as baseline
    left join borrowing
        on baseline.series_id = borrowing.series_id
    where baseline.fold = 0 and borrowing.series_id is null

),

in_force as (

    select
        forecasts.series_id,
        forecasts.target_date,
        forecasts.lead,
        forecasts.cutoff,
        forecasts.model,
        forecasts.run_id,
        chosen.demand_class,
        forecasts.mean,
        forecasts.{{ quantiles | join(', forecasts.') }}
    from {{ ref('forecasts') }} as forecasts
    inner join chosen
        on
            forecasts.series_id = chosen.series_id
            and forecasts.run_id = chosen.run_id
            and forecasts.model = chosen.model
    union all
    select
        unserved.series_id,
        unserved.target_date,
        unserved.lead,
        unserved.cutoff,
        unserved.model,
        cast(null as {{ dbt.type_string() }}) as run_id,
        unserved.demand_class,
        unserved.mean,
        unserved.{{ quantiles | join(', unserved.') }}
    from unserved
    left join newest
        on unserved.series_id = newest.series_id
    where newest.series_id is null

),

evidence as (

    select
        in_force.*,
        case
            when series.first_t is null then 0
            else greatest({{ trendcast.period_index('in_force.cutoff') }} - series.first_t + 1, 0)
        end as evidence_periods,
        {% if trendcast.has_measures() %}
        -- What is planned and has not sold is of the leading measure.
        coalesce(series.measure, '{{ trendcast.measures()[0] }}') as measure
        {% else %}
        '{{ trendcast.measures()[0] }}' as measure
        {% endif %}
    from in_force
    left join {{ ref('int_series') }} as series
        on in_force.series_id = series.series_id

)

select
    series_id,
    target_date,
    lead,
    cutoff,
    model,
    run_id,
    demand_class,
    evidence_periods <= {{ medium }} as is_new,
    cast(evidence_periods as integer) as evidence_periods,
    mean,
    {{ quantiles | join(',\n    ') }},
    measure
from evidence
