-- One row per series and effect that its group shows: the series' own estimate, drawn to its group's by how much the
-- series of the group differ (empirical Bayes, Morris 1983; the spread between series by DerSimonian & Laird 1986).
with own as (

    select
        members.series_id,
        members.response_group,
        estimates.effect,
        estimates.estimate,
        estimates.std_error
    from {{ ref('int_response_estimates') }} as estimates
    inner join {{ ref('int_response_groups') }} as members
        on estimates.scope_id = members.series_id
    where estimates.scope = 'series' and estimates.estimate is not null

),

-- Exact decimals, so that the order of sums does not matter.
weighed as (

    select
        response_group,
        effect,
        cast(1 / (std_error * std_error) as {{ trendcast.type_fine() }}) as w,
        cast(1 / power(std_error, 4) as {{ trendcast.type_fine() }}) as ww,
        cast(estimate / (std_error * std_error) as {{ trendcast.type_fine() }}) as wb,
        cast(estimate * estimate / (std_error * std_error) as {{ trendcast.type_fine() }}) as wbb
    from own

),

summed as (

    select
        response_group,
        effect,
        {% for name in ['w', 'ww', 'wb', 'wbb'] %}
        cast(sum({{ name }}) as {{ trendcast.type_double() }}) as {{ name }},
        {% endfor %}
        count(*) as n_series
    from weighed
    group by 1, 2

),

groups as (

    select
        estimates.scope_id as response_group,
        estimates.effect,
        estimates.estimate,
        coalesce(summed.n_series, 0) as n_series,
        -- Of a single series the differences below are nothing but rounding.
        coalesce(case when summed.n_series > 1 then greatest(
            (summed.wbb - summed.wb * summed.wb / summed.w - (summed.n_series - 1))
            / nullif(summed.w - summed.ww / summed.w, 0),
            0
        ) end, 0) as between_variance,
        estimates.std_error * estimates.std_error as variance
    from {{ ref('int_response_estimates') }} as estimates
    left join summed
        on estimates.scope_id = summed.response_group and estimates.effect = summed.effect
    where estimates.scope = 'group' and estimates.estimate is not null

),

joined as (

    select
        members.series_id,
        members.category,
        members.response_group,
        groups.effect,
        groups.n_series,
        groups.between_variance,
        groups.estimate as group_estimate,
        -- Where the series differ, their group's mean is only as sure as there are many of them.
        groups.variance + groups.between_variance / greatest(groups.n_series, 1) as group_variance,
        own.estimate as own_estimate,
        own.std_error as own_std_error,
        case
            when own.estimate is null then 1.0e0
            else own.std_error * own.std_error / (own.std_error * own.std_error + groups.between_variance)
        end as shrinkage
    from groups
    inner join {{ ref('int_response_groups') }} as members
        on groups.response_group = members.response_group
    left join own
        on members.series_id = own.series_id and groups.effect = own.effect

),

final as (

    select
        series_id,
        category,
        response_group,
        effect,
        own_estimate,
        own_std_error,
        group_estimate,
        sqrt(group_variance) as group_std_error,
        sqrt(between_variance) as between_std,
        n_series,
        shrinkage,
        shrinkage * group_estimate + coalesce((1 - shrinkage) * own_estimate, 0) as estimate,
        -- The variance of the own estimate that is left, and that of the group's mean as far as it is drawn to that.
        sqrt(shrinkage * between_variance + shrinkage * shrinkage * group_variance) as std_error
    from joined

)

select *
from final
