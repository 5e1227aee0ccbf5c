{#- Fails for each group in which no other forecast has a lower WAPE (sum of absolute errors over sum of actuals) than the
    baseline's. For a table with one row per forecaster and target.

    forecaster  column that names who forecast; not called `name`, which dbt takes for the test's own
    baseline    the baseline's name in it
    actual      column of what happened; rows without it do not count
    forecast    column of the expected value
    by          columns of a group, e.g. [demand_class]; none: the whole table is one
    at_least    share of the baseline's WAPE that the best must save -#}
{% test forecast_beats_baseline(
    model, forecaster='model', baseline='seasonal_naive', actual='actual', forecast='mean', by=[], at_least=0
) %}
with measured as (

    select
        {% for column in by %}
        {{ column }},
        {% endfor %}
        {{ forecaster }} as forecaster,
        sum(abs({{ forecast }} - {{ actual }})) / nullif(sum({{ actual }}), 0) as wape
    from {{ model }}
    where {{ actual }} is not null
    {{ trendcast.group_by(by | length + 1) }}

),

compared as (

    select
        {% for column in by %}
        {{ column }},
        {% endfor %}
        min(case when forecaster = '{{ baseline }}' then wape end) as baseline_wape,
        min(case when forecaster <> '{{ baseline }}' then wape end) as best_wape
    from measured
    {{ trendcast.group_by(by | length) }}

)

select *
from compared
where best_wape > (1 - {{ at_least }}) * baseline_wape
{% endtest %}
