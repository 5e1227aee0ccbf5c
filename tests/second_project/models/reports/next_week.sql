-- What each room needs of each kind of tea next week.
select
    series.category,
    series.location_id as room,
    forecasts.target_date,
    forecasts.mean as grams
from {{ ref('trendcast', 'fct_forecasts') }} as forecasts
inner join {{ ref('trendcast', 'dim_series') }} as series
    on forecasts.series_id = series.series_id
where forecasts.lead = 1
