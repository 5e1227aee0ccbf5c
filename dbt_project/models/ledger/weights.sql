-- One row per run, model, fold, demand class, lead bucket and member: the weights an ensemble combined its members
-- with.
{{ trendcast.ledger_table() }}
