-- One row per series and period: what was known about the series at the end of that period, never later.
{%- set settings = trendcast.settings() %}
{%- set short, medium, long = settings.windows %}
{%- set season = settings.season_length %}
with panel as (

    select
        series_id,
        t,
        ds,
        age,
        is_filled,
        {{ settings.measure }} as y,
        -- Sums of decimals do not depend on the order of addition, so the same rows give the same bits whatever
        -- comes after them. A moving average of floating point numbers does not keep that promise.
        cast({{ settings.measure }} as {{ trendcast.type_exact() }}) as y_exact,
        cast(price as {{ trendcast.type_exact() }}) as price_exact,
        price,
        discount,
        revenue,
        mod(t, {{ season }}) as season_position
    from {{ ref('int_sales_filled') }}

),

lagged as (

    select
        panel.*,
        case when y > 0 then 0 else 1 end as is_zero,
        case when y > 0 then y_exact end as sale,
        abs(y_exact - {{ trendcast.lag_of('y_exact', season) }}) as season_error,
        abs(y_exact - {{ trendcast.lag_of('y_exact', 1) }}) as naive_error
    from panel

),

windowed as (

    select
        lagged.*,
        {{ trendcast.trailing('avg(y_exact)', short) }} as mean_short,
        {{ trendcast.trailing('avg(y_exact)', medium) }} as mean_medium,
        {{ trendcast.trailing('avg(y_exact)', long) }} as mean_long,
        {{ trendcast.trailing('avg(y_exact * y_exact)', medium) }} as mean_square_medium,
        {{ trendcast.trailing('max(y)', medium) }} as max_medium,
        {{ trendcast.trailing('avg(is_zero)', medium) }} as zero_share_medium,
        {{ trendcast.trailing('avg(price_exact)', long) }} as mean_price_long,
        {{ trendcast.trailing('count(sale)', long) }} as sales_long,
        {{ trendcast.trailing('count(*)', long) }} as rows_long,
        {{ trendcast.trailing('avg(sale)', long) }} as mean_sale_long,
        {{ trendcast.trailing('avg(sale * sale)', long) }} as mean_square_sale_long,
        {{ trendcast.trailing('max(case when y > 0 then t end)') }} as last_sale_t,
        {{ trendcast.trailing('avg(y_exact)', 4, by='season_position') }} as season_mean_4,
        {{ trendcast.trailing('avg(y_exact)', 8, by='season_position') }} as season_mean_8,
        -- Mean absolute error of the seasonal naive inside the history: what MASE divides by
        -- (Hyndman & Koehler 2006); of the naive where the history is shorter than a season.
        coalesce(
            {{ trendcast.trailing('avg(season_error)') }},
            {{ trendcast.trailing('avg(naive_error)') }}
        ) as error_scale
    from lagged

),

-- The level that demand features are divided by (never below one sale in a long window), variances from
-- moments, and the squared coefficient of variation of the sizes of sales.
scaled as (

    select
        windowed.*,
        greatest((mean_medium + mean_long) / 2, 1.0 / {{ long }}) as demand_level,
        greatest(mean_square_medium - mean_medium * mean_medium, 0) as variance_medium,
        mean_square_sale_long / nullif(mean_sale_long * mean_sale_long, 0) - 1 as cv2_sale_long
    from windowed

),

final as (

    select
        series_id,
        t,
        ds,
        age,
        is_filled,
        y,
        mean_short,
        mean_medium,
        mean_long,
        sqrt(variance_medium) as std_medium,
        max_medium,
        zero_share_medium,
        mean_short - mean_medium as trend_short,
        mean_medium - mean_long as trend_long,
        cast(t - last_sale_t as {{ trendcast.type_double() }}) / {{ medium }} as since_last_sale,
        coalesce(ln(nullif(price, 0) / nullif(mean_price_long, 0)), 0) as price_change,
        coalesce(discount / nullif(discount + revenue, 0), 0) as discount_depth,
        y as season_last,
        season_mean_4,
        season_mean_8,
        error_scale,
        demand_level,
        -- Shrunk towards the variance of a count, so that a quiet month is not taken for certainty.
        (2 * variance_medium + demand_level) / 3 as demand_variance,
        -- Demand classes of Syntetos, Boylan & Croston (2005): mean interval between sales against 1.32,
        -- squared coefficient of variation of their sizes against 0.49.
        case
            when age < {{ medium }} then 'new'
            when sales_long = 0 then 'dormant'
            when rows_long < 1.32 * sales_long and cv2_sale_long < 0.49 then 'smooth'
            when rows_long < 1.32 * sales_long then 'erratic'
            when cv2_sale_long < 0.49 then 'intermittent'
            else 'lumpy'
        end as demand_class
    from scaled

)

select *
from final
