-- A promoted series key has one row per period. Not in the YAML, because the key depends on vars.
{%- set promotion_key = trendcast.promotion_key() %}
select
    {% for column in promotion_key %}
    {{ adapter.quote(column) }},
    {% endfor %}
    t,
    count(*) as copies
from {{ ref('int_promotions') }}
{{ trendcast.group_by(promotion_key | length + 1) }}
having count(*) > 1
