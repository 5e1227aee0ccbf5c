-- One row per series and period up to the cutoff: what Nixtla's libraries are given.
select
    series_id as unique_id,
    ds,
    y
from {{ ref('ftr_history') }}
