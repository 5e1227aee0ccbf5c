-- One row per fold, group, grain and period: the distribution of the group's demand in it; fold 0 is the forecast in
-- force, the others are the backtest beside what happened.
{{ config(materialized='view') }}
with spread as (

    select
        periods.*,
        correlations.is_measured,
        correlations.correlation,
        correlations.variance_factor * (
            periods.variance + correlations.correlation * (periods.aligned_variance - periods.variance)
        ) as total_variance
    from {{ ref('int_group_periods') }} as periods
    inner join {{ ref('int_group_correlation') }} as correlations
        on
            periods.fold = correlations.fold
            and periods.group_by = correlations.group_by
            and periods.grain = correlations.grain

),

final as (

    select
        fold,
        group_by,
        group_value,
        grain,
        period_start,
        cutoff,
        last_date,
        n_leads,
        n_series,
        actual,
        mean,
        revenue,
        {% for name, z in trendcast.normal_quantiles().items() %}
        {{ trendcast.gamma_quantile('mean', 'total_variance', z) }} as {{ name }},
        {% endfor %}
        total_variance,
        correlation,
        is_measured
    from spread

)

select *
from final
