{#- A build after the first reads only what is new. Every row of the order lines and the panel has `built_at`, the start of
    the dbt run that made it, so each table knows by itself what it has seen: a build that died half-way is caught up by
    the next. What no row can tell, a change of settings, SQL or catalogue, is an event in int_builds; a table older than
    the last one is built anew. So is every table where order lines have no `loaded_at`, or on another engine. -#}

{#- The start of this dbt run, as a timestamp. -#}
{% macro built_at() -%}
    cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S.%f") }}' as timestamp)
{%- endmacro %}

{#- Whether a table may keep its rows at all. -#}
{% macro may_keep_rows() %}
    {{ return(
        execute and is_incremental() and target.type == 'duckdb'
        and var('order_columns').get('loaded_at') is not none
    ) }}
{% endmacro %}

{#- The configuration of a table that keeps its rows. -#}
{% macro keeps_rows() %}
    {{ config(
        materialized='incremental', incremental_strategy='append', on_schema_change='sync_all_columns',
        pre_hook='{{ trendcast.forget() }}'
    ) }}
{% endmacro %}

{#- What a table of the panel has seen: {'built_at': of its newest row, 't': its last period}; none: build it anew. -#}
{% macro seen() %}
    {%- if not trendcast.may_keep_rows() -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set row = run_query(
        "select cast(max(built_at) as varchar), max(t), coalesce(max(built_at) >= (select max(changed_at) from "
        ~ ref('trendcast', 'int_builds') ~ ") and max(t) <= " ~ trendcast.last_cutoff() ~ ", false) from " ~ this
    ).rows[0] -%}
    {{ return({'built_at': row[0], 't': row[1] | int} if row[2] else none) }}
{% endmacro %}

{#- The series that lines have come for since a table was built, and the first period of those: series_id, from_t. -#}
{% macro touched(seen) %}
    select
        series_id,
        min({{ trendcast.period_index('order_date') }}) as from_t
    from {{ ref('trendcast', 'int_order_lines_checked') }}
    where built_at > cast('{{ seen.built_at }}' as timestamp) and series_id is not null and order_date is not null
    group by 1
{% endmacro %}

{#- The first period to build of every series: series_id, series_no, from_t. Periods after the last one seen are new for all. -#}
{% macro changes(seen) %}
    select
        series.series_id,
        series.series_no,
        least(coalesce(touched.from_t, {{ seen.t + 1 }}), {{ seen.t + 1 }}) as from_t
    from {{ ref('trendcast', 'int_series') }} as series
    left join ({{ trendcast.touched(seen) }}) as touched
        on series.series_id = touched.series_id
{% endmacro %}

{#- A panel model's pre-hook: deletes the rows that are about to be built again, in the transaction that inserts them. -#}
{% macro forget() %}
    {%- if execute and is_incremental() -%}
        {%- set seen = trendcast.seen() -%}
        {%- if seen -%}
            delete from {{ this }} where t > {{ seen.t }} or exists (
                select 1 from ({{ trendcast.touched(seen) }}) as touched
                where touched.series_id = {{ this }}.series_id and touched.from_t <= {{ this }}.t
            )
        {%- else -%}
            delete from {{ this }}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}

{#- Digest of all that decides what the panel is made of besides order lines: the vars, the SQL and the catalogue. -#}
{% macro settings_digest() %}
    {%- set parts = [] -%}
    {%- for name in trendcast.panel_vars() -%}
        {%- do parts.append(name ~ '=' ~ tojson(var(name), sort_keys=true)) -%}
    {%- endfor -%}
    {%- for node in graph.nodes.values() | sort(attribute='unique_id')
        if node.resource_type == 'model' and node.package_name == 'trendcast' -%}
        {%- do parts.append(node.name ~ '=' ~ node.checksum.checksum) -%}
    {%- endfor -%}
    {{ return(local_md5(parts | join(' '))) }}
{% endmacro %}

{#- Every var the panel depends on. A test holds this list against dbt_project.yml. -#}
{% macro panel_vars() %}
    {{ return([
        'shop_database', 'shop_schema', 'orders_table', 'products_table', 'inventory_table', 'order_columns',
        'product_columns', 'order_scope', 'as_of', 'order_timezone', 'duplicate_lines', 'min_order_date',
        'max_quantity', 'max_unit_price', 'grain', 'series_key', 'measure', 'gap_fill', 'stockout_chance', 'outliers',
        'outlier_threshold', 'cutoff', 'season_length', 'windows', 'features', 'lookback_days',
    ]) }}
{% endmacro %}

{#- Digest of a relation's rows, whatever their order; null where the engine has no cheap one. -#}
{% macro rows_digest(relation) -%}
    {{ return(adapter.dispatch('rows_digest', 'trendcast')(relation)) }}
{%- endmacro %}

{% macro default__rows_digest(relation) -%}
    select cast(null as {{ dbt.type_string() }}) as digest
{%- endmacro %}

{% macro duckdb__rows_digest(relation) -%}
    select cast(count(*) as varchar) || ' ' || cast(coalesce(bit_xor(hash(rows)), 0) as varchar) as digest
    from {{ relation }} as rows
{%- endmacro %}
