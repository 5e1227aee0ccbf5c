-- One row per series, cutoff and lead: history as of the cutoff, the season as last seen at the target's
-- position, and what is known in advance about the target. A view: a query that names its cutoffs pays
-- only for them. `actual` is null where the target lies after the panel's end or was not observed.
{%- set settings = trendcast.settings() %}
{%- set medium = settings.windows[1] %}
{%- set year = {'day': 364, 'week': 52, 'month': 12}[settings.grain] %}
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
    {% if trendcast.uses('lags') %}
    -- What the next medium window was to the one before it, a year ago; both with a tenth of today's level added, so
    -- that few sales make no great ratio.
    coalesce(ln(
        (year_on.mean_medium + history.demand_level / 10) / (year_ago.mean_medium + history.demand_level / 10)
    ), 0) as year_change,
    {% endif %}
    {% if trendcast.uses('category') %}
    {{ trendcast.columns_with_role('ftr_category', 'history', 'category') }},
    coalesce(history.mean_medium / nullif(category.category_level, 0), 0) as category_share,
    history.price_change - category.category_price_change as price_change_to_category,
    {% endif %}
    {% if trendcast.uses('reviews') %}
    {% if trendcast.has_source('reviews') %}
    coalesce(reviews.rating_mean, 0) as rating_mean,
    ln(1 + coalesce(reviews.review_count, 0)) as review_count,
    ln(1 + coalesce(reviews.reviews_recent, 0)) as reviews_recent,
    {% else %}
    0.0e0 as rating_mean,
    0.0e0 as review_count,
    0.0e0 as reviews_recent,
    {% endif %}
    {% endif %}
    {{ trendcast.columns_with_role('ftr_known', 'known', 'known') }},
    {{ trendcast.columns_with_role('ftr_calendar', 'known', 'calendar') }}
from {{ ref('ftr_history') }} as history
cross join leads
inner join {{ ref('ftr_calendar') }} as calendar
    on history.t + leads.lead = calendar.t
inner join {{ ref('ftr_known') }} as known
    on history.series_id = known.series_id and history.t + leads.lead = known.t
left join {{ ref('ftr_history') }} as season
    on history.series_id = season.series_id and history.t + leads.lead - leads.season_back = season.t
left join {{ ref('ftr_history') }} as target
    on history.series_id = target.series_id and history.t + leads.lead = target.t
{% if trendcast.uses('lags') %}
left join {{ ref('ftr_history') }} as year_ago
    on history.series_id = year_ago.series_id and history.t - {{ year }} = year_ago.t
left join {{ ref('ftr_history') }} as year_on
    on history.series_id = year_on.series_id and history.t - {{ year - medium }} = year_on.t
{% endif %}
{% if trendcast.uses('category') or (trendcast.uses('reviews') and trendcast.has_source('reviews')) %}
inner join {{ ref('ftr_static') }} as static
    on history.series_id = static.series_id
{% endif %}
{% if trendcast.uses('category') %}
inner join {{ ref('ftr_category') }} as category
    on history.t = category.t and {{ trendcast.category_of('static') }} = category.category
{% endif %}
{% if trendcast.uses('reviews') and trendcast.has_source('reviews') %}
left join {{ ref('int_reviews') }} as reviews
    on
        history.t = reviews.t
        and {{ trendcast.same_key(trendcast.source_key('review_columns'), 'static', 'reviews') }}
{% endif %}
