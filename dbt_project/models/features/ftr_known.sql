-- One row per series and period from its first sale to the horizon's end: what is planned in advance.
{%- set horizon = trendcast.settings().horizon %}
select
    series.series_id,
    calendar.t,
    coalesce(promotions.display, 0) as promotion_display,
    coalesce(promotions.feature, 0) as promotion_feature,
    coalesce(promotions.planned_discount, 0) as promotion_discount
from {{ ref('int_series') }} as series
inner join {{ ref('ftr_calendar') }} as calendar
    on series.first_t <= calendar.t
left join {{ ref('int_promotions') }} as promotions
    on
        calendar.t = promotions.t
        {% for column in trendcast.promotion_key() %}
        and series.{{ adapter.quote(column) }} = promotions.{{ adapter.quote(column) }}
        {% endfor %}
where calendar.t <= {{ trendcast.last_cutoff() }} + {{ horizon }}
