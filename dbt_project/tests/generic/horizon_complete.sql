{#- Fails for each forecast that lacks a lead between 1 and its horizon, or has one beyond it.

    by       what tells one forecast from another, e.g. run, model and series; (by, lead) is unique, tested apart
    runs     the runs table, for a model with a run_id: a run's horizon is what it was then
    horizon  leads a forecast must have where that does not say; none: the var
    lead     column that counts the leads from 1 -#}
{% test horizon_complete(model, by, runs=none, horizon=none, lead='lead') %}
{%- set horizon = horizon or trendcast.settings().horizon %}
with forecasts as (

    select
        forecasts.*,
        {{ 'coalesce(runs.horizon, ' ~ horizon ~ ')' if runs else horizon }} as horizon_expected
    from {{ model }} as forecasts
    {% if runs %}
    left join {{ runs }} as runs
        on forecasts.run_id = runs.run_id
    {% endif %}

)

select
    {{ by | join(', ') }},
    horizon_expected,
    count(*) as leads,
    min({{ lead }}) as first_lead,
    max({{ lead }}) as last_lead
from forecasts
group by {{ by | join(', ') }}, horizon_expected
having count(*) <> horizon_expected or min({{ lead }}) <> 1 or max({{ lead }}) <> horizon_expected
{% endtest %}
