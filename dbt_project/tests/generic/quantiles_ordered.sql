{#- Fails for each forecast whose quantiles are not in order, or whose mean or lowest quantile is negative. -#}
{% test quantiles_ordered(model) %}
{%- set names = trendcast.quantile_levels().keys() | list %}
select *
from {{ model }}
where
    mean < 0
    or {{ names[0] }} < 0
    {% for name in names[1:] %}
    or {{ name }} < {{ names[loop.index0] }}
    {% endfor %}
{% endtest %}
