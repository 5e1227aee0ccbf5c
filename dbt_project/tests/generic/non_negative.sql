{#- Fails for each row in which one of `columns` is below zero; null is no number. -#}
{% test non_negative(model, columns) %}
select *
from {{ model }}
where
    {% for column in columns %}
    {{ 'or ' if not loop.first }}{{ column }} < 0
    {% endfor %}
{% endtest %}
