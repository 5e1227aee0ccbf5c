-- One row per series and period from its first sale to the cutoff, without gaps. The end is the cutoff
-- and never the last sale: zeros that stop at the last sale would reveal that it is the last.
with spine as (

    select
        series.series_id,
        series.first_t,
        calendar.t,
        calendar.ds
    from {{ ref('int_series') }} as series
    inner join {{ ref('ftr_calendar') }} as calendar
        on series.first_t <= calendar.t
    where calendar.t <= {{ trendcast.last_cutoff() }}

),

joined as (

    select
        spine.series_id,
        spine.t,
        spine.ds,
        spine.first_t,
        sales.series_id is null as is_filled,
        sales.quantity,
        sales.revenue,
        sales.discount,
        sales.customers,
        sales.revenue / nullif(sales.quantity, 0) as price,
        -- Rows since the last sale share a number, so max() over them carries the last value forward.
        count(sales.series_id) over (partition by spine.series_id order by spine.t) as sale_number
    from spine
    left join {{ ref('int_sales') }} as sales
        on spine.series_id = sales.series_id and spine.t = sales.t

)

select
    series_id,
    t,
    ds,
    t - first_t as age,
    is_filled,
    {% if trendcast.one_of('quantity_gap_fill', ['zero', 'carry_forward']) == 'zero' %}
    coalesce(quantity, 0) as quantity,
    coalesce(revenue, 0) as revenue,
    {% else %}
    max(quantity) over (partition by series_id, sale_number) as quantity,
    max(revenue) over (partition by series_id, sale_number) as revenue,
    {% endif %}
    coalesce(discount, 0) as discount,
    coalesce(customers, 0) as customers,
    max(price) over (partition by series_id, sale_number) as price
from joined
