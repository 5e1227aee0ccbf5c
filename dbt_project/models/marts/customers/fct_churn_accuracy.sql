-- One row per model: how good the churn probabilities were at the last cutoff of which it is known who came back, by a
-- regression learnt at the cutoff before it, and by the purchase model, which needs none. No row where nobody is known.
with chances as (

    select
        'logistic' as model,
        customer_id,
        churn_probability,
        is_lost,
        base_rate
    from {{ ref('int_churn_probabilities') }}
    where fold = 1
    union all
    select
        'bg_nbd' as model,
        expected.customer_id,
        expected.probability_of_none as churn_probability,
        case when expected.next_orders = 0 then 1.0e0 else 0.0e0 end as is_lost,
        learnt.base_rate
    from {{ ref('int_expected_orders') }} as expected
    left join {{ ref('int_churn_probabilities') }} as learnt
        on expected.fold = learnt.fold and expected.customer_id = learnt.customer_id
    where expected.fold = 1

),

scored as (

    select
        *,
        -- Equal but for the last bits, which are the engine's, is equal.
        rank() over (
            partition by model
            order by cast(churn_probability as {{ trendcast.type_fine() }})
        ) as low_rank,
        count(*) over (partition by model, cast(churn_probability as {{ trendcast.type_fine() }})) as ties,
        ntile(10) over (
            partition by model
            order by churn_probability desc, customer_id asc
        ) as tenth
    from chances

),

summed as (

    select
        model,
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
    group by model

),

final as (

    select
        model,
        n_customers,
        n_lost / n_customers as lost_rate,
        mean_probability,
        brier_score,
        base_brier_score,
        (lost_ranks - n_lost * (n_lost + 1) / 2) / nullif(n_lost * (n_customers - n_lost), 0) as auc,
        tenth_lost / nullif(tenth_customers, 0) / nullif(n_lost / n_customers, 0) as lift_of_first_tenth
    from summed

)

select *
from final
