-- One row per raw order line, with its series and, where cleaning refuses it, the first reason that applies.
-- Of an accepted return, quantity and money are below zero, however the shop reports it.
-- depends_on: {{ ref('int_line_bounds') }}
{{ trendcast.keeps_rows('replaced_lines') }}
{%- set robust = var('robust_bound') is not none %}
{%- set signed = ['quantity', 'revenue', 'discount'] %}
{%- set columns = trendcast.canonical_order_columns() + [
    'ordered_at_text', 'quantity_text', 'unreadable_money', 'exchange_rate', 'order_date', 'copy_number', 'is_in_catalogue', 'series_id',
    'is_return', 'is_in_scope', 'is_test_order', 'is_cancelled',
] %}
{%- set seen = trendcast.lines_seen() %}
with {% if seen -%}
-- Lines as they were cleaned before; of five million, few are asked for.
earlier as not materialized (

    select *
    from {{ trendcast.left_by_earlier_runs('int_order_lines_checked') }}
    where
        built_at < {{ trendcast.built_at() }}
        and (loaded_at is null or loaded_at <= cast('{{ seen }}' as timestamp))

),

{% endif -%}
newer as (

    select
        lines.*,
        {{ trendcast.copy_number() }} as copy_number
    from {{ ref('int_order_lines_described') }} as lines
    {% if seen %}
    where lines.loaded_at > cast('{{ seen }}' as timestamp)
    {% endif %}

),

{% if seen and trendcast.counts_copies() -%}
-- A new line may repeat an old one of its order, which comes before it.
copied as (

    select
        {% for part in trendcast.copy_key() %}
        {{ part }} as {{ adapter.quote(part) }},
        {% endfor %}
        count(*) as copies
    from earlier
    where exists (
        select 1 from newer
        where
            newer.order_id is not distinct from earlier.order_id
            -- As all of a copy is: few days are read.
            and newer.order_date is not distinct from earlier.order_date
    )
    group by all

),

{% endif -%}
numbered as (

    {% if seen and trendcast.counts_copies() %}
    select newer.* replace (newer.copy_number + coalesce(copied.copies, 0) as copy_number)
    from newer
    left join copied
        on
            1 = 1
            {% for part in trendcast.copy_key() %}
            and {{ part | replace('abs(', 'abs(newer.') if 'abs(' in part else 'newer.' ~ part }}
            is not distinct from {{ 'copied.' ~ adapter.quote(part) }}
            {% endfor %}
    {% else %}
    select *
    from newer
    {% endif %}
    {% if seen and robust %}
    -- What was typical of the later months of a late series has changed: their lines are judged again.
    union all by name
    select * exclude (rejection_reason, built_at, built_with)
    from earlier as lines
    where {{ trendcast.is_of_late_month('lines', seen) }}
    {% endif %}

),

judged as (

    select
        lines.*,
        case
            when lines.ordered_at_text is null then 'missing_date'
            when lines.ordered_at is null then 'unreadable_date'
            when not {{ trendcast.is_possible_date('lines.order_date') }} then 'absurd_date'
            when lines.product_id is null then 'missing_product'
            when lines.quantity_text is null then 'missing_quantity'
            when lines.quantity is null then 'unreadable_quantity'
            when lines.unreadable_money = 'revenue' then 'unreadable_revenue'
            when lines.unreadable_money = 'discount' then 'unreadable_discount'
            when not lines.is_in_scope then 'out_of_scope'
            when lines.is_test_order then 'test_order'
            when lines.is_cancelled then 'cancelled'
            when lines.exchange_rate is null
                then '{{ "no_exchange_rate" if trendcast.has_source("exchange_rates") else "foreign_currency" }}'
            when lines.copy_number > 1 then 'duplicate_line'
            {% if var('returns') == 'reject' %}
            when lines.is_return then 'return'
            {% endif %}
            when lines.quantity = 0 then 'zero_quantity'
            when abs(lines.quantity) > {{ var('max_quantity') }} then 'absurd_quantity'
            when not lines.is_return and lines.revenue < 0 then 'negative_revenue'
            when abs(lines.revenue / nullif(lines.quantity, 0)) > {{ var('max_unit_price') }} then 'absurd_price'
            when lines.series_id is null then 'missing_series_key'
            {% if robust %}
            when abs(lines.quantity) > bounds.max_quantity then 'absurd_quantity'
            when abs(lines.revenue / nullif(lines.quantity, 0)) > bounds.max_unit_price then 'absurd_price'
            {% endif %}
        end as rejection_reason
    from numbered as lines
    {% if robust %}
    left join {{ ref('int_line_bounds') }} as bounds
        on
            lines.series_id = bounds.series_id
            and {{ trendcast.month_number('lines.order_date') }} = bounds.month_number
    {% endif %}

)

select
    {% for column in columns if column not in signed %}
    {{ column }},
    {% endfor %}
    {% for attribute in trendcast.product_attributes() if trendcast.has_source('products') %}
    {{ adapter.quote(attribute) }},
    {% endfor %}
    {% for column in signed %}
    cast(
        case when is_return and rejection_reason is null then -abs({{ column }}) else {{ column }} end
        as {{ trendcast.type_amount() }}
    ) as {{ column }},
    {% endfor %}
    rejection_reason,
    {{ trendcast.built_at() }} as built_at,
    {{ trendcast.lines_built_with() }} as built_with
from judged
