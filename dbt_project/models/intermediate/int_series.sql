-- One row per series that sold at least once up to the cutoff.
select
    series_id,
    {% for column in var('series_key') %}
    {{ adapter.quote(column) }},
    {% endfor %}
    min(t) as first_t,
    max(t) as last_sale_t,
    sum(quantity) as total_quantity,
    sum(revenue) as total_revenue
from {{ ref('int_sales') }}
group by
    {% for column in var('series_key') %}
    {{ adapter.quote(column) }},
    {% endfor %}
    series_id
