-- One row per series that sold at least once up to the cutoff.
select
    series_id,
    {% for column in var('series_key') %}
    {{ adapter.quote(column) }},
    {% endfor %}
    min(t) as first_t,
    max(t) as last_sale_t,
    -- Summed as exact decimals, see type_amount.
    {% for measure in ['quantity', 'revenue'] %}
    cast(sum(cast({{ measure }} as {{ trendcast.type_amount() }})) as {{ trendcast.type_double() }})
        as total_{{ measure }}{{ ',' if not loop.last }}
    {% endfor %}
from {{ ref('int_sales') }}
{{ trendcast.group_by(var('series_key') | length + 1) }}
