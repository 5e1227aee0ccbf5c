{#- Fails for each combination of `columns` that more than one row has. With `mapping`, the var that maps a table by
    product (e.g. price_columns), the part of the series key that this table knows counts too. -#}
{% test unique_combination(model, columns, mapping=none) %}
{%- set listed = columns | list -%}
{%- for column in (trendcast.source_key(mapping) if mapping else []) -%}
    {%- do listed.append(adapter.quote(column)) -%}
{%- endfor -%}
select
    {{ listed | join(', ') }},
    count(*) as copies
from {{ model }}
{{ trendcast.where_maybe_copied(model, listed) }}
group by {{ listed | join(', ') }}
having count(*) > 1
{% endtest %}
