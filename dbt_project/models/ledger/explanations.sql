-- One row per run, model, series, lead and component; contributions add up to the forecast's mean.
{{ trendcast.ledger_table() }}
