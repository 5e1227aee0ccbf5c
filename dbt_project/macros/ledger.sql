{#- The select of a ledger table: the columns its contract declares, typed, and no row. dbt owns the table's
    name, columns, tests and lineage; `trendcast` appends the rows. -#}
{% macro ledger_table() %}
    {{ return(adapter.dispatch('ledger_table', 'trendcast')()) }}
{% endmacro %}

{% macro default__ledger_table() %}
    {{ trendcast.no_rows(trendcast.ledger_columns()) }}
{% endmacro %}

{#- The columns that a ledger table's YAML declares, with their types. -#}
{% macro ledger_columns() %}
    {%- set columns = {} -%}
    {%- for column in model.columns.values() -%}
        {%- do columns.update({column.name: trendcast.type_declared(column.data_type)}) -%}
    {%- endfor -%}
    {{ return(columns) }}
{% endmacro %}

{#- What an engine calls a type that a contract declares. -#}
{% macro type_declared(name) -%}
    {{ return(adapter.dispatch('type_declared', 'trendcast')(name)) }}
{%- endmacro %}

{% macro default__type_declared(name) -%}
    {{ return(name) }}
{%- endmacro %}

{% macro spark__type_declared(name) -%}
    {{ return({'varchar': 'string', 'double precision': 'double'}.get(name, name)) }}
{%- endmacro %}

{#- On Spark a ledger table is a view. Parquet tables have no transactions that span several, so `trendcast` appends rows to a
    table beside it, which nobody reads, and the run's own row last: it makes all of them visible at once. What a
    run that died has written stays unseen. -#}
{% macro spark__ledger_table() %}
    select
        {%- for name in trendcast.ledger_columns() %}
        {{ name }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ trendcast.ledger_log() }}
    {%- if model.name != 'runs' %}
    where run_id in (select run_id from {{ ref('trendcast', 'runs') }} where status = 'committed')
    {%- endif %}
{% endmacro %}

{#- The table that rows of this ledger table are appended to on Spark; trendcast/warehouse/spark.py has the name too. -#}
{% macro ledger_log() -%}
    {{ this.incorporate(path={'identifier': this.identifier ~ '_log'}) }}
{%- endmacro %}

{#- Before a ledger model is built: on Spark, makes the table that is appended to, and adds columns that an older one lacks. -#}
{% macro prepare_ledger() %}
    {{ return(adapter.dispatch('prepare_ledger', 'trendcast')()) }}
{% endmacro %}

{% macro default__prepare_ledger() %}
{% endmacro %}

{% macro spark__prepare_ledger() %}
    {%- if execute -%}
        {%- set log, columns = trendcast.ledger_log() | trim, trendcast.ledger_columns() -%}
        {%- set described = [] -%}
        {%- for name, type in columns.items() -%}
            {%- do described.append(name ~ ' ' ~ type) -%}
        {%- endfor -%}
        {%- do run_query('create table if not exists ' ~ log ~ ' (' ~ described | join(', ') ~ ') using parquet'
            ~ (' partitioned by (run_id)' if model.name != 'runs' else '')) -%}
        {%- set present = run_query('select * from ' ~ log ~ ' limit 0').column_names | map('lower') | list -%}
        {%- for name, type in columns.items() if name not in present -%}
            {%- do run_query('alter table ' ~ log ~ ' add columns (' ~ name ~ ' ' ~ type ~ ')') -%}
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}

{#- The newest committed run of this panel (grain, measure and series key) that wrote rows of a kind: forecasts,
    backtests or coefficients. After a change of the key, runs of the old one are kept but not served. -#}
{% macro latest_run(kind) -%}
    select run_id
    from {{ ref('trendcast', 'runs') }}
    where
        status = 'committed'
        and {{ kind }}_rows > 0
        and panel = '{{ dbt.escape_single_quotes(trendcast.settings().panel) }}'
    order by finished_at desc, run_id desc
    limit 1
{%- endmacro %}

{#- The runs that forecasts in force can come from: the newest committed run of all series, and those of a part of the
    portfolio since. For each series the newest of them that has it is in force. -#}
{% macro runs_in_force() -%}
    {%- set ours -%}
        status = 'committed'
        and forecasts_rows > 0
        and panel = '{{ dbt.escape_single_quotes(trendcast.settings().panel) }}'
    {%- endset -%}
    select
        run_id,
        row_number() over (order by finished_at desc, run_id desc) as run_rank
    from {{ ref('trendcast', 'runs') }}
    where
        {{ ours }}
        and finished_at >= coalesce(
            (select max(finished_at) from {{ ref('trendcast', 'runs') }} where {{ ours }} and series_filter is null),
            cast('1970-01-01' as timestamp)
        )
{%- endmacro %}
