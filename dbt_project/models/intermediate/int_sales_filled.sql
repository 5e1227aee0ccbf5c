-- One row per series and period from its first sale to the cutoff, without gaps. The end is the cutoff
-- and never the last sale: zeros that stop at the last sale would reveal that it is the last.
{{ trendcast.keeps_rows() }}
{%- set policies = trendcast.gap_fill() %}
{%- set columns = policies.keys() | list %}
{%- set season = trendcast.settings().season_length %}
{%- set seen = trendcast.seen() %}
{#- These policies look at the last sale only; the others at all sales so far. #}
{%- set short_memory = policies.values() | reject('in', ['zero', 'carry_forward', 'drop']) | list | length == 0 %}
with {% if seen -%}
changes as (

    {{ trendcast.changes(seen) }}

),

{% if short_memory -%}
-- The row before what is new stands for all before it: what a gap carries on is in it.
sales as (

    select
        filled.series_id,
        changes.from_t,
        filled.t,
        filled.quantity,
        filled.revenue,
        filled.discount,
        filled.customers,
        filled.new_customers,
        filled.price
    from {{ this }} as filled
    inner join changes
        on filled.series_id = changes.series_id and filled.t = changes.from_t - 1
    where filled.t >= {{ seen.from_t - 1 }}
    union all
    select
        sold.series_id,
        changes.from_t,
        sold.t,
        sold.quantity,
        sold.revenue,
        sold.discount,
        sold.customers,
        sold.new_customers,
        sold.revenue / nullif(sold.quantity, 0) as price
    from {{ ref('int_sales') }} as sold
    inner join changes
        on sold.series_id = changes.series_id and sold.t >= changes.from_t
    where sold.t >= {{ seen.from_t }}

),

{% else -%}
sales as (

    select
        sold.*,
        changes.from_t,
        sold.revenue / nullif(sold.quantity, 0) as price
    from {{ ref('int_sales') }} as sold
    inner join changes
        on sold.series_id = changes.series_id

),

{% endif -%}
{% else -%}
sales as (

    select
        sold.*,
        sold.revenue / nullif(sold.quantity, 0) as price
    from {{ ref('int_sales') }} as sold

),

{% endif -%}
sold as (

    select
        series.series_id,
        series.series_no,
        series.first_t,
        {% if seen %}
        sales.from_t,
        {% endif %}
        sales.t as sale_t,
        sales.quantity,
        sales.revenue,
        sales.discount,
        sales.customers,
        sales.new_customers,
        -- Where all that was sold came back in the same period, the price is that of the sale before.
        {{ trendcast.sales_so_far(trendcast.last_value('sales.price')) }} as price,
        {% for column, policy in policies.items() %}
        {{- trendcast.gap_fill_inputs(column, 'sales.' ~ column, policy) }}
        {%- endfor %}
        {%- if 'linear' in policies.values() or 'spline' in policies.values() %}
        lag(sales.t, 1) over (partition by series.series_no order by sales.t) as sale_t_1,
        lag(sales.t, 2) over (partition by series.series_no order by sales.t) as sale_t_2,
        {%- endif %}
        -- Periods until the next sale, or over the cutoff: so many rows this sale stands for.
        lead(sales.t, 1, {{ trendcast.last_cutoff() }} + 1) over (
            partition by series.series_no order by sales.t
        ) - sales.t as periods
    from sales
    inner join {{ ref('int_series') }} as series
        on sales.series_id = series.series_id and sales.t >= series.first_t

),

spread as (

    {{ trendcast.repeated('sold', 'periods', 'since_sale') }}

),

seasonal as (

    select
        spread.*,
        {% for column in columns if policies[column] == 'seasonal' %}
        {{ trendcast.last_known(
            'case when since_sale = 0 then ' ~ column ~ ' end', 'mod(sale_t + since_sale, ' ~ season ~ ')'
        ) }} as {{ column }}_season_before,
        {% endfor %}
        spread.sale_t + spread.since_sale as t
    from spread

)

select
    filled.series_id,
    calendar.t,
    calendar.ds,
    calendar.t - filled.first_t as age,
    {% for column in columns %}
    {{ trendcast.gap_filled(column, policies[column]) }} as {{ column }},
    {% endfor %}
    filled.since_sale > 0 as is_filled,
    {{ trendcast.built_at() }} as built_at,
    {{ trendcast.built_with() }} as built_with
from seasonal as filled
inner join {{ ref('ftr_calendar') }} as calendar
    on filled.t = calendar.t
{% if seen %}
where filled.t >= filled.from_t
{% endif %}
