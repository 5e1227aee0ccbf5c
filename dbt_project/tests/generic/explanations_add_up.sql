{#- Fails for each forecast whose explanation does not add up to its mean. -#}
{% test explanations_add_up(model, forecasts) %}
with summed as (

    select
        run_id,
        model,
        series_id,
        lead,
        sum(contribution) as total
    from {{ model }}
    group by 1, 2, 3, 4

)

select
    summed.*,
    forecasts.mean
from summed
inner join {{ forecasts }} as forecasts
    on
        summed.run_id = forecasts.run_id
        and summed.model = forecasts.model
        and summed.series_id = forecasts.series_id
        and summed.lead = forecasts.lead
where abs(summed.total - forecasts.mean) > 1e-6 * (1 + abs(forecasts.mean))
{% endtest %}
