-- One row per measure, model, demand class and lead bucket of the latest backtest; `all` stands for a total.
{%- set bucket = trendcast.settings().lead_bucket %}
with scored as (

    select
        measure,
        model,
        demand_class,
        cast(floor((lead + {{ bucket - 1 }}) / {{ bucket }}.0) as integer) as lead_bucket,
        actual,
        error_scale,
        mean - actual as error,
        {{ trendcast.pinball_loss('actual') }} as pinball_loss,
        {{ trendcast.covered('actual', 'q25', 'q75') }} as is_covered_50,
        {{ trendcast.covered('actual', 'q10', 'q90') }} as is_covered_80,
        {{ trendcast.covered('actual', 'q05', 'q95') }} as is_covered_90,
        {{ trendcast.covered('actual', 'q025', 'q975') }} as is_covered_95
    from {{ ref('int_backtests') }}

),

measured as (

    select
        model,
        coalesce(demand_class, 'all') as demand_class,
        coalesce(cast(lead_bucket as {{ dbt.type_string() }}), 'all') as lead_bucket,
        count(*) as n_forecasts,
        sum(actual) as total_actual,
        avg(abs(error)) as mae,
        avg(error * error) as mse,
        sqrt(avg(error * error)) as rmse,
        sum(abs(error)) / nullif(sum(actual), 0) as wape,
        avg(abs(error) / nullif(error_scale, 0)) as mase,
        sum(error) / nullif(sum(actual), 0) as bias,
        avg(pinball_loss) as pinball_loss,
        sum(pinball_loss) / nullif(sum(actual), 0) as wql,
        cast(avg(is_covered_50) as {{ trendcast.type_double() }}) as coverage_50,
        cast(avg(is_covered_80) as {{ trendcast.type_double() }}) as coverage_80,
        cast(avg(is_covered_90) as {{ trendcast.type_double() }}) as coverage_90,
        cast(avg(is_covered_95) as {{ trendcast.type_double() }}) as coverage_95,
        measure
    from scored
    group by grouping sets (  -- noqa: PRS
        (measure, model, demand_class, lead_bucket), (measure, model, demand_class), (measure, model, lead_bucket), (measure, model)
    )

)

select
    measured.*,
    baseline.wape as baseline_wape,
    1 - measured.wape / nullif(baseline.wape, 0) as forecast_value_added
from measured
left join measured as baseline
    on
        baseline.model = 'seasonal_naive'
        and measured.demand_class = baseline.demand_class
        {{ trendcast.and_same_measure('measured', 'baseline') }}
        and measured.lead_bucket = baseline.lead_bucket
-- A model of some series only is not held against one of all.
where measured.demand_class <> 'all' or coalesce(measured.n_forecasts >= baseline.n_forecasts, true)
