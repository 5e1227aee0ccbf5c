-- One row per trial of `trendcast tune`: the settings tried and how they did in the backtest.
{{ trendcast.ledger_table() }}
