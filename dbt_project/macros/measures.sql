{#- What is forecast: one measure or several (the var `measure`). With several, each has series of its own: the measure is part
    of what a series is. The first in the order below leads: its series keep the ids of the sales they are made of, and
    decisions in units are about them. With one measure the SQL is as if there were no other. -#}

{#- The measures to forecast, the leading one first, whatever the order they are named in. -#}
{% macro measures() %}
    {%- set valid = ['quantity', 'revenue', 'average_price'] -%}
    {%- set chosen = [var('measure')] if var('measure') is string else var('measure') -%}
    {%- set listed = chosen is iterable and chosen is not mapping and chosen is not string -%}
    {%- if not listed or not chosen or chosen | reject('in', valid) | list or chosen | unique | list | length != chosen | length -%}
        {{ exceptions.raise_compiler_error(
            "var 'measure' must be one of " ~ valid | join(', ') ~ ", or a list of several, each once; came: " ~ var('measure')) }}
    {%- endif -%}
    {%- if chosen != ['quantity'] and not var('order_columns').get('revenue') -%}
        {{ exceptions.raise_compiler_error(
            "var 'measure' must be quantity where the var 'order_columns' maps no revenue; came: " ~ var('measure')
            ~ ". Map revenue to what was paid for a line.") }}
    {%- endif -%}
    {{ return(valid | select('in', chosen) | list) }}
{% endmacro %}

{#- Whether there is more than one. -#}
{% macro has_measures() %}
    {{ return(trendcast.measures() | length > 1) }}
{% endmacro %}

{#- Whether average prices are forecast. -#}
{% macro forecasts_prices() %}
    {{ return('average_price' in trendcast.measures()) }}
{% endmacro %}

{#- An SQL expression that depends on the measure of a row, from one for each measure; `column` is where the row says it. -#}
{% macro by_measure(expressions, column='measure') -%}
    {%- set measures = trendcast.measures() -%}
    {%- set different = [] -%}
    {%- for measure in measures if expressions[measure] not in different -%}
        {%- do different.append(expressions[measure]) -%}
    {%- endfor -%}
    {%- if different | length == 1 -%}
        {{ different[0] }}
    {%- else -%}
        case {{ column }} {% for measure in measures %}when '{{ measure }}' then {{ expressions[measure] }} {% endfor %}end
    {%- endif -%}
{%- endmacro %}

{#- The measure of a row: what `alias`, a table that has it, says; with one measure that one, and nothing is read. -#}
{% macro measure_of(alias) -%}
    {{ alias ~ '.measure' if trendcast.has_measures() else "'" ~ trendcast.measures()[0] ~ "'" }}
{%- endmacro %}

{#- Joins int_series under the name `measured`, for measure_of(), where there are several. -#}
{% macro join_measure(series_id) -%}
    {%- if trendcast.has_measures() -%}
    inner join {{ ref('trendcast', 'int_series') }} as measured
        on {{ series_id }} = measured.series_id
    {%- endif -%}
{%- endmacro %}

{#- A further condition of a join: that both sides are of the same measure. -#}
{% macro and_same_measure(a, b) -%}
    {{ 'and ' ~ a ~ '.measure = ' ~ b ~ '.measure' if trendcast.has_measures() }}
{%- endmacro %}

{#- A further condition: that the row is of the leading measure. -#}
{% macro and_leading(alias=none) -%}
    {{ 'and ' ~ (alias ~ '.' if alias else '') ~ "measure = '" ~ trendcast.measures()[0] ~ "'" if trendcast.has_measures() }}
{%- endmacro %}

{#- Whether a row is about what can be ordered, promoted or summed over series: of the leading measure, and no price. -#}
{% macro is_in_units(alias=none) -%}
    {%- if trendcast.measures()[0] == 'average_price' -%}
        1 = 0
    {%- else -%}
        1 = 1 {{ trendcast.and_leading(alias) }}
    {%- endif -%}
{%- endmacro %}

{#- The id of a series, from that of the sales it is made of. Other measures than the leading one end it with their name. -#}
{% macro id_of_measure(sales_id, measure) -%}
    {{ sales_id if measure == trendcast.measures()[0] else sales_id ~ " || '/" ~ measure ~ "'" }}
{%- endmacro %}

{#- What a series' variance is drawn to where its own is known from few periods: of demand that of a count of this size
    (Poisson), of an average price that of one that strays by a twentieth. -#}
{% macro prior_variance(level, column='measure') -%}
    {{ trendcast.by_measure({
        'quantity': level, 'revenue': level, 'average_price': 'power(0.05e0 * (' ~ level ~ '), 2)'
    }, column) }}
{%- endmacro %}

{#- How the directions of a measure's trend are called: before `rising` and `falling` comes this. -#}
{% macro direction_prefix(measure) -%}
    {{ 'price_' if measure == 'average_price' else '' if measure == trendcast.measures()[0] else measure ~ '_' }}
{%- endmacro %}

{#- The logarithm of one level over another. Half a unit is added to both, so that growth from nothing is finite; to prices,
    which are rarely 0 and may be below one, half a hundredth. -#}
{% macro level_ratio(level, before) -%}
    {%- set more = trendcast.by_measure({'quantity': '0.5e0', 'revenue': '0.5e0', 'average_price': '0.005e0'}) -%}
    ln(({{ level }} + {{ more }}) / ({{ before }} + {{ more }}))
{%- endmacro %}
