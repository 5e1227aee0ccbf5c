-- One row per measure and feature that models read at the cutoff, and one for the forecast: how far its distribution
-- over the series has moved since the backtest's cutoffs (population stability index).
{%- set limit = trendcast.number_between('psi_limit', 0, 100) %}
{%- set features = trendcast.scaled_features() %}
with states as (

    select
        {% for expression in features.values() %}
        {{ expression }},
        {% endfor %}
        cutoffs.fold,
        history.series_id,
        {{ trendcast.measure_of('measured') }} as measure
    from {{ ref('int_cutoffs') }} as cutoffs
    inner join {{ ref('ftr_history') }} as history
        on cutoffs.cutoff_t = history.t
    {{ trendcast.join_measure('history.series_id') }}

),

measures as (

    {% for name in features %}
    select
        measure,
        fold,
        'data' as kind,
        '{{ name }}' as feature,
        {{ name }} as value
    from states
    union all
    {% endfor %}
    -- The forecast of the horizon over its variance: relative levels and not sizes of series.
    select
        measure,
        fold,
        'forecast' as kind,
        'horizon' as feature,
        cumulated_mean / nullif(sqrt(cumulated_variance), 0) as value
    from {{ ref('int_cumulated_forecasts') }}
    where lead = {{ trendcast.settings().horizon }}

),

-- Values that are equal but for their last bits must not fall on both sides of an edge.
values_by_fold as (

    select
        measure,
        fold,
        kind,
        feature,
        {{ trendcast.rounded('value', 9) }} as value
    from measures

),

edges as (

    select
        measure,
        kind,
        feature,
        {{ trendcast.quantiles('value', [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) }} as deciles
    from values_by_fold
    where fold > 0
    group by 1, 2, 3

),

binned as (

    select
        values_by_fold.measure,
        values_by_fold.kind,
        values_by_fold.feature,
        -- What has no value is a bin of its own: a column that went empty has drifted.
        case
            when values_by_fold.value is null then -1
            {% for decile in range(9) %}
            when not coalesce(values_by_fold.value > {{ trendcast.element('edges.deciles', decile) }}, false)
                then {{ decile }}
            {% endfor %}
            else 9
        end as bin,
        sum(case when values_by_fold.fold = 0 then 1 else 0 end) as n_now,
        sum(case when values_by_fold.fold > 0 then 1 else 0 end) as n_before
    from values_by_fold
    inner join edges
        on
            values_by_fold.kind = edges.kind
            {{ trendcast.and_same_measure('values_by_fold', 'edges') }}
            and values_by_fold.feature = edges.feature
    group by 1, 2, 3, 4

),

shares as (

    -- Half a series in an empty bin, because the logarithm of nothing is no number.
    select
        measure,
        kind,
        feature,
        n_now,
        n_before,
        greatest(n_now, 0.5e0) / sum(n_now) over (partition by measure, kind, feature) as share_now,
        greatest(n_before, 0.5e0) / sum(n_before) over (partition by measure, kind, feature) as share_before
    from binned

),

measured as (

    select
        measure,
        kind,
        feature,
        cast(sum(n_now) as bigint) as n_now,
        cast(sum(n_before) as bigint) as n_before,
        -- Rounded, for the last bits of a sum depend on the order of its rows.
        {{ trendcast.rounded('sum((share_now - share_before) * ln(share_now / share_before))', 9) }} as psi,
        -- Of samples this small the index is this large by chance (Yurdakul 2018: nearly chi-squared with 9 degrees of
        -- freedom over the sample sizes; its 99% quantile is 21.67).
        {{ trendcast.rounded('21.67e0 * (1.0e0 / sum(n_now) + 1.0e0 / sum(n_before))', 9) }} as psi_by_chance
    from shares
    group by 1, 2, 3
    having sum(n_now) > 0 and sum(n_before) > 0

),

final as (

    select
        kind,
        feature,
        n_now,
        n_before,
        psi,
        psi_by_chance,
        psi > {{ limit }} and psi > psi_by_chance as is_drifted,
        measure
    from measured

)

select *
from final
