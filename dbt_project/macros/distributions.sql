{#- Distributions of sums, in closed forms that every engine has: what the decision marts are made of. -#}

{#- Variance of one forecast by its nine quantiles: each stands for the levels nearer to it than to its neighbours. Exact
    to a quarter of a percent for a normal. A count's is at least its mean (Poisson), which quantiles of sparse demand,
    zeros but for the last one, do not show. `of` is what the columns are qualified with, e.g. 'backtests.'. -#}
{% macro quantile_variance(of='') -%}
    {%- set levels = trendcast.quantile_levels().items() | list -%}
    {%- set has_counts = 'quantity' in trendcast.measures() %}
    {{ 'greatest(' if has_counts }}
    {%- for name, level in levels %}
        {%- set below = 0 if loop.first else (levels[loop.index0 - 1][1] + level) / 2 %}
        {%- set above = 1 if loop.last else (levels[loop.index0 + 1][1] + level) / 2 %}
        {{ '+ ' if not loop.first }}{{ (above - below) | round(6) }} * power({{ of }}{{ name }} - {{ of }}mean, 2)
    {%- endfor %}
    {{- ', ' ~ trendcast.by_measure(
        {'quantity': of ~ 'mean', 'revenue': '0', 'average_price': '0'}, of ~ 'measure') ~ ')' if has_counts }}
{%- endmacro %}

{#- Quantile of the gamma distribution with this mean and variance, at the level whose normal quantile is `z`: Wilson &
    Hilferty (1931), the cube root of a gamma is nearly normal. 0 where the mean is; null where anything is. -#}
{% macro gamma_quantile(mean, variance, z) -%}
    {%- set root = '(1 - ' ~ variance ~ ' / (9.0e0 * ' ~ mean ~ ' * ' ~ mean ~ ') + (' ~ z ~ ') * sqrt(' ~ variance
        ~ ') / (3.0e0 * ' ~ mean ~ '))' -%}
    case
        -- greatest(..., 0) would make a null 0.
        when {{ mean }} > 0 then {{ mean }} * power(({{ root }} + abs({{ root }})) / 2, 3)
        when {{ mean }} <= 0 then 0.0e0
    end
{%- endmacro %}

{#- Chance that a gamma of this mean and variance is at most `x`; the inverse of gamma_quantile. -#}
{% macro gamma_cdf(x, mean, variance) -%}
    case
        when {{ x }} < 0 then 0.0e0
        when {{ mean }} > 0 and {{ variance }} > 0
            then {{ trendcast.normal_cdf(
                '((power((' ~ x ~ ') / ' ~ mean ~ ', 1 / 3.0e0) - 1 + ' ~ variance ~ ' / (9.0e0 * ' ~ mean ~ ' * ' ~ mean
                ~ ')) * 3.0e0 * ' ~ mean ~ ' / sqrt(' ~ variance ~ '))'
            ) }}
        when {{ mean }} is not null and {{ x }} >= {{ mean }} then 1.0e0
        when {{ mean }} is not null and {{ x }} is not null then 0.0e0
    end
{%- endmacro %}

{#- Columns <name>_mean, _variance and _third (the third central moment) of the exponential of a normal with this mean and
    standard deviation. One that is unsure by more than a factor of e^5 is not known at all. -#}
{% macro lognormal_moments(name, log_mean, log_std) -%}
    {%- set square = 'power(least(' ~ log_std ~ ', 5), 2)' -%}
    exp({{ log_mean }} + {{ square }} / 2) as {{ name }}_mean,
        exp(2 * ({{ log_mean }}) + {{ square }}) * (exp({{ square }}) - 1) as {{ name }}_variance,
        exp(3 * ({{ log_mean }}) + 1.5e0 * {{ square }})
        * power(exp({{ square }}) - 1, 2) * (exp({{ square }}) + 2) as {{ name }}_third
{%- endmacro %}

{#- Third central moment of a gamma with this mean and variance; null where the mean is zero. -#}
{% macro gamma_third(mean, variance) -%}
    2 * power({{ variance }}, 2) / nullif({{ mean }}, 0)
{%- endmacro %}

{#- Columns <name>_mean, _variance and _third of the product of two, `a` and `b`, given by such columns, that have nothing to do
    with each other: Goodman, On the exact variance of products (1960), and the same for the third moment. -#}
{% macro product_moments(name, a, b) -%}
    {{ a }}_mean * {{ b }}_mean as {{ name }}_mean,
        power({{ a }}_mean, 2) * {{ b }}_variance
        + power({{ b }}_mean, 2) * {{ a }}_variance
        + {{ a }}_variance * {{ b }}_variance as {{ name }}_variance,
        {{ b }}_third * (power({{ a }}_mean, 3) + 3 * {{ a }}_mean * {{ a }}_variance + {{ a }}_third)
        + 6 * {{ a }}_mean * {{ a }}_variance * {{ b }}_mean * {{ b }}_variance
        + {{ a }}_third * {{ b }}_mean * (power({{ b }}_mean, 2) + 3 * {{ b }}_variance) as {{ name }}_third
{%- endmacro %}

{#- What skewed_quantile() needs of a skewness, from the variance and the third central moment: sqrt(exp(s^2) - 1) for the s of
    the lognormal that is as skewed, with the skewness' sign. From (w - 1)(w + 2)^2 = skewness^2 with w = exp(s^2) by
    w + 1 = 2 cosh(2/3 asinh(skewness / 2)). -#}
{% macro skew_root(variance, third) -%}
    {%- set half = '(abs(' ~ third ~ ') / (2 * power(' ~ variance ~ ', 1.5e0)))' -%}
    {%- set cube_root = 'power(' ~ half ~ ' + sqrt(' ~ half ~ ' * ' ~ half ~ ' + 1), 1 / 3.0e0)' -%}
    case
        when {{ variance }} > 1e-24 then sign({{ third }}) * ({{ cube_root }} - 1 / {{ cube_root }})
        when {{ variance }} is not null and {{ third }} is not null then 0.0e0
    end
{%- endmacro %}

{#- Quantile of a distribution known by its first three moments, at the level whose normal quantile is `z`: that of the shifted
    lognormal with these moments (Yuan 1933), mirrored where the skew is to the left; a normal's where there is none.
    `root` is skew_root(). -#}
{% macro skewed_quantile(mean, variance, root, z) -%}
    {%- set s = '(sign(' ~ root ~ ') * sqrt(ln(1 + ' ~ root ~ ' * ' ~ root ~ ')))' -%}
    {{ mean }} + sqrt({{ variance }}) * case
        -- The quotient below would be of two numbers near zero.
        when abs({{ root }}) < 1e-4 then ({{ z }}) + (({{ z }}) * ({{ z }}) - 1) * {{ root }} / 2
        else (exp({{ s }} * ({{ z }}) - {{ s }} * {{ s }} / 2) - 1) / {{ root }}
    end
{%- endmacro %}

{#- The standard normal's distribution function, to 8e-8 (Abramowitz & Stegun 1964, 26.2.17). Where floating point ends
    the tail is 0: some engines give that for the exponential and some an error. -#}
{% macro normal_cdf(z) -%}
    {%- set t = '(1 / (1 + 0.2316419e0 * abs(' ~ z ~ ')))' -%}
    {%- set tail = '0.3989422804014327e0 * case when abs(' ~ z ~ ') < 37 then exp(-0.5e0 * ' ~ z ~ ' * ' ~ z ~ ') else 0 end * ' ~ t ~ ' * (0.319381530e0 + ' ~ t
        ~ ' * (-0.356563782e0 + ' ~ t ~ ' * (1.781477937e0 + ' ~ t ~ ' * (-1.821255978e0 + ' ~ t
        ~ ' * 1.330274429e0))))' -%}
    case when {{ z }} > 0 then 1 - {{ tail }} else {{ tail }} end
{%- endmacro %}

{#- The standard normal's quantile at a level above 0 and below 1, to 5e-4 (Abramowitz & Stegun 1964, 26.2.23). -#}
{% macro normal_quantile(level) -%}
    {%- set t = 'sqrt(-2 * ln(least(' ~ level ~ ', 1 - ' ~ level ~ ')))' -%}
    (case when {{ level }} < 0.5 then -1 else 1 end * (
        {{ t }} - (2.515517e0 + {{ t }} * (0.802853e0 + {{ t }} * 0.010328e0))
        / (1 + {{ t }} * (1.432788e0 + {{ t }} * (0.189269e0 + {{ t }} * 0.001308e0)))
    ))
{%- endmacro %}

{#- The smallest quantity in whole units that covers a gamma's quantile: a count is at most n as often as the gamma is at most
    n + 1/2. The quantile itself where the var `whole_units` is off. -#}
{% macro covering_quantity(quantile) -%}
    {%- if var('whole_units') -%}
        case when {{ quantile }} > 0.5 then ceil({{ quantile }} - 0.5) when {{ quantile }} <= 0.5 then 0.0e0 end
    {%- else -%}
        {{ quantile }}
    {%- endif -%}
{%- endmacro %}

{#- What covering_quantity adds to a quantity before the gamma is asked for its chance. -#}
{% macro half_unit() -%}
    {{ 0.5 if var('whole_units') else 0 }}
{%- endmacro %}

{#- A number rounded to some decimals, as floating point. -#}
{% macro rounded(expression, decimals) -%}
    {{ return(adapter.dispatch('rounded', 'trendcast')(expression, decimals)) }}
{%- endmacro %}

{% macro default__rounded(expression, decimals) -%}
    round({{ expression }}, {{ decimals }})
{%- endmacro %}

{% macro postgres__rounded(expression, decimals) -%}
    cast(round(cast({{ expression }} as numeric), {{ decimals }}) as double precision)
{%- endmacro %}

{#- Periods that a number of days reaches into, at least `minimum`. -#}
{% macro periods_of_days(days, minimum=0) -%}
    greatest(cast(ceil({{ days }} / {{ trendcast.settings().days_per_period }}) as integer), {{ minimum }})
{%- endmacro %}

{#- Central intervals under the names of Nixtla's libraries, by their level in percent. -#}
{% macro nixtla_intervals() -%}
    {%- for level, lower, upper in [(50, 'q25', 'q75'), (80, 'q10', 'q90'), (90, 'q05', 'q95'), (95, 'q025', 'q975')] %}
    {{ lower }} as {{ adapter.quote('trendcast-lo-' ~ level) }},
    {{ upper }} as {{ adapter.quote('trendcast-hi-' ~ level) }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}
