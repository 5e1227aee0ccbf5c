-- One row per run, model, series and lead: what was forecast, kept for good.
{{ trendcast.ledger_table() }}
