-- One row per period from the first sale to the horizon's end: what the calendar alone tells.
{%- set settings = trendcast.settings() %}
with bounds as (

    select
        first_date,
        {{ trendcast.period_end(dbt.dateadd(settings.grain, settings.horizon, 'cutoff')) }} as last_date
    from {{ ref('int_cutoffs') }}
    where fold = 0

),

days as (

    {{ trendcast.days_between('bounds') }}

),

described as (

    select
        date_day,
        -- 0 is Monday: whole days since a known Monday, because engines number weekdays differently.
        mod({{ dbt.datediff("cast('1900-01-01' as date)", 'date_day', 'day') }}, 7) as weekday,
        extract(day from date_day) as month_day,
        2 * pi() * (extract(month from date_day) - 1 + extract(day from date_day) / 31.0) / 12 as year_angle,
        date_day >= {{ dbt.dateadd('year', 2, '(select bounds.first_date from bounds)') }} as is_second_year
    from days

)

select
    {{ trendcast.period_index('date_day') }} as t,
    {{ trendcast.period_start('date_day') }} as ds,
    {% for name in ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'] %}
    avg(case when weekday = {{ loop.index0 }} then 1.0 else 0.0 end) as is_{{ name }},
    {% endfor %}
    avg(case when month_day <= 7 then 1.0 else 0.0 end) as is_month_start,
    avg(case when month_day >= 25 then 1.0 else 0.0 end) as is_month_end,
    -- A yearly wave is told from a trend only once a second year is there.
    avg(case when is_second_year then sin(year_angle) else 0 end) as year_sin,
    avg(case when is_second_year then cos(year_angle) else 0 end) as year_cos
from described
group by 1, 2
