-- Aggregating loses no unit: int_sales holds exactly the accepted quantity up to the cutoff.
with counted as (

    select
        (
            select coalesce(sum(lines.quantity), 0)
            from {{ ref('int_order_lines') }} as lines
            where {{ trendcast.period_index('lines.order_date') }} <= {{ trendcast.last_cutoff() }}
        ) as accepted_quantity,
        -- Back to the exact decimal, see type_amount.
        (
            select coalesce(sum(cast(sales.quantity as {{ trendcast.type_amount() }})), 0)
            from {{ ref('int_sales') }} as sales
        ) as sold_quantity

)

select *
from counted
where accepted_quantity <> sold_quantity
