-- One row per series: whether its forecasts err to one side, and how far the newest run moved them.
{%- set alpha = trendcast.number_between('tracking_alpha', 0.01, 0.99) %}
with errors as (

    select
        series_id,
        mean - actual as error,
        std,
        row_number() over (partition by series_id order by target_date desc) - 1 as age
    from {{ ref('int_champion_errors') }}

),

-- Trigg (1964): the smoothed error over the smoothed absolute error, both with weights that fall by 1 - alpha a period.
tracked as (

    select
        series_id,
        count(*) as n_errors,
        sum(power({{ 1 - alpha }}, age) * error) / nullif(sum(power({{ 1 - alpha }}, age) * abs(error)), 0)
            as tracking_signal,
        sum(power({{ 1 - alpha }}, age) * error)
        / nullif(sqrt(sum(power(power({{ 1 - alpha }}, age) * std, 2))), 0) as bias_z
    from errors
    group by 1

),

-- The newest two runs of this panel that forecast from different cutoffs.
runs as (

    select
        run_id,
        cutoff,
        row_number() over (partition by cutoff order by finished_at desc, run_id desc) as newest_of_cutoff,
        dense_rank() over (order by cutoff desc) as cutoff_rank
    from {{ ref('runs') }}
    where
        status = 'committed'
        and forecasts_rows > 0
        and panel = '{{ dbt.escape_single_quotes(trendcast.settings().panel) }}'

),

earlier as (

    select
        forecasts.series_id,
        forecasts.model,
        forecasts.target_date,
        forecasts.mean
    from {{ ref('forecasts') }} as forecasts
    inner join runs
        on forecasts.run_id = runs.run_id
    where runs.newest_of_cutoff = 1 and runs.cutoff_rank = 2

),

revised as (

    select
        served.series_id,
        count(*) as n_revised,
        sum(abs(served.mean - earlier.mean)) / nullif(sum(earlier.mean), 0) as revision
    from {{ ref('fct_forecasts') }} as served
    inner join earlier
        on
            served.series_id = earlier.series_id
            and served.model = earlier.model
            and served.target_date = earlier.target_date
    group by 1

),

final as (

    select
        series.series_id,
        coalesce(tracked.n_errors, 0) as n_errors,
        tracked.tracking_signal,
        tracked.bias_z,
        -- A product that sells once a quarter errs to one side most of the time: it must be more than chance, too.
        coalesce(
            abs(tracked.tracking_signal) > {{ trendcast.number_between('tracking_limit', 0, 1) }}
            and abs(tracked.bias_z) > 3, false
        ) as is_biased,
        coalesce(revised.n_revised, 0) as n_revised,
        revised.revision,
        coalesce(revised.revision > {{ trendcast.number_between('revision_limit', 0, 1000) }}, false) as is_unstable,
        series.measure
    from {{ ref('dim_series') }} as series
    left join tracked
        on series.series_id = tracked.series_id
    left join revised
        on series.series_id = revised.series_id

)

select *
from final
