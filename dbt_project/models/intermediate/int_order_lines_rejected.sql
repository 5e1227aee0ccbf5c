-- One row per order line that cleaning refused, with the reason. Accepted and rejected add up to raw (tested).
{{ config(materialized='view') }}
select *
from {{ ref('int_order_lines_checked') }}
where rejection_reason is not null
