-- One row per fold (2, which the blend was tuned on, and 1, which it was not) and method: how good its first ten items
-- were, over the customers who bought in the days after the cutoff.
{%- set days = trendcast.positive_integer('customer_days', var('customer_days')) %}
with truth as (

    select distinct
        cutoffs.fold,
        orders.customer_id,
        orders.item
    from {{ ref('int_customer_orders') }} as orders
    inner join {{ ref('int_customer_cutoffs') }} as cutoffs
        on
            orders.order_date > cutoffs.cutoff
            and orders.order_date <= {{ trendcast.date_after('day', days, 'cutoffs.cutoff') }}
    where cutoffs.fold > 0

),

rankings as (

    select
        fold,
        method,
        customer_id,
        item,
        item_rank
    from {{ ref('int_next_purchase_baselines') }}
    where item_rank <= 10 and fold > 0
    union all
    -- A run on older data had other cutoffs, and is not judged by these.
    select
        purchases.fold,
        purchases.model as method,
        purchases.customer_id,
        purchases.item,
        purchases.item_rank
    from {{ ref('next_purchases') }} as purchases
    inner join {{ ref('int_customer_cutoffs') }} as cutoffs
        on purchases.fold = cutoffs.fold and purchases.cutoff = cutoffs.cutoff
    where purchases.run_id = ({{ trendcast.latest_run('next_purchases') }}) and purchases.fold > 0

),

methods as (

    select distinct
        fold,
        method
    from rankings

),

-- A customer who had bought before the cutoff and bought after it.
customers as (

    select
        truth.fold,
        truth.customer_id,
        count(*) as n_items
    from truth
    inner join {{ ref('int_customer_state') }} as states
        on truth.fold = states.fold and truth.customer_id = states.customer_id
    group by truth.fold, truth.customer_id

),

hits as (

    select
        rankings.fold,
        rankings.method,
        rankings.customer_id,
        count(*) as n_hits,
        sum(cast(ln(2.0e0) / ln(rankings.item_rank + 1.0e0) as {{ trendcast.type_fine() }})) as gain,
        min(rankings.item_rank) as first_rank
    from rankings
    inner join truth
        on
            rankings.fold = truth.fold
            and rankings.customer_id = truth.customer_id
            and rankings.item = truth.item
    group by rankings.fold, rankings.method, rankings.customer_id

),

-- Of a customer: what the best ranking would have gained (Järvelin & Kekäläinen 2002).
measured as (

    select
        methods.fold,
        methods.method,
        customers.customer_id,
        case when hits.n_hits > 0 then 1 else 0 end as is_hit,
        cast(coalesce(hits.n_hits, 0) * 1.0e0 / customers.n_items as {{ trendcast.type_fine() }}) as recall,
        cast(coalesce(hits.gain, 0) / (
            {% for rank in range(1, 11) %}
            {{ '+ ' if not loop.first -}}
            case when customers.n_items >= {{ rank }} then ln(2.0e0) / ln({{ rank + 1 }}.0e0) else 0 end
            {% endfor %}
        ) as {{ trendcast.type_fine() }}) as ndcg,
        cast(coalesce(1.0e0 / hits.first_rank, 0) as {{ trendcast.type_fine() }}) as reciprocal_rank
    from methods
    inner join customers
        on methods.fold = customers.fold
    left join hits
        on
            methods.fold = hits.fold
            and methods.method = hits.method
            and customers.customer_id = hits.customer_id

),

final as (

    select
        fold,
        method,
        fold = 1 as is_report,
        count(*) as n_customers,
        cast(avg(is_hit) as {{ trendcast.type_double() }}) as hit_rate,
        cast(sum(recall) as {{ trendcast.type_double() }}) / count(*) as recall,
        cast(sum(ndcg) as {{ trendcast.type_double() }}) / count(*) as ndcg,
        cast(sum(reciprocal_rank) as {{ trendcast.type_double() }}) / count(*) as mrr
    from measured
    group by fold, method

)

select *
from final
