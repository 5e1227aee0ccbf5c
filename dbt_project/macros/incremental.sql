{#- A build after the first reads only what is new. Every row of the order lines and the panel has `built_at`, the start of
    the dbt run that made it, so each table knows by itself what it has seen, and a build that died half-way is caught
    up by the next; and `built_with`, a digest of settings and SQL: a table that was made with others is built anew. So is
    every table where order lines have no `loaded_at`, or on another engine. -#}

{#- The start of this dbt run, as a timestamp. -#}
{% macro built_at() -%}
    cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S.%f") }}' as timestamp)
{%- endmacro %}

{#- A model's relation by name, for what is asked while another is compiled: unlike ref() it adds no dependency, so
    the other must have one already. As for ref(), a project's own version of a model wins. -#}
{% macro relation_of(name) %}
    {%- set found = namespace(node=none) -%}
    {%- for node in graph.nodes.values() if node.name == name and node.resource_type == 'model' -%}
        {%- if found.node is none or node.package_name != 'trendcast' -%}
            {%- set found.node = node -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(api.Relation.create(
        database=found.node.database, schema=found.node.schema, identifier=found.node.alias)) }}
{% endmacro %}

{#- The configuration of a table that keeps its rows. A build inserts what it made and then, in the same transaction,
    deletes what that replaces: rows of earlier builds for which the macro `replaced` holds, or all. -#}
{% macro keeps_rows(replaced='replaced_rows') %}
    {#- Parquet tables, which Spark's are, have no delete. #}
    {%- if target.type == 'spark' -%}
        {{ config(materialized='table') }}
    {%- else -%}
        {{ config(
            materialized='incremental', incremental_strategy='append', on_schema_change='sync_all_columns',
            post_hook="{{ trendcast.forget('" ~ replaced ~ "') }}"
        ) }}
    {%- endif -%}
{% endmacro %}

{#- The post-hook of such a table. -#}
{% macro forget(replaced) %}
    {%- if execute and is_incremental() -%}
        {%- set condition = trendcast[replaced]() | trim -%}
        delete from {{ this }} as earlier
        where earlier.built_at < {{ trendcast.built_at() }}{{ ' and (' ~ condition ~ ')' if condition }}
    {%- endif -%}
{% endmacro %}

{#- A model's table as an earlier run left it; none where a build has to begin anew: there is none, it is of an
    older version, a full refresh was asked for, lines do not say when they were loaded, or the engine is another. -#}
{% macro left_by_earlier_runs(name) %}
    {#- A unit test has no graph. #}
    {%- if not execute or 'nodes' not in graph or flags.FULL_REFRESH or target.type != 'duckdb'
        or not var('order_columns').get('loaded_at') -%}
        {{ return(none) }}
    {%- endif -%}
    {#- Stock is counted, prices are listed and promotions are planned beside the order lines, and say nothing of when they
        changed. #}
    {%- if name in ['ftr_history', 'ftr_category']
        and (trendcast.has_source('inventory') or trendcast.counts_listing() or var('outliers') != 'none') -%}
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

{#- The time up to which order lines have been read for good; none: read them all. As int_lines_seen found in this very
    dbt run, or found out now where that was not selected. -#}
{% macro lines_seen() %}
    {%- if trendcast.left_by_earlier_runs('int_order_lines_checked') is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set named = trendcast.relation_of('int_lines_seen') -%}
    {%- if adapter.get_relation(named.database, named.schema, named.identifier) -%}
        {%- set rows = run_query(
            'select cast(loaded_at as varchar) from ' ~ named ~ ' where built_at = ' ~ trendcast.built_at()).rows -%}
        {%- if rows | length -%}
            {{ return(rows[0][0]) }}
        {%- endif -%}
    {%- endif -%}
    {{ return(trendcast.find_lines_seen()) }}
{% endmacro %}

{#- Finds it out: the newest line's time where nothing loaded up to it is new. Else, loads overlap: then all lines loaded in
    the var `lookback_days` before it are read again. And all there are where a line that was read before has gone, or (before
    the lookback, where only their number and quantities are compared) another has come or has another quantity. -#}
{% macro find_lines_seen() %}
    {%- set checked = trendcast.left_by_earlier_runs('int_order_lines_checked') -%}
    {%- if checked is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set sql -%}
        select
            cast(max(loaded_at) as varchar),
            cast(max(loaded_at) - interval '{{ var("lookback_days") }} days' as varchar),
            coalesce(min(built_with) = {{ trendcast.lines_built_with() }} and max(built_with) = min(built_with), false)
        from {{ checked }}
        where built_at < {{ trendcast.built_at() }}
    {%- endset -%}
    {%- set newest, lookback, is_same = run_query(sql).rows[0] -%}
    {%- if not is_same or newest is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set long_ago = "(loaded_at is null or loaded_at <= cast('" ~ lookback ~ "' as timestamp))" -%}
    {%- set lately = "loaded_at > cast('" ~ lookback ~ "' as timestamp)" -%}
    {%- set total = 'select row(count(*), sum(abs(quantity)))' -%}
    {%- set columns = ['order_id', 'product_id', 'location_id', 'ordered_at_text', 'quantity_text'] -%}
    {#- Of a return, cleaning turns the sign. #}
    {%- set every_column = columns + ['customer_id', 'status', 'loaded_at', 'is_return', 'unreadable_money']
        + ['case when is_return then abs(revenue) else revenue end'] + ['case when is_return then abs(discount) else discount end'] -%}
    {%- set earlier = checked ~ ' where built_at < ' ~ trendcast.built_at() ~ ' and ' -%}
    {%- set raw = trendcast.relation_of('stg_order_lines') ~ ' where ' -%}
    {%- set described = trendcast.relation_of('int_order_lines_described') ~ ' where ' -%}
    {%- set sql -%}
        select
            ({{ total }} from {{ earlier ~ long_ago }}) = ({{ total }} from {{ raw ~ long_ago }})
            and not exists (
                select {{ columns | join(', ') }} from {{ earlier ~ lately }}
                except all
                select {{ columns | join(', ') }} from {{ raw ~ lately }}
            ),
            not exists (
                select {{ every_column | join(', ') }}
                from {{ described ~ lately }} and loaded_at <= cast('{{ newest }}' as timestamp)
                except all
                select {{ every_column | join(', ') }} from {{ earlier ~ lately }}
            )
    {%- endset -%}
    {%- set is_whole, is_read = run_query(sql).rows[0] -%}
    {{ return((newest if is_read else lookback) if is_whole else none) }}
{% endmacro %}

{#- The first month whose lines are cleaned again because lines of an earlier one came late: what was typical has changed.
    none: there is no such month, as on most days. -#}
{% macro first_late_month(seen) %}
    {%- set sql -%}
        select min(month_number) + 1
        from ({{ trendcast.came_late(seen) }}) as late
        where month_number < (
            select max({{ trendcast.month_number('order_date') }})
            from {{ trendcast.left_by_earlier_runs('int_order_lines_checked') }}
            where built_at < {{ trendcast.built_at() }} and {{ trendcast.is_possible_date('order_date') }}
        )
    {%- endset -%}
    {%- set found = run_query(sql).rows[0][0] -%}
    {{ return(found | int if found is not none else none) }}
{% endmacro %}

{#- Series with new lines, and the month of the first: of a later month's lines, what was typical has changed. -#}
{% macro came_late(seen) %}
    select
        series_id,
        min({{ trendcast.month_number('order_date') }}) as month_number
    from {{ trendcast.relation_of('int_order_lines_described') }}
    where
        loaded_at > cast('{{ seen }}' as timestamp)
        and series_id is not null
        and {{ trendcast.is_possible_date('order_date') }}
    group by 1
{% endmacro %}

{#- Condition on lines: of a month after that. Months that cannot be are judged by no bound. -#}
{% macro is_of_late_month(alias, seen) -%}
    {%- set first = trendcast.first_late_month(seen) -%}
    {%- if first is none -%}
        false
    {%- else -%}
        {{ alias }}.order_date >= cast('{{ '%04d-%02d-01' | format(first // 12, first % 12 + 1) }}' as date)
        and exists (
            select 1 from ({{ trendcast.came_late(seen) }}) as late
            where
                late.series_id = {{ alias }}.series_id
                and late.month_number < {{ trendcast.month_number(alias ~ '.order_date') }}
        )
    {%- endif -%}
{%- endmacro %}

{#- Whether the bounds that earlier builds found stand, but for the series of pending_bounds. -#}
{% macro keeps_bounds() %}
    {%- set left = trendcast.left_by_earlier_runs('int_line_bounds') -%}
    {%- if left is none -%}
        {{ return(false) }}
    {%- endif -%}
    {%- set sql -%}
        select coalesce(bool_and(built_with = {{ trendcast.built_with() }}), false)
        from {{ left }}
        where built_at < {{ trendcast.built_at() }}
    {%- endset -%}
    {{ return(run_query(sql).rows[0][0]) }}
{% endmacro %}

{#- Series of which a month is new, or whose earlier months have changed. -#}
{% macro pending_bounds(seen) %}
    select came.series_id
    from (
        select distinct
            series_id,
            {{ trendcast.month_number('order_date') }} as month_number
        from {{ trendcast.relation_of('int_order_lines_described') }}
        where loaded_at > cast('{{ seen }}' as timestamp) and series_id is not null
    ) as came
    left join {{ trendcast.left_by_earlier_runs('int_line_bounds') }} as kept
        on
            came.series_id = kept.series_id
            and came.month_number = kept.month_number
            and kept.built_at < {{ trendcast.built_at() }}
    where kept.series_id is null
    {%- set first = trendcast.first_late_month(seen) %}
    {%- if first is not none %}
    union
    select late.series_id
    from ({{ trendcast.came_late(seen) }}) as late
    where late.month_number < (
        select max({{ trendcast.month_number('order_date') }})
        from {{ trendcast.left_by_earlier_runs('int_order_lines_checked') }}
        where built_at < {{ trendcast.built_at() }} and {{ trendcast.is_possible_date('order_date') }}
    )
    {%- endif %}
{% endmacro %}

{#- Which bounds a build replaces: all of a series of which it made any. -#}
{% macro replaced_bounds() %}
    {%- set seen = trendcast.lines_seen() -%}
    {%- if seen and trendcast.keeps_bounds() -%}
        earlier.series_id in (select pending.series_id from ({{ trendcast.pending_bounds(seen) }}) as pending)
    {%- endif -%}
{% endmacro %}

{#- Which order lines a build replaces: those it cleaned again. -#}
{% macro replaced_lines() %}
    {%- set seen = trendcast.lines_seen() -%}
    {%- if seen -%}
        earlier.loaded_at > cast('{{ seen }}' as timestamp)
        {%- if var('robust_bound') is not none %}
        or ({{ trendcast.is_of_late_month('earlier', seen) }})
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
    {%- set sql -%}
        select
            cast(max(built_at) as varchar),
            max(t),
            coalesce(
                max(t) <= (select cutoff_t from {{ trendcast.relation_of('int_cutoffs') }} where fold = 0)
                -- Else the order lines were all read again, and nobody knows which are gone.
                and max(built_at) >= (select min(built_at) from {{ trendcast.relation_of('int_order_lines_checked') }})
                and not exists (
                    select 1 from {{ left }}
                    where
                        built_at < {{ trendcast.built_at() }}
                        and built_with is distinct from {{ trendcast.built_with() }}
                ),
                false
            )
        from {{ left }}
        where built_at < {{ trendcast.built_at() }}
    {%- endset -%}
    {%- set row = run_query(sql).rows[0] -%}
    {%- if not row[2] -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set seen = {'built_at': row[0], 't': row[1] | int} -%}
    {%- set first = run_query('select min(from_t) from (' ~ trendcast.touched(seen) ~ ') as touched').rows[0][0] -%}
    {%- do seen.update({'from_t': [first | int, seen.t + 1] | min if first is not none else seen.t + 1}) -%}
    {{ return(seen) }}
{% endmacro %}

{#- The series that lines have come for since a table was built, of every measure, and the first period of those: series_id, from_t. -#}
{% macro touched(seen) %}
    {%- for measure in trendcast.measures() %}
    select
        {{ trendcast.id_of_measure('series_id', measure) }} as series_id,
        min({{ trendcast.period_index('order_date') }}) as from_t
    from {{ trendcast.relation_of('int_order_lines_checked') }}
    where built_at > cast('{{ seen.built_at }}' as timestamp) and series_id is not null and order_date is not null
    group by 1
    {{ 'union all' if not loop.last }}
    {%- endfor %}
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

{#- Whether a build makes so few rows that each may look back by itself. -#}
{% macro makes_few_rows(seen) %}
    {%- set sql -%}
        select sum(cutoffs.cutoff_t + 1 - changes.from_t)
        from ({{ trendcast.changes(seen) }}) as changes
        inner join {{ trendcast.relation_of('int_cutoffs') }} as cutoffs
            on cutoffs.fold = 0
    {%- endset -%}
    {{ return((run_query(sql).rows[0][0] or 0) < 1000000) }}
{% endmacro %}

{#- Which rows of the panel a build replaces: those it made again. -#}
{% macro replaced_rows() %}
    {%- set seen = trendcast.seen() -%}
    {%- if seen -%}
        -- Holds for all that follows, and is quick to tell of most rows.
        earlier.t >= {{ seen.from_t }}
        and (
            earlier.t > {{ seen.t }}
            or exists (
                select 1 from ({{ trendcast.touched(seen) }}) as touched
                where touched.series_id = earlier.series_id and touched.from_t <= earlier.t
            )
        )
    {%- endif -%}
{% endmacro %}

{#- Which rows by category a build replaces: it makes all categories again from the first period that is new of any series. -#}
{% macro replaced_periods() %}
    {%- set seen = trendcast.seen() -%}
    {{ 'earlier.t >= ' ~ seen.from_t if seen }}
{% endmacro %}

{#- Digest of the vars and models (a project's own versions too) that decide what the panel is made of, as a text. dbt does
    not show macros to macros: after a change of those `trendcast run` builds everything anew. -#}
{% macro built_with() -%}
    {%- set parts = [] -%}
    {%- for name in trendcast.panel_vars() -%}
        {%- do parts.append(name ~ '=' ~ tojson(var(name), sort_keys=true)) -%}
    {%- endfor -%}
    {%- if execute and 'nodes' in graph -%}
        {%- set models = graph.nodes.values() | selectattr('resource_type', 'equalto', 'model') | list -%}
        {%- set ours = models | selectattr('package_name', 'equalto', 'trendcast') | map(attribute='name') | list -%}
        {%- for node in models | sort(attribute='unique_id') if node.name in ours -%}
            {%- do parts.append(node.unique_id ~ '=' ~ node.checksum.checksum) -%}
        {%- endfor -%}
    {%- endif -%}
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
        'measure', 'gap_fill', 'unlisted', 'stockout_chance', 'outliers', 'outlier_threshold', 'cutoff', 'season_length', 'windows',
        'features', 'lookback_days', 'static_attributes', 'inventory_columns', 'inventory_snapshots',
    ]) }}
{% endmacro %}
