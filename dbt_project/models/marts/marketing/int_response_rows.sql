-- One row per series and period with a sale: logarithms of units and price, and the promotions of the period. They are
-- compared within a stratum (a series' quarter, and weekday at day grain), each with a level and a trend of its own.
-- A table, for it is read several times and to make it takes joins over all series and periods.
-- depends_on: {{ ref('ftr_static') }}, {{ ref('ftr_known') }}, {{ ref('int_series') }}
-- depends_on: {{ ref('int_category_promotions') }}
{{ config(materialized='table') }}
{%- set grain = trendcast.settings().grain %}
{%- set regressors = trendcast.response_regressors() %}
{%- set reach = trendcast.settings().windows[1] %}
{%- set dip = trendcast.dip_periods() %}
with final as (

    select
        demand.series_id,
        demand.t,
        {% if grain == 'day' %}
        7 * floor(demand.t / 91.0) + mod(demand.t, 7) as stratum,
        {% elif grain == 'week' %}
        floor(demand.t / 13.0) as stratum,
        {% else %}
        floor(demand.t / 12.0) as stratum,
        -- A yearly wave is told from a trend only once two years are there.
        case when span.months >= 24 then calendar.year_sin else 0 end as season_sin,
        case when span.months >= 24 then calendar.year_cos else 0 end as season_cos,
        {% endif %}
        {% if 'display' in regressors %}
        known.promotion_display as display,
        known.promotion_feature as feature,
        known.promotion_discount as discount,
        cast(case
            when known.since_promotion > 0 and known.until_promotion <= {{ dip + 0.5 }} / {{ reach }} then 1
            else 0
        end as {{ trendcast.type_double() }}) as before,
        cast(case
            when known.until_promotion > 0 and known.since_promotion <= {{ dip + 0.5 }} / {{ reach }} then 1
            else 0
        end as {{ trendcast.type_double() }}) as after,
        -- The share of the other series of the category (at the location) that is on promotion.
        cast(coalesce(
            (of_category.promoted - {{ trendcast.is_promoted('known') }}) / nullif(of_category.n_series - 1, 0), 0
        ) as {{ trendcast.type_double() }}) as rivals,
        {% endif %}
        ln({{ 'known.planned_price' if trendcast.has_list_prices() else 'filled.price' }}) as price,
        ln(filled.quantity) as y
    from {{ ref('int_demand') }} as demand
    inner join {{ ref('int_sales_filled') }} as filled
        on demand.series_id = filled.series_id and demand.t = filled.t
    {% if 'display' in regressors or trendcast.has_list_prices() %}
    inner join {{ ref('ftr_known') }} as known
        on demand.series_id = known.series_id and demand.t = known.t
    {% endif %}
    {% if 'rivals' in regressors %}
    inner join {{ ref('int_series') }} as series
        on demand.series_id = series.series_id
    inner join {{ ref('ftr_static') }} as static
        on demand.series_id = static.series_id
    inner join {{ ref('int_category_promotions') }} as of_category
        on
            {{ trendcast.category_of('static') }} = of_category.category
            and {{ trendcast.place_of('series') }} = of_category.location
            and demand.t = of_category.t
    {% endif %}
    {% if grain == 'month' %}
    inner join {{ ref('ftr_calendar') }} as calendar
        on demand.t = calendar.t
    cross join (
        select {{ trendcast.last_cutoff() }} + 1 - min(first_month.t) as months
        from {{ ref('ftr_calendar') }} as first_month
    ) as span
    {% endif %}
    where
        not demand.is_filled
        and not demand.is_stockout
        and filled.quantity > 0
        and {{ 'known.planned_price' if trendcast.has_list_prices() else 'filled.price' }} > 0
        and demand.t > {{ trendcast.last_cutoff() }}
        - {{ trendcast.positive_integer('response_periods', var('response_periods')
            or {'day': 728, 'week': 156, 'month': 60}[grain]) }}

)

select *
from final
