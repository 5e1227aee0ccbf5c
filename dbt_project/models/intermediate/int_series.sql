-- One row per series that sold at least once up to the cutoff.
select
    series_id,
    {% for column in var('series_key') %}
    {{ adapter.quote(column) }},
    {% endfor %}
    -- Windows over whole numbers take a quarter of the time of windows over text.
    cast(row_number() over (order by series_id) as integer) as series_no,
    min(t) as first_t,
    max(t) as last_sale_t,
    -- Summed as exact decimals, see type_amount.
    cast(sum(cast(quantity as {{ trendcast.type_amount() }})) as {{ trendcast.type_double() }}) as total_quantity,
    cast(sum(cast(revenue as {{ trendcast.type_amount() }})) as {{ trendcast.type_double() }}) as total_revenue
from {{ ref('int_sales') }}
-- Returns alone make no series, and none begins with them.
where sale_lines > 0
{{ trendcast.group_by(var('series_key') | length + 1) }}
