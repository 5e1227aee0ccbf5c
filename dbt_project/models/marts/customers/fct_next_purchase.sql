-- One row per customer and rank: the ten items they most likely buy in the next days, by the latest run of
-- `trendcast customers`, or by how often they bought them where there is none.
with latest as (

    select *
    from {{ ref('next_purchases') }}
    where
        run_id = ({{ trendcast.latest_run('next_purchases') }})
        and model = 'blend'
        and fold = 0

),

served as (

    select distinct customer_id
    from latest

),

baseline as (

    select baselines.*
    from {{ ref('int_next_purchase_baselines') }} as baselines
    left join served
        on baselines.customer_id = served.customer_id
    where
        served.customer_id is null
        and baselines.fold = 0
        and baselines.method = 'repeat'
        and baselines.item_rank <= 10

)

select
    customer_id,
    item_rank,
    item,
    cutoff,
    score,
    model,
    run_id
from latest
union all
select
    baseline.customer_id,
    baseline.item_rank,
    baseline.item,
    cutoffs.cutoff,
    baseline.score,
    'repeat' as model,
    cast(null as {{ dbt.type_string() }}) as run_id
from baseline
inner join {{ ref('int_customer_cutoffs') }} as cutoffs
    on baseline.fold = cutoffs.fold
