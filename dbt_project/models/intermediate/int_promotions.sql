-- One row per promoted series key and period: the mean intensity of what is planned over its products' days.
{%- set promotion_key = trendcast.promotion_key() %}
with plan as (

    select
        {% for column in promotion_key %}
        {{ 'promotions' if column in ['product_id', 'location_id'] else 'products' }}.{{ adapter.quote(column) }},
        {% endfor %}
        calendar.t,
        promotions.display,
        promotions.feature,
        promotions.planned_discount
    from {{ ref('stg_promotions') }} as promotions
    inner join {{ ref('stg_products') }} as products
        on promotions.product_id = products.product_id
    inner join {{ ref('ftr_calendar') }} as calendar
        on
            calendar.ds <= promotions.end_date
            and {{ trendcast.period_end('calendar.ds') }} >= promotions.start_date

),

assortment as (

    select
        {% for column in promotion_key %}
        {{ adapter.quote(column) ~ ',' if column != 'location_id' }}
        {% endfor %}
        count(*) as products
    from {{ ref('stg_products') }}
    {% for column in promotion_key if column != 'location_id' %}
    {{ 'group by ' if loop.first else ', ' }}{{ adapter.quote(column) }}
    {% endfor %}

),

summed as (

    select
        {% for column in promotion_key %}
        {{ adapter.quote(column) }},
        {% endfor %}
        t,
        cast(sum(display) as {{ trendcast.type_double() }}) as display,
        cast(sum(feature) as {{ trendcast.type_double() }}) as feature,
        cast(sum(planned_discount) as {{ trendcast.type_double() }}) as planned_discount
    from plan
    group by
        {% for column in promotion_key %}
        {{ adapter.quote(column) }},
        {% endfor %}
        t

)

select
    {% for column in promotion_key %}
    summed.{{ adapter.quote(column) }},
    {% endfor %}
    summed.t,
    summed.display / assortment.products as display,
    summed.feature / assortment.products as feature,
    summed.planned_discount / assortment.products as planned_discount
from summed
inner join assortment
    on
        1 = 1
        {% for column in promotion_key if column != 'location_id' %}
        and summed.{{ adapter.quote(column) }} = assortment.{{ adapter.quote(column) }}
        {% endfor %}
