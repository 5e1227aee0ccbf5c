-- One row per series: its category, and the group whose series are taken to answer alike to price and promotions.
{%- set chosen = var('response_group') %}
{%- set known = var('series_key') + (var('static_attributes') if trendcast.has_source('products') else []) %}
{%- if chosen is not none and chosen not in known %}
    {{ exceptions.raise_compiler_error(
        "var 'response_group' must be one of " ~ known | join(', ') ~ ", or null for the category; came: " ~ chosen) }}
{%- endif %}
select
    static.series_id,
    {{ trendcast.category_of('static') }} as category,
    {% if chosen %}
    coalesce(cast({{ 'static.' ~ adapter.quote(chosen) }} as {{ dbt.type_string() }}), '') as response_group
    {% else %}
    {{ trendcast.category_of('static') }} as response_group
    {% endif %}
from {{ ref('ftr_static') }} as static
where 1 = 1 {{ trendcast.and_leading('static') }}
