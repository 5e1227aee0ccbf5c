-- One row per series and period in which returns took units and money back from sales of the same period. What was
-- sold in an earlier period stays sold: a return must not change what was known then.
{%- set group_key = ['series_id', 'product_id', 'customer_id', 'location_id', 't'] %}
{%- set amounts = ['quantity', 'revenue', 'discount'] %}
-- Few, next to the sales: those are read only to be joined to these, and not at all where there are none.
with returned as (

    select
        series_id,
        product_id,
        coalesce(customer_id, '') as customer_id,
        coalesce(location_id, '') as location_id,
        {{ trendcast.period_index('order_date') }} as t,
        order_id,
        -sum(quantity) as quantity,
        -sum(revenue) as revenue,
        -sum(discount) as discount
    from {{ ref('int_order_lines') }}
    where is_return and {{ trendcast.period_index('order_date') }} <= {{ trendcast.last_cutoff() }}
    {{ trendcast.group_by(6) }}

),

return_groups as (

    select distinct {{ group_key | join(', ') }}
    from returned

),

-- Returns that name an order of the product, which had been placed by then, take from no other.
named as (

    select distinct
        returned.order_id,
        returned.product_id,
        returned.t
    from returned
    inner join {{ ref('int_order_lines') }} as lines
        on returned.order_id = lines.order_id and returned.product_id = lines.product_id
    where
        not lines.is_return
        and {{ trendcast.period_index('lines.order_date') }} <= returned.t

),

returned_as_named as (

    select
        returned.*,
        named.order_id is not null as is_named
    from returned
    left join named
        on
            returned.order_id = named.order_id
            and returned.product_id = named.product_id
            and returned.t = named.t

),

sold as (

    select
        {% for column in group_key %}
        return_groups.{{ column }},
        {% endfor %}
        lines.order_id,
        sum(lines.quantity) as quantity,
        sum(lines.revenue) as revenue,
        sum(lines.discount) as discount
    from return_groups
    inner join {{ ref('int_order_lines') }} as lines
        on
            return_groups.series_id = lines.series_id
            and return_groups.product_id = lines.product_id
            and return_groups.customer_id = coalesce(lines.customer_id, '')
            and return_groups.location_id = coalesce(lines.location_id, '')
            and return_groups.t = {{ trendcast.period_index('lines.order_date') }}
    where not lines.is_return
    {{ trendcast.group_by(6) }}

),

taken_from_orders as (

    select
        {% for amount in amounts %}
        sold.{{ amount }} as sold_{{ amount }},
        {{ trendcast.taken_back('sold.' ~ amount, 'returned_as_named.' ~ amount) }} as taken_{{ amount }},
        {% endfor %}
        {% for column in group_key %}
        sold.{{ column }},
        {% endfor %}
        sold.order_id
    from sold
    left join returned_as_named
        on
            sold.order_id = returned_as_named.order_id
            {% for column in group_key %}
            and sold.{{ column }} = returned_as_named.{{ column }}
            {% endfor %}

),

-- The others take from what is left of the customer's orders.
left_over as (

    select
        {{ group_key | join(', ') }},
        {% for amount in amounts %}
        sum(sold_{{ amount }}) - sum(taken_{{ amount }}) as left_{{ amount }},
        sum(taken_{{ amount }}) as taken_{{ amount }},
        {% endfor %}
        count(*) as orders
    from taken_from_orders
    {{ trendcast.group_by(5) }}

),

returned_unnamed as (

    select
        {{ group_key | join(', ') }},
        {% for amount in amounts %}
        sum({{ amount }}) as {{ amount }},
        {% endfor %}
        count(*) as orders
    from returned_as_named
    where not is_named
    {{ trendcast.group_by(5) }}

),

taken as (

    select
        {% for amount in amounts %}
        left_over.taken_{{ amount }}
        + {{ trendcast.taken_back('left_over.left_' ~ amount, 'returned_unnamed.' ~ amount) }} as {{ amount }},
        {% endfor %}
        left_over.series_id,
        left_over.t
    from left_over
    left join returned_unnamed
        on
            left_over.series_id = returned_unnamed.series_id
            {% for column in group_key if column != 'series_id' %}
            and left_over.{{ column }} = returned_unnamed.{{ column }}
            {% endfor %}

)

select
    series_id,
    t,
    cast(sum(quantity) as {{ trendcast.type_exact() }}) as quantity,
    cast(sum(revenue) as {{ trendcast.type_exact() }}) as revenue,
    cast(sum(discount) as {{ trendcast.type_exact() }}) as discount
from taken
group by 1, 2
