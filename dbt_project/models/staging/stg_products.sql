-- One row per product: its attributes from the catalogue, or just its id where the shop has no catalogue.
{% if trendcast.has_source('products') %}
with catalogue as (

    select
        {{ trendcast.mapped('product_columns', 'product_id', dbt.type_string()) }} as product_id,
        {% for attribute in trendcast.product_attributes() %}
        {{ trendcast.mapped('product_columns', attribute, dbt.type_string()) }} as {{ adapter.quote(attribute) }},
        {% endfor %}
        row_number() over (
            partition by {{ var('product_columns')['product_id'] }}
            order by {{ var('product_columns').values() | join(', ') }}
        ) as catalogue_row
    from {{ source('shop', 'products') }}

)

select
    {% for attribute in trendcast.product_attributes() %}
    {{ adapter.quote(attribute) }},
    {% endfor %}
    product_id
from catalogue
where catalogue_row = 1 and product_id is not null
{% else %}
select distinct product_id
from {{ ref('stg_order_lines') }}
where product_id is not null
{% endif %}
