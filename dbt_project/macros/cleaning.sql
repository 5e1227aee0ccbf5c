{#- The canonical columns an order line may have: the valid keys of the var `order_columns`. -#}
{% macro canonical_order_columns() %}
    {{ return([
        'order_id', 'customer_id', 'product_id', 'location_id', 'ordered_at', 'quantity', 'revenue', 'discount',
        'currency', 'status', 'loaded_at',
    ]) }}
{% endmacro %}

{#- Stops with a clear error where the cleaning vars do not fit each other. Rendered by staging, so it is the first to speak. -#}
{% macro check_cleaning_vars() %}
    {%- set valid = trendcast.canonical_order_columns() -%}
    {%- for column in var('order_columns') if column not in valid -%}
        {{ exceptions.raise_compiler_error(
            "var 'order_columns' must be a mapping of " ~ valid | join(', ') ~ "; came: " ~ column) }}
    {%- endfor -%}
    {%- for attribute in trendcast.product_attributes()
        if trendcast.has_source('products') and attribute in valid -%}
        {{ exceptions.raise_compiler_error(
            "var 'product_columns' must be free of the order columns' names, so give the attribute another; came: "
            ~ attribute) }}
    {%- endfor -%}
    {%- do trendcast.one_of('duplicate_lines', ['keep_first', 'keep_all']) -%}
    {%- do trendcast.one_of('returns', ['net', 'count', 'reject']) -%}
    {%- for name in ['max_quantity', 'max_unit_price'] if not trendcast.is_number(var(name)) or var(name) <= 0 -%}
        {{ exceptions.raise_compiler_error("var '" ~ name ~ "' must be a number above 0; came: " ~ var(name)) }}
    {%- endfor -%}
    {%- set bound = var('robust_bound') -%}
    {%- if bound is not none and (not trendcast.is_number(bound) or bound <= 1) -%}
        {{ exceptions.raise_compiler_error(
            "var 'robust_bound' must be a number above 1, or null to switch it off; came: " ~ bound) }}
    {%- endif -%}
    {%- do trendcast.positive_integer('robust_bound_lines', var('robust_bound_lines')) -%}
    {%- set mapped = var('order_columns').get('currency') is not none -%}
    {%- if mapped and var('currency') is not string -%}
        {{ exceptions.raise_compiler_error(
            "var 'currency' must be the shop's own currency (e.g. EUR), because order_columns maps currency; came: "
            ~ var('currency')) }}
    {%- endif -%}
    {%- if trendcast.has_source('exchange_rates') and not mapped -%}
        {{ exceptions.raise_compiler_error(
            "var 'exchange_rates_table' must be null where order_columns maps no currency; came: "
            ~ var('exchange_rates_table')) }}
    {%- endif -%}
{% endmacro %}

{#- Whether a value is a number; YAML's true and false are numbers to Jinja. -#}
{% macro is_number(value) %}
    {{ return(value is number and value is not boolean) }}
{% endmacro %}

{#- An SQL condition that a var holds: true or false, never null. `otherwise` is the value where the var is null. -#}
{% macro holds(name, otherwise=false) -%}
    {%- set condition = var(name) -%}
    {%- if not condition -%}
        {{ otherwise | lower }}
    {%- elif condition is not string -%}
        {{ exceptions.raise_compiler_error(
            "var '" ~ name ~ "' must be an SQL condition or null; came: " ~ condition) }}
    {%- else -%}
        coalesce(({{ condition }}), false)
    {%- endif -%}
{%- endmacro %}

{#- A mapped time in UTC, without zone; null where it cannot be read. A time with a zone or an offset is the moment it
    names, whatever the session's time zone; one without is taken as UTC. -#}
{% macro utc_timestamp(mapping, column) -%}
    {%- if var(mapping).get(column) is none -%}
        cast(null as timestamp)
    {%- else -%}
        {{ return(adapter.dispatch('utc_timestamp_of', 'trendcast')(var(mapping)[column])) }}
    {%- endif -%}
{%- endmacro %}

{#- A cast of text to a timestamp without zone drops an offset like +02:00, or a zone like Europe/Berlin, in silence. -#}
{% macro default__utc_timestamp_of(expression) -%}
    case
        when cast({{ expression }} as text) ~ '{{ trendcast.offset_pattern() }}'
            then {{ trendcast.try_cast(expression, 'timestamp with time zone') }} at time zone 'UTC'
        else {{ trendcast.try_cast(expression, 'timestamp') }}
    end
{%- endmacro %}

{% macro postgres__utc_timestamp_of(expression) -%}
    {{ trendcast.engine_name('utc') }}({{ expression }})
{%- endmacro %}

{#- The types are known before the first row, so columns that are no text are not searched. -#}
{% macro duckdb__utc_timestamp_of(expression) -%}
    case
        when
            typeof({{ expression }}) = 'TIMESTAMP WITH TIME ZONE'
            or (
                typeof({{ expression }}) = 'VARCHAR'
                and regexp_matches(cast({{ expression }} as varchar), '{{ trendcast.offset_pattern() }}')
            )
            then try_cast({{ expression }} as timestamp with time zone) at time zone 'UTC'
        else try_cast({{ expression }} as timestamp)
    end
{%- endmacro %}

{#- A time of day and an offset from UTC at the end of a text. -#}
{% macro offset_pattern() -%}
    :[0-9][0-9]([.][0-9]+)?( ?[+-][0-9][0-9](:?[0-9][0-9])?| [A-Za-z][A-Za-z_/]*) *$
{%- endmacro %}

{#- Spark's timestamps are moments, shown in the session's time zone. -#}
{% macro spark__utc_timestamp_of(expression) -%}
    to_utc_timestamp({{ trendcast.try_cast(expression, 'timestamp') }}, current_timezone())
{%- endmacro %}

{#- Which of a line's amounts of money came with something that is no number: 'revenue', 'discount' or null. A blank says
    nothing, as null does. The outer case spares readable amounts the cast to text. -#}
{% macro unreadable_money() -%}
    {%- set type, text = trendcast.type_amount(), dbt.type_string() -%}
    case
        {%- for column in ['revenue', 'discount'] if var('order_columns').get(column) is not none %}
        when {{ trendcast.safe_mapped('order_columns', column, type) }} is null
            and case
                when {{ trendcast.safe_mapped('order_columns', column, type) }} is null
                    then trim({{ trendcast.mapped('order_columns', column, text) }})
            end <> '' then '{{ column }}'
        {%- endfor %}
        when false then cast(null as {{ text }})
    end
{%- endmacro %}

{#- What identical lines have in common. Amounts without their sign, for accepted returns have theirs turned. -#}
{% macro copy_key() %}
    {%- set key = [
        'order_id', 'customer_id', 'product_id', 'location_id', 'ordered_at_text', 'quantity_text', 'abs(revenue)',
        'abs(discount)',
    ] -%}
    {%- for column in ['currency', 'status'] if var('order_columns').get(column) -%}
        {%- do key.append(column) -%}
    {%- endfor -%}
    {{ return(key) }}
{% endmacro %}

{#- Whether copies are looked for: without an order id identical lines may be two sales, so all are kept. -#}
{% macro counts_copies() %}
    {{ return(var('duplicate_lines') == 'keep_first' and var('order_columns').get('order_id') is not none) }}
{% endmacro %}

{#- 1 for the first of several identical lines, by time of loading. -#}
{% macro copy_number() -%}
    {%- if trendcast.counts_copies() -%}
    row_number() over (
        partition by
            {{ trendcast.copy_key() | join(',\n            ') }}
        order by loaded_at
    )
    {%- else -%}
    1
    {%- endif -%}
{%- endmacro %}

{#- Whether the date of an order can be true: one order dated 1900 or 2999 would stretch the panel, and its zeros, to there. -#}
{% macro is_possible_date(date_expression) -%}
    {{ date_expression }} between cast('{{ var("min_order_date") }}' as date)
    and {{ trendcast.date_after('day', 1, trendcast.yesterday()) }}
{%- endmacro %}

{#- The lower median of an expression within a group: a value that occurs, so it is as exact as they are. -#}
{% macro median_value(expression) -%}
    {{ return(adapter.dispatch('median_value', 'trendcast')(expression)) }}
{%- endmacro %}

{% macro default__median_value(expression) -%}
    percentile_disc(0.5) within group (order by {{ expression }})
{%- endmacro %}

{% macro duckdb__median_value(expression) -%}
    quantile_disc({{ expression }}, 0.5)
{%- endmacro %}

{#- Exchange rates, with the digits that a small currency needs. An amount times a rate has 36 digits. -#}
{% macro type_rate() -%}
    decimal(18, 9)
{%- endmacro %}

{#- What a return may take back from a sale: no more than the sale has. Money that a return does not state takes none. -#}
{% macro taken_back(sold, returned) -%}
    greatest(least(coalesce({{ sold }}, 0), coalesce({{ returned }}, 0)), 0)
{%- endmacro %}

{#- What one unit of a line's currency is worth in the shop's: 1 for the shop's own and where a line names none, null
    where no rate is known. -#}
{% macro exchange_rate() -%}
    {%- if var('order_columns').get('currency') is none -%}
    cast(1 as {{ trendcast.type_rate() }})
    {%- else -%}
    cast(case
        when coalesce(lines.currency, '') in ('', '{{ dbt.escape_single_quotes(var("currency") | trim | upper) }}')
            then cast(1 as {{ trendcast.type_rate() }})
        {%- if trendcast.has_source('exchange_rates') %}
        else rates.rate
        {%- endif %}
    end as {{ trendcast.type_rate() }})
    {%- endif -%}
{%- endmacro %}

{#- An amount of a line in the shop's currency. Held within what an amount can hold, so that one absurd line is refused
    as such and does not stop the build; cast first, because DuckDB multiplies within the wider type of the two. -#}
{% macro in_shop_currency(amount) -%}
    {%- set converted = 'cast(' ~ amount ~ ' as ' ~ trendcast.type_exact() ~ ') * ' ~ trendcast.exchange_rate() -%}
    cast(
        case
            when abs({{ converted }}) < 999999999999 then {{ converted }}
            when {{ amount }} is not null and {{ trendcast.exchange_rate() }} is not null
                then 999999999999 * sign({{ amount }})
        end as {{ trendcast.type_amount() }}
    )
{%- endmacro %}
