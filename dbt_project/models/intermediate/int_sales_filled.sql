-- One row per series and period from its first sale to the cutoff, without gaps. The end is the cutoff
-- and never the last sale: zeros that stop at the last sale would reveal that it is the last.
{{ trendcast.keeps_rows() }}
{%- set policies = trendcast.gap_fill() %}
{%- set columns = policies.keys() | list %}
{%- set season = trendcast.settings().season_length %}
{%- set seen = trendcast.seen() %}
{%- set price = 'sales.revenue / nullif(sales.quantity, 0)' %}
{#- These policies look at the last sale only; the others at all sales so far. #}
{%- set short_memory = policies.values() | reject('in', ['zero', 'carry_forward', 'drop']) | list | length == 0 %}
with {% if seen -%}
changes as (

    {{ trendcast.changes(seen) }}

),

-- The last sale with a price before what is new: it fills the gap up to the next.
starts as (

    select
        changes.series_id,
        changes.from_t,
        {% if short_memory %}
        max(case when sales.t < changes.from_t and sales.quantity > 0 then sales.t end) as sale_t
        {% else %}
        min(sales.t) as sale_t
        {% endif %}
    from changes
    inner join {{ ref('int_sales') }} as sales
        on changes.series_id = sales.series_id
    group by 1, 2

),

{% endif -%}
sold as (

    select
        series.series_id,
        series.series_no,
        series.first_t,
        {% if seen %}
        starts.from_t,
        {% endif %}
        sales.t as sale_t,
        sales.quantity,
        sales.revenue,
        sales.discount,
        sales.customers,
        sales.new_customers,
        -- Where all that was sold came back in the same period, the price is that of the sale before.
        {{ trendcast.sales_so_far('last_value(' ~ price ~ ' ignore nulls)') }} as price,
        {% for column, policy in policies.items() %}
        {%- set expression = price if column == 'price' else 'sales.' ~ column %}
        {{- trendcast.gap_fill_inputs(column, expression, policy) }}
        {%- endfor %}
        {%- if 'linear' in policies.values() or 'spline' in policies.values() %}
        lag(sales.t, 1) over (partition by series.series_no order by sales.t) as sale_t_1,
        lag(sales.t, 2) over (partition by series.series_no order by sales.t) as sale_t_2,
        {%- endif %}
        -- Periods until the next sale, or over the cutoff: so many rows this sale stands for.
        lead(sales.t, 1, {{ trendcast.last_cutoff() }} + 1) over (
            partition by series.series_no order by sales.t
        ) - sales.t as periods
    from {{ ref('int_sales') }} as sales
    inner join {{ ref('int_series') }} as series
        on sales.series_id = series.series_id and sales.t >= series.first_t
    {% if seen %}
    inner join starts
        on sales.series_id = starts.series_id and sales.t >= coalesce(starts.sale_t, sales.t)
    {% endif %}

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
