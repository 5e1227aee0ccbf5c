-- One row per series of the var `budget_rows` that bring the most revenue over the horizon: what they bring, what
-- buying that costs, and how much of all of it the rows so far are.
{%- set unit = '/ members.unit_price' if trendcast.settings().measure == 'revenue' else '' %}
with valued as (

    select
        levels.series_id,
        levels.expected_level {{ unit }} as expected_units,
        {{ 'levels.expected_level' if unit else 'levels.expected_level * members.unit_price' }} as expected_revenue,
        levels.expected_level {{ unit }} * members.unit_cost as expected_cost
    from {{ ref('int_levels') }} as levels
    inner join {{ ref('int_grouped_series') }} as members
        on levels.series_id = members.series_id
    where levels.fold = 0 and members.group_by = 'total'

),

ranked as (

    select
        valued.*,
        cast(row_number() over (
            order by coalesce(expected_revenue, 0) desc, expected_units desc, series_id asc
        ) as integer) as revenue_rank,
        sum(expected_revenue) over () as total_revenue
    from valued

),

cumulated as (

    select
        ranked.*,
        sum(expected_revenue) over (order by revenue_rank rows between unbounded preceding and current row)
        / nullif(total_revenue, 0) as cumulated_revenue_share,
        sum(expected_cost) over (order by revenue_rank rows between unbounded preceding and current row)
            as cumulated_cost,
        sum(expected_units) over (order by revenue_rank rows between unbounded preceding and current row)
            as cumulated_units
    from ranked

),

final as (

    select
        series_id,
        revenue_rank,
        expected_units,
        expected_revenue,
        expected_cost,
        expected_revenue / nullif(total_revenue, 0) as revenue_share,
        cumulated_revenue_share,
        cumulated_cost,
        cumulated_units,
        -- Pareto's classes (Silver, Pyke & Thomas 2017, 2.1); a row belongs where it begins.
        case
            when cumulated_revenue_share - expected_revenue / nullif(total_revenue, 0) < 0.8 then 'A'
            when cumulated_revenue_share - expected_revenue / nullif(total_revenue, 0) < 0.95 then 'B'
            when cumulated_revenue_share is not null then 'C'
        end as abc_class
    from cumulated
    where revenue_rank <= {{ trendcast.positive_integer('budget_rows', var('budget_rows')) }}

)

select *
from final
