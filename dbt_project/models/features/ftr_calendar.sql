-- One row per period from the first sale to the horizon's end: what the calendar alone tells, mostly as means over the
-- period's days. All of it is known in advance, so its frames may look ahead.
-- depends_on: {{ ref('int_holidays') }}
{%- set settings = trendcast.settings() %}
{%- set double = trendcast.type_double() %}
{#- Days from which a holiday is no longer near. #}
{%- set near = 14 %}
with bounds as (

    select
        {{ trendcast.period_start('first_date') }} as first_ds,
        {{ trendcast.period_end(trendcast.date_after(settings.grain, settings.horizon, 'cutoff')) }} as last_day,
        -- Holidays near the ends count too: a whole period more for their lead and lag, then days for the distances.
        cast({{ trendcast.date_after('day', -near, trendcast.date_after(
            settings.grain, -1, trendcast.period_start('first_date'))) }} as date) as first_date,
        cast({{ trendcast.date_after('day', near, trendcast.period_end(
            trendcast.date_after(settings.grain, settings.horizon + 1, 'cutoff'))) }} as date) as last_date
    from {{ ref('int_cutoffs') }}
    where fold = 0

),

days as (

    {{ trendcast.days_between('bounds') }}

),

-- Days are counted from a known Monday, day 1, because engines number weekdays differently.
numbered as (

    select
        date_day,
        {{ trendcast.days_in("cast('1900-01-01' as date)", 'date_day') }} as day_number
    from days

),

described as (

    select
        date_day,
        {{ trendcast.period_index('date_day') }} as t,
        {{ trendcast.period_start('date_day') }} as ds,
        day_number,
        -- 0 is Monday.
        mod(day_number - 1, 7) as weekday,
        extract(day from date_day) as month_day,
        {{ trendcast.days_in('date_day', trendcast.month_end('date_day')) }} as month_days_left,
        2 * pi() * (extract(month from date_day) - 1 + extract(day from date_day) / 31.0e0) / 12 as year_angle
    from numbered

),

{% if trendcast.uses('holidays') %}
-- A day with several holidays is one.
holiday_dates as (

    select distinct date_day
    from {{ ref('int_holidays') }}

),

holidays as (

    select
        described.date_day,
        described.day_number,
        described.t,
        holiday_dates.date_day is not null as is_holiday
    from described
    left join holiday_dates
        on described.date_day = holiday_dates.date_day

),

distances as (

    select
        t,
        case when is_holiday then 1.0e0 else 0.0e0 end as is_holiday,
        coalesce(day_number - max(case when is_holiday then day_number end) over (
            order by date_day rows between {{ near }} preceding and current row
        ), {{ near }}) as since_holiday,
        coalesce(min(case when is_holiday then day_number end) over (
            order by date_day rows between current row and {{ near }} following
        ) - day_number, {{ near }}) as until_holiday
    from holidays

),

holiday_periods as (

    select
        t,
        cast(avg(is_holiday) as {{ double }}) as is_holiday,
        cast(avg(since_holiday) as {{ double }}) / {{ near }} as since_holiday,
        cast(avg(until_holiday) as {{ double }}) / {{ near }} as until_holiday
    from distances
    group by 1

),

around as (

    select
        holiday_periods.*,
        lead(is_holiday) over (order by t) as holiday_lead,
        lag(is_holiday) over (order by t) as holiday_lag
    from holiday_periods

),

{% endif %}
periods as (

    select
        t,
        ds,
        {% for name in ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'] %}
        cast(avg(case when weekday = {{ loop.index0 }} then 1.0e0 else 0.0e0 end) as {{ double }}) as is_{{ name }},
        {% endfor %}
        cast(avg(case when month_day <= 7 then 1.0e0 else 0.0e0 end) as {{ double }}) as is_month_start,
        cast(avg(case when month_day >= 25 then 1.0e0 else 0.0e0 end) as {{ double }}) as is_month_end,
        {% if trendcast.uses('calendar') %}
        {% for harmonic in [1, 2] %}
        avg(sin({{ harmonic }} * 2 * pi() * weekday / 7)) as week_sin_{{ harmonic }},
        avg(cos({{ harmonic }} * 2 * pi() * weekday / 7)) as week_cos_{{ harmonic }},
        {% endfor %}
        {% for harmonic in [2, 3] %}
        avg(sin({{ harmonic }} * year_angle)) as year_sin_{{ harmonic }},
        avg(cos({{ harmonic }} * year_angle)) as year_cos_{{ harmonic }},
        {% endfor %}
        -- A day either side of the 15th and of the month's last day.
        cast(avg(
            case when month_day between 14 and 16 or month_days_left <= 2 or month_day = 1 then 1.0e0 else 0.0e0 end
        ) as {{ double }}) as payday,
        -- A week belongs to the month of its Thursday, where most of its days are.
        cast(max({{ "case when weekday = 3 then extract(month from date_day) end" if settings.grain == 'week'
            else 'extract(month from date_day)' }}) as {{ dbt.type_bigint() }}) as month,
        cast(
            {{ "max(case when weekday = 3 then month_day end)" if settings.grain == 'week' else 'avg(month_day)' }}
            as {{ double }}
        ) as month_day,
        count(*) as days_in_period,
        {% endif %}
        avg(sin(year_angle)) as year_sin,
        avg(cos(year_angle)) as year_cos
    from described
    where
        date_day between (select bounds.first_ds from bounds) and (select bounds.last_day from bounds)
    group by 1, 2

)

select
    {% if trendcast.uses('holidays') %}
    around.is_holiday,
    around.since_holiday,
    around.until_holiday,
    around.holiday_lead,
    around.holiday_lag,
    {% endif %}
    periods.*
from periods
{% if trendcast.uses('holidays') %}
inner join around
    on periods.t = around.t
{% endif %}
