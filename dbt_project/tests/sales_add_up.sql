-- Aggregating loses nothing: sales less returns hold exactly the accepted units and money up to the cutoff. Returns are
-- lines below zero, so their netting against sales cancels out on both sides.
with accepted as (

    select
        coalesce(sum(quantity), 0) as quantity,
        coalesce(sum(revenue), 0) as revenue
    from {{ ref('int_order_lines') }}
    where {{ trendcast.period_index('order_date') }} <= {{ trendcast.last_cutoff() }}

),

-- Back to the exact decimal, see type_amount.
exact as (

    select
        cast(quantity as {{ trendcast.type_amount() }}) as quantity,
        cast(revenue as {{ trendcast.type_amount() }}) as revenue,
        cast(returned_quantity as {{ trendcast.type_amount() }}) as returned_quantity,
        cast(returned_revenue as {{ trendcast.type_amount() }}) as returned_revenue
    from {{ ref('int_sales') }}

),

summed as (

    select
        coalesce(sum(quantity), 0) - coalesce(sum(returned_quantity), 0) as quantity,
        coalesce(sum(revenue), 0) - coalesce(sum(returned_revenue), 0) as revenue
    from exact

)

select
    accepted.quantity as accepted_quantity,
    accepted.revenue as accepted_revenue,
    summed.quantity as sold_quantity,
    summed.revenue as sold_revenue
from accepted
cross join summed
where accepted.quantity <> summed.quantity or accepted.revenue <> summed.revenue
