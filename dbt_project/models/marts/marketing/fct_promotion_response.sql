-- One row per series and effect of promotions that its group shows: the uplift by kind, the dips before and after, and
-- what promotions of the rest of the category take away.
-- depends_on: {{ ref('int_response_sums') }}
{%- set z = trendcast.normal_quantiles()['q95'] %}
with {% if trendcast.promotion_effects() -%}
intensities as (

    {% for name in trendcast.promotion_effects() %}
    select
        series_id,
        '{{ name }}' as effect,
        intensity_{{ name }} as intensity
    from {{ ref('int_response_sums') }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

{% endif -%}
effects as (

    select
        response.*,
        {{ 'intensities.intensity' if trendcast.promotion_effects()
            else 'cast(null as ' ~ trendcast.type_double() ~ ')' }} as own_intensity
    from {{ ref('int_response') }} as response
    {% if trendcast.promotion_effects() %}
    left join intensities
        on response.series_id = intensities.series_id and response.effect = intensities.effect
    {% endif %}
    where response.effect <> 'price'

),

-- A series that had none takes the mean of its group.
typical as (

    select
        effects.*,
        coalesce(
            own_intensity,
            cast(avg(cast(own_intensity as {{ trendcast.type_fine() }})) over (
                partition by response_group, effect
            ) as {{ trendcast.type_double() }}),
            1
        ) as intensity
    from effects

),

final as (

    select
        series_id,
        category,
        response_group,
        effect,
        estimate as log_effect,
        std_error as log_effect_std_error,
        intensity as typical_intensity,
        exp(intensity * estimate) - 1 as uplift,
        exp(intensity * (estimate - {{ z }} * std_error)) - 1 as uplift_lower,
        exp(intensity * (estimate + {{ z }} * std_error)) - 1 as uplift_upper,
        own_estimate as own_log_effect,
        group_estimate as group_log_effect,
        n_series as n_group_series,
        abs(estimate) > {{ z }} * std_error as is_sure,
        effect = 'rivals' and estimate + {{ z }} * std_error < 0 as is_cannibalised
    from typical

)

select *
from final
