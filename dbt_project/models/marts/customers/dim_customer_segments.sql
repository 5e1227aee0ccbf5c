-- One row per customer: recency, frequency and money, the segment they make, when the next order is due, how many are,
-- and the chance that there is none in the next days.
with scored as (

    select
        *,
        -- Fifths (Hughes, Strategic Database Marketing, 1994): 5 is best. Ties go by id, so that the fifths are equal.
        6 - ntile(5) over (order by recency_days, customer_id) as recency_score,
        ntile(5) over (order by orders, customer_id) as frequency_score,
        ntile(5) over (order by coalesce(revenue, 0), customer_id) as monetary_score
    from {{ ref('int_customer_state') }}
    where fold = 0

),

joined as (

    select
        scored.*,
        expected.median_date,
        expected.expected_orders,
        expected.probability_active,
        coalesce(chances.churn_probability, expected.probability_of_none) as churn_probability,
        case when chances.churn_probability is null then 'bg_nbd' else 'logistic' end as churn_model
    from scored
    inner join {{ ref('int_expected_orders') }} as expected
        on scored.fold = expected.fold and scored.customer_id = expected.customer_id
    left join {{ ref('int_churn_probabilities') }} as chances
        on scored.fold = chances.fold and scored.customer_id = chances.customer_id

),

final as (

    select
        customer_id,
        cutoff,
        first_date as first_order_date,
        last_date as last_order_date,
        orders,
        revenue,
        recency_days,
        mean_gap_days,
        cast(recency_score as integer) as recency_score,
        cast(frequency_score as integer) as frequency_score,
        cast(monetary_score as integer) as monetary_score,
        case
            when orders = 1 and recency_score >= 4 then 'new'
            when recency_score >= 4 and frequency_score >= 4 and monetary_score >= 4 then 'best'
            when recency_score >= 4 and frequency_score >= 3 then 'loyal'
            when recency_score >= 3 then 'promising'
            when frequency_score >= 4 then 'at_risk'
            when recency_score = 1 then 'lost'
            else 'sleeping'
        end as segment,
        median_date as expected_order_date,
        -- A single order has no gap: the date is that of customers alike.
        orders = 1 as is_order_date_assumed,
        expected_orders,
        probability_active,
        cast(churn_probability as {{ trendcast.type_double() }}) as churn_probability,
        churn_model
    from joined

)

select *
from final
