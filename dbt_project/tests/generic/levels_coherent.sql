{#- Fails for each row of a coarser forecast table whose value is not the sum of the finer ones'.

    totals     the coarser table
    by         columns that both have and that are unique in the coarser, e.g. [region, target_date]
    value      column that adds up; quantiles do not
    tolerance  relative to the total -#}
{% test levels_coherent(model, totals, by, value='mean', tolerance=0.000001) %}
with summed as (

    select
        {{ by | join(', ') }},
        sum({{ value }}) as total
    from {{ model }}
    {{ trendcast.group_by(by | length) }}

)

select
    {% for column in by %}
    coalesce(totals.{{ column }}, summed.{{ column }}) as {{ column }},
    {% endfor %}
    totals.{{ value }},
    summed.total as sum_of_parts
from {{ totals }} as totals
full join summed
    on
        1 = 1
        {% for column in by %}
        and totals.{{ column }} = summed.{{ column }}
        {% endfor %}
where
    totals.{{ value }} is null
    or summed.total is null
    or abs(totals.{{ value }} - summed.total) > {{ tolerance }} * (1 + abs(totals.{{ value }}))
{% endtest %}
