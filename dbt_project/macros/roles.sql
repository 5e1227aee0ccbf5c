{#- A feature model's columns that the YAML gives a role (`meta: {role: ...}`), of the groups that are built. -#}
{% macro role_columns(model_name, role) %}
    {%- set columns = [] -%}
    {%- if execute -%}
        {%- for node in graph.nodes.values()
            if node.resource_type == 'model' and node.name == model_name -%}
            {%- for column in node.columns.values() if column.config.meta.get('role') == role -%}
                {%- set group = column.config.meta.get('group') -%}
                {%- if not group or trendcast.uses(group) -%}
                    {%- do columns.append(column) -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(columns) }}
{% endmacro %}

{#- A select list of those columns from a table alias; `fallback` replaces nulls of a missing row. -#}
{% macro columns_with_role(model_name, role, alias, fallback=none) -%}
    {%- for column in trendcast.role_columns(model_name, role) | map(attribute='name') | list -%}
        {%- if fallback -%}
            coalesce({{ alias }}.{{ column }}, {{ fallback }}) as {{ column }}
        {%- else -%}
            {{ alias }}.{{ column }}
        {%- endif -%}
        {{ ',\n    ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}
