-- One row per series, target period and component of the forecast in force; contributions add up to its mean.
-- A view, for the rows are the ledger's.
{{ config(materialized='view') }}
select
    forecasts.series_id,
    forecasts.target_date,
    explanations.component,
    explanations.contribution,
    forecasts.lead,
    forecasts.cutoff,
    forecasts.model,
    forecasts.run_id
from {{ ref('fct_forecasts') }} as forecasts
inner join {{ ref('explanations') }} as explanations
    on
        forecasts.run_id = explanations.run_id
        and forecasts.model = explanations.model
        and forecasts.series_id = explanations.series_id
        and forecasts.lead = explanations.lead
