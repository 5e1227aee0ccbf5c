-- One row per fold, group, grain (week, month, horizon) and period: forecasts of the group's series and leads in it
-- summed, with two variances: of errors that have nothing to do with each other, and of errors that go all one way.
{%- set settings = trendcast.settings() %}
{%- set previous = 'lag({}, 1, 0) over (partition by fold, series_id order by lead)' %}
{#- A week belongs to the month of its first day. #}
{%- set grains = {} %}
{%- for grain in ['week', 'month'] if grain == 'month' or settings.grain != 'month' %}
{%- do grains.update({grain: 'cast(' ~ dbt.date_trunc(grain, 'leads.target_date') ~ ' as date)'}) %}
{%- endfor %}
{%- do grains.update({'horizon': 'leads.first_date'}) %}
with leads as (

    select
        fold,
        series_id,
        cutoff,
        target_date,
        lead,
        {% for name in ['mean', 'variance', 'actual'] %}
        cumulated_{{ name }} - {{ previous.format('cumulated_' ~ name) }} as {{ name }},
        {% endfor %}
        min(target_date) over (partition by fold) as first_date
    from {{ ref('int_cumulated_forecasts') }}

),

final as (

    {% for grain, period_start in grains.items() %}
    select
        leads.fold,
        members.group_by,
        members.group_value,
        '{{ grain }}' as grain,
        {{ period_start }} as period_start,
        max(leads.cutoff) as cutoff,
        max(leads.target_date) as last_date,
        -- Leads have no gaps, and nearly every series has them all; to count each once costs as much as all the rest.
        max(leads.lead) - min(leads.lead) + 1 as n_leads,
        cast(ceil(count(*) / (max(leads.lead) - min(leads.lead) + 1.0)) as integer) as n_series,
        sum(leads.mean) as mean,
        sum(greatest(leads.variance, 0)) as variance,
        power(sum(sqrt(greatest(leads.variance, 0))), 2) as aligned_variance,
        -- Known where every lead of every series is.
        case when count(leads.actual) = count(*) then sum(leads.actual) end as actual,
        sum(leads.mean {{ '* members.unit_price' if settings.measure == 'quantity' }}) as revenue
    from leads
    inner join {{ ref('int_grouped_series') }} as members
        on leads.series_id = members.series_id
    group by 1, 2, 3, 4, 5
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select *
from final
