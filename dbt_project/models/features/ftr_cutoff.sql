-- One row per series and period: what is known of the series if that period is the cutoff. A view, apart from
-- ftr_design so that who needs no lead pays for no target, season or plan.
{%- set settings = trendcast.settings() %}
{%- set medium = settings.windows[1] %}
{%- set year = {'day': 364, 'week': 52, 'month': 12}[settings.grain] %}
{{ config(materialized='view') }}
select
    history.series_id,
    history.t,
    history.ds,
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
    cast(0 as {{ trendcast.type_double() }}) as rating_mean,
    cast(0 as {{ trendcast.type_double() }}) as review_count,
    cast(0 as {{ trendcast.type_double() }}) as reviews_recent,
    {% endif %}
    {% endif %}
    {{ trendcast.columns_with_role('ftr_history', 'history', 'history') }},
    history.demand_level,
    history.demand_variance,
    history.demand_class,
    history.error_scale
from {{ ref('ftr_history') }} as history
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
    on history.t = category.t and {{ trendcast.category_key('static') }} = category.category
{% endif %}
{% if trendcast.uses('reviews') and trendcast.has_source('reviews') %}
left join {{ ref('int_reviews') }} as reviews
    on
        history.t = reviews.t
        and {{ trendcast.same_key(trendcast.source_key('review_columns'), 'static', 'reviews') }}
{% endif %}
