-- One row: how good the churn probabilities were at the last cutoff of which it is known who came back, by a regression
-- learnt at the cutoff before it. No row where nobody is known.
with scored as (

    select
        *,
        rank() over (order by churn_probability) as low_rank,
        count(*) over (partition by churn_probability) as ties,
        ntile(10) over (order by churn_probability desc, customer_id asc) as tenth
    from {{ ref('int_churn_probabilities') }}
    where fold = 1

),

summed as (

    select
        count(*) as n_customers,
        cast(sum(is_lost) as {{ trendcast.type_double() }}) as n_lost,
        {% for name, expression in {
            'mean_probability': 'churn_probability',
            'brier_score': 'power(churn_probability - is_lost, 2)',
            'base_brier_score': 'power(base_rate - is_lost, 2)',
        }.items() %}
        cast(avg(cast({{ expression }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }}) as {{ name }},
        {% endfor %}
        -- Mann & Whitney (1947), ties counted by half.
        sum(case when is_lost = 1 then low_rank + (ties - 1) / 2.0e0 end) as lost_ranks,
        sum(case when tenth = 1 then is_lost end) as tenth_lost,
        count(case when tenth = 1 then 1 end) as tenth_customers
    from scored

),

final as (

    select
        n_customers,
        n_lost / n_customers as lost_rate,
        mean_probability,
        brier_score,
        base_brier_score,
        (lost_ranks - n_lost * (n_lost + 1) / 2) / nullif(n_lost * (n_customers - n_lost), 0) as auc,
        tenth_lost / nullif(tenth_customers, 0) / nullif(n_lost / n_customers, 0) as lift_of_first_tenth
    from summed
    where n_customers > 0

)

select *
from final
