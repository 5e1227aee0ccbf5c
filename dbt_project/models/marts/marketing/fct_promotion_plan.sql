-- One row per series, step ahead (a week; a month at month grain) and depth of discount: what it adds in units and
-- margin, between which bounds, and whether it pays or why not.
-- depends_on: {{ ref('ftr_known') }}, {{ ref('int_series') }}
{%- set days = {'day': 7, 'week': 1, 'month': 1} %}
{%- set step = days[trendcast.settings().grain] %}
{%- set by_revenue = trendcast.settings().measure == 'revenue' %}
{%- set z = trendcast.normal_quantiles()['q95'] %}
{%- set depths = var('promotion_depths') %}
{%- set is_planned = trendcast.has_source('promotions') and trendcast.uses('promotions') %}
{%- set cell = '(partition by category, location, step_ahead)' %}
{%- if depths is string or not depths or depths | reject('number') | list or depths | select('le', 0) | list
    or depths | select('ge', 1) | list %}
    {{ exceptions.raise_compiler_error(
        "var 'promotion_depths' must be a list of shares of the price between 0 and 1, e.g. [0.1, 0.2]; came: " ~ depths) }}
{%- endif %}
with steps as (

    select
        forecasts.series_id,
        cast(floor((forecasts.lead - 1) / {{ step }}.0) as integer) + 1 as step_ahead,
        max(forecasts.demand_class) as demand_class,
        min(forecasts.target_date) as start_date,
        max(forecasts.target_date) as last_date,
        count(*) as n_leads,
        cast(sum(cast(forecasts.mean as {{ trendcast.type_sum() }})) as {{ trendcast.type_double() }}) as mean,
        sum(cast({{ trendcast.quantile_variance('forecasts.') }} as {{ trendcast.type_sum() }})) as variance
    from {{ ref('fct_forecasts') }} as forecasts
    group by 1, 2

),

-- What follows a promotion, and goes before it, is lost at the full margin; a dip that is none counts for nothing.
dips as (

    select
        series_id,
        sum(greatest(1 - exp(log_effect), 0)) as lost,
        sum(power(exp(log_effect) * log_effect_std_error, 2)) as lost_variance
    from {{ ref('fct_promotion_response') }}
    where effect in ('before', 'after')
    group by 1

),

rivals as (

    select
        series_id,
        log_effect,
        log_effect_std_error
    from {{ ref('fct_promotion_response') }}
    where effect = 'rivals'

),

-- How much of a promotion one of the series is, as `rivals` was measured: any discount is a whole one.
intensities as (

    select
        series_id,
        least(max(case when effect = 'discount' then 1 else typical_intensity end), 1) as intensity
    from {{ ref('fct_promotion_response') }}
    where effect in ('display', 'feature', 'discount')
    group by 1

),

{% if is_planned -%}
planned as (

    select
        series_id,
        cast(floor((t - {{ trendcast.last_cutoff() }} - 1) / {{ step }}.0) as integer) + 1 as step_ahead
    from {{ ref('ftr_known') }}
    where
        t > {{ trendcast.last_cutoff() }}
        and (promotion_display > 0 or promotion_feature > 0 or promotion_discount > 0)
    group by 1, 2

),

{% endif -%}
-- The forecast's distribution over the step, in units: its errors of several leads are those of int_sum_spread.
based as (

    select
        steps.series_id,
        steps.step_ahead,
        steps.start_date,
        {{ trendcast.period_end('steps.last_date') }} as end_date,
        members.category,
        {{ 'series.' ~ adapter.quote('location_id') if 'location_id' in var('series_key') else "''" }} as location,
        supply.unit_price,
        supply.unit_cost,
        ', ' || supply.defaults_used || ',' like '%, unit_cost,%' as is_unit_cost_assumed,
        steps.mean {{ '/ nullif(supply.unit_price, 0)' if by_revenue }} as base_units,
        cast(steps.variance as {{ trendcast.type_double() }}) * coalesce(spread.variance_factor, 1)
        {{ '/ nullif(supply.unit_price * supply.unit_price, 0)' if by_revenue }} as base_variance,
        {{ 'planned.series_id is not null' if is_planned else 'false' }} as is_promotion_planned,
        coalesce(dips.lost, 0) * {{ trendcast.dip_periods() / step }} as dip_share,
        coalesce(dips.lost_variance, 0) * {{ (trendcast.dip_periods() / step) ** 2 }} as dip_variance,
        dips.lost is not null as is_dip_measured,
        rivals.log_effect as rivals_log_effect,
        rivals.log_effect_std_error as rivals_std_error,
        intensities.intensity
    from steps
    inner join {{ ref('int_supply') }} as supply
        on steps.series_id = supply.series_id
    inner join {{ ref('int_response_groups') }} as members
        on steps.series_id = members.series_id
    {% if 'location_id' in var('series_key') %}
    inner join {{ ref('int_series') }} as series
        on steps.series_id = series.series_id
    {% endif %}
    left join {{ ref('int_sum_spread') }} as spread
        on
            steps.demand_class = spread.demand_class
            and spread.fold = 0
            {{ trendcast.and_leading('spread') }}
            and spread.periods = {{ step }}
    left join dips
        on steps.series_id = dips.series_id
    left join rivals
        on steps.series_id = rivals.series_id
    left join intensities
        on steps.series_id = intensities.series_id
    {% if is_planned %}
    left join planned
        on steps.series_id = planned.series_id and steps.step_ahead = planned.step_ahead
    {% endif %}
    where steps.n_leads = {{ step }}

),

-- A rival of one promoted series sees 1 of its n - 1 rivals on promotion, as much as is typical of the category.
celled as (

    select
        based.*,
        coalesce(cast(
            avg(cast(intensity as {{ trendcast.type_fine() }})) over {{ cell }} as {{ trendcast.type_double() }}
        ), 1) / nullif(count(*) over {{ cell }} - 1, 0) as share_promoted
    from based

),

-- What a rival gains counts for nothing.
rivalled as (

    select
        celled.*,
        base_units * greatest(unit_price - unit_cost, 0) as base_margin,
        exp(rivals_log_effect * share_promoted) as rivals_factor,
        rivals_std_error * share_promoted as rivals_factor_log_std,
        count(rivals_log_effect) over {{ cell }} > 0 as is_rivals_measured
    from celled

),

lossy as (

    select
        rivalled.*,
        cast(coalesce(base_margin * (1 - least(rivals_factor, 1)), 0) as {{ trendcast.type_fine() }}) as loss,
        cast(coalesce(base_margin * rivals_factor * rivals_factor_log_std, 0) as {{ trendcast.type_fine() }})
            as loss_std
    from rivalled

),

-- The others' losses are all of them but the own. Their errors are of one estimate, so they are taken to go one way.
charged as (

    select
        -- What nobody buys takes nothing from them.
        {% for name, of in {'rivals_margin': 'loss', 'rivals_margin_std': 'loss_std'}.items() %}
        case
            when base_units > 0
                then cast(sum({{ of }}) over {{ cell }} - {{ of }} as {{ trendcast.type_double() }})
            else 0
        end as {{ name }},
        {% endfor %}
        lossy.*
    from lossy

),

offers as (

    {% for depth in depths %}
    select cast({{ depth }} as {{ trendcast.type_double() }}) as depth
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

offered as (

    select
        charged.*,
        offers.depth,
        charged.unit_price * (1 - offers.depth) as promotion_price,
        response.elasticity,
        response.elasticity_source,
        -- A discount beyond what was ever seen is a guess.
        charged.unit_price * (1 - offers.depth) >= response.lowest_price as is_within_experience,
        response.elasticity * ln(1 - offers.depth) as log_factor,
        -response.elasticity_std_error * ln(1 - offers.depth) as log_factor_std
    from charged
    inner join {{ ref('fct_price_response') }} as response
        on charged.series_id = response.series_id
    cross join offers

),

-- Units sell at (1 - depth) to the power of the elasticity, which is lognormal.
answered as {{ trendcast.computed_once() }}(

    select
        {{ trendcast.lognormal_moments('factor', 'log_factor', 'log_factor_std') }},
        offered.*
    from offered

),

-- What a unit of the base comes to: `gain` times the factor, less what it and the dip would have come to at `lost`, and
-- less its share of what rivals lose, whose week is as good or bad as its own.
per_unit as {{ trendcast.computed_once() }}(

    select
        {% for name, gain, lost, rivals in [
            ('units', '1', '1', '0 * '), ('margin', '(promotion_price - unit_cost)', '(unit_price - unit_cost)', '')
        ] %}
        {{ gain }} * factor_mean - {{ lost }} * (1 + dip_share)
        - {{ rivals }}rivals_margin / nullif(base_units, 0) as {{ name }}_mean,
        power({{ gain }}, 2) * factor_variance + power({{ lost }}, 2) * dip_variance
        + {{ rivals }}power(rivals_margin_std / nullif(base_units, 0), 2) as {{ name }}_variance,
        power({{ gain }}, 3) * factor_third as {{ name }}_third,
        {% endfor %}
        base_units as base_mean,
        {{ trendcast.gamma_third('base_units', 'base_variance') }} as base_third,
        answered.*
    from answered

),

multiplied as {{ trendcast.computed_once() }}(

    select
        {{ trendcast.product_moments('sum_units', 'base', 'units') }},
        {{ trendcast.product_moments('sum_margin', 'base', 'margin') }},
        per_unit.*
    from per_unit

),

shaped as {{ trendcast.computed_once() }}(

    select
        {% for name in ['units', 'margin', 'sum_units', 'sum_margin'] %}
        {{ trendcast.skew_root(name ~ '_variance', name ~ '_third') }} as {{ name }}_root,
        {% endfor %}
        multiplied.*
    from multiplied

),

bounded as {{ trendcast.computed_once() }}(

    select
        {% for name in ['units', 'margin', 'sum_units', 'sum_margin'] %}
        {% for bound, at in {'lower': -z, 'upper': z}.items() %}
        {{ trendcast.skewed_quantile(name ~ '_mean', name ~ '_variance', name ~ '_root', at) }}
            as {{ name }}_{{ bound }},
        {% endfor %}
        {% endfor %}
        shaped.*
    from shaped

),

-- Where a unit of the base surely gains or loses, so does any number of them; none of them is none.
settled as {{ trendcast.computed_once() }}(

    select
        {% for name in ['units', 'margin'] %}
        case when base_units <= 0 then 0 else sum_{{ name }}_mean end as extra_{{ name }},
        case
            when base_units <= 0 then 0
            when {{ name }}_lower > 0 then greatest(sum_{{ name }}_lower, 0)
            else sum_{{ name }}_lower
        end as extra_{{ name }}_lower,
        case
            when base_units <= 0 then 0
            when {{ name }}_upper < 0 then least(sum_{{ name }}_upper, 0)
            else sum_{{ name }}_upper
        end as extra_{{ name }}_upper,
        {% endfor %}
        bounded.*
    from bounded

),

judged as (

    select
        settled.*,
        case
            when base_units <= 0 then 'no_demand'
            when extra_margin is null or is_within_experience is null then 'no_price'
            when not is_within_experience then 'unseen_price'
            when extra_margin <= 0 then 'loses'
            -- Gains and losses grow with the base, so whether there is one does not hang on how much is sold.
            when margin_lower <= 0 then 'unsure'
            else 'pays'
        end as verdict
    from settled

),

final as (

    select
        series_id,
        step_ahead,
        start_date,
        end_date,
        depth,
        verdict,
        cast(row_number() over (
            partition by series_id, step_ahead
            order by case when verdict = 'pays' then 0 else 1 end, coalesce(extra_margin, -1e300) desc, depth asc
        ) as integer) as margin_rank,
        unit_price,
        promotion_price,
        unit_cost,
        is_unit_cost_assumed,
        is_promotion_planned,
        base_units,
        sqrt(base_variance) as base_units_std,
        extra_units,
        extra_units_lower,
        extra_units_upper,
        base_units * ((promotion_price - unit_cost) * factor_mean - (unit_price - unit_cost)) as own_margin,
        base_units * (unit_price - unit_cost) * dip_share as dip_margin,
        rivals_margin,
        extra_margin,
        extra_margin_lower,
        extra_margin_upper,
        is_dip_measured,
        is_rivals_measured,
        elasticity,
        elasticity_source
    from judged

)

select *
from final
