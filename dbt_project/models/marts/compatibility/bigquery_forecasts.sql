-- One row per series and target period: the forecast in force under the column names of BigQuery's ML.FORECAST.
select
    series_id,
    cast(target_date as timestamp) as forecast_timestamp,
    mean as forecast_value,
    sqrt({{ trendcast.quantile_variance() }}) as standard_error,
    cast(0.95 as {{ trendcast.type_double() }}) as confidence_level,
    q025 as prediction_interval_lower_bound,
    q975 as prediction_interval_upper_bound
from {{ ref('fct_forecasts') }}
