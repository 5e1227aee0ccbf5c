-- One row per run of trendcast. A run's rows count only once its row here says 'committed'; that row is
-- written last, in the same transaction.
{{ trendcast.ledger_table() }}
