-- One row per measure, demand class and model of the latest backtest, ranked; rank 1 serves the class. The ensemble
-- does unless another model's loss is lower by the var `champion_margin` in all, and lower in every fold: one model's
-- luck in a fold is no reason to give up what averaging is worth. It also serves a class of a handful of forecasts.
{%- set settings = trendcast.settings() %}
{%- set error = {'wape': 'absolute_error', 'wql': 'pinball_loss'}[settings.champion_metric] %}
with by_fold as (

    select
        demand_class,
        model,
        measure,
        fold,
        count(*) as n_rows,
        sum(abs(mean - actual)) as absolute_error,
        sum({{ trendcast.pinball_loss('actual') }}) as pinball_loss,
        sum(actual) as actual
    from {{ ref('int_backtests') }}
    group by demand_class, model, measure, fold

),

compared as (

    select
        *,
        max(case when model = 'ensemble' then {{ error }} end)
            over (partition by measure, demand_class, fold) as ensemble_error
    from by_fold

),

measured as (

    select
        demand_class,
        model,
        measure,
        -- Forecasts of a series over a horizon.
        sum(n_rows) / {{ settings.horizon }}.0 as n_forecasts,
        sum(absolute_error) / nullif(sum(actual), 0) as wape,
        sum(pinball_loss) / nullif(sum(actual), 0) as wql,
        coalesce(sum({{ error }}) / nullif(sum(actual), 0), 0) as loss,
        max(case when {{ error }} > ensemble_error and actual > 0 then 1 else 0 end) as lost_a_fold
    from compared
    group by demand_class, model, measure

)

select
    demand_class,
    model,
    wape,
    wql,
    -- Ties, and classes that sold nothing in the backtest, go to the baseline. Nine decimals, because the last bits of
    -- a sum depend on the order of its rows.
    cast(row_number() over (
        partition by measure, demand_class
        order by
            lost_a_fold,
            cast(
                loss * case
                    when model <> 'ensemble' then 1
                    when n_forecasts < 20 then 0
                    else {{ 1 - settings.champion_margin }}
                end
                as decimal(38, 9)
            ),
            case when model = 'seasonal_naive' then 0 else 1 end,
            model
    ) as integer) as champion_rank,
    measure
from measured
