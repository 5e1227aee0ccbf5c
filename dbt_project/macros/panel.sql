{#- The rows of a relation, each repeated: `times` rows for every row, counted from 0 in column `counter`. -#}
{% macro repeated(relation, times, counter) -%}
    {{ return(adapter.dispatch('repeated', 'trendcast')(relation, times, counter)) }}
{%- endmacro %}

{% macro default__repeated(relation, times, counter) -%}
    select
        {{ relation }}.*,
        counters.{{ counter }}
    from {{ relation }}
    cross join lateral generate_series(0, {{ relation }}.{{ times }} - 1) as counters({{ counter }})
{%- endmacro %}

{% macro duckdb__repeated(relation, times, counter) -%}
    select
        {{ relation }}.*,
        cast(unnest(range({{ times }})) as integer) as {{ counter }}
    from {{ relation }}
{%- endmacro %}

{% macro spark__repeated(relation, times, counter) -%}
    select
        {{ relation }}.*,
        explode(sequence(0, {{ times }} - 1)) as {{ counter }}
    from {{ relation }}
    -- To below zero it would count backwards.
    where {{ times }} > 0
{%- endmacro %}

{#- A window over a series' sales so far. -#}
{% macro sales_so_far(aggregate) -%}
    {{ aggregate }} over (
            partition by series.series_no order by sales.t rows between unbounded preceding and current row
        )
{%- endmacro %}

{#- Further columns of a sale that a policy needs to fill the gap after it, as select expressions that end with a comma:
    the sales before it, the range seen so far, the mean or the median so far. -#}
{% macro gap_fill_inputs(column, expression, policy) -%}
    {%- if policy in ['linear', 'spline'] %}
        {%- for k in ([1] if policy == 'linear' else [1, 2]) %}
        lag({{ expression }}, {{ k }}) over (partition by series.series_no order by sales.t) as {{ column }}_{{ k }},
        {%- endfor %}
        {{ trendcast.sales_so_far('min(' ~ expression ~ ')') }} as {{ column }}_lowest,
        {{ trendcast.sales_so_far('max(' ~ expression ~ ')') }} as {{ column }}_highest,
    {%- elif policy == 'mean' %}
        cast({{ trendcast.sales_so_far('avg(cast(' ~ expression ~ ' as ' ~ trendcast.type_averaged() ~ '))') }}
            as {{ trendcast.type_double() }}) as {{ column }}_mean,
    {%- elif policy == 'median' %}
        {{ trendcast.sales_so_far(trendcast.quantile(expression, 0.5)) }} as {{ column }}_median,
    {%- endif -%}
{%- endmacro %}

{#- The value of a column `since_sale` periods after the sale that a row of `sold` stands for, by policy. `linear` goes on
    along the line through the last two sales and `spline` along the parabola through the last three (Newton's form), both
    within the range seen so far: interpolating towards the next sale would be knowledge of the future. -#}
{% macro gap_filled(column, policy) -%}
    {%- if policy == 'zero' -%}
        coalesce(case when since_sale = 0 then {{ column }} end, 0)
    {%- elif policy in ['carry_forward', 'drop'] -%}
        {{ column }}
    {%- elif policy in ['mean', 'median'] -%}
        case when since_sale = 0 then {{ column }} else {{ column }}_{{ policy }} end
    {%- elif policy == 'seasonal' -%}
        coalesce({{ column }}_season_before, {{ column }})
    {%- else -%}
        {%- set slope = '(' ~ column ~ ' - ' ~ column ~ '_1) / (sale_t - sale_t_1)' -%}
        least(greatest(
            {{ column }} + coalesce(since_sale * {{ slope }}, 0)
            {%- if policy == 'spline' %} + coalesce(
                since_sale * (since_sale + sale_t - sale_t_1)
                * ({{ slope }} - ({{ column }}_1 - {{ column }}_2) / (sale_t_1 - sale_t_2)) / (sale_t - sale_t_2), 0
            ){% endif -%}
        , {{ column }}_lowest), {{ column }}_highest)
    {%- endif -%}
{%- endmacro %}

{#- The last value of a window that is not null. -#}
{% macro last_value(expression) -%}
    {{ return(adapter.dispatch('last_value', 'trendcast')(expression)) }}
{%- endmacro %}

{% macro default__last_value(expression) -%}
    last_value({{ expression }} ignore nulls)
{%- endmacro %}

{% macro spark__last_value(expression) -%}
    last_value({{ expression }}, true)
{%- endmacro %}

{% macro postgres__last_value(expression) -%}
    {{ trendcast.engine_name('last_known') }}({{ expression }})
{%- endmacro %}

{#- The last value that is not null among a series' rows so far with the same `position`. -#}
{% macro last_known(expression, position) -%}
    {{ trendcast.last_value(expression) }} over (
            partition by series_no, {{ position }} order by sale_t + since_sale
            rows between unbounded preceding and current row
        )
{%- endmacro %}
