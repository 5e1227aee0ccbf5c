-- One row per planned launch of a product (at a location, where the plan names one).
{% if trendcast.has_source('launches') %}
select
    {{ trendcast.mapped('launch_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.mapped('launch_columns', 'location_id', dbt.type_string()) }} as location_id,
    {{ trendcast.safe_mapped('launch_columns', 'launch_date', 'date') }} as launch_date,
    {{ trendcast.safe_mapped('launch_columns', 'planned_on', 'date') }} as planned_on
from {{ source('shop', 'launches') }}
{% else %}
{{ trendcast.no_rows({
    'product_id': dbt.type_string(),
    'location_id': dbt.type_string(),
    'launch_date': 'date',
    'planned_on': 'date',
}) }}
{% endif %}
