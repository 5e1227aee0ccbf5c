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
        quantity,
        price,
        discount,
        revenue,
        mod(t, {{ season }}) as season_position
    from {{ ref('int_sales_filled') }}

),

lagged as (

    select
        panel.*,
        case when y = 0 then 1.0 else 0.0 end as is_zero,
        case when y > 0 then 1 else 0 end as is_sale,
        abs(y - {{ trendcast.lag_of('y', season) }}) as season_error,
        abs(y - {{ trendcast.lag_of('y', 1) }}) as naive_error
    from panel

),

windowed as (

    select
        lagged.*,
        {{ trendcast.trailing('avg(y)', short) }} as mean_short,
        {{ trendcast.trailing('avg(y)', medium) }} as mean_medium,
        {{ trendcast.trailing('avg(y)', long) }} as mean_long,
        {{ trendcast.trailing('stddev_pop(y)', medium) }} as std_medium,
        {{ trendcast.trailing('max(y)', medium) }} as max_medium,
        {{ trendcast.trailing('avg(is_zero)', medium) }} as zero_share_medium,
        {{ trendcast.trailing('avg(price)', long) }} as mean_price_long,
        {{ trendcast.trailing('sum(is_sale)', long) }} as sales_long,
        {{ trendcast.trailing('count(*)', long) }} as rows_long,
        {{ trendcast.trailing('avg(case when y > 0 then y end)', long) }} as mean_sale_long,
        {{ trendcast.trailing('stddev_pop(case when y > 0 then y end)', long) }} as std_sale_long,
        {{ trendcast.trailing('max(case when y > 0 then t end)') }} as last_sale_t,
        {{ trendcast.trailing('avg(y)', 4, by='season_position') }} as season_mean_4,
        {{ trendcast.trailing('avg(y)', 8, by='season_position') }} as season_mean_8,
        -- Mean absolute error of the seasonal naive inside the history: what MASE divides by
        -- (Hyndman & Koehler 2006); of the naive where the history is shorter than a season.
        coalesce(
            {{ trendcast.trailing('avg(season_error)') }},
            {{ trendcast.trailing('avg(naive_error)') }}
        ) as error_scale
    from lagged

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
        std_medium,
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
        -- The level that demand features are divided by. The floor is one sale in a long window.
        greatest((mean_medium + mean_long) / 2, 1.0 / {{ long }}) as demand_level,
        -- Demand classes of Syntetos, Boylan & Croston (2005): mean interval between sales against 1.32,
        -- squared coefficient of variation of their sizes against 0.49.
        case
            when age < {{ medium }} then 'new'
            when sales_long = 0 then 'dormant'
            when rows_long < 1.32 * sales_long
                then case when std_sale_long * std_sale_long < 0.49 * mean_sale_long * mean_sale_long
                    then 'smooth' else 'erratic' end
            when std_sale_long * std_sale_long < 0.49 * mean_sale_long * mean_sale_long then 'intermittent'
            else 'lumpy'
        end as demand_class
    from windowed

)

select *
from final
