{#- The select of a ledger table: the columns its contract declares, typed, and no row. dbt owns the table's
    name, columns, tests and lineage; `trendcast` appends the rows. -#}
{% macro ledger_table() %}
    {%- set columns = {} -%}
    {%- for column in model.columns.values() -%}
        {%- do columns.update({column.name: column.data_type}) -%}
    {%- endfor -%}
    {{ trendcast.no_rows(columns) }}
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
