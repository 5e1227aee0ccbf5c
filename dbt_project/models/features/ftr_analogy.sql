-- One row per cutoff (the last one and the backtest's), series with little or no history, and lead: what its nearest
-- neighbours sold, weighed by how likely they make what the series has sold itself. Nothing later than the cutoff is
-- read. See docs/new-products.md.
{%- set settings = trendcast.settings() %}
{%- set season = settings.season_length %}
{%- set medium, long = settings.windows[1:] %}
{%- set exact, fine, double = trendcast.type_exact(), trendcast.type_fine(), trendcast.type_double() %}
{#- Neighbours' demand is read at the target's position in the season where the medium window has all of them. #}
{%- set aligned = season <= medium %}
{%- set positions = season if aligned else 1 %}
{%- set recent = 8 * season if aligned else medium %}
{#- Neighbours from which on no farther ones are asked; the most of a group that are looked at, and that are kept. #}
{%- set enough, most, kept = 10, 500, 100 %}
{#- The same product elsewhere counts as so many of its kind at the place; the log of the price ratio that halves what a
    neighbour counts; how far a series' level may be from the neighbour's that it is like. #}
{%- set elsewhere, price_scale, level_spread = 20.0, 0.5, 0.3 %}
{%- set days_left = trendcast.days_in('newcomers.launch_date', trendcast.period_end('calendar.ds')) %}
{%- set days = trendcast.days_in('calendar.ds', trendcast.period_end('calendar.ds')) %}
{%- set places = trendcast.place_key() %}
{%- set products = trendcast.product_key() %}
{#- What makes two series alike, the nearest first. Those up to `first` are always asked, others if neighbours lack. #}
{%- set first = 1 if places and products else 0 %}
{%- set likenesses = ([products] if first else []) + trendcast.likenesses() %}
with described as (

    select
        {{ trendcast.key_columns(trendcast.series_columns(), 'static') }}
        {{ trendcast.measure_of('static') }} as measure,
        static.series_id
    from {{ ref('ftr_static') }} as static
    {% if trendcast.has_source('launches') %}
    union all
    select
        {{ trendcast.key_columns(trendcast.series_columns(), 'launches') }}
        '{{ trendcast.measures()[0] }}' as measure,
        launches.series_id
    from {{ ref('int_launches') }} as launches
    left join {{ ref('int_series') }} as series
        on launches.series_id = series.series_id
    where series.series_id is null
    {% endif %}

),

state as (

    select
        cutoffs.fold,
        cutoffs.cutoff_t,
        cutoffs.cutoff,
        history.series_id,
        history.demand_class,
        history.error_scale,
        history.age + 1 as n_rows,
        history.mean_medium,
        history.std_medium
    from {{ ref('int_cutoffs') }} as cutoffs
    inner join {{ ref('ftr_history') }} as history
        on cutoffs.cutoff_t = history.t

),

newcomers as (

    select
        state.fold,
        state.cutoff_t,
        state.cutoff,
        state.series_id,
        state.demand_class,
        state.error_scale,
        launches.launch_t,
        launches.launch_date,
        filled.price,
        -- Counted from the launch where that is planned. Without a plan a series begins with a sale, and a first period
        -- that has to have one says nothing of how often there are any.
        case
            when launches.launch_t <= state.cutoff_t - state.n_rows + 1 then state.cutoff_t - launches.launch_t + 1
            else state.n_rows - 1
        end as evidence_periods,
        state.mean_medium * state.n_rows - case
            when launches.launch_t <= state.cutoff_t - state.n_rows + 1 then 0
            else first_row.y
        end as sold
    from state
    inner join {{ ref('ftr_history') }} as first_row
        on state.series_id = first_row.series_id and state.cutoff_t - state.n_rows + 1 = first_row.t
    inner join {{ ref('int_sales_filled') }} as filled
        on state.series_id = filled.series_id and state.cutoff_t = filled.t
    left join {{ ref('int_launches') }} as launches
        on
            state.series_id = launches.series_id
            and coalesce({{ trendcast.period_index('launches.planned_on') }} <= state.cutoff_t, true)
    where state.demand_class = 'new'
    {% if trendcast.has_source('launches') %}
    union all
    select
        cutoffs.fold,
        cutoffs.cutoff_t,
        cutoffs.cutoff,
        launches.series_id,
        'launch' as demand_class,
        cast(null as {{ double }}) as error_scale,
        launches.launch_t,
        launches.launch_date,
        launches.list_price as price,
        greatest(cutoffs.cutoff_t - launches.launch_t + 1, 0) as evidence_periods,
        0 as sold
    from {{ ref('int_launches') }} as launches
    cross join {{ ref('int_cutoffs') }} as cutoffs
    left join {{ ref('int_series') }} as series
        on launches.series_id = series.series_id and series.first_t <= cutoffs.cutoff_t
    where
        series.series_id is null
        and launches.launch_t <= cutoffs.cutoff_t + {{ settings.horizon }}
        -- What has not sold in a long window after its launch is not coming.
        and launches.launch_t > cutoffs.cutoff_t - {{ long }}
        and coalesce({{ trendcast.period_index('launches.planned_on') }} <= cutoffs.cutoff_t, true)
    {% endif %}

),

-- Series that sell and have a medium window of history behind them.
established as (

    select
        state.fold,
        state.cutoff_t,
        state.series_id,
        filled.price,
        {{ trendcast.key_columns(trendcast.series_columns(), 'described') }}
        described.measure,
        state.mean_medium,
        state.std_medium * state.std_medium as variance,
        -- A sample of a large group; by the id and not by a number, which would depend on the series that come later.
        {{ dbt.hash('state.series_id') }} as draw
    from state
    inner join described
        on state.series_id = described.series_id
    inner join {{ ref('int_sales_filled') }} as filled
        on state.series_id = filled.series_id and state.cutoff_t = filled.t
    where
        state.demand_class not in ('new', 'dormant')
        and state.fold in (select newcomers.fold from newcomers)

),

likenesses as (

    {% for _ in likenesses %}
    select {{ loop.index0 }} as likeness
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

-- Each series that sells once a likeness, with its place in a sample of those alike.
members as (

    select
        keyed.*,
        row_number() over (
            partition by fold, measure, likeness, likeness_key
            order by draw, series_id
        ) as member
    from (
        select
            established.fold,
            established.measure,
            established.series_id,
            established.draw,
            likenesses.likeness,
            {{ trendcast.likeness_key(likenesses) }} as likeness_key
        from established
        cross join likenesses
    ) as keyed
    where keyed.likeness_key is not null

),

alike as (

    select
        fold,
        measure,
        likeness,
        likeness_key,
        count(*) as n_members
    from members
    where member <= {{ most }}
    group by 1, 2, 3, 4

),

strangers as (

    select
        newcomers.fold,
        newcomers.series_id,
        described.measure,
        likenesses.likeness,
        {{ trendcast.likeness_key(likenesses) }} as likeness_key
    from newcomers
    inner join described
        on newcomers.series_id = described.series_id
    cross join likenesses

),

-- How many neighbours a series has of each likeness, and how many it lacks when the nearer ones have been asked.
asked as (

    select
        strangers.*,
        alike.n_members,
        {{ enough }} - coalesce(sum(alike.n_members) over (
            partition by strangers.fold, strangers.series_id
            order by strangers.likeness rows between unbounded preceding and 1 preceding
        ), 0) as missing
    from strangers
    left join alike
        on
            strangers.fold = alike.fold
            and strangers.measure = alike.measure
            and strangers.likeness = alike.likeness
            and strangers.likeness_key = alike.likeness_key

),

-- A series that is alike in two ways is one neighbour.
pairs as (

    select
        asked.fold,
        asked.series_id,
        members.series_id as neighbour_id,
        max(case
            when asked.likeness < {{ first }} then {{ elsewhere }}e0
            when asked.likeness = {{ first }} then 1.0e0
            -- Together they count for as many as the nearer ones lack.
            else least(1, asked.missing * 1.0e0 / asked.n_members)
        end) as prior
    from asked
    inner join members
        on
            asked.fold = members.fold
            and asked.measure = members.measure
            and asked.likeness = members.likeness
            and asked.likeness_key = members.likeness_key
    where
        members.member <= {{ most }}
        and (asked.likeness <= {{ first }} or asked.missing > 0)
    group by 1, 2, 3

),

compared as (

    select
        pairs.fold,
        pairs.series_id,
        pairs.neighbour_id,
        pairs.prior,
        newcomers.cutoff_t,
        newcomers.launch_t,
        newcomers.evidence_periods,
        newcomers.sold,
        case
            when nullif(newcomers.price, 0) is null then 0
            else coalesce(ln(nullif(neighbours.price, 0) / newcomers.price) / {{ price_scale }}, 2)
        end as price_distance,
        neighbours.mean_medium,
        -- Exact sums, so that their order does not matter.
        cast(sum(cast(neighbours.mean_medium as {{ exact }})) over pool as {{ double }}) as pool_total,
        cast(sum(cast(neighbours.variance as {{ exact }})) over pool as {{ double }}) as pool_variance,
        count(*) over pool as pool_size
    from pairs
    inner join newcomers
        on pairs.fold = newcomers.fold and pairs.series_id = newcomers.series_id
    inner join established as neighbours
        on pairs.fold = neighbours.fold and pairs.neighbour_id = neighbours.series_id
    window pool as (partition by pairs.fold, pairs.series_id)

),

-- A neighbour's level over its medium window, with a period of all neighbours' mean added so that none is zero; and
-- variance over mean, by which amounts of any unit and clustering become a count of independent events.
levelled as (

    select
        compared.*,
        ({{ medium }} * mean_medium + pool_total / pool_size) / {{ medium + 1 }} as level,
        greatest(pool_variance / pool_total, 0.000001) as dispersion
    from compared
    where pool_total > 0

),

events as (

    select
        levelled.*,
        sold / dispersion as events,
        case when evidence_periods > 0 then evidence_periods * level / dispersion end as expected_events
    from levelled

),

-- The likelihood of what the series sold if its level were the neighbour's, give or take `level_spread`: negative
-- binomial, up to what all neighbours have in common.
likely as (

    select
        events.*,
        ln(prior) - ln(1 + price_distance * price_distance) + coalesce(
            events * ln(expected_events)
            - (events + {{ 1 / level_spread ** 2 }}e0) * ln(expected_events + {{ 1 / level_spread ** 2 }}e0),
            0
        ) as log_weight
    from events

),

ranked as (

    select
        likely.*,
        exp(log_weight - max(log_weight) over (partition by fold, series_id)) as weight,
        row_number() over (partition by fold, series_id order by -log_weight, neighbour_id) as nearness
    from likely

),

neighbours as (

    select
        fold,
        series_id,
        neighbour_id,
        cutoff_t,
        weight
    from ranked
    where nearness <= {{ kept }} and weight > 0.01

),

sampled as (

    select
        neighbours.fold,
        neighbours.series_id,
        {% if aligned -%}
        mod(history.t - neighbours.cutoff_t - 1 + {{ recent }}, {{ season }}) as position,
        {%- else -%}
        0 as position,
        {%- endif %}
        history.y,
        sum(cast(neighbours.weight as {{ fine }})) as weight
    from neighbours
    inner join {{ ref('ftr_history') }} as history
        on
            neighbours.neighbour_id = history.series_id
            and neighbours.cutoff_t >= history.t
            and neighbours.cutoff_t - {{ recent }} < history.t
    group by 1, 2, 3, 4

),

cumulated as (

    select
        fold,
        series_id,
        position,
        y,
        cast(weight as {{ double }}) as weight,
        cast(sum(weight) over (
            partition by fold, series_id, position order by y rows between unbounded preceding and current row
        ) as {{ double }}) as weight_up_to,
        cast(sum(weight) over (partition by fold, series_id, position) as {{ double }}) as total_weight
    from sampled

),

distributions as (

    select
        fold,
        series_id,
        position,
        {% for name, level in trendcast.quantile_levels().items() %}
        min(case when weight_up_to >= {{ level }} * total_weight then y end) as {{ name }},
        {% endfor %}
        cast(sum(cast(weight / total_weight * y as {{ fine }})) as {{ double }}) as mean
    from cumulated
    group by 1, 2, 3

),

counted as (

    select
        fold,
        series_id,
        count(*) as n_neighbours
    from neighbours
    group by 1, 2

),

leads as (

    {% for lead in range(1, settings.horizon + 1) %}
    select
        {{ lead }} as lead,
        {{ season * ((lead + season - 1) // season) }} as season_back
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

{% if not aligned -%}
-- What the target's period was to the medium window in the neighbours' last season, where they have one.
seasons as (

    select
        neighbours.fold,
        neighbours.series_id,
        leads.lead,
        cast(sum(cast(neighbours.weight * target.y as {{ fine }})) as {{ double }})
        / nullif(cast(sum(cast(neighbours.weight * level.mean_medium as {{ fine }})) as {{ double }}), 0) as factor
    from neighbours
    cross join leads
    inner join {{ ref('ftr_history') }} as target
        on
            neighbours.neighbour_id = target.series_id
            and neighbours.cutoff_t + leads.lead - leads.season_back = target.t
    inner join {{ ref('ftr_history') }} as level
        on
            neighbours.neighbour_id = level.series_id
            and neighbours.cutoff_t - leads.season_back = level.t
            and level.demand_class <> 'new'
    group by 1, 2, 3

),

{% endif -%}
targets as (

    select
        newcomers.*,
        counted.n_neighbours,
        leads.lead,
        newcomers.cutoff_t + leads.lead as target_t,
        calendar.ds as target_date,
        mod(leads.lead - 1, {{ positions }}) as position,
        -- Nothing before the launch, and of its own period the days that are left.
        case
            when newcomers.launch_t > newcomers.cutoff_t + leads.lead then 0.0e0
            when newcomers.launch_t = newcomers.cutoff_t + leads.lead
                then 1.0e0 * {{ days_left }} / {{ days }}
            else 1.0e0
        end {{ '* least(greatest(coalesce(seasons.factor, 1), 0.25), 4)' if not aligned }} as share
    from newcomers
    inner join counted
        on newcomers.fold = counted.fold and newcomers.series_id = counted.series_id
    cross join leads
    inner join {{ ref('ftr_calendar') }} as calendar
        on newcomers.cutoff_t + leads.lead = calendar.t
    {% if not aligned %}
    left join seasons
        on
            newcomers.fold = seasons.fold
            and newcomers.series_id = seasons.series_id
            and leads.lead = seasons.lead
    {% endif %}

),

final as (

    select
        targets.series_id,
        targets.fold,
        targets.cutoff_t,
        targets.cutoff,
        targets.lead,
        targets.target_t,
        targets.target_date,
        targets.demand_class,
        targets.error_scale,
        cast(targets.evidence_periods as integer) as evidence_periods,
        cast(targets.n_neighbours as integer) as n_neighbours,
        {% for name in trendcast.quantile_levels() %}
        cast(targets.share * distributions.{{ name }} as {{ double }}) as {{ name }},
        {% endfor %}
        cast(targets.share * distributions.mean as {{ double }}) as mean
    from targets
    inner join distributions
        on
            targets.fold = distributions.fold
            and targets.series_id = distributions.series_id
            and targets.position = distributions.position

)

select *
from final
