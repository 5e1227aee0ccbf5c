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

{#- The interpolated quantile of an expression within a group. -#}
{% macro quantile(expression, level) -%}
    {{ return(adapter.dispatch('quantile', 'trendcast')(expression, level)) }}
{%- endmacro %}

{% macro default__quantile(expression, level) -%}
    percentile_cont({{ level }}) within group (order by {{ expression }})
{%- endmacro %}

{% macro duckdb__quantile(expression, level) -%}
    quantile_cont({{ expression }}, {{ level }})
{%- endmacro %}

{% macro spark__quantile(expression, level) -%}
    percentile({{ expression }}, {{ level }})
{%- endmacro %}
