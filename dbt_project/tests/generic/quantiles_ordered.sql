{#- Fails for each forecast whose quantiles are not in order, or whose mean or lowest quantile is negative.

    quantiles  columns from the lowest level to the highest; none: those of trendcast's tables
    mean       column of the expected value; none: the table has none -#}
{% test quantiles_ordered(model, quantiles=none, mean='mean') %}
{%- set names = quantiles or trendcast.quantile_levels().keys() | list %}
select *
from {{ model }}
where
    {{ names[0] }} < 0
    {{ 'or ' ~ mean ~ ' < 0' if mean }}
    {% for name in names[1:] %}
    or {{ name }} < {{ names[loop.index0] }}
    {% endfor %}
{% endtest %}
