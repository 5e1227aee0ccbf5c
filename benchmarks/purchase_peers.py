"""BG/NBD by pymc-marketing, run by another Python: ``python purchase_peers.py customers.parquet out.parquet DAYS``.

It imports nothing of trendcast, so that it runs where only benchmarks/requirements-peers.txt is installed. Ends stdout with one JSON
object: the parameters (time in weeks) and the seconds it took.
"""

from __future__ import annotations

import json
import sys
import time

import pandas as pd  # noqa: TID253


def main() -> None:
    """Fit at the posterior's mode, with the library's own priors, and predict."""
    from pymc_marketing.clv import BetaGeoModel

    customers, out, days = sys.argv[1:4]
    rows = pd.read_parquet(customers)
    weeks = int(days) / 7
    start = time.perf_counter()
    model = BetaGeoModel(rows)
    model.fit(method="map", progressbar=False)
    found = pd.DataFrame(
        {
            "customer_id": rows["customer_id"],
            "orders": model.expected_purchases(future_t=weeks).to_numpy().ravel(),
            "active": model.expected_probability_alive().to_numpy().ravel(),
            "none": model.expected_probability_no_purchase(t=weeks).to_numpy().ravel(),
        }
    )
    seconds = time.perf_counter() - start
    found.to_parquet(out, index=False)
    fitted = {name: round(float(value), 4) for name, value in model.fit_summary().items()}
    print(json.dumps({"parameters": fitted, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
