{#- The terms of supply that are amounts, as {column of stg_supply_terms: condition that a usable value fulfils}. -#}
{% macro supply_amounts() %}
    {{ return({
        'lead_time_days': '>= 0', 'lead_time_std_days': '>= 0', 'pack_size': '> 0', 'minimum_order': '>= 0',
        'service_level': 'between 0.0001 and 0.9999', 'unit_cost': '>= 0',
    }) }}
{% endmacro %}

{#- Aggregates of usable terms over a series' products, for by_source_key: the longest lead time and the mean cost. Packs
    and least orders only make sense for one product, a supplier where all have the same. -#}
{% macro term_aggregates() %}
    {%- set aggregates = {
        'supplier': 'case when count(distinct supply_rows.supplier) = 1 then max(supply_rows.supplier) end',
    } -%}
    {%- for column, usable in trendcast.supply_amounts().items() -%}
        {%- set value = 'case when supply_rows.' ~ column ~ ' ' ~ usable ~ ' then supply_rows.' ~ column ~ ' end' -%}
        {%- if column == 'unit_cost' -%}
            {%- do aggregates.update({column: 'avg(' ~ value ~ ')'}) -%}
        {%- elif column in ['pack_size', 'minimum_order'] -%}
            {%- do aggregates.update({
                column: 'case when count(distinct supply_rows.product_id) = 1 then max(' ~ value ~ ') end'}) -%}
        {%- else -%}
            {%- do aggregates.update({column: 'max(' ~ value ~ ')'}) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(aggregates) }}
{% endmacro %}

{#- Aggregates of a table by product over the keys of source_key(mapping): the whole select. `rows` is a CTE with product_id
    and location_id, `aggregates` maps names to expressions, `by` are columns of `rows` to group by as well. -#}
{% macro by_source_key(mapping, rows, aggregates, by=[]) -%}
    {%- set key = trendcast.source_key(mapping) -%}
    select
        {{ trendcast.key_columns(key, 'products', location=rows) }}
        {%- for column in by %}
        {{ rows }}.{{ column }},
        {%- endfor %}
        {%- for name, expression in aggregates.items() %}
        {{ expression }} as {{ name }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ rows }}
    inner join {{ ref('trendcast', 'stg_products') }} as products
        on {{ rows }}.product_id = products.product_id
    {{ trendcast.group_by(key | length + by | length) }}
{%- endmacro %}

{#- The names among {name: condition} whose condition holds, as one text with commas; empty where none does. -#}
{% macro listed(conditions) -%}
    substring(
        {%- for name, condition in conditions.items() %}
        {{ '|| ' if not loop.first }}case when {{ condition }} then ', {{ name }}' else '' end
        {%- endfor %}, 3)
{%- endmacro %}

{#- Whether a source counts units by all columns of the series key: what it holds for several series together is none's. -#}
{% macro counts_series(source, mapping) %}
    {{ return(
        trendcast.has_source(source) and trendcast.source_key(mapping) | length == var('series_key') | length) }}
{% endmacro %}
