-- One row per order line that cleaning accepted.
{{ config(materialized='view') }}
select *
from {{ ref('int_order_lines_checked') }}
where rejection_reason is null
