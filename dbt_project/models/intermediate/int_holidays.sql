-- One row per date and holiday: the public holidays of the var `holiday_country` and the shop's own events. All of them
-- are known in advance.
with named as (

    select
        event_date as date_day,
        name
    from {{ ref('stg_events') }}
    {% if trendcast.uses_holiday_library() %}
    union all
    select
        date_day,
        name
    from {{ trendcast.public_holidays() }}
    {% endif %}

)

select distinct
    date_day,
    coalesce(name, 'event') as name
from named
where date_day is not null
