-- One row per product key (and location, where the list names one) and period with a list price: the mean price over
-- its products' days, and how far it is from the key's own past. Only prices of the period and before it are used.
{%- set settings = trendcast.settings() %}
{%- set key = trendcast.source_key('price_columns') %}
-- A price without an end holds until the day before the product's next one.
with spans as (

    select
        product_id,
        location_id,
        start_date,
        coalesce(
            end_date,
            cast({{ trendcast.date_after(
                'day', -1, 'lead(start_date) over (partition by product_id, location_id order by start_date)'
            ) }} as date),
            cast('9999-12-31' as date)
        ) as end_date,
        price
    from {{ ref('stg_prices') }}
    where start_date is not null and price > 0

),

-- The list has a row per product but few spans, so it is summed to key and span before it meets the calendar.
listed as (

    select
        {{ trendcast.key_columns(key, 'products', location='spans') }}
        spans.start_date,
        spans.end_date,
        count(*) as n_prices,
        sum(spans.price) as total_price
    from spans
    inner join {{ ref('stg_products') }} as products
        on spans.product_id = products.product_id
    where
        spans.start_date <= spans.end_date
        and exists (
            select 1
            from {{ ref('int_series') }} as series
            where
                1 = 1
                {% for column in key %}
                and series.{{ adapter.quote(column) }}
                = {{ 'spans' if column == 'location_id' else 'products' }}.{{ adapter.quote(column) }}
                {% endfor %}
        )
    {{ trendcast.group_by(key | length + 2) }}

),

span_periods as (

    {{ trendcast.periods_of_spans('listed') }}

),

-- Exact decimals, so that the order of sums does not matter.
means as (

    select
        {{ trendcast.key_columns(key, 'listed') }}
        span_periods.t,
        cast(
            sum(listed.total_price * span_periods.span_days) / sum(listed.n_prices * span_periods.span_days)
            as {{ trendcast.type_amount() }}
        ) as planned_price
    from listed
    inner join span_periods
        on listed.start_date = span_periods.start_date and listed.end_date = span_periods.end_date
    {{ trendcast.group_by(key | length + 1) }}

),

compared as (

    select
        means.*,
        avg(planned_price) over (
            {{ trendcast.partition_by(key) }} order by t
            rows between {{ settings.windows[2] }} preceding and 1 preceding
        ) as past_price
    from means

)

select
    {{ trendcast.key_columns(key, 'compared') }}
    t,
    cast(planned_price as {{ trendcast.type_double() }}) as planned_price,
    coalesce(ln(
        nullif(cast(planned_price as {{ trendcast.type_double() }}), 0)
        / nullif(cast(past_price as {{ trendcast.type_double() }}), 0)
    ), 0) as planned_price_change
from compared
