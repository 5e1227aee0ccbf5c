-- No return takes back more than was sold, and no more is returned than came back.
select *
from {{ ref('int_sales') }}
where
    quantity < 0
    or revenue < 0
    or returned_quantity < 0
    or returned_revenue < 0
    or new_customers > customers
