-- One row per run, model, lead bucket and feature of a regression.
{{ trendcast.ledger_table() }}
