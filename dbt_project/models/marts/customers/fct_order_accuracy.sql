-- One row: how good expected orders and dates were at the last cutoff of which it is known who came back, beside what a
-- planner would take: each customer's own rate so far, and their usual gap after the last order. No row where nobody is
-- known.
{%- set days = trendcast.positive_integer('customer_days', var('customer_days')) %}
with first_orders as (

    select
        orders.customer_id,
        min(orders.order_date) as next_date
    from {{ ref('int_customer_orders') }} as orders
    inner join {{ ref('int_customer_cutoffs') }} as cutoffs
        on
            orders.order_date > cutoffs.cutoff
            and orders.order_date <= {{ trendcast.date_after('day', days, 'cutoffs.cutoff') }}
    where cutoffs.fold = 1
    group by 1

),

joined as (

    select
        expected.next_orders,
        expected.expected_orders,
        {{ days }} * (states.orders - 1.0e0) / greatest(states.tenure_days - 1, 1) as rate_orders,
        {{ trendcast.days_in('expected.cutoff', 'first_orders.next_date') }} - 1 as days_to_next,
        {{ trendcast.days_in('expected.cutoff', 'expected.median_date') }} - 1 as expected_days,
        case
            when states.mean_gap_days is not null then greatest(ceil(states.mean_gap_days) - states.recency_days, 1)
        end as gap_days
    from {{ ref('int_expected_orders') }} as expected
    inner join {{ ref('int_customer_state') }} as states
        on expected.fold = states.fold and expected.customer_id = states.customer_id
    left join first_orders
        on expected.customer_id = first_orders.customer_id
    where expected.fold = 1

),

final as (

    select
        {% for name, expression in {
            'orders': 'next_orders', 'expected_orders': 'expected_orders', 'rate_orders': 'rate_orders'
        }.items() %}
        cast(sum(cast({{ expression }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }}) as {{ name }},
        {% endfor %}
        count(days_to_next) as n_returned,
        {% for name, expression in {
            'mae': 'abs(expected_orders - next_orders)',
            'rate_mae': 'abs(rate_orders - next_orders)',
            'date_mae': 'abs(expected_days - days_to_next)',
            'single_date_mae': 'case when gap_days is null then abs(expected_days - days_to_next) end',
            'repeat_date_mae': 'case when gap_days is not null then abs(expected_days - days_to_next) end',
            'gap_date_mae': 'abs(gap_days - days_to_next)',
        }.items() %}
        cast(avg(cast({{ expression }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }}) as {{ name }},
        {% endfor %}
        count(*) as n_customers
    from joined

)

select *
from final
where n_customers > 0
