-- One row per count of a product's stock (at a location, where the shop has several).
{% if trendcast.has_source('inventory') %}
select
    {{ trendcast.mapped('inventory_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.mapped('inventory_columns', 'location_id', dbt.type_string()) }} as location_id,
    {{ trendcast.safe_mapped('inventory_columns', 'date', 'timestamp') }} as counted_at,
    {{ trendcast.safe_mapped('inventory_columns', 'on_hand', trendcast.type_amount()) }} as on_hand
from {{ source('shop', 'inventory') }}
{% if var('as_of') %}
where coalesce(
    cast({{ trendcast.safe_mapped('inventory_columns', 'date', 'timestamp') }} as date)
    <= cast('{{ var("as_of") }}' as date),
    true
)
{% endif %}
{% else %}
{{ trendcast.no_rows({
    'product_id': dbt.type_string(),
    'location_id': dbt.type_string(),
    'counted_at': 'timestamp',
    'on_hand': trendcast.type_amount(),
}) }}
{% endif %}
