-- One row: the time up to which earlier builds have read the order lines for good; null where they are all read again.
-- A table, because to find out reads every line, and several models ask.
-- depends_on: {{ ref('stg_order_lines') }}
-- depends_on: {{ ref('int_order_lines_described') }}
-- depends_on: {{ ref('stg_products') }}
-- depends_on: {{ ref('stg_exchange_rates') }}
{%- set seen = trendcast.find_lines_seen() %}
select
    cast({{ "'" ~ seen ~ "'" if seen else 'null' }} as timestamp) as loaded_at,
    {{ trendcast.built_at() }} as built_at
