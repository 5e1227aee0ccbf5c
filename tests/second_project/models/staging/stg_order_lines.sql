-- The tea house's receipts and their lines, in the columns trendcast's own stg_order_lines has.
select
    cast(receipts.receipt_no as varchar) as order_id,
    receipts.guest as customer_id,
    cast(items.leaf as varchar) as product_id,
    receipts.room as location_id,
    cast(receipts.sold_on as timestamp) as ordered_at,
    cast(receipts.sold_on as varchar) as ordered_at_text,
    cast(items.grams as decimal(18, 4)) as quantity,
    cast(items.grams as varchar) as quantity_text,
    cast(items.cents / 100.0 as decimal(18, 4)) as revenue,
    cast(null as decimal(18, 4)) as discount,
    cast(null as varchar) as unreadable_money,
    cast(null as varchar) as currency,
    cast(null as varchar) as status,
    cast(null as timestamp) as loaded_at
from {{ source('till', 'items') }} as items
inner join {{ source('till', 'receipts') }} as receipts
    on items.receipt_no = receipts.receipt_no
where {{ trendcast.read_as_of('receipts.sold_on') }}
