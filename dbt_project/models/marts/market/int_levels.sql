-- One row per fold and series: the level of the last horizon and of the two before it, in units of the measure per
-- horizon, beside the distribution of the next one and, for the backtest, what it came to.
{%- set horizon = trendcast.settings().horizon %}
{%- set counts = var('whole_units') and trendcast.settings().measure == 'quantity' %}
{%- set above, below = ('floor', 'ceil') if counts else ('', '') %}
{%- set half = 0.5 if counts else 0 %}
{%- set theta = trendcast.number_between('trend_threshold', 0, 10) %}
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
        {{ horizon }} * avg(
            case
                when cutoffs.cutoff_t - history.t between {{ back * horizon }} and {{ (back + 1) * horizon - 1 }}
                    then history.y
            end
        ) as level_{{ back }},
        {% endfor %}
        count(case when cutoffs.cutoff_t - history.t < {{ horizon }} and history.y > 0 then 1 end) as sale_periods
    from cutoffs
    inner join {{ ref('ftr_history') }} as history
        on cutoffs.cutoff_t - {{ 3 * horizon }} < history.t and cutoffs.cutoff_t >= history.t
    group by 1, 2

),

next_horizon as (

    select
        forecasts.fold,
        forecasts.series_id,
        forecasts.cutoff,
        forecasts.demand_class,
        forecasts.cumulated_mean as expected,
        forecasts.cumulated_variance * spread.variance_factor as variance,
        forecasts.cumulated_actual as actual,
        spread.is_measured
    from {{ ref('int_cumulated_forecasts') }} as forecasts
    inner join {{ ref('int_sum_spread') }} as spread
        on
            forecasts.fold = spread.fold
            and forecasts.demand_class = spread.demand_class
            and forecasts.lead = spread.periods
    where forecasts.lead = {{ horizon }}

),

joined as (

    select
        next_horizon.*,
        past.level_0 as last_level,
        past.level_1 as previous_level,
        past.level_2 as earlier_level,
        past.sale_periods,
        past.level_0 * {{ 1 + theta }} as upper_level,
        past.level_0 * {{ [1 - theta, 0] | max }} as lower_level
    from next_horizon
    inner join past
        on next_horizon.fold = past.fold and next_horizon.series_id = past.series_id

),

final as (

    select
        fold,
        series_id,
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
        -- A count is above x where it is at least the next whole number, and below it at most the last one.
        1 - {{ trendcast.gamma_cdf(above ~ '(upper_level) + ' ~ half, 'expected', 'variance') }}
            as p_rising,
        {{ trendcast.gamma_cdf(below ~ '(lower_level) - ' ~ half, 'expected', 'variance') }}
            as p_falling
    from joined

)

select *
from final
