{#- Fails for each group in which actuals lie inside an interval, bounds included, less or more often than it promises.

    level            share the interval promises, e.g. 0.8
    lower, upper     columns of its bounds
    actual           column of what happened; rows without it do not count
    by               columns of a group, e.g. [model, demand_class]; none: the whole table is one
    tolerance        how far below the promise is tolerated
    tolerance_above  how far above; an interval of whole units covers more than it promises. none: any
    least_rows       groups of fewer rows say nothing -#}
{% test coverage_in_tolerance(
    model, level, lower, upper, actual='actual', by=[], tolerance=0.05, tolerance_above=none, least_rows=1
) %}
with measured as (

    select
        {% for column in by %}
        {{ column }},
        {% endfor %}
        count(*) as n_rows,
        avg({{ trendcast.covered(actual, lower, upper) }}) as coverage
    from {{ model }}
    where {{ actual }} is not null and {{ lower }} is not null and {{ upper }} is not null
    {{ trendcast.group_by(by | length) }}

)

select *
from measured
where
    n_rows >= {{ least_rows }}
    and (
        coverage < {{ level }} - {{ tolerance }}
        {% if tolerance_above is not none %}
        or coverage > {{ level }} + {{ tolerance_above }}
        {% endif %}
    )
{% endtest %}
