-- One row per fold, series and lead: forecasts summed over the leads up to this one, with the variance the sum would
-- have if errors of different leads had nothing to do with each other. Fold 0 is the forecast in force, the others are
-- the backtest of each class' champion, beside what happened.
{%- set so_far = '(partition by fold, series_id order by lead rows between unbounded preceding and current row)' %}
{%- set carried_on = '* ' ~ trendcast.by_measure({
    'quantity': '1', 'revenue': '1', 'average_price': 'lead / cast(n_leads as ' ~ trendcast.type_double() ~ ')'
}) if trendcast.forecasts_prices() else '' %}
{%- set quantiles = trendcast.quantile_levels().keys() | list %}
with forecasts as (

    select
        0 as fold,
        series_id,
        cutoff,
        target_date,
        lead,
        demand_class,
        measure,
        cast(null as {{ trendcast.type_double() }}) as actual,
        mean,
        {{ quantiles | join(', ') }}
    from {{ ref('fct_forecasts') }}
    union all
    select
        fold,
        series_id,
        cutoff,
        target_date,
        lead,
        demand_class,
        measure,
        actual,
        mean,
        {{ quantiles | join(', ') }}
    from {{ ref('int_champion_backtests') }}

),

cumulated as (

    select
        fold,
        series_id,
        cutoff,
        target_date,
        lead,
        demand_class,
        measure,
        count(*) over {{ so_far }} as n_leads,
        sum(mean) over {{ so_far }} as sum_of_means,
        sum({{ trendcast.quantile_variance() }}) over {{ so_far }} as sum_of_variances,
        sum(actual) over {{ so_far }} as sum_of_actuals
    from forecasts

),

final as (

    select
        fold,
        series_id,
        cutoff,
        target_date,
        lead,
        demand_class,
        measure,
        sum_of_means {{ carried_on }} as cumulated_mean,
        sum_of_variances {{ carried_on }} as cumulated_variance,
        sum_of_actuals {{ carried_on }} as cumulated_actual
    from cumulated
    -- After a lead whose actual was not observed no sum is known; a price goes on as in the periods with a sale.
    where {{ trendcast.by_measure({
        'quantity': 'n_leads = lead', 'revenue': 'n_leads = lead', 'average_price': 'true'
    }) }}

)

select *
from final
