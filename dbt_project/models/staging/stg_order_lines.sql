-- One row per raw order line: canonical names, typed. A value that cannot be read is null here; its text is kept in
-- `*_text`, or `unreadable_money` names it, so that int_order_lines_checked can refuse the line and say why.
{%- do trendcast.check_cleaning_vars() %}
select
    {{ trendcast.mapped('order_columns', 'order_id', dbt.type_string()) }} as order_id,
    {{ trendcast.mapped('order_columns', 'customer_id', dbt.type_string()) }} as customer_id,
    {{ trendcast.mapped('order_columns', 'product_id', dbt.type_string()) }} as product_id,
    {{ trendcast.mapped('order_columns', 'location_id', dbt.type_string()) }} as location_id,
    {{ trendcast.utc_timestamp('order_columns', 'ordered_at') }} as ordered_at,
    {{ trendcast.mapped('order_columns', 'ordered_at', dbt.type_string()) }} as ordered_at_text,
    {{ trendcast.safe_mapped('order_columns', 'quantity', trendcast.type_amount()) }} as quantity,
    {{ trendcast.mapped('order_columns', 'quantity', dbt.type_string()) }} as quantity_text,
    {{ trendcast.safe_mapped('order_columns', 'revenue', trendcast.type_amount()) }} as revenue,
    {{ trendcast.safe_mapped('order_columns', 'discount', trendcast.type_amount()) }} as discount,
    {{ trendcast.unreadable_money() }} as unreadable_money,
    upper(trim({{ trendcast.mapped('order_columns', 'currency', dbt.type_string()) }})) as currency,
    {{ trendcast.mapped('order_columns', 'status', dbt.type_string()) }} as status,
    {{ trendcast.utc_timestamp('order_columns', 'loaded_at') }} as loaded_at
from {{ source('shop', 'order_lines') }}
where {{ trendcast.read_as_of(
    trendcast.local_date(trendcast.utc_timestamp('order_columns', 'ordered_at'), var('order_timezone')),
    trendcast.utc_timestamp('order_columns', 'loaded_at')
) }}
