-- One row per measure, demand class and model of the latest backtest, ranked; rank 1 serves the class. The ensemble
-- does unless another model's loss is lower by the var `champion_margin`, and new series whatever a handful favoured.
{%- set settings = trendcast.settings() %}
with measured as (

    select
        demand_class,
        model,
        -- Forecasts of a series over a horizon.
        count(*) / {{ settings.horizon }}.0 as n_forecasts,
        sum(abs(mean - actual)) / nullif(sum(actual), 0) as wape,
        sum({{ trendcast.pinball_loss('actual') }}) / nullif(sum(actual), 0) as wql,
        measure
    from {{ ref('int_backtests') }}
    group by demand_class, model, measure

)

select
    demand_class,
    model,
    wape,
    wql,
    -- Ties, and classes that sold nothing in the backtest, go to the baseline. Nine decimals, because the
    -- last bits of a sum depend on the order of its rows.
    cast(row_number() over (
        partition by measure, demand_class
        order by
            cast(
                coalesce({{ settings.champion_metric }}, 0)
                -- One model's luck in a few folds is no reason to give up what averaging is worth.
                * case
                    when model <> 'ensemble' then 1
                    -- Few series are new at a cutoff, and others at the next.
                    when demand_class = 'new' and n_forecasts < 20 then 0
                    else {{ 1 - settings.champion_margin }}
                end
                as decimal(38, 9)
            ),
            case when model = 'seasonal_naive' then 0 else 1 end,
            model
    ) as integer) as champion_rank,
    measure
from measured
