-- One row per day of an event that the shop names itself, such as Black Friday.
{% if trendcast.has_source('events') %}
select
    {{ trendcast.mapped('event_columns', 'date', 'date') }} as event_date,
    {{ trendcast.mapped('event_columns', 'name', dbt.type_string()) }} as name
from {{ source('shop', 'events') }}
{% else %}
{{ trendcast.no_rows({
    'event_date': 'date',
    'name': dbt.type_string(),
}) }}
{% endif %}
