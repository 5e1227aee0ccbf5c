-- One row per alert and what it is about: everything monitoring found unusual at the last build.
{%- set text = dbt.type_string() %}
{#- Of several measures each has features, and drifts, of its own. #}
{%- set feature = "feature || case when measure <> '" ~ trendcast.measures()[0] ~ "' then ' of ' || measure else '' end"
    if trendcast.has_measures() else 'feature' %}
with cutoff as (

    select
        cutoff,
        cutoff_t
    from {{ ref('int_cutoffs') }}
    where fold = 0

),

-- How old the oldest forecast served is. A model may be older than the run that used it: forecasts name the run that
-- trained it.
in_force as (

    select
        runs.cutoff,
        trainings.cutoff as trained_cutoff
    from {{ ref('runs') }} as runs
    inner join {{ ref('runs') }} as trainings
        on coalesce(runs.trained_run_id, runs.run_id) = trainings.run_id
    where runs.run_id in (select forecasts.run_id from {{ ref('fct_forecasts') }} as forecasts)

),

served as (

    select min(cutoff) as cutoff
    from in_force

),

trained as (

    select min(trained_cutoff) as cutoff
    from in_force

),

ages as (

    select
        'forecast' as part,
        cutoff.cutoff_t - {{ trendcast.period_index('served.cutoff') }} as age
    from cutoff
    cross join served
    union all
    select
        'model' as part,
        cutoff.cutoff_t - {{ trendcast.period_index('trained.cutoff') }} as age
    from cutoff
    cross join trained

),

alerts as (

    {{ trendcast.alerts(
        'anomaly', ref('fct_anomalies'), 'true',
        "series_id || ' on ' || cast(target_date as " ~ text ~ ")", 'actual',
        "case when side = 'above' then upper_bound else lower_bound end",
        trendcast.by_measure({
            'quantity': "'Sold'", 'revenue': "'Sold'", 'average_price': "'The price was'"
        }) ~ " || ' ' || side || ' what is usual.'", series_id='series_id'
    ) }}
    union all
    {{ trendcast.alerts(
        'forecast_bias', ref('fct_forecast_health'), 'is_biased', 'series_id', 'tracking_signal', var('tracking_limit'),
        "'Forecasts are too ' || case when tracking_signal > 0 then 'high.' else 'low.' end", series_id='series_id'
    ) }}
    union all
    {{ trendcast.alerts(
        'forecast_revision', ref('fct_forecast_health'), 'is_unstable', 'series_id', 'revision', var('revision_limit'),
        "'The newest run moved the forecast of the same periods.'", series_id='series_id'
    ) }}
    union all
    {{ trendcast.alerts(
        'data_drift', ref('fct_drift'), "is_drifted and kind = 'data'", feature, 'psi', var('psi_limit'),
        "'What models read now is not what they were backtested on.'"
    ) }}
    union all
    {{ trendcast.alerts(
        'forecast_drift', ref('fct_drift'), "is_drifted and kind = 'forecast'", feature, 'psi', var('psi_limit'),
        "'What is forecast now is not what was forecast in the backtest.'"
    ) }}
    union all
    {{ trendcast.alerts(
        'stale', 'ages',
        "age > case part when 'model' then " ~ trendcast.positive_integer('stale_model_periods', var('stale_model_periods'))
        ~ " else " ~ trendcast.positive_integer('stale_forecast_periods', var('stale_forecast_periods')) ~ " end",
        'part', 'age',
        "case part when 'model' then " ~ var('stale_model_periods') ~ " else " ~ var('stale_forecast_periods') ~ " end",
        "'Periods that the ' || part || ' is behind the last complete period.'",
        measure='cast(null as ' ~ text ~ ')'
    ) }}

),

final as (

    select
        cutoff.cutoff,
        alerts.alert,
        alerts.subject,
        alerts.series_id,
        'warn' as severity,
        alerts.value,
        alerts.alert_limit,
        alerts.message,
        alerts.measure
    from alerts
    cross join cutoff

)

select *
from final
