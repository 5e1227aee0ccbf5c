-- One row per series: how it is bought, what a unit is worth and what is in stock and on its way, from the shop's
-- tables; the vars under Decisions where these do not say, with the names of what was assumed in `defaults_used`.
{%- set long = trendcast.settings().windows[2] %}
{#- The vars that stand in for a term nobody gave, with the bounds they must keep. #}
{%- set defaults = {
    'lead_time_days': trendcast.number_between('lead_time_days', 0, 3650),
    'lead_time_std_days': trendcast.number_between('lead_time_std_days', 0, 3650),
    'pack_size': trendcast.number_between('pack_size', 0.000001, 1000000000),
    'minimum_order': trendcast.number_between('minimum_order', 0, 1000000000),
    'service_level': trendcast.number_between('service_level', 0.0001, 0.9999),
} %}
with supply_rows as (

    select *
    from {{ ref('stg_supply_terms') }}

),

-- Of several products the longest lead time and the mean cost; packs and least orders only make sense for one.
terms as (

    {{ trendcast.by_source_key('supply_columns', 'supply_rows', trendcast.term_aggregates()) }}

),

{% if trendcast.counts_series('inventory', 'inventory_columns') -%}
-- The last count of each product up to the cutoff; counts of the same time are parts of it, such as bins.
ranked_counts as (

    select
        counts.*,
        rank() over (partition by counts.product_id, counts.location_id order by counts.counted_at desc) as recency
    from {{ ref('stg_inventory') }} as counts
    where
        counts.on_hand is not null
        and {{ trendcast.period_index('counts.counted_at') }} <= {{ trendcast.last_cutoff() }}

),

counted as (

    select *
    from ranked_counts
    where recency = 1

),

stock as (

    {{ trendcast.by_source_key('inventory_columns', 'counted', {
        'on_hand': 'cast(sum(greatest(counted.on_hand, 0)) as ' ~ trendcast.type_double() ~ ')',
        'stock_counted_on': 'max(cast(counted.counted_at as date))',
    }) }}

),

{% endif -%}
orders as (

    select
        series_id,
        sum(quantity) as on_order
    from {{ ref('int_open_orders') }}
    group by 1

),

prices as (

    select
        series_id,
        cast(sum(revenue) as {{ trendcast.type_double() }}) / nullif(sum(quantity), 0) as unit_price
    from {{ ref('int_sales_filled') }}
    where not is_filled and t > {{ trendcast.last_cutoff() }} - {{ long }}
    group by 1

),

series as (

    {{ trendcast.orderable_series() }}

),

joined as (

    select
        series.series_id,
        terms.supplier,
        coalesce(prices.unit_price, series.unit_price) as unit_price,
        {% if trendcast.counts_series('inventory', 'inventory_columns') %}
        stock.on_hand,
        stock.stock_counted_on,
        {% else %}
        cast(null as {{ trendcast.type_double() }}) as on_hand,
        cast(null as date) as stock_counted_on,
        {% endif %}
        coalesce(orders.on_order, 0) as on_order,
        {% for column, default in defaults.items() %}
        coalesce(terms.{{ column }}, {{ default }}) as {{ column }},
        terms.{{ column }} is null as is_{{ column }}_assumed,
        {% endfor %}
        terms.unit_cost as given_unit_cost
    from series
    left join terms
        on {{ trendcast.same_key(trendcast.source_key('supply_columns'), 'series', 'terms') }}
    {% if trendcast.counts_series('inventory', 'inventory_columns') %}
    left join stock
        on {{ trendcast.same_key(trendcast.source_key('inventory_columns'), 'series', 'stock') }}
    {% endif %}
    left join orders
        on series.series_id = orders.series_id
    left join prices
        on series.series_id = prices.series_id

),

valued as (

    select
        *,
        coalesce(given_unit_cost, {{ trendcast.number_between('unit_cost_share', 0, 1) }} * unit_price) as unit_cost,
        {{ trendcast.periods_of_days('lead_time_days') }} as lead_periods,
        {{ trendcast.periods_of_days(trendcast.number_between('review_days', 0, 3650), minimum=1) }} as review_periods
    from joined

),

costed as (

    select
        *,
        unit_cost * {{ trendcast.number_between('holding_cost_rate', 0, 100) }} / 365.0e0 as holding_cost,
        greatest(unit_price - unit_cost, 0)
        * {{ trendcast.number_between('shortage_cost_share', 0, 1000) }} as shortage_cost
    from valued

),

final as (

    select
        series_id,
        supplier,
        {% for column in defaults %}
        cast({{ column }} as {{ trendcast.type_double() }}) as {{ column }},
        {% endfor %}
        lead_periods,
        review_periods,
        unit_price,
        unit_cost,
        holding_cost,
        shortage_cost,
        -- The newsvendor's: cost of a unit short over that and the cost of a unit held until the next order arrives.
        shortage_cost / nullif(
            shortage_cost + holding_cost * review_periods * {{ trendcast.settings().days_per_period }}, 0
        ) as critical_ratio,
        on_hand,
        stock_counted_on,
        cast(on_order as {{ trendcast.type_double() }}) as on_order,
        {{ trendcast.listed({
            'lead_time_days': 'is_lead_time_days_assumed',
            'lead_time_std_days': 'is_lead_time_std_days_assumed',
            'pack_size': 'is_pack_size_assumed',
            'minimum_order': 'is_minimum_order_assumed',
            'service_level': 'is_service_level_assumed',
            'unit_cost': 'given_unit_cost is null',
            'on_order': 'false' if trendcast.counts_series('purchase_orders', 'purchase_order_columns') else 'true',
        }) }} as defaults_used
    from costed

)

select *
from final
