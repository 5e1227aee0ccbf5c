-- Warns where the var `robust_bound` refuses more than typing errors: more than one line in a thousand. Then lines of
-- this shop differ that much, and the bound should be wider or off.
{{ config(severity='warn') }}
with counted as (

    select
        count(*) as untypical_lines,
        (select count(*) from {{ ref('int_order_lines') }}) as accepted_lines
    from {{ ref('int_order_lines_rejected') }} as lines
    where
        lines.rejection_reason in ('absurd_quantity', 'absurd_price')
        -- The rest were refused by a fixed bound.
        and abs(lines.quantity) <= {{ var('max_quantity') }}
        and coalesce(abs(lines.revenue / nullif(lines.quantity, 0)) <= {{ var('max_unit_price') }}, true)

)

select *
from counted
where untypical_lines > 0.001 * (untypical_lines + accepted_lines)
