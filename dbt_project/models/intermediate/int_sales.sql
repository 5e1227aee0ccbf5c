-- One row per series and period in which it sold, up to the cutoff.
with lines as (

    select
        *,
        {{ trendcast.period_index('order_date') }} as t
    from {{ ref('int_order_lines') }}

)

select
    series_id,
    {% for column in var('series_key') %}
    {{ adapter.quote(column) }},
    {% endfor %}
    t,
    cast(sum(quantity) as {{ trendcast.type_double() }}) as quantity,
    cast(sum(revenue) as {{ trendcast.type_double() }}) as revenue,
    cast(sum(discount) as {{ trendcast.type_double() }}) as discount,
    count(distinct order_id) as orders,
    count(distinct customer_id) as customers
from lines
where t <= {{ trendcast.last_cutoff() }}
{{ trendcast.group_by(var('series_key') | length + 2) }}
