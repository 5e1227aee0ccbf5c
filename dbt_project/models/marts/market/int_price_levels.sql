-- One row per fold and series: the average price paid in the last horizon and in those before it, what to expect
-- of the next one, and for the backtest what it was. What prices did last they take back in part or go on with:
-- one share for all series, by least squares; how much a series' price moves is its own, drawn to that of all as
-- if three horizons more had been seen. Where average prices are forecast there is no need of it.
{%- set horizon = trendcast.settings().horizon %}
{%- set depth = 5 %}
{%- if trendcast.forecasts_prices() %}
-- depends_on: {{ ref('int_cutoffs') }}, {{ ref('int_sales_filled') }}
{{ trendcast.no_rows({
    'fold': 'integer', 'series_id': dbt.type_string(), 'cutoff': 'date', 'earlier_price': trendcast.type_double(),
    'previous_price': trendcast.type_double(), 'last_price': trendcast.type_double(), 'actual_price': trendcast.type_double(),
    'persistence': trendcast.type_double(), 'expected_change': trendcast.type_double(), 'change_std': trendcast.type_double(),
}) }}
{%- else %}
with cutoffs as (

    select
        fold,
        cutoff,
        cutoff_t,
        max(cutoff_t) over () as last_t
    from {{ ref('int_cutoffs') }}

),

horizons as (

    select
        cutoffs.fold,
        sales.series_id,
        cast(floor((cutoffs.cutoff_t - sales.t) / {{ horizon }}.0e0) as integer) as back,
        cast(sum(cast(sales.revenue as {{ trendcast.type_exact() }})) as {{ trendcast.type_double() }})
        / nullif(cast(sum(cast(sales.quantity as {{ trendcast.type_exact() }})) as {{ trendcast.type_double() }}), 0)
            as price
    from cutoffs
    inner join {{ ref('int_sales_filled') }} as sales
        on
            cutoffs.cutoff_t - {{ depth * horizon }} < sales.t
            and cutoffs.cutoff_t + {{ horizon }} >= sales.t
    where
        not sales.is_filled
        and sales.quantity > 0
        and sales.revenue > 0
        -- A horizon that is not over has no price yet.
        and (sales.t <= cutoffs.cutoff_t or cutoffs.cutoff_t + {{ horizon }} <= cutoffs.last_t)
    group by 1, 2, 3

),

prices as (

    select
        fold,
        series_id,
        {% for back in range(depth) %}
        max(case when back = {{ back }} then price end) as price_{{ back }},
        {% endfor %}
        max(case when back = -1 then price end) as actual_price
    from horizons
    group by 1, 2

),

changes as (

    select
        {% for back in range(depth - 1) %}
        ln(price_{{ back }} / price_{{ back + 1 }}) as change_{{ back }},
        {% endfor %}
        prices.*
    from prices

),

pairs as (

    {% for back in range(depth - 2) %}
    select
        fold,
        series_id,
        change_{{ back }} as change,
        change_{{ back + 1 }} as change_before
    from changes
    where change_{{ back }} is not null and change_{{ back + 1 }} is not null
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

persistence as (

    select
        fold,
        count(*) as n_changes,
        greatest(least(coalesce(
            cast(sum(cast(change * change_before as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }})
            / nullif(cast(
                sum(cast(change_before * change_before as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }}
            ), 0), 0
        ), 1), -1) as persistence
    from pairs
    group by 1

),

errors as (

    select
        pairs.fold,
        pairs.series_id,
        count(*) as n_changes,
        cast(sum(cast(
            power(pairs.change - persistence.persistence * pairs.change_before, 2) as {{ trendcast.type_fine() }}
        )) as {{ trendcast.type_double() }}) as squares
    from pairs
    inner join persistence
        on pairs.fold = persistence.fold
    group by 1, 2

),

spread as (

    select
        fold,
        cast(sum(cast(squares as {{ trendcast.type_fine() }})) as {{ trendcast.type_double() }}) / sum(n_changes)
            as variance
    from errors
    group by 1

),

final as (

    select
        changes.fold,
        changes.series_id,
        cutoffs.cutoff,
        changes.price_2 as earlier_price,
        changes.price_1 as previous_price,
        changes.price_0 as last_price,
        changes.actual_price,
        persistence.persistence,
        coalesce(persistence.persistence * nullif(changes.change_0, 0), 0) as expected_change,
        -- No price is so steady that a change of it is out of the question.
        greatest(sqrt(
            (3 * spread.variance + coalesce(errors.squares, 0)) / (3 + coalesce(errors.n_changes, 0))
        ), 0.001) as change_std
    from changes
    inner join cutoffs
        on changes.fold = cutoffs.fold
    inner join persistence
        on changes.fold = persistence.fold
    inner join spread
        on changes.fold = spread.fold
    left join errors
        on changes.fold = errors.fold and changes.series_id = errors.series_id
    where changes.price_0 is not null

)

select *
from final
{%- endif %}
