-- One row per series, cutoff and lead: history as of the cutoff, the season as last seen at the target's
-- position, and what is known in advance about the target. A view: a query that names its cutoffs pays
-- only for them. `actual` is null where the target lies after the panel's end or was not observed.
{%- set settings = trendcast.settings() %}
{{ config(materialized='view', meta={'trendcast': settings}) }}
with leads as (

    {% for lead in range(1, settings.horizon + 1) %}
    select
        {{ lead }} as lead,
        {{ (lead - 1) // settings.lead_bucket + 1 }} as lead_bucket,
        -- Whole seasons back from the target until the cutoff is reached.
        {{ settings.season_length * ((lead + settings.season_length - 1) // settings.season_length) }} as season_back
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    history.series_id,
    history.t as cutoff_t,
    history.ds as cutoff,
    leads.lead,
    leads.lead_bucket,
    history.t + leads.lead as target_t,
    calendar.ds as target_date,
    target.actual,
    case when target.actual is not null then target.y end as target,
    history.demand_level,
    history.demand_variance,
    history.demand_class,
    history.error_scale,
    {{ trendcast.columns_with_role('ftr_history', 'history', 'history') }},
    {{ trendcast.columns_with_role('ftr_history', 'season', 'season', 'history.mean_short') }},
    {% if trendcast.uses('category') %}
    {{ trendcast.columns_with_role('ftr_category', 'history', 'history') }},
    {% endif %}
    {% if trendcast.role_columns('ftr_cutoff', 'history') %}
    {{ trendcast.columns_with_role('ftr_cutoff', 'history', 'history') }},
    {% endif %}
    {{ trendcast.columns_with_role('ftr_known', 'known', 'known') }},
    {{ trendcast.columns_with_role('ftr_calendar', 'known', 'calendar') }}
from {{ ref('ftr_cutoff') }} as history
cross join leads
inner join {{ ref('ftr_calendar') }} as calendar
    on history.t + leads.lead = calendar.t
inner join {{ ref('ftr_known') }} as known
    on history.series_id = known.series_id and history.t + leads.lead = known.t
left join {{ ref('ftr_history') }} as season
    on history.series_id = season.series_id and history.t + leads.lead - leads.season_back = season.t
left join {{ ref('ftr_history') }} as target
    on history.series_id = target.series_id and history.t + leads.lead = target.t
