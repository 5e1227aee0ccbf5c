-- One row per line of a purchase order that has not arrived.
{% if trendcast.has_source('purchase_orders') %}
select
    {{ trendcast.mapped('purchase_order_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.mapped('purchase_order_columns', 'location_id', dbt.type_string()) }} as location_id,
    {{ trendcast.safe_mapped('purchase_order_columns', 'quantity', trendcast.type_amount()) }} as quantity,
    {{ trendcast.safe_mapped('purchase_order_columns', 'expected_date', 'date') }} as expected_date
from {{ source('shop', 'purchase_orders') }}
{% else %}
{{ trendcast.no_rows({
    'product_id': dbt.type_string(),
    'location_id': dbt.type_string(),
    'quantity': trendcast.type_amount(),
    'expected_date': 'date',
}) }}
{% endif %}
