-- One row per group of the var `demand_groups`, grain (week, month) and period of the horizon: the distribution of its
-- demand, in units of the measure. Means add up over groups and periods; quantiles are those of the sum.
{%- set quantiles = trendcast.quantile_levels().keys() | list %}
with periods as (

    select
        *,
        case grain
            when 'week' then {{ trendcast.date_after('week', 1, 'period_start') }}
            else {{ trendcast.date_after('month', 1, 'period_start') }}
        end as next_period
    from {{ ref('int_group_distributions') }}
    where fold = 0 and grain <> 'horizon'

),

final as (

    select
        group_by,
        group_value,
        grain,
        period_start,
        n_series,
        n_leads,
        -- The horizon begins after the cutoff, and may end before the period does.
        period_start > cutoff
        and {{ trendcast.period_end('last_date') }}
        >= cast({{ trendcast.date_after('day', -1, 'next_period') }} as date)
            as is_whole_period,
        mean,
        {{ quantiles | join(',\n        ') }},
        revenue as expected_revenue,
        correlation as error_correlation,
        is_measured as is_spread_measured
    from periods

)

select *
from final
