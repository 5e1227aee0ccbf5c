"""Customers on real shops: what they buy next (Complete Journey), and when and how often they come again (CDNOW).

``python -m benchmarks.customers --data DIR [--peers-python PATH] [--parts purchases,next] [--json]``. The real path both
times: order lines in a warehouse, dbt, and ``trendcast customers``. What is bought next is judged in the last four weeks, by
``fct_next_purchase_accuracy``; nothing is learnt from them. Purchases are those of the 2,357 customers of Fader & Hardie in
the last 39 weeks, beside the BG/NBD model of pymc-marketing, which succeeds lifetimes (no release since 2020).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time as clock
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import Report, arguments, say
from benchmarks.datasets import CONFIG, PANEL_VARS
from trendcast.dbt import Dbt

Values = npt.NDArray[np.float64]
REPO = Path(__file__).resolve().parent.parent
MARTS = (
    *("fct_next_purchase_accuracy", "dim_customer_segments"),
    *("fct_churn_accuracy", "fct_order_accuracy"),
)
MEASURES = ("hit_rate", "recall", "ndcg", "mrr")
ITEMS = ("category", "product_id")

DAYS = 273  # 39 weeks
MUSIC = PANEL_VARS | {
    "order_columns": {
        "customer_id": "customer_id",
        "product_id": "'cd'",
        "ordered_at": "date",
        "quantity": "n_cds",
        "revenue": "value",
    },
    "robust_bound": None,
}
GROCER = PANEL_VARS | {
    "products_table": "products",
    "order_columns": {
        "customer_id": "household_id",
        "product_id": "product_id",
        "ordered_at": "transaction_timestamp",
        "quantity": "quantity",
        "revenue": "sales_value",
    },
    "product_columns": {"product_id": "product_id", "category": "product_category"},
    "order_scope": "category is not null and category not in ('COUPON/MISC ITEMS', 'FUEL')",
    "order_timezone": "America/New_York",
    "series_key": ["category"],
    "max_quantity": 10000,
}


class Bench:
    """A warehouse with a shop's tables, and dbt and trendcast on it."""

    def __init__(self, folder: Path, tables: dict[str, str], vars: dict[str, Any]) -> None:
        self.warehouse = folder / "benchmark.duckdb"
        self.folder, self.vars = folder, vars
        with duckdb.connect(self.warehouse, config=CONFIG) as connection:
            connection.execute("create schema shop")
            for name, sql in tables.items():
                connection.execute(f"create table shop.{name} as {sql}")
        os.environ |= {
            "TRENDCAST_DUCKDB_PATH": str(self.warehouse),
            "DBT_LOG_PATH": str(folder / "logs"),
            "DBT_TARGET_PATH": str(folder / "target"),
        }

    def build(self) -> float:
        """Build the customers' marts and what they need; return the seconds it took."""
        target = self.folder / "target"
        dbt = Dbt(REPO / "dbt_project", REPO / "profiles", vars=self.vars, target_path=target)
        start = clock.perf_counter()
        dbt.build(["tag:trendcast_ledger", *(f"+{name}" for name in MARTS)], tests=False)
        return clock.perf_counter() - start

    def customers(self) -> dict[str, Any]:
        """Run ``trendcast customers``; return what it tells."""
        command = [sys.executable, "-m", "trendcast", "customers", "--json"]
        command += ["--vars", json.dumps(self.vars), "--project-dir", str(REPO / "dbt_project")]
        command += ["--profiles-dir", str(REPO / "profiles")]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=REPO)
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return all rows."""
        with duckdb.connect(self.warehouse, read_only=True) as connection:
            return connection.execute(sql).fetchall()


def next_purchase(data: Path, report: Report) -> None:
    """Measure what households buy next at two grains: category, and single product."""
    source = data / "completejourney"
    tables = {
        "order_lines": f"select * from read_parquet('{source}/transactions.parquet')",
        "products": f"select * from read_parquet('{source}/products.parquet')",
    }
    for item in ITEMS:
        with tempfile.TemporaryDirectory() as text:
            bench = Bench(Path(text), tables, GROCER | {"customer_item": item})
            say(f"completejourney by {item}: dbt build ...")
            bench.build()
            say(f"completejourney by {item}: trendcast customers ...")
            start = clock.perf_counter()
            told = bench.customers()
            seconds = clock.perf_counter() - start
        accuracy = {row["method"]: row for row in told["accuracy"] if row["is_report"]}
        blend = accuracy.pop("blend")
        print(f"completejourney, items: {item}, weights: {told['weights']}")
        print(f"{'method':<12}{'customers':>10}" + "".join(f"{name:>10}" for name in MEASURES))
        for name, row in {"blend": blend, **accuracy}.items():
            print(
                f"{name:<12}{row['n_customers']:>10,}"
                + "".join(f"{row[measure]:>10.4f}" for measure in MEASURES)
            )
        baselines = [row for name, row in accuracy.items() if name != "gru"]
        for measure in MEASURES:
            best = max(row[measure] for row in baselines)
            report.ratios[f"{item}_{measure}_best_baseline_to_blend"] = best / blend[measure]
            for name, row in {"blend": blend, **accuracy}.items():
                report.figures[f"{item}_{name}_{measure}"] = round(row[measure], 4)
        report.figures[f"{item}_customers"] = blend["n_customers"]
        report.figures[f"{item}_weights"] = told["weights"]
        report.figures[f"{item}_seconds"] = round(seconds, 1)


def purchases(data: Path, peers_python: Path | None, report: Report) -> None:
    """Measure how many orders customers place and who places none, and the date of the next one."""
    source = data / "cdnow"
    tables = {
        "order_lines": f"""
            select lines.* from read_parquet('{source}/cdnow_master.parquet') as lines
            inner join read_parquet('{source}/cdnow_sample_ids.parquet') as chosen using (customer_id)
        """
    }
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        bench = Bench(folder, tables, MUSIC | {"customer_days": DAYS})
        say("cdnow: dbt build ...")
        report.figures["cdnow_build_seconds"] = round(bench.build(), 1)
        rows = bench.query(
            """
            select expected.customer_id, states.orders - 1, states.tenure_days - 1 - states.recency_days,
                states.tenure_days - 1, expected.next_orders, expected.expected_orders, expected.probability_of_none
            from analytics_marts.int_expected_orders as expected
            inner join analytics_marts.int_customer_state as states using (fold, customer_id)
            where fold = 1 order by 1
            """
        )
        ids, repeats, last, known, orders, expected, none = (
            np.array(column) for column in zip(*rows, strict=True)
        )
        model = bench.query(
            "select r, alpha / 7, a, b from analytics_marts.int_purchase_model where fold = 1"
        )[0]
        report.figures["cdnow_parameters"] = [round(value, 4) for value in model]
        names = ("rate_orders", "rate_mae", "date_mae", "single_date_mae", "repeat_date_mae")
        names += ("gap_date_mae", "n_returned")
        found = bench.query(f"select {', '.join(names)} from analytics_marts.fct_order_accuracy")
        report.figures |= {
            f"cdnow_{name}": value for name, value in zip(names, found[0], strict=True)
        }
        judged = {"ours": scores(orders, expected, none)}
        if peers_python:
            say("cdnow: pymc-marketing ...")
            came, out = folder / "customers.parquet", folder / "peers.parquet"
            table = {"customer_id": ids, "frequency": repeats, "recency": last / 7, "T": known / 7}
            pq.write_table(pa.table(table), came)
            script = REPO / "benchmarks" / "purchase_peers.py"
            command = [str(peers_python), str(script), str(came), str(out), str(DAYS)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            report.figures["cdnow_peer"] = json.loads(done.stdout.splitlines()[-1])
            theirs = pq.read_table(out).sort_by("customer_id")
            judged["peer"] = scores(
                orders, theirs.column("orders").to_numpy(), theirs.column("none").to_numpy()
            )
    print(f"cdnow: {len(orders):,} customers, {orders.sum():,.0f} orders in {DAYS} days")
    print(f"{'':<12}" + "".join(f"{name:>14}" for name in judged["ours"]))
    for who, values in judged.items():
        print(f"{who:<12}" + "".join(f"{value:>14.4f}" for value in values.values()))
        report.figures |= {f"cdnow_{name}_{who}": round(v, 4) for name, v in values.items()}
    if "peer" in judged:
        for name in ("mae", "brier"):
            report.ratios[f"cdnow_{name}_to_peer"] = judged["ours"][name] / judged["peer"][name]


def scores(orders: Values, expected: Values, none: Values) -> dict[str, float]:
    """Return what expected orders and chances of none were worth, all arrays [C]."""
    lost = orders == 0
    order = np.argsort(none, kind="stable")
    _, group = np.unique(none[order], return_inverse=True)
    # Ties share their mean rank.
    ranks = np.bincount(group, np.arange(1, len(none) + 1)) / np.bincount(group)
    above = ranks[group][lost[order]].sum() - lost.sum() * (lost.sum() + 1) / 2
    return {
        "mae": float(np.abs(expected - orders).mean()),
        "orders": float(expected.sum()),
        "total_error": float(expected.sum() / orders.sum() - 1),
        "brier": float(((none - lost) ** 2).mean()),
        "base_brier": float(lost.mean() * (1 - lost.mean())),
        "auc": float(above / (lost.sum() * (~lost).sum())),
        "lost": float(lost.mean()),
        "mean_chance": float(none.mean()),
    }


def main() -> None:
    """Measure and print."""
    parser = arguments("Customers: what they buy next, when and how often.")
    parser.add_argument("--peers-python", type=Path, help="a Python with requirements-peers.txt")
    parser.add_argument("--parts", default="purchases,next", help="purchases, next, or both")
    args = parser.parse_args()
    report = Report("customers")
    parts = args.parts.split(",")
    if "purchases" in parts:
        purchases(args.data, args.peers_python, report)
    if "next" in parts:
        next_purchase(args.data, report)
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
