{#- A build after the first reads only what is new. Every row of the order lines and the panel has `built_at`, the start of
    the dbt run that made it, so each table knows by itself what it has seen, and a build that died half-way is caught
    up by the next; and `built_with`, a digest of settings and SQL: a table that was made with others is built anew. So is
    every table where order lines have no `loaded_at`, or on another engine. -#}

{#- The start of this dbt run, as a timestamp. -#}
{% macro built_at() -%}
    cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S.%f") }}' as timestamp)
{%- endmacro %}

{#- A table of this package by name, for what is asked while a model is compiled: unlike ref() it adds no dependency, so
    the model must have one already. -#}
{% macro relation_of(name) %}
    {%- for node in graph.nodes.values()
        if node.name == name and node.resource_type == 'model' and node.package_name == 'trendcast' -%}
        {{ return(api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias)) }}
    {%- endfor -%}
{% endmacro %}

{#- The configuration of a table that keeps its rows. -#}
{% macro keeps_rows() %}
    {{ config(
        materialized='incremental', incremental_strategy='append', on_schema_change='sync_all_columns',
        post_hook='{{ trendcast.forget() }}'
    ) }}
{% endmacro %}

{#- A table of this package as an earlier run left it; none where a build has to begin anew: there is none, it is of an
    older version, a full refresh was asked for, lines do not say when they were loaded, or the engine is another. -#}
{% macro left_by_earlier_runs(name) %}
    {#- A unit test has no graph. #}
    {%- if not execute or 'nodes' not in graph or flags.FULL_REFRESH or target.type != 'duckdb'
        or not var('order_columns').get('loaded_at') -%}
        {{ return(none) }}
    {%- endif -%}
    {#- Stock is counted and promotions are planned beside the order lines, and say nothing of when they changed. #}
    {%- if name in ['ftr_history', 'ftr_category'] and (trendcast.has_source('inventory') or var('outliers') != 'none') -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set named = trendcast.relation_of(name) -%}
    {%- set relation = adapter.get_relation(named.database, named.schema, named.identifier) -%}
    {%- if relation and relation.type == 'table'
        and 'built_with' in adapter.get_columns_in_relation(relation) | map(attribute='name') -%}
        {{ return(relation) }}
    {%- endif -%}
    {{ return(none) }}
{% endmacro %}

{#- The time up to which order lines have been read for good; none: read them all. Lines loaded in the var `lookback_days`
    before the newest are read again, for loads may overlap. Lines of before that are compared with those that were read:
    where one has gone or changed, all are read. -#}
{% macro lines_seen() %}
    {%- set checked = trendcast.left_by_earlier_runs('int_order_lines_checked') -%}
    {%- if checked is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set digest = 'count(*), sum(abs(quantity))' -%}
    {%- set row = run_query(
        "with earlier as (from " ~ checked ~ " where built_at < " ~ trendcast.built_at() ~ "), "
        ~ "mark as (select max(loaded_at) - interval '" ~ var('lookback_days') ~ " days' as loaded_at, "
        ~ "min(built_with) as oldest, max(built_with) as newest from earlier) "
        ~ "select cast(mark.loaded_at as varchar), coalesce(mark.oldest = " ~ trendcast.lines_built_with()
        ~ " and mark.newest = mark.oldest "
        ~ "and (select row(" ~ digest ~ ") from earlier where loaded_at is null or loaded_at <= mark.loaded_at) "
        ~ "= (select row(" ~ digest ~ ") from " ~ trendcast.relation_of('stg_order_lines')
        ~ " where loaded_at is null or loaded_at <= mark.loaded_at), false) from mark"
    ).rows[0] -%}
    {{ return(row[0] if row[1] else none) }}
{% endmacro %}

{#- Series with lines that came late, and the month of the first: what was typical of their later months has changed, so
    the lines of those are cleaned again. -#}
{% macro late_series(seen) %}
    select
        series_id,
        min({{ trendcast.month_number('order_date') }}) as month_number
    from {{ trendcast.relation_of('int_order_lines_described') }}
    where loaded_at > cast('{{ seen }}' as timestamp) and series_id is not null
    group by 1
    having min({{ trendcast.month_number('order_date') }}) < (
        select max({{ trendcast.month_number('order_date') }})
        from {{ trendcast.left_by_earlier_runs('int_order_lines_checked') }}
        where built_at < {{ trendcast.built_at() }}
    )
{% endmacro %}

{#- Whether a line is of a later month of one of those, which are in a CTE `late`. -#}
{% macro is_of_late_series(alias) -%}
    exists (
            select 1 from late
            where
                late.series_id = {{ alias }}.series_id
                and late.month_number < {{ trendcast.month_number(alias ~ '.order_date') }}
        )
{%- endmacro %}

{#- The post-hook of the order lines: deletes those that were cleaned again. -#}
{% macro forget_lines() %}
    {%- if execute and is_incremental() -%}
        {%- set seen = trendcast.lines_seen() -%}
        {%- if seen and var('robust_bound') is not none -%}
            with late as ({{ trendcast.late_series(seen) }})
        {%- endif %}
        delete from {{ this }} as lines where lines.built_at < {{ trendcast.built_at() }}
        {%- if seen %} and (
            lines.loaded_at > cast('{{ seen }}' as timestamp)
            {%- if var('robust_bound') is not none %} or {{ trendcast.is_of_late_series('lines') }}{% endif %}
        )
        {%- endif -%}
    {%- endif -%}
{% endmacro %}

{#- What a table of the panel has seen: {'built_at': of its newest row, 't': its last period, 'from_t': the first period that
    is new of any series}; none: build it anew. -#}
{% macro seen() %}
    {%- set left = trendcast.left_by_earlier_runs(this.identifier)
        if execute and 'nodes' in graph and is_incremental() else none -%}
    {%- if left is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set row = run_query(
        "select cast(max(built_at) as varchar), max(t), coalesce(min(built_with) = " ~ trendcast.built_with()
        ~ " and max(built_with) = min(built_with) and max(t) <= (select cutoff_t from "
        ~ trendcast.relation_of('int_cutoffs') ~ " where fold = 0), false) from " ~ left
        ~ " where built_at < " ~ trendcast.built_at()
    ).rows[0] -%}
    {%- if not row[2] -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set seen = {'built_at': row[0], 't': row[1] | int} -%}
    {%- set first = run_query('select min(from_t) from (' ~ trendcast.touched(seen) ~ ') as touched').rows[0][0] -%}
    {%- do seen.update({'from_t': [first | int, seen.t + 1] | min if first is not none else seen.t + 1}) -%}
    {{ return(seen) }}
{% endmacro %}

{#- The series that lines have come for since a table was built, and the first period of those: series_id, from_t. -#}
{% macro touched(seen) %}
    select
        series_id,
        min({{ trendcast.period_index('order_date') }}) as from_t
    from {{ trendcast.relation_of('int_order_lines_checked') }}
    where built_at > cast('{{ seen.built_at }}' as timestamp) and series_id is not null and order_date is not null
    group by 1
{% endmacro %}

{#- The first period to build of every series: series_id, series_no, from_t. Periods after the last one seen are new for all. -#}
{% macro changes(seen) %}
    select
        series.series_id,
        series.series_no,
        least(coalesce(touched.from_t, {{ seen.t + 1 }}), {{ seen.t + 1 }}) as from_t
    from {{ trendcast.relation_of('int_series') }} as series
    left join ({{ trendcast.touched(seen) }}) as touched
        on series.series_id = touched.series_id
{% endmacro %}

{#- A panel model's post-hook: deletes the rows that were built again, in the transaction that inserted them. -#}
{% macro forget() %}
    {%- if execute and is_incremental() -%}
        {%- set seen = trendcast.seen() -%}
        delete from {{ this }} where built_at < {{ trendcast.built_at() }}
        {%- if seen %} and t >= {{ seen.from_t }} and (
            t > {{ seen.t }} or exists (
                select 1 from ({{ trendcast.touched(seen) }}) as touched
                where touched.series_id = {{ this }}.series_id and touched.from_t <= {{ this }}.t
            )
        )
        {%- endif -%}
    {%- endif -%}
{% endmacro %}

{#- The post-hook of a table by category: it is built again, for all of them, from the first period that is new of any series. -#}
{% macro forget_categories() %}
    {%- if execute and is_incremental() -%}
        {%- set seen = trendcast.seen() -%}
        delete from {{ this }} where built_at < {{ trendcast.built_at() }}
        {%- if seen %} and t >= {{ seen.from_t }}{% endif -%}
    {%- endif -%}
{% endmacro %}

{#- Digest of the vars and the SQL that decide what the panel is made of, as a text. -#}
{% macro built_with() -%}
    {%- set parts = [] -%}
    {%- for name in trendcast.panel_vars() -%}
        {%- do parts.append(name ~ '=' ~ tojson(var(name), sort_keys=true)) -%}
    {%- endfor -%}
    {%- for node in (graph.nodes.values() | sort(attribute='unique_id') if execute and 'nodes' in graph else [])
        if node.resource_type == 'model' and node.package_name == 'trendcast' -%}
        {%- do parts.append(node.name ~ '=' ~ node.checksum.checksum) -%}
    {%- endfor -%}
    '{{ local_md5(parts | join(' ')) }}'
{%- endmacro %}

{#- As built_with, for order lines: the catalogue and the exchange rates decide too. -#}
{% macro lines_built_with() -%}
    {{ trendcast.built_with() }}
    {%- if execute and 'nodes' in graph and target.type == 'duckdb' -%}
        {%- for name in ['stg_products', 'stg_exchange_rates'] -%}
            {%- set relation = trendcast.relation_of(name) -%}
            {%- if adapter.get_relation(relation.database, relation.schema, relation.identifier) %}
            || (select ' ' || count(*) || ' ' || coalesce(bit_xor(hash(source)), 0) from {{ relation }} as source)
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}

{#- Every var the panel depends on. A test holds this list against dbt_project.yml. -#}
{% macro panel_vars() %}
    {{ return([
        'shop_database', 'shop_schema', 'orders_table', 'products_table', 'inventory_table', 'order_columns',
        'product_columns', 'order_scope', 'as_of', 'loaded_before', 'order_timezone', 'duplicate_lines', 'min_order_date',
        'max_quantity', 'max_unit_price', 'robust_bound', 'robust_bound_lines', 'returns', 'return_when', 'cancelled_when',
        'test_order_when', 'currency', 'exchange_rates_table', 'exchange_rate_columns', 'grain', 'series_key',
        'measure', 'gap_fill', 'stockout_chance', 'outliers', 'outlier_threshold', 'cutoff', 'season_length', 'windows',
        'features', 'lookback_days', 'static_attributes', 'inventory_columns', 'inventory_snapshots',
    ]) }}
{% endmacro %}
