-- One row per raw order line, with its series and, where cleaning refuses it, the first reason that applies.
with lines as (

    select
        stg_order_lines.*,
        {{ trendcast.local_date('stg_order_lines.ordered_at', var('order_timezone')) }} as order_date,
        {{ trendcast.copy_number() }} as copy_number
    from {{ ref('stg_order_lines') }} as stg_order_lines

),

described as (

    select
        lines.*,
        {% for attribute in trendcast.product_attributes() if trendcast.has_source('products') %}
        products.{{ adapter.quote(attribute) }},
        {% endfor %}
        products.product_id is not null as is_in_catalogue
    from lines
    left join {{ ref('stg_products') }} as products
        on lines.product_id = products.product_id

)

select
    described.*,
    {{ trendcast.series_id(var('series_key')) }} as series_id,
    case
        when ordered_at_text is null then 'missing_date'
        when ordered_at is null then 'unreadable_date'
        -- One order dated 1900 or 2999 would stretch the panel, and its zeros, to there.
        when order_date < cast('{{ var("min_order_date") }}' as date) then 'absurd_date'
        when order_date > {{ dbt.dateadd('day', 1, trendcast.yesterday()) }} then 'absurd_date'
        when product_id is null then 'missing_product'
        when quantity_text is null then 'missing_quantity'
        when quantity is null then 'unreadable_quantity'
        {% if var('order_scope') %}
        when not coalesce({{ var('order_scope') }}, false) then 'out_of_scope'
        {% endif %}
        when copy_number > 1 then 'duplicate_line'
        when quantity <= 0 then 'quantity_not_positive'
        when quantity > {{ var('max_quantity') }} then 'absurd_quantity'
        when revenue < 0 then 'negative_revenue'
        when revenue / quantity > {{ var('max_unit_price') }} then 'absurd_price'
        when {{ trendcast.series_id(var('series_key')) }} is null then 'missing_series_key'
    end as rejection_reason
from described
