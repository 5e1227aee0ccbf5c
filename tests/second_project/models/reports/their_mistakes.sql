-- The same, and worse than naive: no interval covers, a week is missing, bounds are crossed and below zero.
select
    method,
    room,
    step,
    y,
    case when method = 'clever' then -y_hat else y_hat end as y_hat,
    -hi_80 as lo_80,
    -lo_80 - 9 as hi_80
from {{ ref('their_forecasts') }}
where step <> 3
