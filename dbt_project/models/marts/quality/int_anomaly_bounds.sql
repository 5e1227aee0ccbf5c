-- One row per fold, measure and demand class: between how many standard deviations below and above its mean an actual
-- is usual, by older folds (split conformal, one side at a time: Vovk, Gammerman & Shafer 2005), and how often that
-- cried wolf on all folds but the oldest.
{%- set rate = trendcast.number_between('anomaly_rate', 0.0001, 0.5) %}
with errors as (

    select
        fold,
        measure,
        demand_class,
        error_z
    from {{ ref('int_champion_errors') }}

),

folds as (

    select distinct fold
    from errors

),

bounds as (

    select
        folds.fold,
        errors.measure,
        errors.demand_class,
        count(*) as n_errors,
        {{ trendcast.quantiles('errors.error_z', [rate / 2, 1 - rate / 2]) }} as z
    from folds
    inner join errors
        on folds.fold < errors.fold
    group by 1, 2, 3

),

bounded as (

    select
        fold,
        measure,
        demand_class,
        n_errors,
        {{ trendcast.element('z', 0) }} as lower_z,
        {{ trendcast.element('z', 1) }} as upper_z
    from bounds
    -- Fewer errors than the rate asks for have no such quantile.
    where n_errors * {{ rate }} >= 1

),

alarms as (

    select
        errors.measure,
        errors.demand_class,
        cast(avg(
            case when errors.error_z < bounded.lower_z or errors.error_z > bounded.upper_z then 1.0e0 else 0.0e0 end
        ) as {{ trendcast.type_double() }}) as false_alarm_rate
    from errors
    inner join bounded
        on
            errors.fold = bounded.fold
            {{ trendcast.and_same_measure('errors', 'bounded') }}
            and errors.demand_class = bounded.demand_class
    group by 1, 2

),

final as (

    select
        bounded.*,
        alarms.false_alarm_rate
    from bounded
    left join alarms
        on
            bounded.fold is not null
            {{ trendcast.and_same_measure('bounded', 'alarms') }}
            and bounded.demand_class = alarms.demand_class

)

select *
from final
