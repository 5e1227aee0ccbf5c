-- One row per category and period: what the series of a category did together, as of the end of the period. The
-- category is the first of the var `static_attributes`; without one, all series are one category.
{{ trendcast.keeps_rows('replaced_periods') }}
{%- set seen = trendcast.seen() %}
{%- set exact = trendcast.type_exact() %}
{%- set double = trendcast.type_double() %}
with members as (

    select
        history.t,
        {{ trendcast.category_key('static') }} as category,
        history.mean_short,
        history.mean_medium,
        history.mean_long,
        history.zero_share_medium,
        history.price_change,
        history.discount_depth
    from {{ ref('ftr_history') }} as history
    inner join {{ ref('ftr_static') }} as static
        on history.series_id = static.series_id
    {% if seen %}
    where history.t >= {{ seen.from_t }}
    {% endif %}

),

-- Sums of decimals, so that their order does not matter.
summed as (

    select
        category,
        t,
        {% for column in ['mean_short', 'mean_medium', 'mean_long'] %}
        cast(sum(cast({{ column }} as {{ exact }})) as {{ double }}) as {{ column }},
        {% endfor %}
        {% for column in ['zero_share_medium', 'price_change', 'discount_depth'] %}
        cast(sum(cast({{ column }} as {{ exact }})) as {{ double }}) / count(*) as {{ column }},
        {% endfor %}
        count(*) as n_series
    from members
    group by 1, 2

)

select
    category,
    t,
    n_series as category_series,
    mean_medium as category_level,
    coalesce(ln(nullif(mean_short, 0) / nullif(mean_medium, 0)), 0) as category_trend_short,
    coalesce(ln(nullif(mean_medium, 0) / nullif(mean_long, 0)), 0) as category_trend_long,
    zero_share_medium as category_zero_share,
    price_change as category_price_change,
    discount_depth as category_discount_depth,
    {{ trendcast.built_at() }} as built_at,
    {{ trendcast.built_with() }} as built_with
from summed
