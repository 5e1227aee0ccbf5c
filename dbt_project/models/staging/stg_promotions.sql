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
select
    cast(null as {{ dbt.type_string() }}) as product_id,
    cast(null as {{ dbt.type_string() }}) as location_id,
    cast(null as date) as start_date,
    cast(null as date) as end_date,
    cast(null as {{ trendcast.type_amount() }}) as display,
    cast(null as {{ trendcast.type_amount() }}) as feature,
    cast(null as {{ trendcast.type_amount() }}) as planned_discount
where false
{% endif %}
