-- One row per fold (0 and 1): the BG/NBD model (Fader, Hardie & Lee, Marketing Science 2005) of the customers by its
-- cutoff. While active a customer orders at random at a rate of their own, gamma(r, alpha) among customers; after each
-- order they leave with a chance of their own, beta(a, b). By maximum likelihood: from a start the best of the 81
-- points around the last one is taken, sixteen times, each time from closer by.
{%- set parameters = ['shape', 'rate', 'leaving', 'evenness'] %}
{%- set rounds = 16 %}
{%- set double = trendcast.type_double() %}
-- The gamma functions' part is a sum over each order of each customer: counted once for all who had so many.
with histories as (

    select
        fold,
        cast(repeats as integer) as n_orders,
        n_customers as n
    from {{ ref('int_purchase_histories') }}

),

repeats as (

    {{ trendcast.repeated('histories', 'n_orders', 'earlier') }}

),

observed as (

    select
        fold,
        false as is_order,
        repeats as k,
        days_to_last,
        days_known,
        n_customers as n
    from {{ ref('int_purchase_histories') }}
    union all
    select
        fold,
        true as is_order,
        cast(earlier as {{ double }}) as k,
        cast(0 as {{ double }}) as days_to_last,
        cast(0 as {{ double }}) as days_known,
        sum(n) as n
    from repeats
    group by 1, 2, 3

),

moves as (

    {% for a in (0, -1, 1) %}
    select cast({{ a }} as {{ double }}) as move
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

around as (

    select
        {% for name in parameters %}
        of_{{ name }}.move as to_{{ name }},
        {% endfor %}
        {% for name in parameters %}
        {{ '+ ' if not loop.first }}abs(of_{{ name }}.move){{ ' as distance' if loop.last }}
        {% endfor %}
    from moves as of_{{ parameters[0] }}
    {% for name in parameters[1:] %}
    cross join moves as of_{{ name }}
    {% endfor %}

),

-- Logarithms of the gamma's shape and mean, log odds of leaving, logarithm of a + b: nearly independent of each other.
best_0 as (

    select
        fold,
        cast(0 as {{ double }}) as at_shape,
        ln((cast(sum(n_customers * repeats) as {{ double }}) + 0.5) / (sum(n_customers * days_known) + 1)) as at_rate,
        cast(-1.4 as {{ double }}) as at_leaving,
        cast(0.7 as {{ double }}) as at_evenness,
        cast(sum(n_customers) as {{ dbt.type_bigint() }}) as n_customers
    from {{ ref('int_purchase_histories') }}
    group by 1

),

{% for round in range(1, rounds + 1) %}
{%- set step = 0.65 ** (round - 1) %}
tried_{{ round }} as {{ trendcast.computed_once() }}(

    select
        best.fold,
        best.n_customers,
        {% for name in parameters %}
        best.at_{{ name }} + {{ step }}e0 * around.to_{{ name }} as at_{{ name }},
        {% endfor %}
        around.distance
    from best_{{ round - 1 }} as best
    cross join around

),

parameters_{{ round }} as {{ trendcast.computed_once() }}(

    select
        tried.*,
        exp(at_shape) as r,
        exp(at_shape - at_rate) as alpha,
        exp(at_evenness) / (1 + exp(-at_leaving)) as a,
        exp(at_evenness) / (1 + exp(at_leaving)) as b
    from tried_{{ round }} as tried

),

-- Odds of having left after the last order; nobody leaves before a second one.
odds_{{ round }} as {{ trendcast.computed_once() }}(

    select
        tried.*,
        observed.is_order,
        observed.k,
        observed.days_known,
        observed.n,
        case
            when observed.k > 0 and not observed.is_order
                then {{ trendcast.log_odds_of_leaving('tried', 'observed.k', 'observed.days_to_last',
                    'observed.days_known') }}
        end as log_odds
    from parameters_{{ round }} as tried
    inner join observed
        on tried.fold = observed.fold

),

likelihood_{{ round }} as (

    select
        fold,
        {% for name in parameters %}
        at_{{ name }},
        {% endfor %}
        distance,
        n_customers,
        cast(sum(cast(n * case
            when is_order then ln((r + k) * (b + k) / (a + b + k))
            else
                r * ln(alpha) - (r + k) * ln(alpha + days_known)
                + coalesce(greatest(log_odds, 0) + ln(1 + exp(-abs(log_odds))), 0)
        end as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }}) as log_likelihood
    from odds_{{ round }}
    group by 1, 2, 3, 4, 5, 6, 7

),

ranked_{{ round }} as (

    select
        likelihood.*,
        -- Of equals the nearest, so that what the data say nothing of stays where it was.
        row_number() over (
            partition by fold
            order by log_likelihood desc, distance asc, at_shape asc, at_rate asc, at_leaving asc
        ) as place
    from likelihood_{{ round }} as likelihood

),

best_{{ round }} as (

    select *
    from ranked_{{ round }}
    where place = 1

){{ ',' if not loop.last }}

{% endfor %}

select
    fold,
    exp(at_shape) as r,
    exp(at_shape - at_rate) as alpha,
    exp(at_evenness) / (1 + exp(-at_leaving)) as a,
    exp(at_evenness) / (1 + exp(at_leaving)) as b,
    n_customers,
    log_likelihood
from best_{{ rounds }}
