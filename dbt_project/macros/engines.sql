{#- What engines lack that models need, made once in the target's own schema: functions, on Postgres. -#}

{#- Makes them where they are missing; on-run-start does, and `trendcast` before it looks at the orders. -#}
{% macro prepare_engine() %}
    {{ return(adapter.dispatch('prepare_engine', 'trendcast')()) }}
{% endmacro %}

{% macro default__prepare_engine() %}
{% endmacro %}

{#- The post-hook of every model: has the engine count what was written, where it plans by that and would not know in time.
    Postgres counts by itself within a minute; until then it takes a new table for a small one, and may compare all rows
    of several with each other. -#}
{% macro count_rows() %}
    {%- if target.type == 'postgres' and config.get('materialized') in ['table', 'incremental'] -%}
        analyze {{ this }}
    {%- endif -%}
{% endmacro %}

{#- A name of what prepare_engine makes. -#}
{% macro engine_name(name) -%}
    {{ return(adapter.quote(target.schema) ~ '.trendcast_' ~ name) }}
{%- endmacro %}

{#- Spark has the functions; public holidays still have to come from somewhere, and schemas are not made before hooks run. -#}
{% macro spark__prepare_engine() %}
    {%- if execute -%}
        {%- do run_query('create schema if not exists ' ~ adapter.quote(target.schema)) -%}
        {%- do run_query('create table if not exists ' ~ trendcast.holidays_table()
            ~ ' (country string, subdivision string, date_day date, name string) using parquet') -%}
    {%- endif -%}
{% endmacro %}

{#- Postgres 15 has no try_cast. Each cast is one function with a variant for each type, which is chosen when a query is
    planned: columns that have the type already cost nothing, and only text is read with care. -#}
{% macro postgres__prepare_engine() %}
    {%- if execute -%}
        {%- set sql = trendcast.postgres_functions() -%}
        {#- Their digest is kept beside them: those of another version are replaced. -#}
        {%- set made -%}
            select 1
            from pg_catalog.pg_proc as proc
            inner join pg_catalog.pg_namespace as space on proc.pronamespace = space.oid
            where
                space.nspname = '{{ dbt.escape_single_quotes(target.schema) }}'
                and proc.proname = 'trendcast_quantile_of'
                and obj_description(proc.oid, 'pg_proc') = '{{ local_md5(sql) }}'
        {%- endset -%}
        {%- if not run_query(made).rows | length -%}
            {%- do run_query(
                sql ~ "comment on function " ~ trendcast.engine_name('quantile') ~ "_of is '" ~ local_md5(sql) ~ "'; commit;") -%}
        {%- endif -%}
    {%- endif -%}
{% endmacro %}

{#- Public holidays that `trendcast` has asked the holidays library for, where dbt cannot. -#}
{% macro holidays_table() -%}
    {{ return(trendcast.engine_name('holidays')) }}
{%- endmacro %}

{% macro postgres_functions() %}
{%- set decimal, timestamp, utc = (trendcast.engine_name('decimal'), trendcast.engine_name('timestamp'), trendcast.engine_name('utc')) %}
{%- set last_known, quantile = trendcast.engine_name('last_known'), trendcast.engine_name('quantile') %}
create schema if not exists {{ adapter.quote(target.schema) }};

-- Two commands that start at once: the second waits, and finds all of it there.
select pg_advisory_xact_lock(hashtext('trendcast functions'));

create table if not exists {{ trendcast.holidays_table() }} (
    country text not null, subdivision text not null, date_day date not null, name text not null
);

-- decimal(value, precision, scale): the value rounded, null where it cannot be read or has more digits.
create or replace function {{ decimal }}(value numeric, digits integer, decimals integer) returns numeric
language sql immutable parallel safe as $$
    select case when abs(round(value, decimals)) < power(10::numeric, digits - decimals) then round(value, decimals) end
$$;

create or replace function {{ decimal }}(value double precision, digits integer, decimals integer) returns numeric
language sql immutable parallel safe as $$
    select case when abs(value) < 1e30 then {{ decimal }}(cast(value as numeric), digits, decimals) end
$$;

create or replace function {{ decimal }}(value text, digits integer, decimals integer) returns numeric
language sql immutable parallel safe as $$
    select case
        when value ~ '^\s*[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,2})?\s*$'
            then {{ decimal }}(cast(value as numeric), digits, decimals)
    end
$$;

-- timestamp(value): without a zone, null where it cannot be read. ISO 8601 only, for 01/02/2024 is read one way or the
-- other by a setting of the server.
create or replace function {{ timestamp }}(value timestamp) returns timestamp
language sql immutable parallel safe as $$ select value $$;

create or replace function {{ timestamp }}(value date) returns timestamp
language sql immutable parallel safe as $$ select cast(value as timestamp) $$;

create or replace function {{ timestamp }}(value timestamp with time zone) returns timestamp
language sql immutable parallel safe as $$ select value at time zone 'UTC' $$;

create or replace function {{ timestamp }}(value text) returns timestamp language plpgsql stable as $$
begin
    return case when value ~ '^\s*[0-9]{4,6}[-/][0-9]{1,2}[-/][0-9]{1,2}' then cast(value as timestamp) end;
exception when data_exception then return null;
end
$$;

-- utc(value): as timestamp, and a text with a zone or an offset is the moment it names.
create or replace function {{ utc }}(value timestamp) returns timestamp
language sql immutable parallel safe as $$ select value $$;

create or replace function {{ utc }}(value date) returns timestamp
language sql immutable parallel safe as $$ select cast(value as timestamp) $$;

create or replace function {{ utc }}(value timestamp with time zone) returns timestamp
language sql immutable parallel safe as $$ select value at time zone 'UTC' $$;

create or replace function {{ utc }}(value text) returns timestamp language plpgsql stable as $$
begin
    return case
        when value ~ '{{ trendcast.offset_pattern() }}' and value ~ '^\s*[0-9]{4,6}[-/][0-9]{1,2}[-/][0-9]{1,2}'
            then cast(value as timestamp with time zone) at time zone 'UTC'
        else {{ timestamp }}(value)
    end;
exception when data_exception then return null;
end
$$;

-- last_known(value): the last value of a window that is not null, which Postgres has no `ignore nulls` for.
create or replace function {{ last_known }}_step(known anyelement, value anyelement) returns anyelement
language sql immutable strict parallel safe as $$ select value $$;

create or replace aggregate {{ last_known }}(anyelement) (
    sfunc = {{ last_known }}_step, stype = anyelement, parallel = safe
);

-- quantile(value, level): percentile_cont, which Postgres does not take over a window. The state begins with the level.
create or replace function {{ quantile }}_step(known double precision[], value double precision, level double precision)
returns double precision[] language sql immutable parallel safe as $$
    select case
        when value is null then coalesce(known, array[level])
        when known is null then array[level, value]
        else array_append(known, value)
    end
$$;

create or replace function {{ quantile }}_of(known double precision[]) returns double precision
language sql immutable parallel safe as $$
    select percentile_cont(known[1]) within group (order by value) from unnest(known[2:]) as among(value)
$$;

create or replace aggregate {{ quantile }}(double precision, double precision) (
    sfunc = {{ quantile }}_step, stype = double precision[], finalfunc = {{ quantile }}_of, parallel = safe
);
{% endmacro %}

{#- Goes before a CTE's bracket where each of its expressions is read several times by the next: Postgres would write the one
    out in the other, and a chain of such CTEs doubles with every step. -#}
{% macro computed_once() -%}
    {{ return(adapter.dispatch('computed_once', 'trendcast')()) }}
{%- endmacro %}

{% macro default__computed_once() -%}
{%- endmacro %}

{% macro postgres__computed_once() -%}
    {{ return('materialized ') }}
{%- endmacro %}

{#- Goes before the `group by` of a search for rows of `model` that are alike in `columns`. An engine that must keep within the memory
    of one machine looks for them among rows whose hash is not alone: groups of numbers are a fraction of groups of texts. -#}
{% macro where_maybe_copied(model, columns, not_null=[]) -%}
    {{ return(adapter.dispatch('where_maybe_copied', 'trendcast')(model, columns, not_null)) }}
{%- endmacro %}

{% macro default__where_maybe_copied(model, columns, not_null) -%}
{%- endmacro %}

{% macro duckdb__where_maybe_copied(model, columns, not_null) -%}
{%- set digest = 'hash(' ~ columns | join(', ') ~ ')' -%}
where
    {{ digest }} in (select {{ digest }} as digest from {{ model }} group by 1 having count(*) > 1)
    {%- for column in not_null %}
    or {{ column }} is null
    {%- endfor %}
{%- endmacro %}
