{#- What the seasonal naive forecast was off by in the past, for the model ftr_baseline. -#}

{#- Appends CTEs to a `with` clause. The last is named `spread`: one row per cutoff, series and distance (`season_back`) that has
    an error, with how many errors there are in the `error_periods` up to the cutoff (`n_errors`) and their quantiles.
    DuckDB holds all values that are in an aggregate of quantiles at once and cannot put them on disk: with 100,000 series that were
    gigabytes. There each series' demand is one list, of which errors are cut row by row. -#}
{% macro naive_spread(distances, error_periods) -%}
    {{ return(adapter.dispatch('naive_spread', 'trendcast')(distances, error_periods)) }}
{%- endmacro %}

{% macro default__naive_spread(distances, error_periods) -%}
-- By lag, for the panel has no gaps: the last seasons' errors of a series come out together, which is what
-- keeps the aggregation below within memory.
lagged as (

    select
        series_id,
        {% for distance in distances %}
        y - {{ trendcast.lag_of('y', distance) }} as error_{{ distance }},
        {% endfor %}
        {% if trendcast.forecasts_prices() %}
        actual is not null as is_observed,
        {% endif %}
        t
    from {{ ref('trendcast', 'ftr_history') }}

),

errors as (

    {% for distance in distances %}
    select
        series_id,
        t,
        {{ 'is_observed,' if trendcast.forecasts_prices() }}
        {{ distance }} as season_back,
        error_{{ distance }} as error
    from lagged
    where error_{{ distance }} is not null
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

spread as (

    select
        cutoffs.cutoff_t,
        errors.series_id,
        errors.season_back,
        count(*) as n_errors,
        {{ trendcast.quantiles('errors.error', trendcast.quantile_levels().values()) }} as error_quantiles
    from errors
    inner join {{ ref('trendcast', 'int_cutoffs') }} as cutoffs
        on errors.t <= cutoffs.cutoff_t and errors.t > cutoffs.cutoff_t - {{ error_periods }}
    {% if trendcast.forecasts_prices() %}
    {{ trendcast.join_measure('errors.series_id') }}
    -- A price carried forward over periods without a sale is no forecast that came true.
    where {{ trendcast.measure_of('measured') }} <> 'average_price' or errors.is_observed
    {% endif %}
    group by 1, 2, 3

)
{%- endmacro %}

{% macro duckdb__naive_spread(distances, error_periods) -%}
{%- set observed = 'history.y' -%}
{%- if trendcast.forecasts_prices() -%}
    {#- A price carried forward over periods without a sale is no forecast that came true. -#}
    {%- set observed = 'case when ' ~ trendcast.measure_of('measured')
        ~ " <> 'average_price' or history.actual is not null then history.y end" -%}
{%- endif -%}
bounds as (

    select
        min(cutoff_t) - {{ error_periods + distances | max }} as before_t,
        max(cutoff_t) as last_t
    from {{ ref('trendcast', 'int_cutoffs') }}

),

-- Positions in the lists are periods, for the panel has no gaps.
demand as (

    select
        history.series_id,
        cast(min(history.t) as integer) as first_t,
        list(history.y order by history.t) as demand,
        list({{ observed }} order by history.t) as observed
    from {{ ref('trendcast', 'ftr_history') }} as history
    cross join bounds
    {{ trendcast.join_measure('history.series_id') }}
    where history.t > bounds.before_t and history.t <= bounds.last_t
    group by 1

),

slices as (

    select
        cutoffs.cutoff_t,
        demand.series_id,
        distances.season_back,
        demand.demand,
        demand.observed,
        greatest(cutoffs.cutoff_t - {{ error_periods - 1 }} - demand.first_t, distances.season_back) + 1 as first_at,
        cutoffs.cutoff_t - demand.first_t + 1 as last_at
    from demand
    cross join {{ ref('trendcast', 'int_cutoffs') }} as cutoffs
    cross join (select unnest([{{ distances | join(', ') }}]) as season_back) as distances

),

errors as (

    select
        cutoff_t,
        series_id,
        season_back,
        list_transform(
            list_zip(observed[first_at:last_at], demand[first_at - season_back:last_at - season_back]),
            lambda pair: pair[1] - pair[2]
        ) as error
    from slices
    where last_at >= first_at

),

spread as (

    select
        cutoff_t,
        series_id,
        season_back,
        list_count(error) as n_errors,
        list_aggregate(error, 'quantile_cont', [{{ trendcast.quantile_levels().values() | join(', ') }}]) as error_quantiles
    from errors

)
{%- endmacro %}
