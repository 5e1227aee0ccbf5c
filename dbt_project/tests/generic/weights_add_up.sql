{#- The weights of the members of a segment are not negative and add up to one. -#}
{% test weights_add_up(model) %}
select
    run_id,
    model,
    fold,
    measure,
    demand_class,
    lead_bucket
from {{ model }}
group by 1, 2, 3, 4, 5, 6
having abs(sum(weight) - 1) > 1e-9 or min(weight) < 0
{% endtest %}
