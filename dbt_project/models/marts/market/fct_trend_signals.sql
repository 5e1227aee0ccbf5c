-- One row per series: whether its next horizon rises or falls against its last one, how surely, what is about to
-- be hot, and where the price goes.
{%- set prices = trendcast.forecasts_prices() %}
{%- set measures = trendcast.measures() %}
{#- How the series' own directions are called, of whichever measure it is. #}
{%- set own = {'rising': [], 'falling': []} %}
{%- for measure in measures %}
{%- for direction, names in own.items() %}
{%- do names.append("'" ~ trendcast.direction_prefix(measure) ~ direction ~ "'") %}
{%- endfor %}
{%- endfor %}
{%- set prefix = {} %}
{%- for measure in measures %}
{%- do prefix.update({measure: "'" ~ trendcast.direction_prefix(measure) ~ "'"}) %}
{%- endfor %}
{#- What a signal rests on: of demand itself, of a price the units that were sold at it. #}
{%- set support = trendcast.by_measure(
    {'quantity': 'last_level', 'revenue': 'last_level', 'average_price': 'coalesce(units, 0)'}) %}
{%- set last_units = trendcast.by_measure({'quantity': '1', 'revenue': '1', 'average_price': 'units'}) %}
{%- set sure = trendcast.number_between('trend_probability', 0, 1) %}
with chances as (

    select
        series_id,
        {% for direction, names in own.items() %}
        max(case when direction in ({{ names | join(', ') }}) then chance end) as p_{{ direction }},
        max(case when direction in ({{ names | join(', ') }}) then model end) as {{ direction }}_model,
        {% if not prices %}
        max(case when direction = 'price_{{ direction }}' then chance end) as p_price_{{ direction }},
        {% endif %}
        {% endfor %}
        count(*) as n_directions
    from {{ ref('int_trend_chances') }}
    where fold = 0
    group by 1

),

{% if prices -%}
sold as (

    select
        series_id as sales_id,
        sum(quantity) as units
    from {{ ref('int_sales_filled') }}
    where not is_filled and t > {{ trendcast.last_cutoff() }} - {{ trendcast.settings().horizon }}
    group by 1

),

{% endif -%}
levels as (

    select
        levels.fold,
        levels.series_id,
        levels.measure,
        {{ 'measured.sales_id' if trendcast.has_measures() else 'levels.series_id' }} as sales_id,
        {{ 'sold.units,' if prices }}
        levels.cutoff,
        levels.earlier_level,
        levels.previous_level,
        levels.last_level,
        levels.expected_level,
        levels.expected_level_std,
        levels.sale_periods,
        levels.is_measured,
        {{ trendcast.category_of('series') }} as category,
        chances.p_rising,
        chances.p_falling,
        greatest(1 - chances.p_rising - chances.p_falling, 0) as p_stable,
        chances.rising_model,
        {{ 'chances.p_price_rising,
        chances.p_price_falling,' if not prices }}
        chances.falling_model
    from {{ ref('int_levels') }} as levels
    inner join {{ ref('dim_series') }} as series
        on levels.series_id = series.series_id
    inner join chances
        on levels.series_id = chances.series_id
    {{ trendcast.join_measure('levels.series_id') }}
    {% if prices %}
    left join sold
        on {{ 'measured.sales_id' if trendcast.has_measures() else 'levels.series_id' }} = sold.sales_id
    {% endif %}
    where levels.fold = 0

),

described as (

    select
        levels.*,
        {{ trendcast.level_ratio('last_level', 'previous_level') }} as momentum,
        {{ trendcast.level_ratio('last_level', 'previous_level') }}
        - {{ trendcast.level_ratio('previous_level', 'earlier_level') }} as acceleration,
        -- Prices have no sum to be a share of.
        {% for level in ('last', 'expected') %}
        {% set share = level ~ '_level / nullif(sum(' ~ level ~ '_level) over (partition by measure, category), 0)' %}
        {{ trendcast.by_measure({
            'quantity': share, 'revenue': share, 'average_price': 'cast(null as ' ~ trendcast.type_double() ~ ')'
        }) }} as {{ level }}_share,
        {% endfor %}
        case
            when p_rising >= p_falling and p_rising >= p_stable then 'rising'
            when p_falling >= p_stable then 'falling'
            else 'stable'
        end as direction,
        greatest(p_rising, p_falling, p_stable) as probability
    from levels

),

-- What came of such probabilities on the backtest, as if 20 more forecasts of them had been right.
backed as (

    select
        described.*,
        (coalesce(calibration.n_forecasts * calibration.share_came_true, 0) + 20 * described.probability)
        / (coalesce(calibration.n_forecasts, 0) + 20) as confidence
    from described
    left join {{ ref('fct_trend_calibration') }} as calibration
        on
            {{ trendcast.by_measure(prefix, 'described.measure') }} || described.direction = calibration.direction
            and cast(least(floor(described.probability * 10), 9) as integer) = calibration.tenth

),

judged as (

    select
        backed.*,
        {{ support }} as support,
        confidence >= {{ sure }} as is_sure,
        direction = 'rising'
        and confidence >= {{ sure }}
        and {{ support }} >= {{ trendcast.number_between('trend_support', 0, 1000000000) }} as is_hot
    from backed

),

ranked as (

    select
        judged.*,
        case when is_hot then cast(row_number() over (
            partition by measure, is_hot
            order by confidence * (expected_level - last_level) * {{ last_units }} desc, series_id
        ) as integer) end as hot_rank
    from judged

),

-- Where the price goes: by its own forecast where that is a measure, else by what prices did before.
prices as (

    {% if prices %}
    select
        sales_id,
        last_level as last_price,
        previous_level as previous_price,
        expected_level as expected_price,
        expected_level / nullif(last_level, 0) - 1 as expected_price_change,
        direction as price_direction,
        p_rising as p_price_rising,
        p_falling as p_price_falling
    from ranked
    where measure = 'average_price'
    {% else %}
    select
        ranked.sales_id,
        levels.last_price,
        levels.previous_price,
        levels.last_price * exp(levels.expected_change) as expected_price,
        exp(levels.expected_change) - 1 as expected_price_change,
        case
            when
                1 - ranked.p_price_rising - ranked.p_price_falling
                > greatest(ranked.p_price_rising, ranked.p_price_falling)
                then 'stable'
            when ranked.p_price_rising >= ranked.p_price_falling then 'rising'
            else 'falling'
        end as price_direction,
        ranked.p_price_rising,
        ranked.p_price_falling
    from ranked
    inner join {{ ref('int_price_levels') }} as levels
        on ranked.series_id = levels.series_id and levels.fold = 0
    {% endif %}

),

final as (

    select
        ranked.series_id,
        ranked.cutoff,
        ranked.category,
        ranked.direction,
        ranked.probability,
        ranked.confidence,
        ranked.is_sure,
        ranked.p_rising,
        ranked.p_falling,
        ranked.rising_model,
        ranked.falling_model,
        ranked.last_level,
        ranked.expected_level,
        ranked.expected_level_std,
        ranked.expected_level / nullif(ranked.last_level, 0) - 1 as expected_growth,
        ranked.momentum,
        ranked.acceleration,
        case when changes.change_probability >= 0.99 then changes.change_date end as change_date,
        changes.change_probability,
        changes.level_before as level_before_change,
        changes.level_after as level_after_change,
        ranked.last_share,
        ranked.expected_share,
        ranked.is_hot,
        ranked.hot_rank,
        ranked.support,
        ranked.sale_periods,
        ranked.is_measured as is_spread_measured,
        prices.last_price,
        prices.previous_price,
        prices.last_price / nullif(prices.previous_price, 0) - 1 as price_change,
        prices.expected_price,
        prices.expected_price_change,
        coalesce(prices.price_direction, 'unknown') as price_direction,
        prices.p_price_rising,
        prices.p_price_falling,
        ranked.measure
    from ranked
    left join prices
        on ranked.sales_id = prices.sales_id
    left join {{ ref('int_change_points') }} as changes
        on ranked.series_id = changes.series_id

)

select *
from final
