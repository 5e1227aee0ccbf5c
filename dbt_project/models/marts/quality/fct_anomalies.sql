-- One row per series and period of the newest fold, up to the last cutoff, whose actual was outside what is usual for
-- its demand class.
with errors as (

    select *
    from {{ ref('int_champion_errors') }}
    where fold = 1

),

final as (

    select
        errors.series_id,
        errors.target_date,
        errors.demand_class,
        errors.lead,
        errors.actual,
        errors.mean as expected,
        greatest(errors.mean + bounds.lower_z * errors.std, 0) as lower_bound,
        errors.mean + bounds.upper_z * errors.std as upper_bound,
        errors.error_z,
        case when errors.error_z > 0 then 'above' else 'below' end as side,
        bounds.false_alarm_rate,
        errors.measure
    from errors
    inner join {{ ref('int_anomaly_bounds') }} as bounds
        on
            errors.fold = bounds.fold
            {{ trendcast.and_same_measure('errors', 'bounds') }}
            and errors.demand_class = bounds.demand_class
    where errors.error_z < bounds.lower_z or errors.error_z > bounds.upper_z

)

select *
from final
