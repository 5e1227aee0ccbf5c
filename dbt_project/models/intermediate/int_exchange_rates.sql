-- One row per foreign currency and day from its first rate to today: the latest rate then known.
with known as (

    select
        currency,
        -- No order is older, so a rate from before then counts from then on.
        greatest(rate_date, cast('{{ var("min_order_date") }}' as date)) as rate_date,
        rate,
        row_number() over (
            partition by currency, greatest(rate_date, cast('{{ var("min_order_date") }}' as date))
            order by rate_date desc, rate desc
        ) as recency
    from {{ ref('stg_exchange_rates') }}
    where rate > 0

),

bounds as (

    select
        min(rate_date) as first_date,
        {{ trendcast.date_after('day', 1, trendcast.yesterday()) }} as last_date
    from known

),

days as (

    {{ trendcast.days_between('bounds') }}

),

currencies as (

    select distinct currency
    from known

),

joined as (

    select
        currencies.currency,
        days.date_day,
        known.rate,
        -- Days since a rate share its number, so max() over them carries it forward.
        count(known.rate) over (partition by currencies.currency order by days.date_day) as rate_number
    from currencies
    cross join days
    left join known
        on currencies.currency = known.currency and days.date_day = known.rate_date and known.recency = 1

)

select
    currency,
    date_day,
    cast(max(rate) over (partition by currency, rate_number) as {{ trendcast.type_rate() }}) as rate
from joined
where rate_number > 0
