-- One row per series: its own-price elasticity with its uncertainty, and what that rests on.
{%- set z = trendcast.normal_quantiles()['q95'] %}
{%- set list_prices = trendcast.has_list_prices() %}
with prices as (

    select *
    from {{ ref('int_response') }}
    where effect = 'price'

),

own as (

    select *
    from {{ ref('int_response_estimates') }}
    where scope = 'series' and effect = 'price'

),

ages as (

    select
        series_id,
        {{ trendcast.last_cutoff() }} - first_t + 1 as age
    from {{ ref('int_series') }}

),

joined as (

    select
        members.series_id,
        members.category,
        members.response_group,
        coalesce(prices.estimate, {{ trendcast.number_between('price_elasticity', -20, 0) }}) as elasticity,
        coalesce(prices.std_error, {{ trendcast.number_between('price_elasticity_std', 0, 20) }})
            as elasticity_std_error,
        prices.own_estimate as own_elasticity,
        prices.own_std_error,
        prices.group_estimate as group_elasticity,
        prices.group_std_error,
        prices.between_std as group_spread,
        coalesce(prices.n_series, 0) as n_group_series,
        coalesce(sums.n_rows, 0) as n_periods,
        least(
            coalesce(sums.n_rows, 0) * 1.0e0
            / least(ages.age, {{ var('response_periods')
                or {'day': 728, 'week': 156, 'month': 60}[trendcast.settings().grain] }}),
            1
        ) as sale_share,
        coalesce(own.regressor_std, 0) as price_std,
        sums.lowest_price,
        sums.highest_price,
        coalesce(own.regressor_std >= 0.01, false) as is_price_moved,
        case
            when prices.own_estimate is not null then 'series'
            when prices.estimate is not null then 'group'
            else 'default'
        end as elasticity_source
    from {{ ref('int_response_groups') }} as members
    inner join ages
        on members.series_id = ages.series_id
    left join prices
        on members.series_id = prices.series_id
    left join {{ ref('int_response_sums') }} as sums
        on members.series_id = sums.series_id
    left join own
        on members.series_id = own.scope_id

),

final as (

    select
        series_id,
        category,
        response_group,
        cast(elasticity as {{ trendcast.type_double() }}) as elasticity,
        cast(elasticity_std_error as {{ trendcast.type_double() }}) as elasticity_std_error,
        cast(elasticity - {{ z }} * elasticity_std_error as {{ trendcast.type_double() }}) as elasticity_lower,
        cast(elasticity + {{ z }} * elasticity_std_error as {{ trendcast.type_double() }}) as elasticity_upper,
        own_elasticity,
        own_std_error,
        group_elasticity,
        group_std_error,
        group_spread,
        n_group_series,
        n_periods,
        cast(sale_share as {{ trendcast.type_double() }}) as sale_share,
        price_std,
        lowest_price,
        highest_price,
        is_price_moved,
        '{{ "list" if list_prices else "paid" }}' as price_basis,
        elasticity_source
    from joined

)

select *
from final
