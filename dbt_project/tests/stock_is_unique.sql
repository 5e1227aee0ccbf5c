-- A counted key has one row per period. Not in the YAML, because the key depends on vars.
{%- set key = trendcast.source_key('inventory_columns') %}
select
    {{ trendcast.key_columns(key, 'stock') }}
    stock.t,
    count(*) as copies
from {{ ref('int_stock') }} as stock
{{ trendcast.group_by(key | length + 1) }}
having count(*) > 1
