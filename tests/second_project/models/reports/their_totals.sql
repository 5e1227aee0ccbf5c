-- The same, of both rooms.
select
    method,
    step,
    sum(y_hat) as y_hat
from {{ ref('their_forecasts') }}
group by 1, 2
