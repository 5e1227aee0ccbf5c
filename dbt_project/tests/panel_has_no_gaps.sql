-- Each series has one row for every period from its first sale to the cutoff.
with spans as (

    select
        series_id,
        min(t) as first_t,
        max(t) as last_t,
        count(*) as periods
    from {{ ref('int_sales_filled') }}
    group by 1

),

-- Of several measures the leading one has the series that the sales have.
wanted as (

    select *
    from {{ ref('int_series') }}
    where 1 = 1 {{ trendcast.and_leading() }}

)

select
    series.series_id,
    series.first_t as first_sale_t,
    spans.first_t,
    spans.last_t,
    spans.periods
from wanted as series
left join spans
    on series.series_id = spans.series_id
where
    spans.series_id is null
    or spans.first_t <> series.first_t
    or spans.last_t <> {{ trendcast.last_cutoff() }}
    or spans.periods <> spans.last_t - spans.first_t + 1
