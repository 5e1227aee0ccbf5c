-- One row per reviewed product key and period, from its first review to the cutoff without gaps: what its reviews said
-- by the end of the period. A review counts from its own day on. To have it by series join on the columns of
-- source_key('review_columns') and on t (same_key); no row means no review yet.
{%- set key = trendcast.source_key('review_columns') %}
with dated as (

    select
        product_id,
        {{ trendcast.local_date('reviewed_at', var('review_timezone')) }} as review_date,
        rating
    from {{ ref('stg_reviews') }}

),

reviews as (

    select
        {{ trendcast.key_columns(key, 'products') }}
        {{ trendcast.period_index('dated.review_date') }} as t,
        (select min(calendar.t) from {{ ref('ftr_calendar') }} as calendar) as first_calendar_t,
        dated.rating
    from dated
    inner join {{ ref('stg_products') }} as products
        on dated.product_id = products.product_id
    where dated.review_date is not null and dated.rating is not null

),

-- Reviews from before the calendar are there on its first day.
placed as (

    select
        {{ trendcast.key_columns(key, 'reviews') }}
        greatest(reviews.t, reviews.first_calendar_t) as t,
        count(*) as n_reviews,
        sum(reviews.rating) as total_rating,
        sum(case when reviews.t >= reviews.first_calendar_t then 1 else 0 end) as reviews_recent
    from reviews
    {{ trendcast.group_by(key | length + 1) }}

),

first_reviews as (

    select
        {{ trendcast.key_columns(key, 'placed') }}
        min(placed.t) as first_t
    from placed
    {{ trendcast.group_by(key | length) }}

),

spine as (

    select
        {{ trendcast.key_columns(key, 'first_reviews') }}
        calendar.t
    from first_reviews
    inner join {{ ref('ftr_calendar') }} as calendar
        on first_reviews.first_t <= calendar.t
    where
        calendar.t <= {{ trendcast.last_cutoff() }}
        and exists (
            select 1
            from {{ ref('int_series') }} as series
            where {{ trendcast.same_key(key, 'series', 'first_reviews') }}
        )

),

-- Sums of exact decimals, so that their order does not matter.
summed as (

    select
        {{ trendcast.key_columns(key, 'spine') }}
        spine.t,
        placed.n_reviews,
        placed.total_rating,
        coalesce(placed.reviews_recent, 0) as reviews_recent
    from spine
    left join placed
        on
            spine.t = placed.t
            and {{ trendcast.same_key(key, 'spine', 'placed') }}

)

select
    {{ trendcast.key_columns(key, 'summed') }}
    t,
    cast({{ trendcast.so_far('sum(total_rating)', key) }} as {{ trendcast.type_double() }})
    / {{ trendcast.so_far('sum(n_reviews)', key) }} as rating_mean,
    cast({{ trendcast.so_far('sum(n_reviews)', key) }} as {{ dbt.type_bigint() }}) as review_count,
    cast(reviews_recent as {{ dbt.type_bigint() }}) as reviews_recent
from summed
