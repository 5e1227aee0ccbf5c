-- Every raw order line that is read (vars `as_of` and `loaded_before`) is either accepted or rejected, and none is
-- counted twice.
{%- set raw = ref('stg_order_lines') if var('as_of') or var('loaded_before') else source('shop', 'order_lines') %}
with counted as (

    select
        (select count(*) from {{ raw }}) as raw_lines,
        (select count(*) from {{ ref('int_order_lines') }}) as accepted_lines,
        (select count(*) from {{ ref('int_order_lines_rejected') }}) as rejected_lines

)

select *
from counted
where raw_lines <> accepted_lines + rejected_lines
