-- One row per currency and date from which a rate holds: what one unit is worth in the shop's currency.
{% if trendcast.has_source('exchange_rates') %}
select
    upper(trim({{ trendcast.mapped('exchange_rate_columns', 'currency', dbt.type_string()) }})) as currency,
    {{ trendcast.mapped('exchange_rate_columns', 'date', 'date') }} as rate_date,
    {{ trendcast.mapped('exchange_rate_columns', 'rate', trendcast.type_rate()) }} as rate
from {{ source('shop', 'exchange_rates') }}
{% else %}
{{ trendcast.no_rows({
    'currency': dbt.type_string(),
    'rate_date': 'date',
    'rate': trendcast.type_rate(),
}) }}
{% endif %}
