{#- The settings as Python reads them: rendered vars, checked, carried by ftr_design in
    config.meta.trendcast so that dbt and the CLI can never disagree. -#}
{% macro settings() %}
    {%- set grain = trendcast.one_of('grain', ['day', 'week', 'month']) -%}
    {%- set season_length = var('season_length') or {'day': 7, 'week': 52, 'month': 12}[grain] -%}
    {%- set windows = var('windows')
        or {'day': [7, 28, 91], 'week': [4, 13, 52], 'month': [3, 6, 12]}[grain] -%}
    {%- set horizon = trendcast.positive_integer('horizon', var('horizon')) -%}
    {%- set step = var('backtest_step') or horizon -%}
    {%- set train_periods = var('train_periods') or {'day': 364, 'week': 182, 'month': 182}[grain] -%}
    {%- set measures = trendcast.measures() -%}
    {%- if var('series_key') is string or not var('series_key') -%}
        {{ exceptions.raise_compiler_error(
            "var 'series_key' must be a list of at least one column, came: " ~ var('series_key')) }}
    {%- endif -%}
    {%- if windows is string or windows | length != 3 -%}
        {{ exceptions.raise_compiler_error(
            "var 'windows' must be a list [short, medium, long], came: " ~ windows) }}
    {%- endif -%}
    {{ return({
        'panel': grain ~ ' ' ~ measures | join('+') ~ ' ' ~ var('series_key') | join('+'),
        'grain': grain,
        'days_per_period': {'day': 1.0, 'week': 7.0, 'month': 30.4375}[grain],
        'season_length': trendcast.positive_integer('season_length', season_length),
        'windows': windows,
        'features': trendcast.feature_groups(),
        'horizon': horizon,
        'max_quantity': var('max_quantity'),
        'lead_bucket': 7 if grain == 'day' else (4 if grain == 'week' else 3),
        'series_key': var('series_key'),
        'measure': measures[0],
        'measures': measures,
        'backtest_folds': trendcast.positive_integer('backtest_folds', var('backtest_folds')),
        'backtest_step': trendcast.positive_integer('backtest_step', step),
        'models': var('models'),
        'champion_metric': trendcast.one_of('champion_metric', ['wql', 'wape']),
        'champion_margin': trendcast.number_between('champion_margin', 0, 1),
        'seed': var('seed'),
        'train_periods': trendcast.positive_integer('train_periods', train_periods),
        'train_stride': trendcast.positive_integer('train_stride', var('train_stride')),
        'train_rows': trendcast.positive_integer('train_rows', var('train_rows')),
        'order_columns': var('order_columns'),
        'order_timezone': var('order_timezone'),
        'order_date': trendcast.local_date(
            trendcast.utc_timestamp('order_columns', 'ordered_at'), var('order_timezone')),
        'robust_bound': var('robust_bound'),
        'classical': var('classical'),
        'lightgbm': var('lightgbm'),
        'lstm': var('lstm'),
    }) }}
{% endmacro %}

{#- Feature groups and whether each is built: the var `features` switches single ones. A column belongs to the group its
    YAML names (`meta: {group: ...}`); one without is always built. -#}
{% macro feature_groups() %}
    {%- set groups = {
        'lags': true, 'ewm': true, 'spread': true, 'price': true, 'promotions': true, 'calendar': true,
        'holidays': true, 'category': true, 'customers': true, 'reviews': true, 'stock': true, 'quantiles': false,
    } -%}
    {%- set chosen = var('features') or {} -%}
    {%- if chosen is not mapping -%}
        {{ exceptions.raise_compiler_error(
            "var 'features' must map feature groups to true or false, came: " ~ chosen) }}
    {%- endif -%}
    {%- for name, on in chosen.items() if name not in groups or on is not boolean -%}
        {{ exceptions.raise_compiler_error(
            "var 'features' maps feature groups (" ~ groups | join(', ') ~ ") to true or false; came: "
            ~ name ~ ": " ~ on) }}
    {%- endfor -%}
    {%- do groups.update(chosen) -%}
    {{ return(groups) }}
{% endmacro %}

{#- What a period without a sale holds, by column: the var `gap_fill` over its defaults. -#}
{% macro gap_fill() %}
    {%- set policies = {
        'quantity': 'zero', 'revenue': 'zero', 'discount': 'zero', 'customers': 'zero', 'new_customers': 'zero',
        'price': 'carry_forward',
    } -%}
    {%- set valid = ['zero', 'carry_forward', 'linear', 'spline', 'mean', 'median', 'seasonal', 'drop'] -%}
    {%- set chosen = var('gap_fill') or {} -%}
    {%- if chosen is not mapping -%}
        {{ exceptions.raise_compiler_error("var 'gap_fill' must map columns to policies, came: " ~ chosen) }}
    {%- endif -%}
    {%- for column, policy in chosen.items() if column not in policies or policy not in valid -%}
        {{ exceptions.raise_compiler_error(
            "var 'gap_fill' maps " ~ policies | join(', ') ~ " to one of " ~ valid | join(', ') ~ "; came: "
            ~ column ~ ": " ~ policy) }}
    {%- endfor -%}
    {%- do policies.update(chosen) -%}
    {%- if trendcast.forecasts_prices() and policies.price == 'zero' -%}
        {{ exceptions.raise_compiler_error(
            "var 'gap_fill' must be without price: zero where the var 'measure' has average_price, for no sale is no price of 0; "
            ~ "came: " ~ chosen ~ ". Left out, the last price is carried forward.") }}
    {%- endif -%}
    {{ return(policies) }}
{% endmacro %}

{#- Whether a feature group is built. -#}
{% macro uses(group) %}
    {{ return(trendcast.feature_groups()[group]) }}
{% endmacro %}

{#- The value of a var that must be one of `valid`. -#}
{% macro one_of(name, valid) %}
    {%- if var(name) not in valid -%}
        {{ exceptions.raise_compiler_error(
            "var '" ~ name ~ "' must be one of " ~ valid | join(', ') ~ "; came: " ~ var(name)) }}
    {%- endif -%}
    {{ return(var(name)) }}
{% endmacro %}

{% macro positive_integer(name, value) %}
    {%- if value is not integer or value < 1 -%}
        {{ exceptions.raise_compiler_error(
            "var '" ~ name ~ "' must be a whole number of at least 1; came: " ~ value) }}
    {%- endif -%}
    {{ return(value) }}
{% endmacro %}

{#- The value of a var that must be a number between two bounds, both included. -#}
{% macro number_between(name, low, high) %}
    {%- set value = var(name) -%}
    {%- if not trendcast.is_number(value) or value < low or value > high -%}
        {{ exceptions.raise_compiler_error(
            "var '" ~ name ~ "' must be a number from " ~ low ~ " to " ~ high ~ "; came: " ~ value) }}
    {%- endif -%}
    {{ return(value) }}
{% endmacro %}

{#- The quantile levels of every forecast table. Fixed, because contracts name their columns. -#}
{% macro quantile_levels() %}
    {{ return({
        'q025': 0.025, 'q05': 0.05, 'q10': 0.1, 'q25': 0.25, 'q50': 0.5,
        'q75': 0.75, 'q90': 0.9, 'q95': 0.95, 'q975': 0.975,
    }) }}
{% endmacro %}

{#- The standard normal's quantiles at those levels. -#}
{% macro normal_quantiles() %}
    {{ return({
        'q025': -1.959964, 'q05': -1.644854, 'q10': -1.281552, 'q25': -0.674490, 'q50': 0.0,
        'q75': 0.674490, 'q90': 1.281552, 'q95': 1.644854, 'q975': 1.959964,
    }) }}
{% endmacro %}
