{#- Twice the pinball loss of one row, averaged over the quantile levels (it tends to the CRPS). -#}
{% macro pinball_loss(actual) -%}
    (
        {%- for name, level in trendcast.quantile_levels().items() %}
        {{ '+ ' if not loop.first -}}
        greatest({{ level }} * ({{ actual }} - {{ name }}), {{ (1 - level) | round(3) }} * ({{ name }} - {{ actual }}))
        {%- endfor %}
    ) * 2.0 / {{ trendcast.quantile_levels() | length }}
{%- endmacro %}

{#- 1.0 where the actual lies between two quantiles, both included. -#}
{% macro covered(actual, lower, upper) -%}
    case when {{ actual }} between {{ lower }} and {{ upper }} then 1.0e0 else 0.0e0 end
{%- endmacro %}
