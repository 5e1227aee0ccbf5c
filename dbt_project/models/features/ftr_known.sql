-- One row per series and period from its first sale to the horizon's end: what is planned in advance. A view, for it is
-- but a join of small tables, so no table of every series and period need be written or kept up. A plan the shop
-- does not have costs no join.
-- depends_on: {{ ref('int_promotions') }}, {{ ref('int_prices') }}
{{ config(materialized="view") }}
{%- set horizon = trendcast.settings().horizon %}
select
    series.series_id,
    calendar.t,
    {% if trendcast.uses('promotions') %}
    {{ trendcast.planned('promotions', 'since_promotion', 1) }} as since_promotion,
    {{ trendcast.planned('promotions', 'until_promotion', 1) }} as until_promotion,
    {{ trendcast.planned('promotions', 'promotion_elapsed', 0) }} as promotion_elapsed,
    {{ trendcast.planned('promotions', 'promotion_remaining', 0) }} as promotion_remaining,
    {% endif %}
    {% if trendcast.uses('price') %}
    {{ trendcast.planned('prices', 'planned_price', 'null') }} as planned_price,
    {{ trendcast.planned('prices', 'planned_price_change', 0) }} as planned_price_change,
    {% endif %}
    {{ trendcast.planned('promotions', 'display', 0) }} as promotion_display,
    {{ trendcast.planned('promotions', 'feature', 0) }} as promotion_feature,
    {{ trendcast.planned('promotions', 'planned_discount', 0) }} as promotion_discount
from {{ ref('int_series') }} as series
inner join {{ ref('ftr_calendar') }} as calendar
    on series.first_t <= calendar.t
{% if trendcast.has_source('promotions') %}
left join {{ ref('int_promotions') }} as promotions
    on
        calendar.t = promotions.t
        and {{ trendcast.same_key(trendcast.source_key('promotion_columns'), 'series', 'promotions') }}
{% endif %}
{% if trendcast.has_source('prices') and trendcast.uses('price') %}
left join {{ ref('int_prices') }} as prices
    on
        calendar.t = prices.t
        and {{ trendcast.same_key(trendcast.source_key('price_columns'), 'series', 'prices') }}
{% endif %}
where calendar.t <= {{ trendcast.last_cutoff() }} + {{ horizon }}
