-- One row per group of the var `demand_groups`: what the next horizon brings against the last one, the one before it
-- and the same one a year ago, in units of the measure.
{%- set settings = trendcast.settings() %}
{%- set year = {'day': 364, 'week': 52, 'month': 12}[settings.grain] %}
with past as (

    select
        history.series_id,
        {% for name, back in {
            'last_level': 0, 'previous_level': settings.horizon, 'year_ago_level': year - settings.horizon
        }.items() %}
        sum(case
            when
                history.t > cutoffs.cutoff_t - {{ back + settings.horizon }}
                and history.t <= cutoffs.cutoff_t - {{ back }}
                then history.y
        end) as {{ name }},
        {% endfor %}
        min(cutoffs.cutoff_t - {{ year }} + 1) as year_ago_t
    from {{ ref('int_cutoffs') }} as cutoffs
    inner join {{ ref('ftr_history') }} as history
        on cutoffs.cutoff_t >= history.t and cutoffs.cutoff_t - {{ year }} < history.t
    where cutoffs.fold = 0
    group by 1

),

calendar as (

    select min(t) as first_t
    from {{ ref('ftr_calendar') }}

),

grouped as (

    select
        members.group_by,
        members.group_value,
        sum(past.last_level) as last_level,
        sum(past.previous_level) as previous_level,
        -- The horizon to come, a year before; unknown where the shop's first sale is later.
        case when max(past.year_ago_t) >= min(calendar.first_t) then sum(past.year_ago_level) end as year_ago_level
    from past
    inner join {{ ref('int_grouped_series') }} as members
        on past.series_id = members.series_id
    cross join calendar
    group by 1, 2

),

joined as (

    select
        grouped.*,
        horizons.n_series,
        horizons.mean as expected_level,
        sqrt(horizons.total_variance) as expected_level_std,
        horizons.revenue as expected_revenue,
        1 - {{ trendcast.gamma_cdf('grouped.last_level', 'horizons.mean', 'horizons.total_variance') }}
            as growth_probability
    from grouped
    inner join {{ ref('int_group_distributions') }} as horizons
        on
            grouped.group_by = horizons.group_by
            and grouped.group_value = horizons.group_value
            and horizons.fold = 0
            and horizons.grain = 'horizon'

),

final as (

    select
        group_by,
        group_value,
        n_series,
        last_level,
        previous_level,
        year_ago_level,
        expected_level,
        expected_level_std,
        expected_revenue,
        last_level / nullif(previous_level, 0) - 1 as last_growth,
        expected_level / nullif(last_level, 0) - 1 as expected_growth,
        expected_level / nullif(year_ago_level, 0) - 1 as expected_growth_on_year,
        growth_probability,
        last_level / nullif(sum(last_level) over (partition by group_by), 0) as last_share,
        expected_level / nullif(sum(expected_level) over (partition by group_by), 0) as expected_share
    from joined

)

select *
from final
