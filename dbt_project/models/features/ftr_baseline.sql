-- One row per series, cutoff (the last one and the backtest's) and lead: the seasonal naive forecast, the
-- yardstick every model is held against and what BI sees until a run exists. The mean is the last value
-- observed at the target's position in the season; quantiles are those of its own past errors at the same
-- distance (Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 5.5), over eight seasons.
{%- set settings = trendcast.settings() %}
{%- set season = settings.season_length %}
{%- set distances = range(season, settings.horizon + season, season) %}
{%- set prior = trendcast.prior_variance('greatest(points.mean_medium, 0.5)', 'points.measure') %}
{%- set error_periods = [8 * season, settings.windows[2]] | max %}
with leads as (

    {% for lead in range(1, settings.horizon + 1) %}
    select
        {{ lead }} as lead,
        {{ season * ((lead + season - 1) // season) }} as season_back
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

points as (

    select
        cutoffs.fold,
        cutoffs.cutoff_t,
        cutoffs.cutoff,
        history.series_id,
        history.demand_class,
        history.error_scale,
        history.mean_medium,
        {{ trendcast.measure_of('measured') }} as measure,
        leads.lead,
        leads.season_back,
        -- Without a whole season of history the naive forecast stands in.
        coalesce(season.y, history.y) as mean
    from {{ ref('int_cutoffs') }} as cutoffs
    inner join {{ ref('ftr_history') }} as history
        on cutoffs.cutoff_t = history.t
    {{ trendcast.join_measure('history.series_id') }}
    cross join leads
    left join {{ ref('ftr_history') }} as season
        on
            history.series_id = season.series_id
            and cutoffs.cutoff_t + leads.lead - leads.season_back = season.t

),

{{ trendcast.naive_spread(distances, error_periods) }}

select
    points.series_id,
    points.fold,
    points.cutoff_t,
    points.cutoff,
    points.lead,
    points.cutoff_t + points.lead as target_t,
    calendar.ds as target_date,
    points.demand_class,
    points.error_scale,
    {% for name in trendcast.quantile_levels() %}
    -- Fewer errors than a quantile needs: the spread of a count of this size (Poisson, normal form).
    {%- set quantile -%}
    greatest(0, points.mean + case
        when spread.n_errors >= 2 * {{ [season, 8] | max }} or spread.n_errors >= 40
            then {{ trendcast.element('spread.error_quantiles', loop.index0) }}
        else {{ trendcast.normal_quantiles()[name] }} * sqrt(2 * {{ prior }})
    end)
    {%- endset %}
    -- Fractions are interpolated, and the last bit may undo the order of neighbours.
    {{ trendcast.by_measure({
        'quantity': quantile, 'revenue': 'round(' ~ quantile ~ ', 9)', 'average_price': 'round(' ~ quantile ~ ', 9)'
    }, 'points.measure') }} as {{ name }},
    {% endfor %}
    points.mean
from points
inner join {{ ref('ftr_calendar') }} as calendar
    on calendar.t = points.cutoff_t + points.lead
left join spread
    on
        points.cutoff_t = spread.cutoff_t
        and points.series_id = spread.series_id
        and points.season_back = spread.season_back
