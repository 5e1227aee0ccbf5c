-- A priced key has one row per period. Not in the YAML, because the key depends on vars.
{%- set key = trendcast.source_key('price_columns') %}
select
    {{ trendcast.key_columns(key, 'prices') }}
    prices.t,
    count(*) as copies
from {{ ref('int_prices') }} as prices
{{ trendcast.group_by(key | length + 1) }}
having count(*) > 1
