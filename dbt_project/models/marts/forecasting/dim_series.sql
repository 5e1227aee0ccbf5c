-- One row per series that sells, and per planned launch that is forecast; its key, attributes and state at the last
-- cutoff.
{%- set columns = trendcast.series_columns() %}
with state as (

    select *
    from {{ ref('ftr_history') }}
    where t = {{ trendcast.last_cutoff() }}

)

select
    static.*,
    series.sales_id,
    {% if not trendcast.has_measures() %}
    series.measure,
    {% endif %}
    first_period.ds as first_sale_date,
    last_period.ds as last_sale_date,
    state.demand_class,
    state.demand_level,
    series.total_quantity,
    series.total_revenue,
    {{ 'launches.launch_date' if trendcast.has_source('launches') else 'cast(null as date) as launch_date' }}
from {{ ref('ftr_static') }} as static
inner join {{ ref('int_series') }} as series
    on static.series_id = series.series_id
inner join state
    on static.series_id = state.series_id
inner join {{ ref('ftr_calendar') }} as first_period
    on series.first_t = first_period.t
inner join {{ ref('ftr_calendar') }} as last_period
    on series.last_sale_t = last_period.t
{% if trendcast.has_source('launches') %}
left join {{ ref('int_launches') }} as launches
    on static.series_id = launches.series_id
union all
select
    launches.series_id,
    {% if trendcast.has_measures() %}
    '{{ trendcast.measures()[0] }}' as measure,
    {% endif %}
    {% for column in columns %}
    launches.{{ adapter.quote(column) }},
    {% endfor %}
    launches.products,
    launches.series_id as sales_id,
    {% if not trendcast.has_measures() %}
    '{{ trendcast.measures()[0] }}' as measure,
    {% endif %}
    cast(null as date) as first_sale_date,
    cast(null as date) as last_sale_date,
    'launch' as demand_class,
    cast(null as {{ trendcast.type_double() }}) as demand_level,
    cast(0 as {{ trendcast.type_double() }}) as total_quantity,
    cast(0 as {{ trendcast.type_double() }}) as total_revenue,
    launches.launch_date
from {{ ref('int_launches') }} as launches
where launches.series_id in (
    select analogy.series_id
    from {{ ref('ftr_analogy') }} as analogy
    where analogy.fold = 0 and analogy.demand_class = 'launch'
)
{% endif %}
