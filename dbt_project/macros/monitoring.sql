{#- The history features that every model reads, as {name: select expression}: what has the unit of demand is divided by the
    series' level, as models do, so that a drift is one of behaviour and not of size. -#}
{% macro scaled_features() %}
    {%- set features = {} -%}
    {%- for column in trendcast.role_columns('ftr_history', 'history') if not column.config.meta.get('wide') -%}
        {%- set scale = ' / history.demand_level' if column.config.meta.get('unit') == 'demand' else '' -%}
        {%- do features.update({column.name: 'history.' ~ column.name ~ scale ~ ' as ' ~ column.name}) -%}
    {%- endfor -%}
    {{ return(features) }}
{% endmacro %}

{#- Some rows of fct_alerts: one for each row of `source` for which `condition` holds. `subject` is what it is about. -#}
{% macro alerts(alert, source, condition, subject, value, limit, message, series_id=none, measure='measure') -%}
    select
        '{{ alert }}' as alert,
        {{ subject }} as subject,
        {{ series_id or 'cast(null as ' ~ dbt.type_string() ~ ')' }} as series_id,
        cast({{ value }} as {{ trendcast.type_double() }}) as value,
        cast({{ limit }} as {{ trendcast.type_double() }}) as alert_limit,
        {{ message }} as message,
        {{ measure }} as measure
    from {{ source }}
    where {{ condition }}
{%- endmacro %}
