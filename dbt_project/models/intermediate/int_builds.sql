-- One row per change of the settings, the SQL or the catalogue: what was built before the last one cannot be kept.
{{ config(materialized='incremental', incremental_strategy='append') }}
with now as (

    select
        {{ trendcast.built_at() }} as changed_at,
        '{{ trendcast.settings_digest() }}' || ' ' || coalesce(catalogue.digest, '') as settings_digest
    from ({{ trendcast.rows_digest(ref('stg_products')) }}) as catalogue

)

select
    now.changed_at,
    now.settings_digest
from now
{% if is_incremental() %}
where now.settings_digest <> (
    select before.settings_digest
    from {{ this }} as before
    order by before.changed_at desc
    limit 1
)
{% endif %}
