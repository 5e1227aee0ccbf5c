-- One row per fold, method, customer and item among the fifty that the method ranks first: popularity, repeat purchase
-- (how often the customer bought it) and what is bought together with what the customer bought.
with history as (

    select
        cutoffs.fold,
        cutoffs.cutoff,
        orders.customer_id,
        orders.item,
        orders.order_date,
        {{ trendcast.days_in('orders.order_date', 'cutoffs.cutoff') }} - 1 as days_ago
    from {{ ref('int_customer_orders') }} as orders
    inner join {{ ref('int_customer_cutoffs') }} as cutoffs
        on orders.order_date <= cutoffs.cutoff

),

-- Of a quarter of a year; the share of all customers so far that bought it.
popular as (

    select
        fold,
        item,
        count(distinct customer_id) as buyers,
        count(distinct case when days_ago < 91 then customer_id end) as recent_buyers
    from history
    group by 1, 2

),

items as (

    select
        popular.*,
        row_number() over (partition by fold order by recent_buyers desc, buyers desc, item asc) as item_rank
    from popular

),

universe as (

    select *
    from items
    where item_rank <= {{ trendcast.positive_integer('customer_items', var('customer_items')) }}

),

customers as (

    select distinct
        fold,
        customer_id
    from history

),

bought as (

    select
        history.fold,
        history.customer_id,
        history.item,
        count(*) as times
    from history
    inner join universe
        on history.fold = universe.fold and history.item = universe.item
    where history.days_ago < 364
    group by 1, 2, 3

),

-- Cosine of two items over the visits of a quarter (Linden, Smith & York 2003).
visits as (

    select
        history.fold,
        history.customer_id,
        history.order_date,
        history.item
    from history
    inner join universe
        on history.fold = universe.fold and history.item = universe.item
    where history.days_ago < 91

),

counts as (

    select
        fold,
        item,
        count(*) as n_visits
    from visits
    group by 1, 2

),

pairs as (

    select
        visits.fold,
        visits.item,
        others.item as other_item,
        count(*) as n_together
    from visits
    inner join visits as others
        on
            visits.fold = others.fold
            and visits.customer_id = others.customer_id
            and visits.order_date = others.order_date
    group by 1, 2, 3

),

related as (

    select
        pairs.fold,
        pairs.item,
        pairs.other_item,
        -- A whole number, of 1e-12 each, whose sums are exact and so do not hang on their order.
        cast(round(
            1e12 * pairs.n_together / sqrt(cast(a.n_visits as {{ trendcast.type_double() }}) * b.n_visits)
        ) as bigint) as similarity
    from pairs
    inner join counts as a
        on pairs.fold = a.fold and pairs.item = a.item
    inner join counts as b
        on pairs.fold = b.fold and pairs.other_item = b.item

),

-- The hundred nearest say nearly as much as all of them, in less time (Sarwar, Karypis, Konstan & Riedl 2001).
nearest as (

    select
        related.*,
        row_number() over (
            partition by fold, item
            order by similarity desc, other_item asc
        ) as place
    from related

),

scored as (

    select
        customers.fold,
        'popularity' as method,
        customers.customer_id,
        universe.item,
        1.0e0 * universe.recent_buyers as score
    from customers
    inner join universe
        on customers.fold = universe.fold and universe.item_rank <= 50
    union all
    select
        fold,
        'repeat' as method,
        customer_id,
        item,
        1.0e0 * times as score
    from bought
    union all
    select
        bought.fold,
        'together' as method,
        bought.customer_id,
        nearest.other_item as item,
        cast(sum(bought.times * nearest.similarity) as {{ trendcast.type_double() }}) / 1e12 as score
    from bought
    inner join nearest
        on bought.fold = nearest.fold and bought.item = nearest.item and nearest.place <= 100
    group by 1, 2, 3, 4

),

ranked as (

    select
        scored.fold,
        scored.method,
        scored.customer_id,
        scored.item,
        scored.score,
        cast(row_number() over (
            partition by scored.fold, scored.method, scored.customer_id
            order by scored.score desc, universe.item_rank asc
        ) as integer) as item_rank
    from scored
    inner join universe
        on scored.fold = universe.fold and scored.item = universe.item

)

select *
from ranked
where item_rank <= 50
