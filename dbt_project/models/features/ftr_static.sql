-- One row per series: attributes that do not change. They come from the catalogue, never from sales, so
-- they say nothing about the future.
{%- set product_key = var('series_key') | select('in', ['product_id'] + trendcast.product_attributes()) | list %}
{%- set attributes = var('static_attributes') if trendcast.has_source('products') else [] %}
with catalogue as (

    select
        {% for column in product_key %}
        {{ adapter.quote(column) }},
        {% endfor %}
        {% for attribute in attributes if attribute not in product_key %}
        min({{ adapter.quote(attribute) }}) as {{ adapter.quote(attribute) }},
        {% endfor %}
        count(*) as products
    from {{ ref('stg_products') }}
    {{ trendcast.group_by(product_key | length) }}

)

select
    series.series_id,
    {% if trendcast.has_measures() %}
    series.measure,
    {% endif %}
    {% for column in var('series_key') %}
    series.{{ adapter.quote(column) }},
    {% endfor %}
    {% for attribute in attributes if attribute not in var('series_key') %}
    catalogue.{{ adapter.quote(attribute) }},
    {% endfor %}
    coalesce(catalogue.products, 0) as products
from {{ ref('int_series') }} as series
left join catalogue
    on
        1 = 1
        {% for column in product_key %}
        and series.{{ adapter.quote(column) }} = catalogue.{{ adapter.quote(column) }}
        {% endfor %}
