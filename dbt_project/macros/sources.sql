{#- The part of the series key that a table by product knows: product columns always, the location where the table
    names one (its var, e.g. `inventory_columns`, maps location_id). Empty: one row for all products. -#}
{% macro source_key(mapping) %}
    {%- set known = ['product_id'] + trendcast.product_attributes() -%}
    {%- if var(mapping).get('location_id') -%}
        {%- do known.append('location_id') -%}
    {%- endif -%}
    {{ return(var('series_key') | select('in', known) | list) }}
{% endmacro %}

{#- A select list of key columns, each with a comma after it. `location` is the alias that has location_id; the others
    come from `alias`. -#}
{% macro key_columns(key, alias, location=none) -%}
    {%- for column in key -%}
        {{ location if location and column == 'location_id' else alias }}.{{ adapter.quote(column) }},
    {% endfor -%}
{%- endmacro %}

{#- The condition of a join on key columns; true for all where there is none. -#}
{% macro same_key(key, left, right) -%}
    1 = 1
    {%- for column in key %}
    and {{ left }}.{{ adapter.quote(column) }} = {{ right }}.{{ adapter.quote(column) }}
    {%- endfor -%}
{%- endmacro %}

{#- The partition clause of a window by key columns. -#}
{% macro partition_by(key) -%}
    {%- if key -%}
        partition by {% for column in key %}{{ adapter.quote(column) }}{{ ', ' if not loop.last }}{% endfor %}
    {%- endif -%}
{%- endmacro %}

{#- An aggregate over the rows of a key up to the current one: what was known at the end of the period. As `trailing`,
    for tables that are not by series. -#}
{% macro so_far(aggregate, key) -%}
    {{ aggregate }} over (
        {{ trendcast.partition_by(key) }} order by t rows between unbounded preceding and current row
    )
{%- endmacro %}

{#- A column of an optional plan in ftr_known; a constant, and no join, where the shop has no such plan. -#}
{% macro planned(source, column, otherwise) -%}
    {%- if trendcast.has_source(source) -%}
        coalesce({{ source }}.{{ column }}, {{ otherwise }})
    {%- else -%}
        cast({{ otherwise }} as {{ trendcast.type_double() }})
    {%- endif -%}
{%- endmacro %}

{#- Whether a period without a list price is one in which the product was not on sale. -#}
{% macro counts_listing() %}
    {{ return(trendcast.one_of('unlisted', ['off_sale', 'on_sale']) == 'off_sale' and trendcast.has_source('prices')) }}
{% endmacro %}

{#- Whether public holidays come from the `holidays` library. -#}
{% macro uses_holiday_library() %}
    {{ return(var('holiday_country') is not none and trendcast.uses('holidays')) }}
{% endmacro %}

{#- The relation with the public holidays of the var `holiday_country`: date_day, name. DuckDB runs a Python model where dbt
    runs. On another engine `trendcast prepare`, as does a run, has put them into a table, of more years than are needed. -#}
{% macro public_holidays() -%}
    {{ return(adapter.dispatch('public_holidays', 'trendcast')()) }}
{%- endmacro %}

{% macro duckdb__public_holidays() -%}
    {{ return(ref('trendcast', 'int_public_holidays')) }}
{%- endmacro %}

{% macro default__public_holidays() -%}
    {%- set country = "country = '" ~ dbt.escape_single_quotes(var('holiday_country')) ~ "' and subdivision = '"
        ~ dbt.escape_single_quotes(var('holiday_subdivision') or '') ~ "'" -%}
    {%- if execute and not flags.EMPTY
        and not run_query('select 1 from ' ~ trendcast.holidays_table() ~ ' where ' ~ country ~ ' limit 1').rows | length -%}
        {{ exceptions.raise_compiler_error(
            "var 'holiday_country' must be null, or its holidays be loaded, where dbt runs alone on " ~ target.type
            ~ ", for only DuckDB can ask the holidays library; came: " ~ var('holiday_country') ~ ". Run `trendcast prepare` "
            ~ "once, or `trendcast run`, which does it, or list the holidays in a table and name it in the var events_table") }}
    {%- endif -%}
    {#- Distances to a holiday look two weeks further than the calendar, its lead and lag one period. -#}
    {%- set ahead = {'day': 1, 'week': 7, 'month': 31}[trendcast.settings().grain] * (trendcast.settings().horizon + 1) + 62 -%}
    (
        select
            holidays.date_day,
            holidays.name
        from {{ trendcast.holidays_table() }} as holidays
        inner join {{ ref('trendcast', 'int_cutoffs') }} as cutoffs
            on
                holidays.date_day >= {{ trendcast.date_after('day', -62, 'cutoffs.first_date') }}
                and holidays.date_day <= {{ trendcast.date_after('day', ahead, 'cutoffs.cutoff') }}
        where cutoffs.fold = 0 and {{ country }}
    ) as public_holidays
{%- endmacro %}

{#- The periods that the spans of a plan touch: start_date, end_date, t, days of the span in the period, days of the period.
    `plan` is a CTE with many rows but few spans, which is why these meet the calendar and not the rows. -#}
{% macro periods_of_spans(plan) -%}
    select
        spans.start_date,
        spans.end_date,
        calendar.t,
        {{ trendcast.days_in('calendar.ds', trendcast.period_end('calendar.ds')) }} as period_days,
        {{ trendcast.days_in(
            'greatest(calendar.ds, spans.start_date)',
            'least(' ~ trendcast.period_end('calendar.ds') ~ ', spans.end_date)'
        ) }} as span_days
    from (select distinct start_date, end_date from {{ plan }}) as spans
    inner join {{ ref('trendcast', 'ftr_calendar') }} as calendar
        on
            spans.end_date >= calendar.ds
            and spans.start_date <= {{ trendcast.period_end('calendar.ds') }}
{%- endmacro %}

{#- The condition on order lines by which the shop is read as it was: the vars as_of and loaded_before. For a stg_order_lines of
    the user's own too, for the audit cuts the data off with it; a model of theirs sees no var of this package but those of the
    command line, hence the defaults.

    order_date   SQL of the order's date on the shop's clock
    loaded_at    SQL of the time it was loaded, a timestamp in UTC -#}
{% macro read_as_of(order_date, loaded_at='null') -%}
    1 = 1
    {%- if var('as_of', none) %}
    -- A line without a readable date stays, to be refused with its reason.
    and coalesce({{ order_date }} <= cast('{{ var("as_of", none) }}' as date), true)
    {%- endif %}
    {%- if var('loaded_before', none) %}
    and {{ loaded_at }} < cast('{{ var("loaded_before", none) }}' as timestamp)
    {%- endif %}
{%- endmacro %}
