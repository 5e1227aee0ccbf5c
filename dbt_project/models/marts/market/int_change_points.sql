-- One row per series: where its level changed most in the last four horizons, and how surely it did at all. Sums up to
-- each period are held against their share of the whole (Page 1955; Csorgo & Horvath 1997); without a change the
-- largest difference, in standard deviations, is that of a Brownian bridge.
{%- set settings = trendcast.settings() %}
{%- set periods = 4 * settings.horizon %}
with recent as (

    select
        history.series_id,
        history.t,
        history.ds,
        history.y,
        -- Against the same position in the season: neither the season nor the change itself counts as noise.
        history.y - {{ trendcast.lag_of('history.y', settings.season_length) }} as season_step,
        row_number() over (partition by history.series_id order by history.t) as k,
        count(*) over (partition by history.series_id) as n
    from {{ ref('ftr_history') }} as history
    where history.t > {{ trendcast.last_cutoff() }} - {{ periods }}

),

summed as (

    select
        series_id,
        ds,
        k,
        n,
        sum(y) over (partition by series_id order by t rows between unbounded preceding and current row) as sum_to_k,
        sum(y) over (partition by series_id) as total,
        avg(season_step * season_step / 2) over (partition by series_id) as variance
    from recent

),

bridged as (

    select
        series_id,
        ds,
        k,
        n,
        sum_to_k / k as level_before,
        (total - sum_to_k) / nullif(n - k, 0) as level_after,
        abs(sum_to_k - k * total / n) / sqrt(nullif(variance, 0) * n) as distance
    from summed
    where n >= {{ 4 * settings.season_length }}

),

ranked as (

    select
        bridged.*,
        lead(ds) over (partition by series_id order by k) as change_date,
        row_number() over (partition by series_id order by distance desc, k asc) as distance_rank
    from bridged
    where distance is not null

),

final as (

    select
        series_id,
        change_date,
        level_before,
        level_after,
        -- The first term of Kolmogorov's series, an upper bound.
        greatest(1 - 2 * exp(-2 * distance * distance), 0) as change_probability
    from ranked
    where distance_rank = 1 and change_date is not null

)

select *
from final
