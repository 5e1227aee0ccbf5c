-- One row per fold, kind of group and grain: how far errors of a group's series and leads go one way, 0 to 1, by
-- squared errors of backtested sums that the fold's cutoff knew. The variance of a sum is between those of independent
-- and of aligned errors by that share, times a factor for what is left over.
with errors as (

    select
        cutoff,
        last_date,
        group_by,
        grain,
        power(actual - mean, 2) as square,
        variance,
        aligned_variance,
        power(actual - mean, 2) / variance - 1 as excess,
        aligned_variance / variance - 1 as largest_excess
    from {{ ref('int_group_periods') }}
    where fold > 0 and actual is not null and variance > 0

),

folds as (

    select
        fold,
        max(cutoff) as cutoff
    from {{ ref('int_group_periods') }}
    group by 1

),

kinds as (

    select distinct
        fold,
        group_by,
        grain
    from {{ ref('int_group_periods') }}

),

measured as (

    select
        folds.fold,
        errors.group_by,
        errors.grain,
        count(*) as n_sums,
        sum(errors.excess) / nullif(sum(errors.largest_excess), 0) as correlation
    from folds
    inner join errors
        on folds.cutoff >= errors.last_date
    group by 1, 2, 3

),

-- Few sums say little: the var `group_correlation` counts as if it had been measured on five more.
correlated as (

    select
        kinds.fold,
        kinds.group_by,
        kinds.grain,
        coalesce(measured.n_sums, 0) as n_sums,
        least(greatest(
            (
                coalesce(measured.correlation * measured.n_sums, 0)
                + 5 * {{ trendcast.number_between('group_correlation', 0, 1) }}
            ) / (coalesce(case when measured.correlation is not null then measured.n_sums end, 0) + 5), 0
        ), 1) as correlation
    from kinds
    left join measured
        on
            kinds.fold = measured.fold
            and kinds.group_by = measured.group_by
            and kinds.grain = measured.grain

),

-- Large groups rule the correlation; this is what squared errors are on average, large or small, over the variance that
-- it makes. No single sum decides.
left_over as (

    select
        correlated.fold,
        correlated.group_by,
        correlated.grain,
        sum(least(
            errors.square
            / (errors.variance + correlated.correlation * (errors.aligned_variance - errors.variance)), 25
        )) as total
    from correlated
    inner join folds
        on correlated.fold = folds.fold
    inner join errors
        on
            correlated.group_by = errors.group_by
            and correlated.grain = errors.grain
            and folds.cutoff >= errors.last_date
    group by 1, 2, 3

),

final as (

    select
        correlated.fold,
        correlated.group_by,
        correlated.grain,
        cast(correlated.n_sums as bigint) as n_sums,
        correlated.n_sums > 0 as is_measured,
        correlated.correlation,
        (coalesce(left_over.total, 0) + 5) / (correlated.n_sums + 5) as variance_factor
    from correlated
    left join left_over
        on
            correlated.fold = left_over.fold
            and correlated.group_by = left_over.group_by
            and correlated.grain = left_over.grain

)

select *
from final
