-- One row per price of a product (at a location, where the list names one) over a span of days.
{% if trendcast.has_source('prices') %}
select
    {{ trendcast.mapped('price_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.mapped('price_columns', 'location_id', dbt.type_string()) }} as location_id,
    {{ trendcast.mapped('price_columns', 'start_date', 'date') }} as start_date,
    {{ trendcast.mapped('price_columns', 'end_date', 'date') }} as end_date,
    {{ trendcast.mapped('price_columns', 'price', trendcast.type_amount()) }} as price
from {{ source('shop', 'prices') }}
{% else %}
{{ trendcast.no_rows({
    'product_id': dbt.type_string(),
    'location_id': dbt.type_string(),
    'start_date': 'date',
    'end_date': 'date',
    'price': trendcast.type_amount(),
}) }}
{% endif %}
