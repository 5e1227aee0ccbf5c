-- One row per fold: a logistic regression of who did not come back, learnt at the cutoff before (fold + 1) alone.
{%- set regressors = ['recency', 'frequency', 'lateness'] %}
with customers as (

    select
        fold - 1 as fold,
        recency,
        frequency,
        lateness,
        is_lost
    from {{ ref('int_customer_state') }}
    where fold > 0

),

{{ trendcast.logistic_regression('customers', ['fold'], regressors, 'is_lost') }}

select
    fold,
    b_one,
    {% for name in regressors %}
    b_{{ name }},
    {% endfor %}
    n_rows as n_customers,
    n_true as n_lost
from logistic_fit
