-- Every raw order line is either accepted or rejected, and none is counted twice.
with counted as (

    select
        (select count(*) from {{ source('shop', 'order_lines') }}) as raw_lines,
        (select count(*) from {{ ref('int_order_lines') }}) as accepted_lines,
        (select count(*) from {{ ref('int_order_lines_rejected') }}) as rejected_lines

)

select *
from counted
where raw_lines <> accepted_lines + rejected_lines
