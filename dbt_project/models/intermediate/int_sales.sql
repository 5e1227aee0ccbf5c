-- One row per series and period in which it sold or had returns, up to the cutoff. Demand is never negative: returns
-- take back at most what was sold to the same customer in the same period, by the var `returns`; the rest stands apart.
-- depends_on: {{ ref('int_netted_returns') }}
{{ trendcast.keeps_rows() }}
{%- set seen = trendcast.seen() %}
{%- set has_customers = var('order_columns').get('customer_id') is not none %}
{%- set amounts = ['quantity', 'revenue', 'discount'] %}
{%- set netted = trendcast.one_of('returns', ['net', 'count', 'reject']) == 'net' %}
with {% if seen -%}
touched as (

    {{ trendcast.touched(seen) }}

),

{% endif -%}
every_line as (

    select
        *,
        {{ trendcast.period_index('order_date') }} as t
    from {{ ref('int_order_lines') }}

),

lines as (

    select every_line.*
    from every_line
    {% if seen %}
    left join touched
        on every_line.series_id = touched.series_id
    {% endif %}
    where
        every_line.t <= {{ trendcast.last_cutoff() }}
    {% if seen %}
        and every_line.t >= {{ seen.from_t }}
        and every_line.order_date >= {{ trendcast.first_day(seen.from_t) }}
        and (every_line.t > {{ seen.t }} or every_line.t >= touched.from_t)
    {% endif %}

),

sold as (

    select
        series_id,
        t,
        -- One value a series; grouping by them too would cost as much again.
        {% for column in var('series_key') %}
        min({{ adapter.quote(column) }}) as {{ adapter.quote(column) }},
        {% endfor %}
        {% for amount in amounts %}
        sum(case when not is_return then {{ amount }} end) as {{ amount }},
        -sum(case when is_return then {{ amount }} end) as returned_{{ amount }},
        {% endfor %}
        count(case when not is_return then 1 end) as sale_lines,
        count(distinct case when not is_return then order_id end) as orders,
        {{ 'count(distinct case when not is_return then customer_id end)' if has_customers else 0 }} as customers
    from lines
    group by 1, 2

){{ ',' if has_customers }}

{% if has_customers %}
-- Customers who had never bought of the series before.
buyers as (

    select distinct
        series_id,
        customer_id
    from lines
    where not is_return and customer_id is not null

),

first_orders as (

    select
        buyers.series_id,
        buyers.customer_id,
        min(every_line.t) as t
    from buyers
    inner join every_line
        on buyers.series_id = every_line.series_id and buyers.customer_id = every_line.customer_id
    where not every_line.is_return
    group by 1, 2

),

newcomers as (

    select
        series_id,
        t,
        count(*) as customers
    from first_orders
    group by 1, 2

)
{% endif %}

select
    sold.series_id,
    {% for column in var('series_key') %}
    sold.{{ adapter.quote(column) }},
    {% endfor %}
    sold.t,
    {% for amount in amounts %}
    cast(
        -- Nothing where there were only returns; null where the shop does not say.
        coalesce(sold.{{ amount }}, 0 * sold.returned_{{ amount }})
        {{ '- coalesce(netted.' ~ amount ~ ', 0)' if netted }}
        as {{ trendcast.type_double() }}
    ) as {{ amount }},
    {% endfor %}
    {% for amount in ['quantity', 'revenue'] %}
    cast(
        coalesce(sold.returned_{{ amount }}, 0)
        {{ '- coalesce(netted.' ~ amount ~ ', 0)' if netted }}
        as {{ trendcast.type_double() }}
    ) as returned_{{ amount }},
    {% endfor %}
    sold.sale_lines,
    sold.orders,
    sold.customers,
    {{ 'coalesce(newcomers.customers, 0)' if has_customers else 0 }} as new_customers,
    {{ trendcast.built_at() }} as built_at,
    {{ trendcast.built_with() }} as built_with
from sold
{% if netted %}
left join {{ ref('int_netted_returns') }} as netted
    on sold.series_id = netted.series_id and sold.t = netted.t
{% endif %}
{% if has_customers %}
left join newcomers
    on sold.series_id = newcomers.series_id and sold.t = newcomers.t
{% endif %}
