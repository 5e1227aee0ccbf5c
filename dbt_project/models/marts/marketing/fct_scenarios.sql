-- One row per what-if scenario and series: the base forecast over the horizon beside what the scenario makes of it, in
-- units, revenue and margin. A view on what the ledger keeps, so a scenario is here as soon as it is committed.
{{ config(materialized='view') }}
{%- set z = trendcast.normal_quantiles()['q95'] %}
{%- set names = ['base', 'units', 'more', 'margin'] %}
with committed as (

    select
        run_id,
        finished_at
    from {{ ref('runs') }}
    where status = 'committed' and scenarios_rows > 0

),

-- Constant elasticity: units sell at (scenario price / price) to the power of it. The errors of price and promotion are
-- taken to have nothing to do with each other.
assumed as (

    select
        scenarios.*,
        committed.finished_at,
        coalesce(scenarios.elasticity * ln(scenarios.scenario_price / scenarios.unit_price), 0)
        + coalesce(scenarios.promotion_log_effect, 0) as log_factor,
        sqrt(
            power(coalesce(
                scenarios.elasticity_std_error * ln(scenarios.scenario_price / scenarios.unit_price), 0
            ), 2)
            + power(coalesce(scenarios.promotion_log_std_error, 0), 2)
        ) as log_factor_std
    from {{ ref('scenarios') }} as scenarios
    inner join committed
        on scenarios.run_id = committed.run_id

),

answered as (

    select
        {{ trendcast.lognormal_moments('factor', 'log_factor', 'log_factor_std') }},
        assumed.*
    from assumed

),

-- What a unit of the base comes to: in units, in units more, and in margin more.
per_unit as (

    select
        factor_mean - 1 as more_factor_mean,
        factor_variance as more_factor_variance,
        factor_third as more_factor_third,
        (scenario_price - unit_cost) * factor_mean - (unit_price - unit_cost) as margin_factor_mean,
        power(scenario_price - unit_cost, 2) * factor_variance as margin_factor_variance,
        power(scenario_price - unit_cost, 3) * factor_third as margin_factor_third,
        base_units as base_mean,
        {{ trendcast.gamma_third('base_units', 'base_variance') }} as base_third,
        answered.*
    from answered

),

multiplied as (

    select
        {{ trendcast.product_moments('units', 'base', 'factor') }},
        {{ trendcast.product_moments('more', 'base', 'more_factor') }},
        {{ trendcast.product_moments('margin', 'base', 'margin_factor') }},
        per_unit.*
    from per_unit

),

shaped as (

    select
        {% for name in names + ['more_factor', 'margin_factor'] %}
        {{ trendcast.skew_root(name ~ '_variance', name ~ '_third') }} as {{ name }}_root,
        {% endfor %}
        multiplied.*
    from multiplied

),

bounded as (

    select
        {% for name in names + ['more_factor', 'margin_factor'] %}
        {% for bound, at in {'lower': -z, 'upper': z}.items() %}
        {{ trendcast.skewed_quantile(name ~ '_mean', name ~ '_variance', name ~ '_root', at) }}
            as {{ name }}_{{ bound }},
        {% endfor %}
        {% endfor %}
        shaped.*
    from shaped

),

-- Of no base nothing comes; where a unit of it surely gains or loses, so does any number of them.
settled as (

    select
        {% for name in ['base', 'units'] %}
        {% for bound in ['lower', 'upper'] %}
        case when base_units <= 0 then 0 else greatest({{ name }}_{{ bound }}, 0) end as {{ name }}_{{ bound }}_bound,
        {% endfor %}
        {% endfor %}
        {% for name in ['more', 'margin'] %}
        case
            when base_units <= 0 then 0
            when {{ name }}_factor_lower > 0 then greatest({{ name }}_lower, 0)
            else {{ name }}_lower
        end as {{ name }}_lower_bound,
        case
            when base_units <= 0 then 0
            when {{ name }}_factor_upper < 0 then least({{ name }}_upper, 0)
            else {{ name }}_upper
        end as {{ name }}_upper_bound,
        {% endfor %}
        bounded.*
    from bounded

),

final as (

    select
        run_id as scenario_id,
        scenario,
        finished_at as created_at,
        series_id,
        cutoff,
        last_date,
        base_run_id,
        base_model,
        unit_price,
        scenario_price,
        scenario_price / unit_price - 1 as price_change,
        promotion,
        elasticity,
        elasticity_std_error,
        elasticity_source,
        elasticity_source = 'default' and scenario_price <> unit_price as is_elasticity_assumed,
        elasticity + {{ z }} * elasticity_std_error >= 0 and scenario_price <> unit_price as is_elasticity_unsure,
        coalesce(
            scenario_price <> unit_price
            and (lowest_price is null or scenario_price < lowest_price or scenario_price > highest_price),
            false
        ) as is_price_unseen,
        promotion is not null and promotion_log_effect is null as is_promotion_unmeasured,
        base_units,
        base_lower_bound as base_units_lower,
        base_upper_bound as base_units_upper,
        units_mean as scenario_units,
        units_lower_bound as scenario_units_lower,
        units_upper_bound as scenario_units_upper,
        more_mean as extra_units,
        more_lower_bound as extra_units_lower,
        more_upper_bound as extra_units_upper,
        base_units * unit_price as base_revenue,
        units_mean * scenario_price as scenario_revenue,
        units_lower_bound * scenario_price as scenario_revenue_lower,
        units_upper_bound * scenario_price as scenario_revenue_upper,
        unit_cost,
        is_unit_cost_assumed,
        base_units * (unit_price - unit_cost) as base_margin,
        units_mean * (scenario_price - unit_cost) as scenario_margin,
        margin_mean as extra_margin,
        margin_lower_bound as extra_margin_lower,
        margin_upper_bound as extra_margin_upper
    from settled

)

select *
from final
