-- At every cutoff the design matrix has each lead of a series once. Not at every period of the panel: the
-- view would have to be built whole.
{%- set horizon = trendcast.settings().horizon %}
select
    series_id,
    cutoff_t,
    count(*) as leads,
    min(lead) as first_lead,
    max(lead) as last_lead,
    sum(lead) as sum_of_leads
from {{ ref('ftr_design') }}
where cutoff_t in (select cutoffs.cutoff_t from {{ ref('int_cutoffs') }} as cutoffs)
group by 1, 2
having
    count(*) <> {{ horizon }}
    or min(lead) <> 1
    or max(lead) <> {{ horizon }}
    or sum(lead) <> {{ horizon * (horizon + 1) // 2 }}
