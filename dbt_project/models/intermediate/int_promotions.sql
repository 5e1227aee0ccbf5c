-- One row per series key and period that is promoted or near a promotion: the mean intensity of what is planned over
-- its products' days, and how far the nearest promotions are.
-- depends_on: {{ ref('int_promotion_runs') }}
{%- set settings = trendcast.settings() %}
{#- A distance of as many periods, or more, counts as none. #}
{%- set reach = settings.windows[1] %}
{%- set promotion_key = trendcast.source_key('promotion_columns') %}
{%- set product_key = promotion_key | reject('equalto', 'location_id') | list %}
-- The plan has a row per product but few spans, so it is summed to key and span before it meets the calendar.
with plan as (

    select
        {{ trendcast.key_columns(promotion_key, 'products', location='promotions') }}
        promotions.start_date,
        promotions.end_date,
        sum(promotions.display) as display,
        sum(promotions.feature) as feature,
        sum(promotions.planned_discount) as planned_discount
    from {{ ref('stg_promotions') }} as promotions
    inner join {{ ref('stg_products') }} as products
        on promotions.product_id = products.product_id
    where promotions.start_date <= promotions.end_date
    {{ trendcast.group_by(promotion_key | length + 2) }}

),

span_periods as (

    {{ trendcast.periods_of_spans('plan') }}

),

assortment as (

    select
        {% for column in product_key %}
        {{ adapter.quote(column) }},
        {% endfor %}
        count(*) as products
    from {{ ref('stg_products') }}
    {{ trendcast.group_by(product_key | length) }}

),

-- Sums of exact decimals, so that their order does not matter.
summed as (

    select
        {{ trendcast.key_columns(promotion_key, 'plan') }}
        span_periods.t,
        span_periods.period_days,
        cast(sum(plan.display * span_periods.span_days) as {{ trendcast.type_double() }}) as display,
        cast(sum(plan.feature * span_periods.span_days) as {{ trendcast.type_double() }}) as feature,
        cast(sum(plan.planned_discount * span_periods.span_days) as {{ trendcast.type_double() }})
            as planned_discount
    from plan
    inner join span_periods
        on plan.start_date = span_periods.start_date and plan.end_date = span_periods.end_date
    {{ trendcast.group_by(promotion_key | length + 2) }}

),

intensities as (

    select
        {{ trendcast.key_columns(promotion_key, 'summed') }}
        summed.t,
        summed.display / (assortment.products * summed.period_days) as display,
        summed.feature / (assortment.products * summed.period_days) as feature,
        summed.planned_discount / (assortment.products * summed.period_days) as planned_discount
    from summed
    inner join assortment
        on {{ trendcast.same_key(product_key, 'summed', 'assortment') }}

)
{%- if trendcast.uses('promotions') %},

-- Each run speaks for the periods around it: those before it that the run before does not reach, itself, and those
-- after it until the next run begins.
around as (

    select
        {{ trendcast.key_columns(promotion_key, 'runs') }}
        calendar.t,
        calendar.t between runs.first_t and runs.last_t as is_promoted,
        case
            when calendar.t < runs.first_t then coalesce(calendar.t - runs.previous_t, {{ reach }})
            else greatest(calendar.t - runs.last_t, 0)
        end as since_promotion,
        case
            when calendar.t > runs.last_t then coalesce(runs.next_t - calendar.t, {{ reach }})
            else greatest(runs.first_t - calendar.t, 0)
        end as until_promotion,
        calendar.t - runs.first_t + 1 as promotion_elapsed,
        runs.last_t - calendar.t + 1 as promotion_remaining
    from {{ ref('int_promotion_runs') }} as runs
    inner join {{ ref('ftr_calendar') }} as calendar
        on
            runs.first_t - {{ reach }} < calendar.t
            and runs.last_t + {{ reach }} > calendar.t
            and coalesce(runs.next_t > calendar.t, true)
            and (runs.first_t <= calendar.t or coalesce(runs.previous_t + {{ reach }} <= calendar.t, true))

)

select
    {{ trendcast.key_columns(promotion_key, 'around') }}
    around.t,
    {% for column in ['since_promotion', 'until_promotion'] %}
    cast(least(around.{{ column }}, {{ reach }}) as {{ trendcast.type_double() }}) / {{ reach }} as {{ column }},
    {% endfor %}
    {% for column in ['promotion_elapsed', 'promotion_remaining'] %}
    case
        when around.is_promoted
            then cast(least(around.{{ column }}, {{ reach }}) as {{ trendcast.type_double() }}) / {{ reach }}
        else 0
    end as {{ column }},
    {% endfor %}
    coalesce(intensities.display, 0) as display,
    coalesce(intensities.feature, 0) as feature,
    coalesce(intensities.planned_discount, 0) as planned_discount
from around
left join intensities
    on
        around.t = intensities.t
        and {{ trendcast.same_key(promotion_key, 'around', 'intensities') }}
{% else %}

select *
from intensities
{% endif %}
