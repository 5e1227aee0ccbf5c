-- One row per series and day of arrival: units that were ordered and have not arrived.
{{ config(materialized='view') }}
{%- set key = trendcast.source_key('purchase_order_columns') %}
{%- if trendcast.counts_series('purchase_orders', 'purchase_order_columns') %}
with order_rows as (

    select *
    from {{ ref('stg_purchase_orders') }}
    where quantity > 0

),

keyed as (

    {{ trendcast.by_source_key(
        'purchase_order_columns', 'order_rows', {'quantity': 'sum(order_rows.quantity)'}, by=['expected_date']
    ) }}

),

series as (

    {{ trendcast.orderable_series() }}

),

final as (

    select
        series.series_id,
        keyed.expected_date,
        cast(keyed.quantity as {{ trendcast.type_double() }}) as quantity
    from keyed
    inner join series
        on {{ trendcast.same_key(key, 'series', 'keyed') }}

)

select *
from final
{% else %}
-- depends_on: {{ ref('stg_purchase_orders') }}, {{ ref('stg_products') }}, {{ ref('int_series') }}
-- depends_on: {{ ref('int_launches') }}
{{ trendcast.no_rows({
    'series_id': dbt.type_string(), 'expected_date': 'date', 'quantity': trendcast.type_double()
}) }}
{% endif %}
