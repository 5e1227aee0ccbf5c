{#- A trailing aggregate over the `periods` periods that end with the current row. Every frame of a
    history feature is written here, so no frame can reach past its own row.

    aggregate  the function call, e.g. avg(y)
    periods    window length in rows; the panel has no gaps, so rows are periods. none: since the first row
    by         further partition columns, e.g. the position in the season -#}
{% macro trailing(aggregate, periods=none, by=none) -%}
    {{ aggregate }} over (
        partition by series_id{{ ', ' ~ by if by else '' }} order by t
        rows between {{ periods - 1 if periods else 'unbounded' }} preceding and current row
    )
{%- endmacro %}

{#- The value `periods` periods before the current row. -#}
{% macro lag_of(column, periods) -%}
    lag({{ column }}, {{ periods }}) over (partition by series_id order by t)
{%- endmacro %}

{#- An array with the interpolated quantiles of an expression within a group, at several levels at once: the
    engine collects and sorts the group's values once, not once a level. -#}
{% macro quantiles(expression, levels) -%}
    {{ return(adapter.dispatch('quantiles', 'trendcast')(expression, levels | join(', '))) }}
{%- endmacro %}

{% macro default__quantiles(expression, levels) -%}
    percentile_cont(array[{{ levels }}]) within group (order by {{ expression }})
{%- endmacro %}

{% macro duckdb__quantiles(expression, levels) -%}
    quantile_cont({{ expression }}, [{{ levels }}])
{%- endmacro %}

{% macro spark__quantiles(expression, levels) -%}
    percentile({{ expression }}, array({{ levels }}))
{%- endmacro %}

{#- The element of an array at a position that counts from 0. -#}
{% macro element(array, position) -%}
    {{ return(adapter.dispatch('element', 'trendcast')(array, position)) }}
{%- endmacro %}

{% macro default__element(array, position) -%}
    {{ array }}[{{ position + 1 }}]
{%- endmacro %}

{% macro spark__element(array, position) -%}
    {{ array }}[{{ position }}]
{%- endmacro %}
