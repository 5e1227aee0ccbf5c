{#- Fails where an alert is raised for more than a share of what it watches. For fct_alerts.

    alert  the alert's name
    among  relation with one row for each thing that is watched; none: no alert is tolerated
    share  of them that may be alerted, for something is always unusual -#}
{% test few_alerts(model, alert, among=none, share=0) %}
with raised as (

    select count(*) as n_alerts
    from {{ model }}
    where alert = '{{ alert }}'

)

select n_alerts
from raised
where n_alerts > {% if among %}{{ share }} * (select count(*) from {{ among }}){% else %}0{% endif %}
{% endtest %}
