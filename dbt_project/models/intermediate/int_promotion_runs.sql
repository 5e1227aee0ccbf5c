-- One row per promoted series key and run: planned promotions that touch or overlap are one run. In period indexes
-- and not joined to the calendar, so that a promotion planned beyond the horizon's end counts as well.
{%- set key = trendcast.source_key('promotion_columns') %}
with spans as (

    select distinct
        {{ trendcast.key_columns(key, 'products', location='promotions') }}
        {{ trendcast.period_index('promotions.start_date') }} as first_t,
        {{ trendcast.period_index('promotions.end_date') }} as last_t
    from {{ ref('stg_promotions') }} as promotions
    inner join {{ ref('stg_products') }} as products
        on promotions.product_id = products.product_id
    where promotions.start_date <= promotions.end_date

),

reached as (

    select
        spans.*,
        max(last_t) over (
            {{ trendcast.partition_by(key) }} order by first_t, last_t
            rows between unbounded preceding and 1 preceding
        ) as reached_t
    from spans

),

numbered as (

    select
        reached.*,
        sum(case when first_t <= reached_t + 1 then 0 else 1 end) over (
            {{ trendcast.partition_by(key) }} order by first_t, last_t
            rows between unbounded preceding and current row
        ) as run
    from reached

),

runs as (

    select
        {{ trendcast.key_columns(key, 'numbered') }}
        numbered.run,
        min(numbered.first_t) as first_t,
        max(numbered.last_t) as last_t
    from numbered
    {{ trendcast.group_by(key | length + 1) }}

)

select
    runs.*,
    lag(last_t) over ({{ trendcast.partition_by(key) }} order by first_t) as previous_t,
    lead(first_t) over ({{ trendcast.partition_by(key) }} order by first_t) as next_t
from runs
