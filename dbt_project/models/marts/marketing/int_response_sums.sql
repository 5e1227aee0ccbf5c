-- One row per series: sums of squares and products of what int_response_rows holds, taken from the mean of each stratum.
{%- set names = trendcast.response_regressors() + ['y'] %}
{%- set pairs = trendcast.pairs_of(names) %}
{%- set promotions = trendcast.promotion_effects() %}
-- In fixed point (multiples of 2^-20), so that the order of sums does not matter.
with whole as (

    select
        series_id,
        stratum,
        price as log_price,
        {% for name in names %}
        cast(round({{ name }} * 1048576) as bigint) as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('int_response_rows') }}

),

strata as (

    select
        series_id,
        stratum,
        count(*) as n_rows,
        min(log_price) as lowest_log_price,
        max(log_price) as highest_log_price,
        {% for name in names %}
        cast(sum({{ name }}) as {{ trendcast.type_double() }}) as s_{{ name }},
        {% endfor %}
        {% for name in promotions %}
        count(case when {{ name }} > 0 then 1 end) as n_{{ name }},
        {% endfor %}
        {% for a, b in pairs %}
        cast(sum({{ a }} * {{ b }}) as {{ trendcast.type_double() }}) as s_{{ a }}_{{ b }}{{ ',' if not loop.last }}
        {% endfor %}
    from whole
    group by 1, 2

),

final as (

    select
        series_id,
        cast(sum(n_rows) as bigint) as n_rows,
        count(*) as n_strata,
        exp(min(lowest_log_price)) as lowest_price,
        exp(max(highest_log_price)) as highest_price,
        {% for name in promotions %}
        sum(s_{{ name }}) / nullif(sum(n_{{ name }}), 0) / 1048576 as intensity_{{ name }},
        {% endfor %}
        {% for a, b in pairs %}
        cast(sum(cast(
            (s_{{ a }}_{{ b }} - s_{{ a }} * s_{{ b }} / n_rows) / 1099511627776.0e0
            as {{ trendcast.type_fine() }}
        )) as {{ trendcast.type_double() }}) as s_{{ a }}_{{ b }}{{ ',' if not loop.last }}
        {% endfor %}
    from strata
    group by 1

)

select *
from final
