-- One row per day from the first sale to the end of the horizon: the time spine of the metrics.
with bounds as (

    select
        first_date,
        {{ trendcast.period_end(trendcast.date_after(
            trendcast.settings().grain, trendcast.settings().horizon, 'cutoff')) }} as last_date
    from {{ ref('int_cutoffs') }}
    where fold = 0

),

days as (

    {{ trendcast.days_between('bounds') }}

)

select cast(date_day as date) as date_day
from days
