-- One row per series: sums of squares and products of what int_response_rows holds, from the line through each stratum.
{%- set names = trendcast.response_regressors() + ['y'] %}
{%- set pairs = trendcast.pairs_of(names) %}
{%- set promotions = trendcast.promotion_effects() %}
-- In fixed point (multiples of 2^-20), so that the order of sums does not matter.
with whole as (

    select
        series_id,
        stratum,
        {% for name in names %}
        cast(round({{ name }} * 1048576) as bigint) as {{ name }},
        {% endfor %}
        t,
        price as log_price
    from {{ ref('int_response_rows') }}

),

strata as (

    select
        series_id,
        stratum,
        {% for name in names %}
        cast(sum({{ name }}) as {{ trendcast.type_double() }}) as s_{{ name }},
        {% endfor %}
        {% for name in promotions %}
        count(case when {{ name }} > 0 then 1 end) as n_{{ name }},
        {% endfor %}
        {% for name in names %}
        cast(sum(t * {{ name }}) as {{ trendcast.type_double() }}) as s_t_{{ name }},
        {% endfor %}
        cast(sum(t) as {{ trendcast.type_double() }}) as s_t,
        cast(sum(t * t) as {{ trendcast.type_double() }}) as s_t_t,
        {% for a, b in pairs %}
        cast(sum({{ a }} * {{ b }}) as {{ trendcast.type_double() }}) as s_{{ a }}_{{ b }},
        {% endfor %}
        min(log_price) as lowest_log_price,
        max(log_price) as highest_log_price,
        count(*) as n_rows
    from whole
    group by 1, 2

),

lines as (

    select
        {% for name in names %}
        s_t_{{ name }} - s_t * s_{{ name }} / n_rows as c_{{ name }},
        {% endfor %}
        -- Null where all of the stratum is one period: then it has a level and no trend.
        nullif(s_t_t - s_t * s_t / n_rows, 0) as c_t,
        strata.*
    from strata

),

final as (

    select
        series_id,
        {% for name in promotions %}
        sum(s_{{ name }}) / nullif(sum(n_{{ name }}), 0) / 1048576 as intensity_{{ name }},
        {% endfor %}
        {% for a, b in pairs %}
        cast(sum(cast(
            (s_{{ a }}_{{ b }} - s_{{ a }} * s_{{ b }} / n_rows - coalesce(c_{{ a }} * c_{{ b }} / c_t, 0))
            / 1099511627776.0e0
            as {{ trendcast.type_fine() }}
        )) as {{ trendcast.type_double() }}) as s_{{ a }}_{{ b }},
        {% endfor %}
        exp(min(lowest_log_price)) as lowest_price,
        exp(max(highest_log_price)) as highest_price,
        cast(sum(n_rows) as bigint) as n_rows,
        count(*) + count(c_t) as n_levels
    from lines
    group by 1

)

select *
from final
