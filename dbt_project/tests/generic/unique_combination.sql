{#- Fails for each combination of `columns` that more than one row has, or of whose rows one lacks a value in `not_null`. With
    `mapping`, the var that maps a table by product (e.g. price_columns), the part of the series key that this table knows counts too.
    One test of a table reads it once; a not_null of each column would read it as often, and be a query of its own to start. -#}
{% test unique_combination(model, columns, mapping=none, not_null=[]) %}
{%- set listed = columns | list -%}
{%- for column in (trendcast.source_key(mapping) if mapping else []) -%}
    {%- do listed.append(adapter.quote(column)) -%}
{%- endfor -%}
select
    {{ listed | join(', ') }},
    {%- for column in not_null %}
    count(*) - count({{ column }}) as without_{{ column }},
    {%- endfor %}
    count(*) as copies
from {{ model }}
{{ trendcast.where_maybe_copied(model, listed, not_null) }}
group by {{ listed | join(', ') }}
having count(*) > 1{% for column in not_null %} or count({{ column }}) < count(*){% endfor %}
{% endtest %}
