-- One row per customer, day and item bought, up to the last cutoff; an item is what the var `customer_item` says. No
-- row where the shop does not know its customers.
{%- set known = ['product_id'] + trendcast.product_attributes() %}
{%- set item = var('customer_item') or (var('series_key') | select('in', known) | list + ['product_id'])[0] %}
{%- if item not in known %}
    {{ exceptions.raise_compiler_error(
        "var 'customer_item' must be one of " ~ known | join(', ') ~ ", or null for the first of them in series_key; came: "
        ~ item) }}
{%- endif %}
select
    lines.customer_id,
    lines.order_date,
    cast(lines.{{ adapter.quote(item) }} as {{ dbt.type_string() }}) as item,
    cast(sum(lines.quantity) as {{ trendcast.type_double() }}) as quantity,
    cast(sum(lines.revenue) as {{ trendcast.type_double() }}) as revenue
from {{ ref('int_order_lines') }} as lines
inner join {{ ref('int_customer_cutoffs') }} as cutoffs
    on lines.order_date <= cutoffs.cutoff
where
    cutoffs.fold = 0
    and not lines.is_return
    and lines.customer_id is not null
    and lines.{{ adapter.quote(item) }} is not null
group by 1, 2, 3
