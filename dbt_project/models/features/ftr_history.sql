-- One row per series and period: what was known about the series at the end of that period, never later.
-- noqa: disable=PRS
{{ trendcast.keeps_rows() }}
{%- set settings = trendcast.settings() %}
{%- set short, medium, long = settings.windows %}
{%- set season = settings.season_length %}
{%- set exact = trendcast.type_exact() %}
{%- set lags, ewm = trendcast.uses('lags'), trendcast.uses('ewm') %}
{%- set spread, price = trendcast.uses('spread'), trendcast.uses('price') %}
{%- set customers, quantiles = trendcast.uses('customers'), trendcast.uses('quantiles') %}
{#- Where orders name no customer there is nothing to count. #}
{%- set has_customers = customers and var('order_columns').get('customer_id') is not none %}
{%- set seen = trendcast.seen() %}
{#- Rows before the first new one that the windows reach back to. #}
{%- set reach = [long, 8 * season, 3 * medium] | max %}
{%- set few = seen and trendcast.makes_few_rows(seen) %}
with {% if seen -%}
changes as (

    {{ trendcast.changes(seen) }}

),

-- What was summed up over all of the history before the first new row.
before as (

    select
        changes.series_no,
        changes.from_t,
        history.last_sale_t,
        history.season_error_sum
    from changes
    left join {{ this }} as history
        on
            changes.series_id = history.series_id
            and history.t = changes.from_t - 1
            and history.t >= {{ seen.from_t - 1 }}

),

{% endif -%}
{% if quantiles -%}
-- Quantiles pick values and add none up, so frames do. They cost as much as all the rest, so they are off by default.
with_quantiles as (

    select
        demand.*,
        {{ trendcast.trailing(trendcast.quantile('demand.demand', 0.5), medium) }} as median_medium,
        {{ trendcast.trailing(trendcast.quantile('demand.demand', 0.9), long) }} as q90_long
    from {{ ref('int_demand') }} as demand

),

{% endif -%}
panel as {{ 'not materialized ' if few }}(

    select
        demand.series_no,
        demand.t,
        demand.ds,
        demand.age + 1 as row_number,
        demand.is_filled,
        case when demand.is_observed then demand.observed end as actual,
        demand.price,
        {% if quantiles %}
        demand.median_medium,
        demand.q90_long,
        {% endif %}
        {% if has_customers %}
        cast(demand.customers as {{ trendcast.type_double() }}) as customers,
        cast(demand.new_customers as {{ trendcast.type_double() }}) as new_customers,
        {% endif %}
        coalesce(demand.discount / nullif(demand.discount + demand.revenue, 0), 0) as discount_depth,
        {% if seen %}
        changes.from_t,
        {% endif %}
        demand.demand as y
    from {{ 'with_quantiles' if quantiles else ref('int_demand') }} as demand
    {% if seen %}
    inner join changes
        on demand.series_no = changes.series_no and demand.t >= changes.from_t - {{ reach }}
    where demand.t >= {{ seen.from_t - reach }}
    {% endif %}

),

{{ trendcast.windows(
    'panel',
    columns=['ds', 'is_filled', 'actual', 'price', 'discount_depth']
        + (['median_medium', 'q90_long'] if quantiles else [])
        + (['from_t'] if seen else []),
    derived={
        'y_square': 'y * y',
        'is_zero': 'case when y > 0 then 0.0e0 else 1.0e0 end',
        'sale': 'case when y > 0 then y else 0.0e0 end',
        'sale_square': 'case when y > 0 then y * y else 0.0e0 end',
        'step': ['abs(', ('y', 0, none), ' - ', ('y', 1, 'y'), ')'],
        'price_known': 'coalesce(price, 0.0e0)',
        'has_price': 'case when price is null then 0.0e0 else 1.0e0 end',
        'season_error': ['case when t >= from_t then ' if seen else '']
            + ['abs(cast(', ('y', 0, none), ' as ' ~ exact ~ ') - cast(', ('y', season, none), ' as ' ~ exact ~ '))']
            + [' end' if seen else ''],
        'y_fast': 'y',
        'y_slow': 'y',
    },
    lags={'y': [1, 2, 3, season, 2 * season, 3 * season]} if lags else {},
    sums={
        'y': [short, medium, long],
        'y_square': [short, medium, long] if spread else [medium],
        'is_zero': [medium, long],
        'sale': [long],
        'sale_square': [long],
        'step': [season],
        'price_known': [medium, long] if price else [long],
        'has_price': [medium, long] if price else [long],
        'discount_depth': [medium] if price else [],
        'customers': [medium] if has_customers else [],
        'new_customers': [medium] if has_customers else [],
    },
    minima={'y': [medium]} if spread else {},
    maxima={'y': [medium, long] if spread else [medium]},
    ewms={
        'y_fast': [trendcast.ewm_decay(short), [3 * short]],
        'y_slow': [trendcast.ewm_decay(medium), [3 * medium]],
    } if ewm else {},
    season_sums={'y': [4, 8]},
    season=season,
    sums_to_date={'season_errors': 'season_error'},
    last_t={'sale_t': 'y > 0'},
    wanted='t >= from_t and t >= ' ~ seen.from_t if few else none,
) }},

-- Means and moments over the windows, from their sums.
described as (

    select
        windowed.*,
        {% if seen %}
        coalesce(windowed.sale_t, before.last_sale_t) as last_sale_t,
        windowed.season_errors + coalesce(before.season_error_sum, 0) as season_error_sum,
        {% else %}
        sale_t as last_sale_t,
        season_errors as season_error_sum,
        {% endif %}
        {{ trendcast.mean_of('y', short) }} as mean_short,
        {{ trendcast.mean_of('y', medium) }} as mean_medium,
        {{ trendcast.mean_of('y', long) }} as mean_long,
        {{ trendcast.variance_of('y', 'y_square', medium) }} as variance_medium,
        price_known_sum_{{ long }} / nullif(has_price_sum_{{ long }}, 0) as mean_price_long,
        {{ trendcast.rows_in(long) }} as rows_long,
        {{ trendcast.rows_in(long) }} - is_zero_sum_{{ long }} as sales_long,
        least(1 + floor((row_number - 1) / {{ season }}.0), 4) as seasons_4,
        least(1 + floor((row_number - 1) / {{ season }}.0), 8) as seasons_8
    from windowed
    {% if seen %}
    inner join before
        on windowed.series_no = before.series_no
    {% endif %}

),

-- The level that demand features are divided by (never below one sale in a long window), and the squared
-- coefficient of variation of the sizes of sales.
scaled as (

    select
        *,
        greatest((mean_medium + mean_long) / 2, 1.0e0 / {{ long }}) as demand_level,
        sales_long * sale_square_sum_{{ long }} / nullif(sale_sum_{{ long }} * sale_sum_{{ long }}, 0) - 1
            as cv2_sale_long
    from described

),

final as (

    select
        series.series_id,
        scaled.t,
        scaled.ds,
        scaled.row_number - 1 as age,
        scaled.is_filled,
        scaled.y,
        scaled.actual,
        scaled.mean_short,
        scaled.mean_medium,
        scaled.mean_long,
        sqrt(scaled.variance_medium) as std_medium,
        scaled.y_max_{{ medium }} as max_medium,
        {{ trendcast.mean_of('scaled.is_zero', medium) }} as zero_share_medium,
        scaled.mean_short - scaled.mean_medium as trend_short,
        scaled.mean_medium - scaled.mean_long as trend_long,
        scaled.last_sale_t,
        cast(scaled.t - scaled.last_sale_t as {{ trendcast.type_double() }}) / {{ medium }} as since_last_sale,
        {% if lags %}
        coalesce(scaled.y_lag_1, 0) as lag_1,
        coalesce(scaled.y_lag_2, 0) as lag_2,
        coalesce(scaled.y_lag_3, 0) as lag_3,
        coalesce(scaled.y_lag_{{ season }}, scaled.mean_short) as season_lag_2,
        coalesce(scaled.y_lag_{{ 2 * season }}, scaled.mean_short) as season_lag_3,
        coalesce(scaled.y_lag_{{ 3 * season }}, scaled.mean_short) as season_lag_4,
        {% endif %}
        {% if ewm %}
        {{ trendcast.ewm_of('scaled.y_fast', short, 3 * short) }} as ewm_short,
        {{ trendcast.ewm_of('scaled.y_slow', medium, 3 * medium) }} as ewm_medium,
        {% endif %}
        {% if spread %}
        sqrt({{ trendcast.variance_of('scaled.y', 'scaled.y_square', short) }}) as std_short,
        sqrt({{ trendcast.variance_of('scaled.y', 'scaled.y_square', long) }}) as std_long,
        scaled.y_min_{{ medium }} as min_medium,
        scaled.y_max_{{ long }} as max_long,
        {{ trendcast.mean_of('scaled.is_zero', long) }} as zero_share_long,
        coalesce(scaled.sale_sum_{{ long }} / nullif(scaled.sales_long, 0), 0) as mean_sale_long,
        {% endif %}
        coalesce(ln(nullif(scaled.price, 0) / nullif(scaled.mean_price_long, 0)), 0) as price_change,
        {% if price %}
        coalesce(ln(
            nullif(scaled.price, 0)
            / nullif(scaled.price_known_sum_{{ medium }} / nullif(scaled.has_price_sum_{{ medium }}, 0), 0)
        ), 0) as price_change_medium,
        {{ trendcast.mean_of('scaled.discount_depth', medium) }} as discount_depth_medium,
        {% endif %}
        {% if quantiles %}
        scaled.median_medium,
        scaled.q90_long,
        {% endif %}
        {% if has_customers %}
        {{ trendcast.mean_of('scaled.customers', medium) }} as customers_medium,
        coalesce(
            scaled.new_customers_sum_{{ medium }} / nullif(scaled.customers_sum_{{ medium }}, 0), 0
        ) as new_customer_share,
        {% elif customers %}
        cast(0 as {{ trendcast.type_double() }}) as customers_medium,
        cast(0 as {{ trendcast.type_double() }}) as new_customer_share,
        {% endif %}
        scaled.discount_depth,
        scaled.y as season_last,
        scaled.y_season_sum_4 / scaled.seasons_4 as season_mean_4,
        scaled.y_season_sum_8 / scaled.seasons_8 as season_mean_8,
        -- An exact decimal, because it is summed over all of the history.
        cast(scaled.season_error_sum as {{ trendcast.type_sum() }}) as season_error_sum,
        -- Mean absolute error of the seasonal naive inside the history: what MASE divides by
        -- (Hyndman & Koehler 2006); of the naive where the history is shorter than a season.
        coalesce(
            cast(scaled.season_error_sum as {{ trendcast.type_double() }})
            / nullif(greatest(scaled.row_number - {{ season }}, 0), 0),
            scaled.step_sum_{{ season }} / nullif(scaled.row_number - 1, 0)
        ) as error_scale,
        scaled.demand_level,
        -- Shrunk towards prior_variance(), so that a quiet month is not taken for certainty.
        (2 * scaled.variance_medium + {{ trendcast.prior_variance('scaled.demand_level', 'series.measure') }}) / 3
            as demand_variance,
        -- Demand classes of Syntetos, Boylan & Croston (2005): mean interval between sales against 1.32,
        -- squared coefficient of variation of their sizes against 0.49.
        case
            when scaled.row_number <= {{ medium }} then 'new'
            when scaled.sales_long = 0 then 'dormant'
            when scaled.rows_long < 1.32 * scaled.sales_long and scaled.cv2_sale_long < 0.49 then 'smooth'
            when scaled.rows_long < 1.32 * scaled.sales_long then 'erratic'
            when scaled.cv2_sale_long < 0.49 then 'intermittent'
            else 'lumpy'
        end as demand_class,
        {{ trendcast.built_at() }} as built_at,
        {{ trendcast.built_with() }} as built_with
    from scaled
    inner join {{ ref('int_series') }} as series
        on scaled.series_no = series.series_no
    {% if seen %}
    where scaled.t >= scaled.from_t
    {% endif %}

)

select *
from final
