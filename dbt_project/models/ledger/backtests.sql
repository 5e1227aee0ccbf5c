-- One row per run, model, fold, series and lead: what would have been forecast, beside what happened.
{{ trendcast.ledger_table() }}
