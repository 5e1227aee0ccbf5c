-- One row per series and target period: the forecast in force under the column names of Nixtla's libraries.
select
    series_id as unique_id,
    target_date as ds,
    mean as trendcast,
    {{ trendcast.nixtla_intervals() }}
from {{ ref('fct_forecasts') }}
