-- One row per fold: a logistic regression of who did not come back, learnt at the cutoff before (fold + 1) alone. By
-- iteratively reweighted least squares (McCullagh & Nelder 1989), eight rounds, all of it sums.
{%- set names = ['one', 'recency', 'frequency', 'lateness'] %}
{%- set regressors = names[1:] %}
with customers as (

    select
        fold - 1 as fold,
        recency,
        frequency,
        lateness,
        is_lost
    from {{ ref('int_customer_state') }}
    where fold > 0

),

fit_0 as (

    select
        fold,
        cast(sum(is_lost) as {{ trendcast.type_double() }}) as n_lost,
        {% for name in names %}
        0.0e0 as b_{{ name }},
        {% endfor %}
        count(*) as n_customers
    from customers
    group by 1

),

{% for round in range(1, 9) %}
chances_{{ round }} as (

    select
        customers.*,
        fit.n_lost,
        {% if loop.first %}
        -- Where least squares start: each customer a quarter away from what they did.
        0.25e0 + customers.is_lost / 2 as p,
        {% else %}
        {{ trendcast.logistic('fit', 'customers', regressors) }} as p,
        {% endif %}
        1.0e0 as one
    from customers
    inner join fit_{{ round - 1 }} as fit
        on customers.fold = fit.fold

),

weighed_{{ round }} as (

    select
        chances_{{ round }}.*,
        p * (1 - p) as w,
        is_lost - p {{ '+ p * (1 - p) * ln(p / (1 - p))' if loop.first }} as gradient
    from chances_{{ round }}

),

sums_{{ round }} as (

    select
        fold,
        count(*) as n_rows,
        {% for a, b in trendcast.pairs_of(names) %}
        cast(sum(cast(
            w * {{ a }} * {{ b }} as {{ trendcast.type_fine() }}
        )) as {{ trendcast.type_double() }}) as m_{{ a }}_{{ b }},
        {% endfor %}
        {% for name in names %}
        cast(sum(cast(gradient * {{ name }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }})
            as g_{{ name }},
        {% endfor %}
        max(n_lost) as n_lost
    from weighed_{{ round }}
    group by 1

),

-- Newton's step: the information matrix against the gradient, the intercept taken out first.
centred_{{ round }} as (

    select
        sums.fold,
        sums.n_rows,
        sums.n_lost,
        {% for a, b in trendcast.pairs_of(regressors) %}
        m_{{ a }}_{{ b }} - m_one_{{ a }} * m_one_{{ b }} / m_one_one as s_{{ a }}_{{ b }},
        {% endfor %}
        {% for name in regressors %}
        g_{{ name }} - m_one_{{ name }} * g_one / m_one_one as s_{{ name }}_y,
        m_one_{{ name }} / m_one_one as mean_{{ name }},
        {% endfor %}
        0.0e0 as s_y_y,
        g_one / m_one_one as step_one
    from sums_{{ round }} as sums

),

{{ trendcast.swept('centred_' ~ round, regressors, ['fold', 'n_rows', 'n_lost', 'step_one', 'mean_recency',
    'mean_frequency', 'mean_lateness'], prefix='r' ~ round ~ '_') }},

fit_{{ round }} as (

    select
        swept.fold,
        {% for name in regressors %}
        fit.b_{{ name }} + case when swept.is_{{ name }} then swept.s_{{ name }}_y else 0 end as b_{{ name }},
        {% endfor %}
        fit.b_one + swept.step_one
        {% for name in regressors %}
        - case when swept.is_{{ name }} then swept.s_{{ name }}_y * swept.mean_{{ name }} else 0 end
        {% endfor %} as b_one,
        swept.n_rows as n_customers,
        swept.n_lost
    from r{{ round }}_swept as swept
    inner join fit_{{ round - 1 }} as fit
        on swept.fold = fit.fold

){{ ',' if not loop.last }}

{% endfor %}

select *
from fit_8
