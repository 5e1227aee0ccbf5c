-- One row per series that sold at least once up to the cutoff; where there are several measures, for each of them.
{%- set key = var('series_key') %}
{%- set double = trendcast.type_double() %}
{%- set prices = trendcast.forecasts_prices() %}
with sold as (

    select
        series_id as sales_id,
        {% for column in key %}
        {{ adapter.quote(column) }},
        {% endfor %}
        min(t) as first_t,
        max(t) as last_sale_t,
        {% if prices %}
        min(case when quantity > 0 and revenue is not null then t end) as first_price_t,
        max(case when quantity > 0 and revenue is not null then t end) as last_price_t,
        {% endif %}
        -- Summed as exact decimals, see type_amount.
        cast(sum(cast(quantity as {{ trendcast.type_amount() }})) as {{ double }}) as total_quantity,
        cast(sum(cast(revenue as {{ trendcast.type_amount() }})) as {{ double }}) as total_revenue
    from {{ ref('int_sales') }}
    -- Returns alone make no series, and none begins with them.
    where sale_lines > 0
    {{ trendcast.group_by(key | length + 1) }}

),

measured as (

    {% for measure in trendcast.measures() %}
    {%- set is_price, is_leading = measure == 'average_price', loop.first %}
    select
        {{ trendcast.id_of_measure('sales_id', measure) }} as series_id,
        '{{ measure }}' as measure,
        sales_id,
        {% for column in key %}
        {{ adapter.quote(column) }},
        {% endfor %}
        {{ 'first_price_t' if is_price else 'first_t' }} as first_t,
        {{ 'last_price_t' if is_price else 'last_sale_t' }} as last_sale_t,
        -- Once for all measures, so that sums over series are those of the shop.
        {{ 'total_quantity' if is_leading else 'cast(null as ' ~ double ~ ') as total_quantity' }},
        {{ 'total_revenue' if is_leading else 'cast(null as ' ~ double ~ ') as total_revenue' }}
    from sold
    {% if is_price %}
    where first_price_t is not null
    {% endif %}
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    series_id,
    measure,
    sales_id,
    {% for column in key %}
    {{ adapter.quote(column) }},
    {% endfor %}
    -- Windows over whole numbers take a quarter of the time of windows over text.
    cast(row_number() over (order by series_id) as integer) as series_no,
    first_t,
    last_sale_t,
    total_quantity,
    total_revenue
from measured
