-- One row per cutoff of the customers' marts: fold 0 is the last day that is known, folds 1 and 2 are the var
-- `customer_days` and twice that before it.
{%- set days = trendcast.positive_integer('customer_days', var('customer_days')) %}
{% for fold in range(3) %}
select
    {{ fold }} as fold,
    cast({{ trendcast.date_after('day', -fold * days, trendcast.period_end('cutoff')) }} as date) as cutoff
from {{ ref('int_cutoffs') }}
where fold = 0
{{ 'union all' if not loop.last }}
{% endfor %}
