-- One row per fold and customer who had bought by its cutoff: what was known of them then, and for a backtest whether
-- they came again in the days after it.
{%- set double = trendcast.type_double() %}
{%- set days = trendcast.positive_integer('customer_days', var('customer_days')) %}
with visits as (

    select
        customer_id,
        order_date,
        cast(sum(cast(revenue as {{ trendcast.type_exact() }})) as {{ trendcast.type_exact() }}) as revenue
    from {{ ref('int_customer_orders') }}
    group by 1, 2

),

known as (

    select
        cutoffs.fold,
        visits.customer_id,
        cutoffs.cutoff,
        min(visits.order_date) as first_date,
        max(visits.order_date) as last_date,
        count(*) as orders,
        cast(sum(visits.revenue) as {{ double }}) as revenue
    from visits
    inner join {{ ref('int_customer_cutoffs') }} as cutoffs
        on visits.order_date <= cutoffs.cutoff
    group by 1, 2, 3

),

ahead as (

    select
        cutoffs.fold,
        visits.customer_id,
        count(*) as next_orders
    from visits
    inner join {{ ref('int_customer_cutoffs') }} as cutoffs
        on
            visits.order_date > cutoffs.cutoff
            and visits.order_date <= {{ trendcast.date_after('day', days, 'cutoffs.cutoff') }}
    group by 1, 2

),

aged as (

    select
        known.*,
        {{ trendcast.days_in('known.last_date', 'known.cutoff') }} - 1 as recency_days,
        {{ trendcast.days_in('known.first_date', 'known.cutoff') }} as tenure_days,
        cast({{ trendcast.days_in('known.first_date', 'known.last_date') }} - 1 as {{ double }})
        / nullif(known.orders - 1, 0) as mean_gap_days,
        case when known.fold > 0 then coalesce(ahead.next_orders, 0) end as next_orders
    from known
    left join ahead
        on known.fold = ahead.fold and known.customer_id = ahead.customer_id

),

final as (

    select
        aged.*,
        ln(cast(1 + recency_days as {{ double }})) as recency,
        ln(cast(orders as {{ double }})) as frequency,
        -- How late the customer is: days away over their usual gap.
        ln(cast(1 + recency_days as {{ double }}) / (1 + coalesce(mean_gap_days, tenure_days))) as lateness,
        cast(case when next_orders = 0 then 1 when next_orders > 0 then 0 end as {{ double }}) as is_lost
    from aged

)

select *
from final
