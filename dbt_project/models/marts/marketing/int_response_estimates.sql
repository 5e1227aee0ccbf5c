-- One row per scope (a series alone, a response group together), what it is about and effect: least squares of the
-- logarithm of units on price and promotions, with a series' own level and trend in every stratum.
{%- set regressors = trendcast.response_regressors() %}
{%- set pairs = trendcast.pairs_of(regressors + ['y']) %}
with sums as (

    select
        'series' as scope,
        series_id as scope_id,
        {% for a, b in pairs %}
        s_{{ a }}_{{ b }},
        {% endfor %}
        n_rows,
        n_levels
    from {{ ref('int_response_sums') }}
    union all
    select
        'group' as scope,
        members.response_group as scope_id,
        {% for a, b in pairs %}
        cast(sum(cast(sums.s_{{ a }}_{{ b }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }})
            as s_{{ a }}_{{ b }},
        {% endfor %}
        cast(sum(sums.n_rows) as bigint) as n_rows,
        cast(sum(sums.n_levels) as bigint) as n_levels
    from {{ ref('int_response_sums') }} as sums
    inner join {{ ref('int_response_groups') }} as members
        on sums.series_id = members.series_id
    group by 1, 2

),

-- A price that moved by less than a hundredth says nothing.
{{ trendcast.swept('sums', regressors, ['scope', 'scope_id', 'n_rows', 'n_levels'], least={'price': 0.01}) }},

judged as (

    select
        swept.*,
        n_rows - n_levels
        {%- for name in regressors %}
        - case when is_{{ name }} then 1 else 0 end
        {%- endfor %} as degrees_of_freedom
    from swept

),

final as (

    {% for name in regressors if not name.startswith('season') %}
    select
        scope,
        scope_id,
        '{{ name }}' as effect,
        n_rows,
        degrees_of_freedom,
        sqrt(greatest(total_{{ name }}, 0) / n_rows) as regressor_std,
        case when is_{{ name }} and degrees_of_freedom >= 8 then s_{{ name }}_y end as estimate,
        case
            when is_{{ name }} and degrees_of_freedom >= 8
                then sqrt(greatest(-s_{{ name }}_{{ name }} * s_y_y / degrees_of_freedom, 1e-8))
        end as std_error
    from judged
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select *
from final
