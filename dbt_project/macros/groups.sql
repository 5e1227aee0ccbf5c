{#- The groups of series that demand is summed over, as {name: columns of int_grouped_series}: the whole, and each list of
    attributes of the var `demand_groups`; by default the series' category. -#}
{% macro demand_groups() %}
    {%- set known = trendcast.group_attributes() -%}
    {%- set chosen = var('demand_groups') -%}
    {%- if chosen is none -%}
        {%- set chosen = [[var('static_attributes')[0]]] if var('static_attributes') and trendcast.has_source('products')
            else [] -%}
    {%- endif -%}
    {%- set groups = {'total': []} -%}
    {%- for columns in chosen -%}
        {%- set columns = [columns] if columns is string else columns -%}
        {%- for column in columns if column not in known -%}
            {{ exceptions.raise_compiler_error(
                "var 'demand_groups' must be a list of lists of " ~ known | join(', ') ~ "; came: " ~ column) }}
        {%- endfor -%}
        {%- do groups.update({columns | join('+'): columns}) -%}
    {%- endfor -%}
    {{ return(groups) }}
{% endmacro %}

{#- The attributes that series can be grouped by. -#}
{% macro group_attributes() %}
    {%- set known = var('series_key') | list -%}
    {%- for column in (var('static_attributes') if trendcast.has_source('products') else []) + ['supplier']
        if column not in known -%}
        {%- do known.append(column) -%}
    {%- endfor -%}
    {{ return(known) }}
{% endmacro %}
