-- One row per fold (0 and 1) and history of orders: how many of at most 10,000 customers, drawn by their ids, had it by
-- the fold's cutoff. A table, for int_purchase_model goes over it many times.
{%- set double = trendcast.type_double() %}
with drawn as (

    select
        fold,
        cast(orders - 1 as {{ double }}) as repeats,
        cast(tenure_days - 1 - recency_days as {{ double }}) as days_to_last,
        cast(tenure_days - 1 as {{ double }}) as days_known,
        row_number() over (
            partition by fold
            order by {{ dbt.hash('customer_id') }}, customer_id
        ) as draw
    from {{ ref('int_customer_state') }}
    where fold < 2

)

select
    fold,
    repeats,
    days_to_last,
    days_known,
    count(*) as n_customers
from drawn
where draw <= 10000
group by 1, 2, 3, 4
