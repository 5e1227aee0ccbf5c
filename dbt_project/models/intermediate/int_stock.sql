-- One row per product key (and location, where stock is counted by location) and period up to the cutoff: the share of
-- its products' days with stock on hand. What is not counted does not count. To have it by series join on the columns
-- of source_key('inventory_columns') and on t (same_key); no row means that stock is not known.
-- depends_on: {{ ref('ftr_calendar') }}
{%- set key = trendcast.source_key('inventory_columns') %}
with counted as (

    select
        product_id,
        location_id,
        cast(counted_at as date) as first_date,
        on_hand,
        -- The last count of a day is the day's; counts of the same time are parts of it, such as bins.
        rank() over (
            partition by product_id, location_id, cast(counted_at as date) order by counted_at desc
        ) as recency
    from {{ ref('stg_inventory') }}
    where counted_at is not null and on_hand is not null

),

day_counts as (

    select
        product_id,
        location_id,
        first_date,
        case when sum(on_hand) > 0 then 1 else 0 end as is_in_stock
    from counted
    where recency = 1
    group by 1, 2, 3

),

{% if trendcast.one_of('inventory_snapshots', ['daily', 'changes']) == 'daily' %}
periods as (

    select
        product_id,
        location_id,
        {{ trendcast.period_index('first_date') }} as t,
        count(*) as counted_days,
        sum(is_in_stock) as stocked_days
    from day_counts
    group by 1, 2, 3

),

{% else %}
-- A count holds until the day before the next one, the last one until the cutoff.
spans as (

    select
        day_counts.*,
        cast({{ trendcast.date_after('day', -1, 'lead(first_date) over (partition by product_id, location_id order by first_date)') }}
            as date) as last_date
    from day_counts

),

held_days as (

    select
        spans.product_id,
        spans.location_id,
        calendar.t,
        spans.is_in_stock,
        {{ trendcast.days_in(
            'greatest(calendar.ds, spans.first_date)',
            'least(' ~ trendcast.period_end('calendar.ds')
            ~ ', coalesce(spans.last_date, ' ~ trendcast.period_end('calendar.ds') ~ '))'
        ) }} as counted_days
    from spans
    inner join {{ ref('ftr_calendar') }} as calendar
        on
            spans.first_date <= {{ trendcast.period_end('calendar.ds') }}
            and coalesce(spans.last_date >= calendar.ds, true)

),

periods as (

    select
        product_id,
        location_id,
        t,
        sum(counted_days) as counted_days,
        sum(counted_days * is_in_stock) as stocked_days
    from held_days
    group by 1, 2, 3

),

{% endif %}
summed as (

    select
        {{ trendcast.key_columns(key, 'products', location='periods') }}
        periods.t,
        sum(periods.counted_days) as counted_days,
        sum(periods.stocked_days) as stocked_days
    from periods
    inner join {{ ref('stg_products') }} as products
        on periods.product_id = products.product_id
    where periods.t <= {{ trendcast.last_cutoff() }}
    {{ trendcast.group_by(key | length + 1) }}

)

select
    {{ trendcast.key_columns(key, 'summed') }}
    summed.t,
    cast(summed.stocked_days as {{ trendcast.type_double() }}) / summed.counted_days as in_stock_share
from summed
where
    exists (
        select 1
        from {{ ref('int_series') }} as series
        where {{ trendcast.same_key(key, 'series', 'summed') }}
    )
