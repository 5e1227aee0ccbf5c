-- One row per what-if scenario and series: the forecast, prices and responses it was worked out with, as they were.
{{ trendcast.ledger_table() }}
