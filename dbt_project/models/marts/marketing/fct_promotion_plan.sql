-- One row per series, step ahead (a week; a month at month grain) and depth of discount that pays: what it adds in
-- units and margin, and between which bounds. A series for which no discount pays has no row.
{%- set days = {'day': 7, 'week': 1, 'month': 1} %}
{%- set step = days[trendcast.settings().grain] %}
{%- set unit = '/ nullif(supply.unit_price, 0)' if trendcast.settings().measure == 'revenue' else '' %}
{%- set z = trendcast.normal_quantiles()['q95'] %}
{%- set depths = var('promotion_depths') %}
{%- if depths is string or not depths or depths | reject('number') | list or depths | select('le', 0) | list
    or depths | select('ge', 1) | list %}
    {{ exceptions.raise_compiler_error(
        "var 'promotion_depths' must be a list of shares of the price between 0 and 1, e.g. [0.1, 0.2]; came: " ~ depths) }}
{%- endif %}
with steps as (

    select
        forecasts.series_id,
        cast(floor((forecasts.lead - 1) / {{ step }}.0) as integer) + 1 as step_ahead,
        min(forecasts.target_date) as start_date,
        max(forecasts.target_date) as last_date,
        count(*) as n_leads,
        cast(sum(cast(forecasts.mean as {{ trendcast.type_exact() }})) as {{ trendcast.type_double() }}) as mean
    from {{ ref('fct_forecasts') }} as forecasts
    group by 1, 2

),

-- What follows a promotion, and goes before it, is lost at the full margin; a dip that is none counts for nothing.
dips as (

    select
        series_id,
        {% for name, shift in {'lost': 0, 'most_lost': -z, 'least_lost': z}.items() %}
        -sum(least(exp(log_effect + {{ shift }} * log_effect_std_error) - 1, 0)) as {{ name }},
        {% endfor %}
        count(*) as n_dips
    from {{ ref('fct_promotion_response') }}
    where effect in ('before', 'after')
    group by 1

),

offers as (

    {% for depth in depths %}
    select {{ depth }}e0 as depth
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

priced as (

    select
        steps.series_id,
        steps.step_ahead,
        steps.start_date,
        {{ trendcast.period_end('steps.last_date') }} as end_date,
        offers.depth,
        supply.unit_price,
        supply.unit_cost,
        supply.unit_price * (1 - offers.depth) as promotion_price,
        steps.mean {{ unit }} as base_units,
        response.elasticity,
        response.elasticity_std_error,
        response.elasticity_source,
        -ln(1 - offers.depth) as log_cut,
        -- A discount beyond what was ever seen is a guess.
        supply.unit_price * (1 - offers.depth) >= response.lowest_price as is_within_experience,
        ', ' || supply.defaults_used || ',' like '%, unit_cost,%' as is_unit_cost_assumed,
        coalesce(dips.lost, 0) * {{ trendcast.dip_periods() / step }} as lost_share,
        coalesce(dips.most_lost, 0) * {{ trendcast.dip_periods() / step }} as most_lost_share,
        coalesce(dips.least_lost, 0) * {{ trendcast.dip_periods() / step }} as least_lost_share
    from steps
    inner join {{ ref('int_supply') }} as supply
        on steps.series_id = supply.series_id
    inner join {{ ref('fct_price_response') }} as response
        on steps.series_id = response.series_id
    left join dips
        on steps.series_id = dips.series_id
    cross join offers
    where steps.n_leads = {{ step }}

),

-- Units sell at (1 - depth) to the power of the elasticity; its mean is that of a lognormal.
answered as (

    select
        priced.*,
        exp(-elasticity * log_cut + power(elasticity_std_error * log_cut, 2) / 2) as factor,
        exp(-(elasticity + {{ z }} * elasticity_std_error) * log_cut) as least_factor,
        exp(-(elasticity - {{ z }} * elasticity_std_error) * log_cut) as most_factor
    from priced

),

weighed as (

    select
        {% for name, factor, lost in [
            ('extra', 'factor', 'lost_share'), ('least_extra', 'least_factor', 'most_lost_share'),
            ('most_extra', 'most_factor', 'least_lost_share'),
        ] %}
        base_units * ({{ factor }} - 1 - {{ lost }}) as {{ name }}_units,
        base_units * (
            (promotion_price - unit_cost) * {{ factor }} - (unit_price - unit_cost) * (1 + {{ lost }})
        ) as {{ name }}_margin,
        {% endfor %}
        answered.*
    from answered

),

final as (

    select
        series_id,
        step_ahead,
        start_date,
        end_date,
        depth,
        cast(row_number() over (
            partition by series_id, step_ahead order by extra_margin desc, depth asc
        ) as integer) as margin_rank,
        unit_price,
        promotion_price,
        unit_cost,
        is_unit_cost_assumed,
        base_units,
        extra_units,
        least_extra_units as extra_units_lower,
        most_extra_units as extra_units_upper,
        extra_margin,
        least_extra_margin as extra_margin_lower,
        most_extra_margin as extra_margin_upper,
        elasticity,
        elasticity_source
    from weighed
    where
        base_units > 0
        and is_within_experience
        -- The mean is above zero and so is the lower bound: the interval says that it pays.
        and extra_margin > 0
        and least_extra_margin > 0

)

select *
from final
