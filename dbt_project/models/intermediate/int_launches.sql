-- One row per series that the shop plans to sell, whether it has sold by now or not: its key, attributes and first day.
{%- do trendcast.check_launches() %}
{%- set columns = trendcast.series_columns() %}
{%- if trendcast.has_source('launches') %}
with planned as (

    select
        {% for column in columns %}
        {% if column in ['product_id', 'location_id'] and column in var('series_key') -%}
        launches.{{ column }},
        {%- else -%}
        products.{{ adapter.quote(column) }},
        {%- endif %}
        {% endfor %}
        launches.product_id as launched_product_id,
        launches.launch_date,
        launches.planned_on
    from {{ ref('stg_launches') }} as launches
    left join {{ ref('stg_products') }} as products
        on launches.product_id = products.product_id
    where launches.launch_date is not null

),

keyed as (

    select
        {{ trendcast.series_id(var('series_key')) }} as series_id,
        planned.*
    from planned

),

-- A list price says which neighbours are of the same price tier; the one of the first day, else the first after it.
priced as (

    select
        launches.product_id,
        launches.location_id,
        prices.price,
        row_number() over (
            partition by launches.product_id, launches.location_id
            order by
                case when prices.start_date <= launches.launch_date then 0 else 1 end,
                abs({{ trendcast.days_from('prices.start_date', 'launches.launch_date') }}),
                prices.price
        ) as nearness
    from {{ ref('stg_launches') }} as launches
    inner join {{ ref('stg_prices') }} as prices
        on
            launches.product_id = prices.product_id
            and (prices.location_id = launches.location_id or prices.location_id is null)
            and coalesce(prices.end_date >= launches.launch_date, true)
    where prices.price > 0

),

final as (

    select
        keyed.series_id,
        {% for column in var('series_key') %}
        keyed.{{ adapter.quote(column) }},
        {% endfor %}
        {% for column in columns if column not in var('series_key') %}
        min(keyed.{{ adapter.quote(column) }}) as {{ adapter.quote(column) }},
        {% endfor %}
        count(distinct keyed.launched_product_id) as products,
        min(keyed.launch_date) as launch_date,
        min(keyed.planned_on) as planned_on,
        min({{ trendcast.period_index('keyed.launch_date') }}) as launch_t,
        cast(avg(priced.price) as {{ trendcast.type_double() }}) as list_price
    from keyed
    left join priced
        on
            keyed.launched_product_id = priced.product_id
            and priced.nearness = 1
            {% if 'location_id' in var('series_key') %}
            and keyed.location_id = priced.location_id
            {% endif %}
    where
        1 = 1
        {% for column in var('series_key') %}
        and keyed.{{ adapter.quote(column) }} is not null
        {% endfor %}
    {{ trendcast.group_by(var('series_key') | length + 1) }}

)

select *
from final
{% else %}
-- depends_on: {{ ref('stg_launches') }}, {{ ref('stg_products') }}, {{ ref('stg_prices') }}
{{ trendcast.no_rows(trendcast.launch_columns()) }}
{% endif %}
