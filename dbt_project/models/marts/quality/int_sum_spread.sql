-- One row per fold, measure, demand class and number of periods: how much wider sums of that many periods are than
-- independent leads would make them, as the squared errors of cumulated forecasts say: of all folds for fold 0, the
-- forecast in force; for a fold of the backtest, of those whose targets its cutoff knew.
{%- set default = '1 + ' ~ trendcast.number_between('lead_correlation', 0, 1) ~ ' * (spine.periods - 1)' %}
with errors as (

    select
        cutoff,
        target_date,
        measure,
        demand_class,
        lead as periods,
        -- No single series decides for its class.
        least(power(cumulated_actual - cumulated_mean, 2) / cumulated_variance, 25) as ratio
    from {{ ref('int_cumulated_forecasts') }}
    where fold > 0 and cumulated_variance > 0

),

measured as (

    select
        cutoff,
        target_date,
        measure,
        demand_class,
        periods,
        sum(ratio) as total,
        count(*) as n_sums
    from errors
    group by 1, 2, 3, 4, 5

),

folds as (

    select
        fold,
        max(cutoff) as cutoff
    from {{ ref('int_cumulated_forecasts') }}
    group by 1

),

known as (

    select
        folds.fold,
        measured.measure,
        measured.demand_class,
        measured.periods,
        sum(measured.total) as total,
        sum(measured.n_sums) as n_sums
    from folds
    inner join measured
        on folds.cutoff >= measured.target_date
    group by 1, 2, 3, 4

),

pooled as (

    select
        fold,
        measure,
        periods,
        sum(total) / sum(n_sums) as ratio
    from known
    group by 1, 2, 3

),

classes as (

    select distinct
        measure,
        demand_class
    from {{ ref('int_cumulated_forecasts') }}

),

leads as (

    select distinct lead as periods
    from {{ ref('int_cumulated_forecasts') }}

),

spine as (

    select
        folds.fold,
        classes.measure,
        classes.demand_class,
        leads.periods
    from folds
    cross join classes
    cross join leads

),

final as (

    select
        spine.fold,
        spine.measure,
        spine.demand_class,
        spine.periods,
        cast(coalesce(known.n_sums, 0) as bigint) as n_sums,
        pooled.ratio is not null as is_measured,
        -- A class is drawn to all of them as if these were a hundred sums of its own. Without a backtest the var
        -- `lead_correlation` stands in: equal variances of n periods that correlate by rho sum to n (1 + rho (n - 1)).
        greatest(coalesce(
            (coalesce(known.total, 0) + 100 * pooled.ratio) / (coalesce(known.n_sums, 0) + 100), {{ default }}
        ), 0.25) as variance_factor
    from spine
    left join pooled
        on
            spine.fold = pooled.fold
            {{ trendcast.and_same_measure('spine', 'pooled') }}
            and spine.periods = pooled.periods
    left join known
        on
            spine.fold = known.fold
            and spine.periods = known.periods
            {{ trendcast.and_same_measure('spine', 'known') }}
            and spine.demand_class = known.demand_class

)

select *
from final
