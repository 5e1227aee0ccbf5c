-- One row per run, fold, model, customer and rank: the items a customer was expected to buy next.
{{ trendcast.ledger_table() }}
