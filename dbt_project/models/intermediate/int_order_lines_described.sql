-- One row per raw order line, with its date on the shop's clock, its amounts in the shop's currency, its product's
-- attributes, its series and what the conditions of the vars say of it. Nothing is refused yet. A view
-- that looks at no other line, so that a build which wants few lines reads few.
-- depends_on: {{ ref('stg_products') }}
-- depends_on: {{ ref('int_exchange_rates') }}
{{ config(materialized='view') }}
{%- set has_currency = var('order_columns').get('currency') is not none %}
{%- set converted = ['revenue', 'discount'] if has_currency else [] %}
{%- set columns = ['ordered_at_text', 'quantity_text', 'unreadable_money'] + trendcast.canonical_order_columns() %}
with lines as (

    select
        stg_order_lines.*,
        {{ trendcast.local_date('stg_order_lines.ordered_at', var('order_timezone')) }} as order_date
    from {{ ref('stg_order_lines') }} as stg_order_lines

),

described as (

    select
        {% for column in columns if column not in converted %}
        lines.{{ column }},
        {% endfor %}
        {% for column in converted %}
        {{ trendcast.in_shop_currency('lines.' ~ column) }} as {{ column }},
        {% endfor %}
        {{ trendcast.exchange_rate() }} as exchange_rate,
        lines.order_date,
        {% if trendcast.has_source('products') %}
        {% for attribute in trendcast.product_attributes() %}
        products.{{ adapter.quote(attribute) }},
        {% endfor %}
        products.product_id is not null as is_in_catalogue
        {% else %}
        -- The products are those that were ordered.
        lines.product_id is not null as is_in_catalogue
        {% endif %}
    from lines
    {% if trendcast.has_source('products') %}
    left join {{ ref('stg_products') }} as products
        on lines.product_id = products.product_id
    {% endif %}
    {% if trendcast.has_source('exchange_rates') %}
    left join {{ ref('int_exchange_rates') }} as rates
        on lines.currency = rates.currency and lines.order_date = rates.date_day
    {% endif %}

)

select
    described.*,
    {{ trendcast.series_id(var('series_key')) }} as series_id,
    {{ trendcast.holds('order_scope', true) }} as is_in_scope,
    {{ trendcast.holds('test_order_when') }} as is_test_order,
    {{ trendcast.holds('cancelled_when') }} as is_cancelled,
    quantity < 0 or {{ trendcast.holds('return_when') }} as is_return
from described
