-- One row per category, location and period: how many series there are and how much of them is on promotion.
{{ config(materialized='table') }}
{%- if 'rivals' in trendcast.response_regressors() %}
select
    {{ trendcast.category_of('static') }} as category,
    {{ trendcast.place_of('series') }} as location,
    known.t,
    count(*) as n_series,
    -- The sum is exact, so that its order does not matter.
    cast(sum({{ trendcast.is_promoted('known') }}) as {{ trendcast.type_double() }}) as promoted
from {{ ref('ftr_known') }} as known
inner join {{ ref('int_series') }} as series
    on known.series_id = series.series_id
inner join {{ ref('ftr_static') }} as static
    on known.series_id = static.series_id
where 1 = 1 {{ trendcast.and_leading('series') }}
group by 1, 2, 3
{% else %}
-- depends_on: {{ ref('ftr_known') }}, {{ ref('int_series') }}, {{ ref('ftr_static') }}
{{ trendcast.no_rows({
    'category': dbt.type_string(), 'location': dbt.type_string(), 't': 'integer', 'n_series': 'bigint',
    'promoted': trendcast.type_double(),
}) }}
{% endif %}
