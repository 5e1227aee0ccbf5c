-- One row per fold (0 and 1) and customer: the chance of being active, how many orders are expected in the days after
-- the cutoff and when the next one, by int_purchase_model. All has a closed form but the orders, which are a sum: an
-- active customer places a k-th order if the rate brings that many and they did not leave after the k - 1 before.
{%- set days = trendcast.positive_integer('customer_days', var('customer_days')) %}
with customers as (

    select
        states.fold,
        states.customer_id,
        states.cutoff,
        cast(states.orders - 1 as {{ trendcast.type_double() }}) as repeats,
        cast(states.tenure_days - 1 as {{ trendcast.type_double() }}) as days_known,
        cast(states.tenure_days - 1 - states.recency_days as {{ trendcast.type_double() }}) as days_to_last,
        states.next_orders,
        model.r,
        model.alpha,
        model.a,
        model.b
    from {{ ref('int_customer_state') }} as states
    inner join {{ ref('int_purchase_model') }} as model
        on states.fold = model.fold

),

-- What an active customer's future hangs on, once for all who are alike in it.
alike as (

    select distinct
        fold,
        repeats,
        days_known,
        r + repeats as shape,
        b + repeats as stays,
        a,
        (alpha + days_known) / (alpha + days_known + {{ days }}) as none_in_time
    from customers

),

-- So many orders as cannot be exceeded but by a chance of no account: mean and eight standard deviations of a negative
-- binomial, and never more than there are days.
bounded as (

    select
        alike.*,
        cast(least({{ days }}, ceil(
            20 + shape * (1 / none_in_time - 1) + 8 * sqrt(shape * (1 / none_in_time - 1) / none_in_time)
        )) as integer) as most
    from alike

),

counted as (

    {{ trendcast.repeated('bounded', 'most', 'earlier') }}

),

summands as (

    select
        fold,
        repeats,
        days_known,
        earlier,
        shape * ln(none_in_time) + sum(cast(
            case when earlier > 0 then ln((shape + earlier - 1) / earlier * (1 - none_in_time)) else 0 end
            as {{ trendcast.type_fine() }}
        )) over (
            partition by fold, repeats, days_known
            order by earlier
            rows between unbounded preceding and current row
        ) as log_chance,
        sum(cast(
            case when earlier > 0 then ln((stays + earlier - 1) / (a + stays + earlier - 1)) else 0 end
            as {{ trendcast.type_fine() }}
        )) over (
            partition by fold, repeats, days_known
            order by earlier
            rows between unbounded preceding and current row
        ) as log_stayed
    from counted

),

-- The chance of more than so many orders.
more as (

    select
        fold,
        repeats,
        days_known,
        log_stayed,
        greatest(1 - sum(cast(
            case when log_chance > -700 then exp(log_chance) else 0 end as {{ trendcast.type_fine() }}
        )) over (
            partition by fold, repeats, days_known
            order by earlier
            rows between unbounded preceding and current row
        ), 0) as chance
    from summands

),

active as (

    select
        fold,
        repeats,
        days_known,
        sum(cast(
            chance * case when log_stayed > -700 then exp(log_stayed) else 0 end as {{ trendcast.type_fine() }}
        )) as orders
    from more
    group by 1, 2, 3

),

scored as (

    select
        customers.*,
        cast(active.orders as {{ trendcast.type_double() }}) as orders,
        case
            when customers.repeats > 0
                then {{ trendcast.log_odds_of_leaving('customers', 'customers.repeats', 'customers.days_to_last',
                    'customers.days_known') }}
        end as log_odds
    from customers
    inner join active
        on
            customers.fold = active.fold
            and customers.repeats = active.repeats
            and customers.days_known = active.days_known

),

chances as (

    select
        scored.*,
        case when log_odds is null then 1 else 1 / (1 + exp(least(log_odds, 30))) end as probability_active,
        power((alpha + days_known) / (alpha + days_known + {{ days }}), r + repeats) as none_if_active
    from scored

),

-- By when half of those who are to come in the days after have come.
waits as (

    select
        chances.*,
        cast(greatest(
            ceil((alpha + days_known) * (power((1 + none_if_active) / 2, -1 / (r + repeats)) - 1)), 1
        ) as integer) as median_days
    from chances

)

select
    fold,
    customer_id,
    cutoff,
    cast(next_orders as {{ trendcast.type_double() }}) as next_orders,
    cast(probability_active as {{ trendcast.type_double() }}) as probability_active,
    cast(probability_active * orders as {{ trendcast.type_double() }}) as expected_orders,
    cast(1 - probability_active * (1 - none_if_active) as {{ trendcast.type_double() }}) as probability_of_none,
    cast({{ trendcast.date_after('day', 'median_days', 'cutoff') }} as date) as median_date
from waits
