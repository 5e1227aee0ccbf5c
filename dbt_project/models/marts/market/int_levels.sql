-- One row per fold and series: the level of the last horizon and of the two before it, in units of the measure per
-- horizon (of a price its mean), beside the distribution of the next one and, for the backtest, what it came to.
{%- set horizon = trendcast.settings().horizon %}
{#- A count is above x where it is at least the next whole number, and below it at most the last one. #}
{%- set at_most = trendcast.by_measure({
    'quantity': 'floor(upper_level) + 0.5' if var('whole_units') else 'upper_level',
    'revenue': 'upper_level',
    'average_price': 'upper_level',
}) %}
{%- set at_least = trendcast.by_measure({
    'quantity': 'ceil(lower_level) - 0.5' if var('whole_units') else 'lower_level',
    'revenue': 'lower_level',
    'average_price': 'lower_level',
}) %}
{%- set demand = trendcast.number_between('trend_threshold', 0, 10) %}
{%- set price = trendcast.number_between('price_threshold', 0, 10) %}
{%- set prices = trendcast.forecasts_prices() %}
{%- set rise = trendcast.by_measure(
    {'quantity': 1 + demand, 'revenue': 1 + demand, 'average_price': 1 + price}, 'next_horizon.measure') %}
{%- set fall = trendcast.by_measure({
    'quantity': [1 - demand, 0] | max, 'revenue': [1 - demand, 0] | max, 'average_price': [1 - price, 0] | max
}, 'next_horizon.measure') %}
{%- set per_horizon = trendcast.by_measure(
    {'quantity': horizon, 'revenue': horizon, 'average_price': 1}, 'next_horizon.measure') %}
{%- set per_period = '/ ' ~ trendcast.by_measure(
    {'quantity': 1, 'revenue': 1, 'average_price': 'forecasts.lead'}, 'forecasts.measure') if prices else '' %}
with cutoffs as (

    select
        fold,
        cutoff_t
    from {{ ref('int_cutoffs') }}

),

-- Of a series younger than a horizon the periods it has, carried on to a whole one.
past as (

    select
        cutoffs.fold,
        history.series_id,
        {% for back in range(3) %}
        avg(
            case
                when cutoffs.cutoff_t - history.t between {{ back * horizon }} and {{ (back + 1) * horizon - 1 }}
                    then history.y
            end
        ) as level_{{ back }},
        {% endfor %}
        count(
            case
                when
                    cutoffs.cutoff_t - history.t < {{ horizon }}
                    and {{ trendcast.by_measure({
                        'quantity': 'history.y > 0', 'revenue': 'history.y > 0', 'average_price': 'history.actual is not null'
                    }, 'measured.measure') }}
                    then 1
            end
        ) as sale_periods
    from cutoffs
    inner join {{ ref('ftr_history') }} as history
        on cutoffs.cutoff_t - {{ 3 * horizon }} < history.t and cutoffs.cutoff_t >= history.t
    {{ trendcast.join_measure('history.series_id') if prices }}
    group by 1, 2

),

{% if prices -%}
-- A backtested price ends with the last period that had a sale.
sums as (

    select
        *,
        max(lead) over (partition by fold, series_id) as last_lead
    from {{ ref('int_cumulated_forecasts') }}

),

{% endif -%}
next_horizon as (

    select
        forecasts.fold,
        forecasts.series_id,
        forecasts.cutoff,
        forecasts.demand_class,
        forecasts.measure,
        forecasts.cumulated_mean {{ per_period }} as expected,
        forecasts.cumulated_variance * spread.variance_factor {{ per_period }} {{ per_period }} as variance,
        forecasts.cumulated_actual {{ per_period }} as actual,
        spread.is_measured
    from {{ 'sums' if prices else ref('int_cumulated_forecasts') }} as forecasts
    inner join {{ ref('int_sum_spread') }} as spread
        on
            forecasts.fold = spread.fold
            and forecasts.demand_class = spread.demand_class
            {{ trendcast.and_same_measure('forecasts', 'spread') }}
            and forecasts.lead = spread.periods
    where forecasts.lead = {{ trendcast.by_measure({
        'quantity': horizon, 'revenue': horizon, 'average_price': 'forecasts.last_lead'
    }, 'forecasts.measure') }}

),

joined as (

    select
        next_horizon.*,
        past.level_0 * {{ per_horizon }} as last_level,
        past.level_1 * {{ per_horizon }} as previous_level,
        past.level_2 * {{ per_horizon }} as earlier_level,
        past.sale_periods,
        past.level_0 * {{ per_horizon }} * {{ rise }} as upper_level,
        past.level_0 * {{ per_horizon }} * {{ fall }} as lower_level
    from next_horizon
    inner join past
        on next_horizon.fold = past.fold and next_horizon.series_id = past.series_id

),

bounded as (

    select
        joined.*,
        {{ at_most }} as at_most,
        {{ at_least }} as at_least
    from joined

),

final as (

    select
        fold,
        series_id,
        measure,
        cutoff,
        demand_class,
        earlier_level,
        previous_level,
        last_level,
        sale_periods,
        expected as expected_level,
        sqrt(variance) as expected_level_std,
        actual as actual_level,
        upper_level,
        lower_level,
        is_measured,
        1 - {{ trendcast.gamma_cdf('at_most', 'expected', 'variance') }} as p_rising,
        {{ trendcast.gamma_cdf('at_least', 'expected', 'variance') }} as p_falling
    from bounded

)

select *
from final
