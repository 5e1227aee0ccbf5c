-- One row per planned promotion of a product (at a location, where the plan names one) over a span of days.
{% if trendcast.has_source('promotions') %}
select
    {{ trendcast.mapped('promotion_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.mapped('promotion_columns', 'location_id', dbt.type_string()) }} as location_id,
    {{ trendcast.mapped('promotion_columns', 'start_date', 'date') }} as start_date,
    {{ trendcast.mapped('promotion_columns', 'end_date', 'date') }} as end_date,
    coalesce({{ trendcast.mapped('promotion_columns', 'display', trendcast.type_amount()) }}, 0) as display,
    coalesce({{ trendcast.mapped('promotion_columns', 'feature', trendcast.type_amount()) }}, 0) as feature,
    coalesce({{ trendcast.mapped('promotion_columns', 'planned_discount', trendcast.type_amount()) }}, 0)
        as planned_discount
from {{ source('shop', 'promotions') }}
{% else %}
{{ trendcast.no_rows({
    'product_id': dbt.type_string(),
    'location_id': dbt.type_string(),
    'start_date': 'date',
    'end_date': 'date',
    'display': trendcast.type_amount(),
    'feature': trendcast.type_amount(),
    'planned_discount': trendcast.type_amount(),
}) }}
{% endif %}
