{#- Least squares in SQL, from sums of squares and products alone: what price and promotions do to sales. -#}

{#- What explains the logarithm of sales beside the series' own level by season, in the order it enters; the shop's sources
    decide what there is. -#}
{% macro response_regressors() %}
    {%- set regressors = ['price'] -%}
    {%- if trendcast.has_source('promotions') and trendcast.uses('promotions') -%}
        {%- do regressors.extend(['display', 'feature'] + (['discount'] if trendcast.has_list_prices() else [])
            + ['before', 'after', 'rivals']) -%}
    {%- endif -%}
    {{ return(regressors + (['season_sin', 'season_cos'] if trendcast.settings().grain == 'month' else [])) }}
{% endmacro %}

{#- Those of them that are of promotions. -#}
{% macro promotion_effects() %}
    {{ return(trendcast.response_regressors() | reject('in', ['price', 'season_sin', 'season_cos']) | list) }}
{% endmacro %}

{#- Whether the price of a series is the list's; else it is what was paid for it. -#}
{% macro has_list_prices() %}
    {{ return(trendcast.has_source('prices') and trendcast.uses('price')) }}
{% endmacro %}

{#- How many periods before and after a promotion its dips last: a week, or a period where that is longer. -#}
{% macro dip_periods() %}
    {{ return({'day': 7, 'week': 1, 'month': 1}[trendcast.settings().grain]) }}
{% endmacro %}

{#- Pairs (i, j), i <= j, of a symmetric matrix over these names, as [[name_i, name_j], ...]. -#}
{% macro pairs_of(names) %}
    {%- set pairs = [] -%}
    {%- for a in names -%}
        {%- for b in names[loop.index0:] -%}
            {%- do pairs.append([a, b]) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(pairs) }}
{% endmacro %}

{#- Appends CTEs to a `with` clause, the last named `swept`: the rows of `sums` with the regression of y on `regressors` in
    place of the sums. By Goodnight's sweep operator (The American Statistician, 1979), written out.

    sums        CTE with n_rows and, for every pair of regressors and y, the centred sum of products s_<a>_<b>
    regressors  names, in the order they are swept. One without a standard deviation of `least` of it, or that those before it
                explain but for a millionth of its squares, is left out (is_<a> false), so of two that say the same the first stays
    carried     columns of `sums` to carry along, n_rows among them
    prefix      of the names of the CTEs, where there are several regressions
    least       {name: standard deviation}; 0.001 for others

    In swept, s_<a>_y is the coefficient, -s_<a>_<a> the diagonal of the inverse, s_y_y the sum of squared residuals. -#}
{% macro swept(sums, regressors, carried, least={}, prefix='') -%}
{%- set pairs = trendcast.pairs_of(regressors + ['y']) -%}
{{ prefix }}pivots_0 as {{ trendcast.computed_once() }}(

    select
        {{ sums }}.*,
        {%- for name in regressors %}
        s_{{ name }}_{{ name }} as total_{{ name }},
        s_{{ name }}_{{ name }} >= n_rows * {{ least.get(name, 0.001) ** 2 }} as varies_{{ name }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ sums }}

),
{%- for pivot in regressors %}
{%- set p = loop.index0 %}

{{ prefix ~ 'judged_' ~ loop.index }} as {{ trendcast.computed_once() }}(

    select
        pivots.*,
        varies_{{ pivot }} and s_{{ pivot }}_{{ pivot }} > 1e-6 * total_{{ pivot }} as is_{{ pivot }}
    from {{ prefix ~ 'pivots_' ~ p }} as pivots

),

{{ prefix ~ ('swept' if loop.last else 'pivots_' ~ loop.index) }} as {{ trendcast.computed_once() }}(

    select
        {%- for column in carried %}
        {{ column }},
        {%- endfor %}
        {%- for name in regressors %}
        varies_{{ name }},
        total_{{ name }},
        {%- endfor %}
        {%- for name in regressors[:loop.index] %}
        is_{{ name }},
        {%- endfor %}
        {%- for a, b in pairs %}
        {%- set along = [a, b] if a == pivot or b == pivot else none %}
        case
            when not is_{{ pivot }} then s_{{ a }}_{{ b }}
            {%- if a == pivot and b == pivot %}
            else -1 / s_{{ a }}_{{ b }}
            {%- elif along %}
            else s_{{ a }}_{{ b }} / s_{{ pivot }}_{{ pivot }}
            {%- else %}
            {%- set ap = 's_' ~ (a ~ '_' ~ pivot if [a, pivot] in pairs else pivot ~ '_' ~ a) %}
            {%- set bp = 's_' ~ (b ~ '_' ~ pivot if [b, pivot] in pairs else pivot ~ '_' ~ b) %}
            else s_{{ a }}_{{ b }} - {{ ap }} * {{ bp }} / s_{{ pivot }}_{{ pivot }}
            {%- endif %}
        end as s_{{ a }}_{{ b }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ prefix ~ 'judged_' ~ loop.index }}

){{ ',' if not loop.last }}
{%- endfor %}
{%- endmacro %}

{#- The logistic regression's probability: coefficients b_one and b_<name> of one alias on columns of another, and a column of
    known log odds where there is an offset; never quite 0 or 1. -#}
{% macro logistic(coefficients, rows, names, offset=none) -%}
    1 / (
            1 + exp(-greatest(least(
                {{ coefficients }}.b_one{{ ' + ' ~ rows ~ '.' ~ offset if offset }}
                {%- for name in names %}
                + {{ coefficients }}.b_{{ name }} * {{ rows }}.{{ name }}
                {%- endfor %},
                30
            ), -30))
        )
{%- endmacro %}

{#- Names with something before each. -#}
{% macro prefixed(prefix, names) %}
    {%- set found = [] -%}
    {%- for name in names -%}
        {%- do found.append(prefix ~ name) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}

{#- Appends CTEs to a `with` clause, the last named `logistic_fit`: a logistic regression for each key, by iteratively
    reweighted least squares (McCullagh & Nelder 1989), all of it sums.

    rows        CTE with the keys, the regressors, and the outcome as 0 or 1 in floating point
    keys        columns; one regression each
    regressors  columns of `rows`; one that does not vary gets 0
    outcome     column of `rows`
    rounds      Newton's steps; they converge in eight unless a regressor parts the outcomes cleanly
    offset      a column of `rows` that is known of the log odds: what the coefficients then correct
    prior_std   standard deviation, around 0, of what is believed of each coefficient before seeing the rows (ridge); null: nothing

    In logistic_fit: the keys, n_rows, n_true, b_one (intercept) and b_<name>. -#}
{% macro logistic_regression(rows, keys, regressors, outcome, rounds=8, offset=none, prior_std=none) -%}
{%- set names = ['one'] + regressors -%}
{%- set penalty = 1 / prior_std ** 2 if prior_std else 0 -%}
fit_0 as (

    select
        {%- for key in keys %}
        {{ key }},
        {%- endfor %}
        {%- for name in names %}
        cast(0 as {{ trendcast.type_double() }}) as b_{{ name }},
        {%- endfor %}
        count(*) as n_rows
    from {{ rows }}
    {{ trendcast.group_by(keys | length) }}

),
{%- for round in range(1, rounds + 1) %}

chances_{{ round }} as {{ trendcast.computed_once() }}(

    select
        learnt.*,
        {%- for name in names %}
        fit.b_{{ name }},
        {%- endfor %}
        {%- if loop.first and not offset %}
        -- Where least squares start: each row a quarter away from its outcome.
        0.25e0 + {{ outcome }} / 2 as p,
        {%- else %}
        {{ trendcast.logistic('fit', 'learnt', regressors, offset) }} as p,
        {%- endif %}
        1.0e0 as one
    from {{ rows }} as learnt
    inner join fit_{{ round - 1 }} as fit
        on
            {%- for key in keys %}
            {{ 'and ' if not loop.first }}learnt.{{ key }} = fit.{{ key }}
            {%- endfor %}

),

weighed_{{ round }} as {{ trendcast.computed_once() }}(

    select
        chances.*,
        p * (1 - p) as w,
        {{ outcome }} - p {{ '+ p * (1 - p) * ln(p / (1 - p))' if loop.first and not offset }} as gradient
    from chances_{{ round }} as chances

),

sums_{{ round }} as (

    select
        {%- for key in keys %}
        {{ key }},
        {%- endfor %}
        count(*) as n_rows,
        {%- for a, b in trendcast.pairs_of(names) %}
        {{ penalty ~ 'e0 + ' if penalty and a == b -}}
        cast(sum(cast(w * {{ a }} * {{ b }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }})
        as m_{{ a }}_{{ b }},
        {%- endfor %}
        {%- for name in names %}
        cast(sum(cast(gradient * {{ name }} as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }})
        {{- ' - ' ~ penalty ~ 'e0 * max(b_' ~ name ~ ')' if penalty }} as g_{{ name }},
        max(b_{{ name }}) as b_{{ name }},
        {%- endfor %}
        cast(sum({{ outcome }}) as {{ trendcast.type_double() }}) as n_true
    from weighed_{{ round }}
    {{ trendcast.group_by(keys | length) }}

),

-- Newton's step: the information matrix against the gradient, the intercept taken out first.
centred_{{ round }} as {{ trendcast.computed_once() }}(

    select
        {%- for key in keys %}
        {{ key }},
        {%- endfor %}
        n_rows,
        n_true,
        {%- for a, b in trendcast.pairs_of(regressors) %}
        m_{{ a }}_{{ b }} - m_one_{{ a }} * m_one_{{ b }} / m_one_one as s_{{ a }}_{{ b }},
        {%- endfor %}
        {%- for name in regressors %}
        g_{{ name }} - m_one_{{ name }} * g_one / m_one_one as s_{{ name }}_y,
        m_one_{{ name }} / m_one_one as mean_{{ name }},
        {%- endfor %}
        {%- for name in names %}
        b_{{ name }},
        {%- endfor %}
        0.0e0 as s_y_y,
        g_one / m_one_one as step_one
    from sums_{{ round }}

),

{{ trendcast.swept('centred_' ~ round, regressors, keys + ['n_rows', 'n_true', 'step_one', 'b_one']
    + trendcast.prefixed('mean_', regressors) + trendcast.prefixed('b_', regressors),
    prefix='r' ~ round ~ '_') }},

{{ 'logistic_fit' if loop.last else 'fit_' ~ round }} as (

    select
        {%- for key in keys %}
        {{ key }},
        {%- endfor %}
        {%- for name in regressors %}
        b_{{ name }} + case when is_{{ name }} then s_{{ name }}_y else 0 end as b_{{ name }},
        {%- endfor %}
        b_one + step_one
        {%- for name in regressors %}
        - case when is_{{ name }} then s_{{ name }}_y * mean_{{ name }} else 0 end
        {%- endfor %} as b_one,
        n_rows,
        n_true
    from r{{ round }}_swept

){{ ',' if not loop.last }}
{%- endfor %}
{%- endmacro %}

{#- BG/NBD (Fader, Hardie & Lee 2005): the logarithm of the odds that a customer with repeat orders has left, by the parameters
    r, alpha, a and b of an alias; `repeats` is at least 1, days are from the first order to the last and to the cutoff. -#}
{% macro log_odds_of_leaving(model, repeats, days_to_last, days_known) -%}
    {%- set late -%}
    ({{ model }}.alpha + {{ days_known }}) / ({{ model }}.alpha + {{ days_to_last }})
    {%- endset -%}
    ln({{ model }}.a / ({{ model }}.b + {{ repeats }} - 1)) + ({{ model }}.r + {{ repeats }}) * ln({{ late }})
{%- endmacro %}

{#- Where a series is sold, for what is compared there; nothing where the key has no location. -#}
{% macro place_of(alias) -%}
    {{ alias ~ '.' ~ adapter.quote('location_id') if 'location_id' in var('series_key') else "cast('' as " ~ dbt.type_string() ~ ')' }}
{%- endmacro %}

{#- How much of a period a series is on promotion, 0 to 1; exact, for sums. -#}
{% macro is_promoted(alias) -%}
    cast(least(greatest(
        {{ alias }}.promotion_display,
        {{ alias }}.promotion_feature,
        case when {{ alias }}.promotion_discount > 0 then 1 else 0 end
    ), 1) as {{ trendcast.type_fine() }})
{%- endmacro %}
