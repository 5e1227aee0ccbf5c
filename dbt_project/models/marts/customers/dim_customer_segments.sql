-- One row per customer: recency, frequency and money, the segment they make, when the next purchase is due, and the
-- chance that there is none in the next days.
{%- set days = trendcast.positive_integer('customer_days', var('customer_days')) %}
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
        coalesce(chances.churn_probability, 0.5) as churn_probability,
        chances.churn_probability is null as is_churn_assumed
    from scored
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
        -- The usual gap after the last order; one who is late already is due now. Unknown after a single order.
        case when mean_gap_days is not null then greatest(
            cast({{ dbt.dateadd('day', 'cast(ceil(mean_gap_days) as integer)', 'last_date') }} as date),
            cast({{ dbt.dateadd('day', 1, 'cutoff') }} as date)
        ) end as expected_order_date,
        cast(churn_probability as {{ trendcast.type_double() }}) as churn_probability,
        is_churn_assumed
    from joined

)

select *
from final
