{#- Fails for each forecast whose quantiles are not in order, or whose mean or lowest quantile is negative.

    quantiles  columns from the lowest level to the highest; none: those of trendcast's tables
    mean       column of the expected value; none: the table has none
    signed     whether what is forecast may be negative, as a change or a temperature may -#}
{% test quantiles_ordered(model, quantiles=none, mean='mean', signed=false) %}
{%- set names = quantiles or trendcast.quantile_levels().keys() | list %}
select *
from {{ model }}
where
    {{ 'false' if signed else names[0] ~ ' < 0' }}
    {{ 'or ' ~ mean ~ ' < 0' if mean and not signed }}
    {% for name in names[1:] %}
    or {{ name }} < {{ names[loop.index0] }}
    {% endfor %}
{% endtest %}
