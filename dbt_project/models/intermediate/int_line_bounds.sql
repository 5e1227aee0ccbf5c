-- One row per series and month with order lines: what a line may have at most, by what was typical of the series in
-- the twelve months before. So a line is judged by the past alone, and the month it is in changes nothing.
-- depends_on: {{ ref('int_lines_seen') }}
{{ trendcast.keeps_rows('replaced_bounds') }}
{%- set bound = var('robust_bound') %}
{%- set pooled = 'product_id' not in var('series_key') %}
{%- set seen = trendcast.lines_seen() %}
{%- set left = seen and trendcast.keeps_bounds() %}
{%- set columns = ['series_id', 'order_date', 'is_return', 'quantity', 'revenue'] %}
with newer as (

    select {{ columns | join(', ') }}
    from {{ ref('int_order_lines_described') }}
    where
        is_in_scope
        and not is_test_order
        and not is_cancelled
        and series_id is not null
    {% if seen %}
        and loaded_at > cast('{{ seen }}' as timestamp)
    {% endif %}

),

{% if seen -%}
{% if left -%}
pending as (

    {{ trendcast.pending_bounds(seen) }}

),

{% endif -%}
-- Lines that were read before need not be read again: their dates and amounts stand as they were cleaned.
earlier as (

    select {{ columns | join(', ') }}
    from {{ trendcast.left_by_earlier_runs('int_order_lines_checked') }}
    where
        built_at < {{ trendcast.built_at() }}
        and (loaded_at is null or loaded_at <= cast('{{ seen }}' as timestamp))
        and coalesce(rejection_reason not in ('out_of_scope', 'test_order', 'cancelled'), true)
        {% if left %}
        and series_id in (select pending.series_id from pending)
        {% endif %}

),

every_line as (

    select *
    from earlier
    union all
    select *
    from newer
    {% if left %}
    where series_id in (select pending.series_id from pending)
    {% endif %}

),

{% endif -%}
lines as (

    select
        series_id,
        {{ trendcast.month_number('order_date') }} as month_number,
        case when not is_return and quantity > 0 then quantity end as quantity,
        -- A series that pools products has no typical price: a gas grill among garden gloves is no typing error.
        case
            when {{ pooled }} then null
            when not is_return and quantity > 0 and revenue > 0
                then cast(revenue as {{ trendcast.type_double() }}) / quantity
        end as unit_price
    from {{ 'every_line' if seen else 'newer' }}
    where
        {{ 'false' if bound is none else 'true' }}
        and {{ trendcast.is_possible_date('order_date') }}

),

months as (

    select
        series_id,
        month_number,
        count(quantity) as sale_lines,
        {{ trendcast.median_value('quantity') }} as quantity,
        {{ trendcast.median_value('unit_price') }} as unit_price
    from lines
    group by 1, 2

),

-- Medians of medians: an absurd line does not move its month's, nor an absurd month the year's.
typical as (

    select
        months.series_id,
        months.month_number,
        sum(earlier.sale_lines) as lines_before,
        cast({{ trendcast.median_value('earlier.quantity') }} as {{ trendcast.type_amount() }}) as typical_quantity,
        {{ trendcast.median_value('earlier.unit_price') }} as typical_unit_price
    from months
    inner join months as earlier
        on
            months.series_id = earlier.series_id
            and earlier.month_number between months.month_number - 12 and months.month_number - 1
    group by 1, 2

)

select
    series_id,
    month_number,
    lines_before,
    typical_quantity,
    typical_unit_price,
    cast(cast(typical_quantity as {{ trendcast.type_exact() }}) * {{ bound or 0 }} as {{ trendcast.type_sum() }})
        as max_quantity,
    typical_unit_price * {{ bound or 0 }} as max_unit_price,
    {{ trendcast.built_at() }} as built_at,
    {{ trendcast.built_with() }} as built_with
from typical
where lines_before >= {{ var('robust_bound_lines') }}
