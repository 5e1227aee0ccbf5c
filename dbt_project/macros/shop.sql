{#- Whether the shop has an optional source table. -#}
{% macro has_source(name) %}
    {{ return(var(name ~ '_table') is not none) }}
{% endmacro %}

{#- The SQL expression a canonical column has on the raw table, or a typed null where the shop has none. -#}
{% macro mapped(mapping, column, type=none) -%}
    {%- set expression = var(mapping).get(column) -%}
    {%- if expression is none -%}
        cast(null as {{ type or dbt.type_string() }})
    {%- elif type -%}
        cast({{ expression }} as {{ type }})
    {%- else -%}
        {{ expression }}
    {%- endif -%}
{%- endmacro %}

{#- As `mapped`, but a value that cannot be read as the type is null and no error. -#}
{% macro safe_mapped(mapping, column, type) -%}
    {%- set expression = var(mapping).get(column) -%}
    {%- if expression is none -%}
        cast(null as {{ type }})
    {%- else -%}
        {{ trendcast.try_cast(expression, type) }}
    {%- endif -%}
{%- endmacro %}

{#- dbt.safe_cast is a plain cast on DuckDB. -#}
{% macro try_cast(expression, type) -%}
    {{ return(adapter.dispatch('try_cast', 'trendcast')(expression, type)) }}
{%- endmacro %}

{% macro default__try_cast(expression, type) -%}
    {{ dbt.safe_cast(dbt.cast(expression, dbt.type_string()), type) }}
{%- endmacro %}

{#- A decimal's precision and scale are part of the name of its type. -#}
{% macro postgres__try_cast(expression, type) -%}
    {%- set digits = modules.re.findall('[0-9]+', type) -%}
    {%- if digits -%}
        cast({{ trendcast.engine_name('decimal') }}({{ expression }}, {{ digits | join(', ') }}) as {{ type }})
    {%- elif type == trendcast.type_double() -%}
        cast({{ trendcast.engine_name('decimal') }}({{ expression }}, 100, 30) as {{ type }})
    {%- else -%}
        cast({{ trendcast.engine_name('timestamp') }}({{ expression }}) as {{ type }})
    {%- endif -%}
{%- endmacro %}

{% macro duckdb__try_cast(expression, type) -%}
    try_cast({{ expression }} as {{ type }})
{%- endmacro %}

{% macro spark__try_cast(expression, type) -%}
    try_cast({{ expression }} as {{ type }})
{%- endmacro %}

{#- Names of the product attributes the catalogue maps, without the key. -#}
{% macro product_attributes() %}
    {{ return(var('product_columns').keys() | reject('equalto', 'product_id') | list) }}
{% endmacro %}

{#- The text id of a series: its key values joined by '/', with '%' and '/' inside a value escaped,
    so two different keys never share an id. -#}
{% macro series_id(columns) -%}
    {%- if columns | length == 1 -%}
        cast({{ adapter.quote(columns[0]) }} as {{ dbt.type_string() }})
    {%- else -%}
        {%- for column in columns -%}
            {{ " || '/' || " if not loop.first -}}
            replace(replace(cast({{ adapter.quote(column) }} as {{ dbt.type_string() }}), '%', '%25'), '/', '%2F')
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}

{#- Creates the demo shop's raw tables from the Parquet files beside this project, once. Only when
    trendcast is the root project and `shop_schema` is the demo's, so it never touches a user's warehouse. -#}
{% macro load_demo_shop() %}
    {%- if execute and project_name == 'trendcast' and var('shop_schema') == 'demo_shop'
        and not var('shop_database') and target.type == 'duckdb' -%}
        {%- set folder = dbt.escape_single_quotes((invocation_args_dict.project_dir or '.') ~ '/demo_shop') -%}
        {#- With the database, for a file called demo_shop.duckdb is a database of that name. -#}
        {%- set schema = adapter.quote(target.database) ~ '.demo_shop' -%}
        create schema if not exists {{ schema }};
        {%- for table in ['transactions', 'products', 'promotions', 'demographics', 'campaigns',
                          'campaign_descriptions', 'coupon_redemptions'] %}
        create table if not exists {{ schema }}.{{ table }} as
            select *, cast(now() as timestamp) as loaded_at from read_parquet('{{ folder }}/{{ table }}.parquet');
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}

{#- Quantities and money are exact decimals: their sums do not depend on the order of addition, so the
    same data gives the same table on any number of threads. -#}
{% macro type_amount() -%}
    decimal(18, 6)
{%- endmacro %}

{#- As an amount, with room for its square. -#}
{% macro type_exact() -%}
    decimal(30, 6)
{%- endmacro %}

{#- A sum of exact amounts. -#}
{% macro type_sum() -%}
    decimal(38, 6)
{%- endmacro %}

{#- For sums of fractions that must not depend on the order of addition. -#}
{% macro type_fine() -%}
    decimal(38, 12)
{%- endmacro %}

{#- What exact amounts are averaged as: Spark's mean of a decimal is one of but four digits more. -#}
{% macro type_averaged() -%}
    {{ return(adapter.dispatch('type_averaged', 'trendcast')()) }}
{%- endmacro %}

{% macro default__type_averaged() -%}
    {{ trendcast.type_exact() }}
{%- endmacro %}

{% macro spark__type_averaged() -%}
    {{ trendcast.type_fine() }}
{%- endmacro %}

{#- 64-bit floating point: dbt.type_float() is 32-bit on DuckDB and Spark. -#}
{% macro type_double() -%}
    {{ return(adapter.dispatch('type_double', 'trendcast')()) }}
{%- endmacro %}

{% macro default__type_double() -%}
    double precision
{%- endmacro %}

{% macro spark__type_double() -%}
    double
{%- endmacro %}

{#- Groups by the first `count` columns of the select; by nothing, one row for all, where count is 0. -#}
{% macro group_by(count) -%}
    {%- if count -%}
        group by {{ range(1, count + 1) | join(', ') }}
    {%- endif -%}
{%- endmacro %}

{#- A series' category: the first of the var `static_attributes`, empty where there is none. -#}
{% macro category_of(alias) -%}
    {%- if var('static_attributes') and trendcast.has_source('products') -%}
        coalesce({{ alias }}.{{ adapter.quote(var('static_attributes')[0]) }}, '')
    {%- else -%}
        cast('' as {{ dbt.type_string() }})
    {%- endif -%}
{%- endmacro %}

{#- That category apart for each measure but the leading one, for what one series tells about another of its category. -#}
{% macro category_key(alias) -%}
    {{ trendcast.category_of(alias) }}
    {%- if trendcast.has_measures() %}
    || case when {{ alias }}.measure <> '{{ trendcast.measures()[0] }}' then '/' || {{ alias }}.measure else '' end
    {%- endif -%}
{%- endmacro %}

{#- A select of typed columns ({name: type}) and no row: what a table is that nobody has filled. -#}
{% macro no_rows(columns) %}
    select
        {%- for name, type in columns.items() %}
        cast(null as {{ type }}) as {{ name }}{{ ',' if not loop.last }}
        {%- endfor %}
    where false
{% endmacro %}
