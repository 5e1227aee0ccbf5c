-- One row per group of the var `demand_groups` and series in it; `total` has them all.
with series as (

    select
        dimension.series_id,
        {% for column in trendcast.group_attributes() %}
        {{ 'supply' if column == 'supplier' else 'dimension' }}.{{ adapter.quote(column) }},
        {% endfor %}
        supply.unit_price,
        supply.unit_cost
    from {{ ref('dim_series') }} as dimension
    inner join {{ ref('int_supply') }} as supply
        on dimension.series_id = supply.series_id

),

final as (

    {% for name, columns in trendcast.demand_groups().items() %}
    select
        '{{ name }}' as group_by,
        {% if columns -%}
        coalesce({{ trendcast.series_id(columns) }}, 'unknown') as group_value,
        {% else -%}
        'all' as group_value,
        {% endif -%}
        series_id,
        unit_price,
        unit_cost
    from series
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select *
from final
