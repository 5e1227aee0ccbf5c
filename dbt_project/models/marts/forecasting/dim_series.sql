-- One row per series; its key, attributes and state at the last cutoff.
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
    series.total_revenue
from {{ ref('ftr_static') }} as static
inner join {{ ref('int_series') }} as series
    on static.series_id = series.series_id
inner join state
    on static.series_id = state.series_id
inner join {{ ref('ftr_calendar') }} as first_period
    on series.first_t = first_period.t
inner join {{ ref('ftr_calendar') }} as last_period
    on series.last_sale_t = last_period.t
