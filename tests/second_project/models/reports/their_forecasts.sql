-- Forecasts of another maker, in columns trendcast does not know: two methods, two rooms, four weeks.
select
    methods.method,
    rooms.room,
    steps.step,
    10.0 * steps.step as y,
    10.0 * steps.step + methods.error as y_hat,
    10.0 * steps.step + methods.error - 3 as lo_80,
    10.0 * steps.step + methods.error + 3 as hi_80
from (select 'naive' as method, 2.0 as error union all select 'clever', 1.0) as methods
cross join (select 'East' as room union all select 'West') as rooms
cross join (select unnest(range(1, 5)) as step) as steps
