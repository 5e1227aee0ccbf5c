-- One row per series and period: the measure as it was sold and the demand models take it for, with flags that say why
-- the two differ. A view: what is switched off, or has no source, costs nothing.
{{ config(materialized='view') }}
{%- set settings = trendcast.settings() %}
{%- set short, medium, long = settings.windows %}
{%- set has_stock = trendcast.has_source('inventory') and trendcast.uses('stock') %}
{%- set has_list = trendcast.counts_listing() %}
{%- set chance = var('stockout_chance') %}
{%- set prices = trendcast.forecasts_prices() %}
{%- set of_series = 'series.sales_id and filled.t >= series.first_t' if trendcast.has_measures()
    else 'series.series_id' %}
{%- set outliers = trendcast.one_of('outliers', ['none', 'hampel', 'robust_z']) %}
{#- hampel: the last nine at this position in the season; robust_z: the long window, whatever the position. #}
{%- set rows = 9 if outliers == 'hampel' else long %}
{%- set position = 'mod(t, ' ~ settings.season_length ~ ')' if outliers == 'hampel' else none %}
with {% if has_list -%}
-- Before its first price a product is merely not listed; after it, a period without one says that it is not on sale.
listed_first as (

    select
        {{ trendcast.key_columns(trendcast.source_key('price_columns'), 'prices') }}
        min(prices.t) as t
    from {{ ref('int_prices') }} as prices
    {{ trendcast.group_by(trendcast.source_key('price_columns') | length) }}

),

{% endif -%}
panel as (

    select
        series.series_id,
        series.series_no,
        filled.t,
        filled.ds,
        {{ 'filled.t - series.first_t as age' if prices and trendcast.has_measures() else 'filled.age' }},
        filled.is_filled,
        filled.price,
        filled.revenue,
        filled.discount,
        filled.customers,
        filled.new_customers,
        {{ trendcast.by_measure({
            'quantity': 'filled.quantity', 'revenue': 'filled.revenue', 'average_price': 'filled.price'
        }, 'series.measure') }} as observed,
        {% if trendcast.has_measures() %}
        series.measure,
        {% endif %}
        {% if prices %}
        not filled.is_filled and filled.quantity > 0 and filled.revenue is not null as has_price,
        {% endif %}
        {% if has_list %}
        case when prices.t is null and listed_first.t < filled.t then 0 else 1 end *
        {% endif %}
        {{ 'coalesce(stock.in_stock_share, 1)' if has_stock else '1' }} as in_stock_share
    from {{ ref('int_sales_filled') }} as filled
    inner join {{ ref('int_series') }} as series
        on filled.series_id = {{ of_series }}
    {% if has_stock %}
    left join {{ ref('int_stock') }} as stock
        on
            filled.t = stock.t
            and {{ trendcast.same_key(trendcast.source_key('inventory_columns'), 'series', 'stock') }}
    {% endif %}
    {% if has_list %}
    left join {{ ref('int_prices') }} as prices
        on
            filled.t = prices.t
            and {{ trendcast.same_key(trendcast.source_key('price_columns'), 'series', 'prices') }}
    left join listed_first
        on {{ trendcast.same_key(trendcast.source_key('price_columns'), 'series', 'listed_first') }}
    {% endif %}

),

-- Where nobody counts the stock, a run of zeros is suspicious once it is less likely than the var `stockout_chance`:
-- (1 - share) to the power of its length, with the share of periods with a sale before it (Laplace's rule).
runs as (

    select
        panel.*,
        {% if chance %}
        t - {{ trendcast.trailing('max(case when observed > 0 then t end)') }} as zeros,
        {{ trendcast.trailing('sum(case when observed > 0 then 1 else 0 end)', long) }} as sales_long,
        {{ trendcast.trailing('count(*)', long) }} as rows_long,
        {% endif %}
        {{ trendcast.by_measure({
            'quantity': 'panel.observed = 0', 'revenue': 'panel.observed = 0', 'average_price': 'false'
        }, 'panel.measure') }} as is_zero
    from panel

),

stocked as (

    select
        runs.*,
        (is_zero and in_stock_share < 0.5)
        {% if chance %}
        or (
            is_zero and zeros > 0 and zeros < rows_long
            and power(1.0e0 - (sales_long + 1) / (rows_long - zeros + 2.0e0), zeros) < {{ chance }}
        )
        {% endif %} as is_stockout
    from runs

),

-- A zero without stock or off sale says nothing about demand: the mean of the medium window's other periods stands in.
uncensored as (

    select
        stocked.*,
        {% if has_stock or has_list or chance %}
        case
            when is_stockout then coalesce(
                {{ trendcast.trailing('avg(case when not is_stockout then cast(observed as '
                    ~ trendcast.type_averaged() ~ ') end)', medium) }}, 0
            )
            else observed
        end as uncensored
        {% else %}
        observed as uncensored
        {% endif %}
    from stocked

),

{% if outliers == 'none' %}
judged as (

    select
        uncensored.*,
        false as is_outlier,
        uncensored as demand
    from uncensored

)
{% else %}

-- Promotions and holidays sell more for a reason: they are no outliers.
planned as (

    select
        uncensored.*,
        known.promotion_display + known.promotion_feature + known.promotion_discount > 0
        {% if trendcast.uses('holidays') %}
        or calendar.is_holiday > 0
        {% endif %} as is_event
    from uncensored
    inner join {{ ref('ftr_known') }} as known
        on uncensored.series_id = known.series_id and uncensored.t = known.t
    inner join {{ ref('ftr_calendar') }} as calendar
        on uncensored.t = calendar.t

),

centred as (

    select
        planned.*,
        {{ trendcast.trailing(trendcast.quantile('uncensored', 0.5), rows, position) }} as median
    from planned

),

-- The median absolute deviation, as a standard deviation (Hampel 1974), and never below that of a count of this size.
spread as (

    select
        centred.*,
        greatest(
            1.4826e0 * {{ trendcast.trailing(trendcast.quantile('abs(uncensored - median)', 0.5), rows, position) }},
            sqrt({{ trendcast.prior_variance('median + 1') }})
        ) as deviation
    from centred

),

flagged as (

    select
        spread.*,
        not is_event and abs(uncensored - median) > {{ var('outlier_threshold') }} * deviation as is_outlier
    from spread

),

judged as (

    select
        flagged.*,
        case when is_outlier then median else uncensored end as demand
    from flagged

)
{% endif %}

select
    series_id,
    series_no,
    t,
    ds,
    age,
    is_filled,
    price,
    revenue,
    discount,
    customers,
    new_customers,
    observed,
    is_stockout,
    {% set observed = {'average_price': 'has_price'} %}
    {% for column in ['quantity', 'revenue'] %}
    {% do observed.update({
        column: 'not (is_stockout or is_filled)' if trendcast.gap_fill()[column] == 'drop' else 'not is_stockout'
    }) %}
    {% endfor %}
    {{ trendcast.by_measure(observed) }} as is_observed,
    is_outlier,
    demand
from judged
