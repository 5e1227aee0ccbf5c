{#- A period's first day, at the grain. Weeks start on Monday on every engine. -#}
{% macro period_start(date_expression) -%}
    cast({{ dbt.date_trunc(trendcast.settings().grain, date_expression) }} as date)
{%- endmacro %}

{#- A whole number that counts periods: consecutive periods differ by one, so lags are subtraction
    at every grain. Days count from 1970-01-01, weeks from the Monday before it, months from year 0. -#}
{% macro period_index(date_expression) -%}
    {%- set grain = trendcast.settings().grain -%}
    {%- if grain == 'day' -%}
        cast({{ trendcast.days_from("cast('1970-01-01' as date)", date_expression) }} as integer)
    {%- elif grain == 'week' -%}
        cast(floor({{ trendcast.days_from("cast('1969-12-29' as date)", date_expression) }} / 7.0) as integer)
    {%- else -%}
        {{ trendcast.month_number(date_expression) }}
    {%- endif -%}
{%- endmacro %}

{#- Months since year 0, at any grain. -#}
{% macro month_number(date_expression) -%}
    cast(12 * extract(year from {{ date_expression }}) + extract(month from {{ date_expression }}) - 1 as integer)
{%- endmacro %}

{#- The first day of the period that period_index counts as `t`, a number: unlike an expression on every row's date, a
    comparison with it skips what an engine has stored of other days. -#}
{% macro first_day(t) -%}
    {%- set grain = trendcast.settings().grain -%}
    {%- if grain == 'month' -%}
        cast('{{ '%04d-%02d-01' | format(t // 12, t % 12 + 1) }}' as date)
    {%- else -%}
        {%- set first, days = (modules.datetime.date(1969, 12, 29), 7 * t) if grain == 'week'
            else (modules.datetime.date(1970, 1, 1), t) -%}
        cast('{{ first + modules.datetime.timedelta(days=days) }}' as date)
    {%- endif -%}
{%- endmacro %}

{#- The last day of the period that starts at `start_expression`. -#}
{% macro period_end(start_expression) -%}
    cast({{ trendcast.date_after('day', -1, trendcast.date_after(trendcast.settings().grain, 1, start_expression)) }} as date)
{%- endmacro %}

{#- Days from one date to another, both included. -#}
{% macro days_in(first_date, last_date) -%}
    cast({{ trendcast.days_from(first_date, last_date) }} + 1 as integer)
{%- endmacro %}

{#- The last date that is over, on the shop's clock, at the time dbt was started. -#}
{% macro yesterday() -%}
    {%- set timezone = modules.pytz.timezone(var('order_timezone') or 'UTC') -%}
    {%- set today = run_started_at.astimezone(timezone).date() -%}
    cast('{{ today - modules.datetime.timedelta(days=1) }}' as date)
{%- endmacro %}

{#- The period index of the cutoff to forecast from. -#}
{% macro last_cutoff() -%}
    (
        select cutoffs.cutoff_t
        from {{ ref('trendcast', 'int_cutoffs') }} as cutoffs
        where cutoffs.fold = 0
    )
{%- endmacro %}

{#- The local calendar date of a timestamp stored in UTC. -#}
{% macro local_date(timestamp_expression, timezone) -%}
    {%- if not timezone -%}
        {{ return('cast(' ~ timestamp_expression ~ ' as date)') }}
    {%- endif -%}
    {{ return(adapter.dispatch('local_date', 'trendcast')(timestamp_expression, timezone)) }}
{%- endmacro %}

{% macro default__local_date(timestamp_expression, timezone) -%}
    cast({{ timestamp_expression }} at time zone 'UTC' at time zone '{{ timezone }}' as date)
{%- endmacro %}

{% macro spark__local_date(timestamp_expression, timezone) -%}
    cast(from_utc_timestamp({{ timestamp_expression }}, '{{ timezone }}') as date)
{%- endmacro %}

{#- One row per day between the columns `first_date` and `last_date` of a one-row relation, both
    included, as column `date_day`. No row where either is null. -#}
{% macro days_between(bounds) -%}
    {{ return(adapter.dispatch('days_between', 'trendcast')(bounds)) }}
{%- endmacro %}

{% macro default__days_between(bounds) -%}
    select cast(generate_series(
        cast(first_date as timestamp), cast(last_date as timestamp), interval '1 day'
    ) as date) as date_day
    from {{ bounds }}
{%- endmacro %}

{% macro duckdb__days_between(bounds) -%}
    select cast(unnest(generate_series(
        cast(first_date as timestamp), cast(last_date as timestamp), interval '1 day'
    )) as date) as date_day
    from {{ bounds }}
{%- endmacro %}

{% macro spark__days_between(bounds) -%}
    select explode(sequence(first_date, last_date, interval 1 day)) as date_day
    from {{ bounds }}
    where first_date <= last_date
{%- endmacro %}

{#- A date so many days, weeks, months or years after another: dbt's dateadd, but on Spark, where that repeats the date twelve times. -#}
{% macro date_after(datepart, interval, date_expression) -%}
    {{ return(adapter.dispatch('date_after', 'trendcast')(datepart, interval, date_expression)) }}
{%- endmacro %}

{% macro default__date_after(datepart, interval, date_expression) -%}
    {{ return(dbt.dateadd(datepart, interval, date_expression)) }}
{%- endmacro %}

{% macro spark__date_after(datepart, interval, date_expression) -%}
    {%- set function, factor = {
        'day': ('date_add', 1), 'week': ('date_add', 7), 'month': ('add_months', 1), 'year': ('add_months', 12)
    }[datepart] -%}
    {{ function }}({{ date_expression }}, cast({{ factor ~ ' * ' if factor > 1 }}{{ interval }} as integer))
{%- endmacro %}

{#- Days from one date to another. -#}
{% macro days_from(first_date, second_date) -%}
    {{ return(adapter.dispatch('days_from', 'trendcast')(first_date, second_date)) }}
{%- endmacro %}

{% macro default__days_from(first_date, second_date) -%}
    {{ return(dbt.datediff(first_date, second_date, 'day')) }}
{%- endmacro %}

{% macro spark__days_from(first_date, second_date) -%}
    datediff({{ second_date }}, {{ first_date }})
{%- endmacro %}

{#- The last day of a date's month. -#}
{% macro month_end(date_expression) -%}
    {{ return(adapter.dispatch('month_end', 'trendcast')(date_expression)) }}
{%- endmacro %}

{% macro default__month_end(date_expression) -%}
    {{ return(dbt.last_day(date_expression, 'month')) }}
{%- endmacro %}

{% macro spark__month_end(date_expression) -%}
    last_day({{ date_expression }})
{%- endmacro %}
