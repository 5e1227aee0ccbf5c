-- Aggregating loses nothing: sales less returns hold exactly the accepted units and money up to the cutoff. Returns are
-- lines below zero, so their netting against sales cancels out on both sides.
with counted as (

    select
        (
            select coalesce(sum(lines.quantity), 0)
            from {{ ref('int_order_lines') }} as lines
            where {{ trendcast.period_index('lines.order_date') }} <= {{ trendcast.last_cutoff() }}
        ) as accepted_quantity,
        (
            select coalesce(sum(lines.revenue), 0)
            from {{ ref('int_order_lines') }} as lines
            where {{ trendcast.period_index('lines.order_date') }} <= {{ trendcast.last_cutoff() }}
        ) as accepted_revenue,
        -- Back to the exact decimal, see type_amount.
        (
            select coalesce(sum(
                cast(sales.quantity as {{ trendcast.type_amount() }})
                - cast(sales.returned_quantity as {{ trendcast.type_amount() }})
            ), 0)
            from {{ ref('int_sales') }} as sales
        ) as sold_quantity,
        (
            select coalesce(sum(
                cast(sales.revenue as {{ trendcast.type_amount() }})
                - cast(sales.returned_revenue as {{ trendcast.type_amount() }})
            ), 0)
            from {{ ref('int_sales') }} as sales
        ) as sold_revenue

)

select *
from counted
where accepted_quantity <> sold_quantity or accepted_revenue <> sold_revenue
