-- One row per fold (0 and 1) and customer: the chance of no order in the days after its cutoff.
select
    states.fold,
    states.customer_id,
    states.is_lost,
    {{ trendcast.logistic('coefficients', 'states', ['recency', 'frequency', 'lateness']) }} as churn_probability,
    coefficients.n_lost / coefficients.n_customers as base_rate
from {{ ref('int_customer_state') }} as states
inner join {{ ref('int_churn_coefficients') }} as coefficients
    on states.fold = coefficients.fold
