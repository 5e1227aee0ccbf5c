-- At every cutoff the design matrix has each lead of a series once. Its parts are counted, and not the view itself,
-- which joins the whole panel to itself: rows of ftr_history are unique by a test of their own, so what it looks up
-- there can neither drop nor double a row.
{%- set horizon = trendcast.settings().horizon %}
with cutoffs as (

    select cutoff_t
    from {{ ref('int_cutoffs') }}

),

at_cutoff as (

    select
        cutoffs.cutoff_t,
        origin.series_id,
        count(*) as origins
    from {{ ref('ftr_cutoff') }} as origin
    inner join cutoffs
        on origin.t = cutoffs.cutoff_t
    group by 1, 2

),

ahead as (

    select
        cutoffs.cutoff_t,
        known.series_id,
        count(*) as leads,
        count(distinct known.t) as distinct_leads
    from {{ ref('ftr_known') }} as known
    inner join {{ ref('ftr_calendar') }} as calendar
        on known.t = calendar.t
    inner join cutoffs
        on known.t > cutoffs.cutoff_t and known.t <= cutoffs.cutoff_t + {{ horizon }}
    group by 1, 2

)

select
    at_cutoff.series_id,
    at_cutoff.cutoff_t,
    at_cutoff.origins,
    ahead.leads,
    ahead.distinct_leads
from at_cutoff
left join ahead
    on at_cutoff.cutoff_t = ahead.cutoff_t and at_cutoff.series_id = ahead.series_id
where
    at_cutoff.origins <> 1
    or coalesce(ahead.leads, 0) <> {{ horizon }}
    or coalesce(ahead.distinct_leads, 0) <> {{ horizon }}
