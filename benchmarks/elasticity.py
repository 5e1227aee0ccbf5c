"""Price and promotion response on Dominick's orange juice, on the real path (warehouse, dbt), beside plain least squares.

``python -m benchmarks.elasticity --data DIR [--json]``. dbt builds ``fct_price_response`` and ``fct_promotion_response`` from
order lines, a price list and a promotion plan. Apart from it, NumPy solves the same regression (logarithm of units on
logarithm of price, deal, feature, dips and rivals' promotions, a line through time for each store and quarter) on the raw rows. The
published own-price elasticities of orange juice at Dominick's are mostly between -1.5 and -4.5 (Hoch, Kim, Montgomery & Rossi,
Journal of Marketing Research 1995; Montgomery, Marketing Science 1997).
"""

from __future__ import annotations

import os
import tempfile
import time as clock
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from benchmarks.common import Report, arguments, say
from benchmarks.datasets import DATASETS
from trendcast.dbt import Dbt

REPO = Path(__file__).resolve().parent.parent
BRANDS = (
    *("Tropicana Premium 64", "Tropicana Premium 96", "Florida's Natural 64", "Tropicana 64"),
    *("Minute Maid 64", "Minute Maid 96", "Citrus Hill 64", "Tree Fresh 64"),
    *("Florida Gold 64", "Dominick's 64", "Dominick's 128"),
)
EFFECTS = ("price", "display", "feature", "before", "after", "rivals")


def build(warehouse: Path, folder: Path, vars: dict[str, Any]) -> float:
    """Build the two marts and what they need; return the seconds it took."""
    os.environ |= {
        "TRENDCAST_DUCKDB_PATH": str(warehouse),
        "DBT_LOG_PATH": str(folder / "logs"),
    }
    dbt = Dbt(REPO / "dbt_project", REPO / "profiles", vars=vars, target_path=folder / "target")
    start = clock.perf_counter()
    dbt.build(["+fct_price_response", "+fct_promotion_response"], tests=False)
    return round(clock.perf_counter() - start, 1)


def plain(rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients and standard errors of least squares with a line through time for each cell."""
    _, cell = np.unique(rows["cell"], return_inverse=True)
    counts = np.bincount(cell)
    columns = np.column_stack([rows[name] for name in (*EFFECTS, "y")])
    columns = np.column_stack([columns, rows["t"]])
    means = np.column_stack([np.bincount(cell, column) / counts for column in columns.T])
    within = columns - means[cell]
    time = within[:, -1]
    spread = np.bincount(cell, time**2)
    slopes = np.column_stack([np.bincount(cell, column * time) for column in within.T])
    slopes /= np.where(spread > 0, spread, 1.0)[:, None]
    within = (within - slopes[cell] * time[:, None])[:, :-1]
    x, y = within[:, :-1], within[:, -1]
    coefficients, *_ = np.linalg.lstsq(x, y, rcond=None)
    residual = y - x @ coefficients
    freedom = len(y) - len(counts) - int((spread > 0).sum()) - x.shape[1]
    inverse = np.linalg.inv(x.T @ x)
    return coefficients, np.sqrt(np.diag(inverse) * (residual @ residual) / freedom)


def raw_rows(data: Path, brand: int, end: Any) -> dict[str, np.ndarray]:
    """Read one brand's rows of the data set itself; none of our SQL is involved."""
    with duckdb.connect() as connection:
        found = connection.execute(
            f"""
            with weeks as (
                select store, brand, week, logmove, deal, feat,
                    [{", ".join(f"price{k}" for k in range(1, 12))}][brand] as price,
                    least(greatest(deal, feat), 1) as promoted,
                    -- Weeks are counted from 1989-09-18, which is so many weeks after 1969-12-29.
                    week - 1 + date_diff('day', date '1969-12-29', date '1989-09-18') // 7 as t
                from read_parquet('{data}/dominicks_oj/yx.parquet')
            ),
            rivals as (
                select store, week, sum(promoted) as promoted from weeks group by 1, 2
            ),
            sold as (
                select store, brand, min(week) as first_week from weeks group by 1, 2
            ),
            listed as (
                select rivals.store, rivals.week, count(*) as n
                from rivals inner join sold
                    on rivals.store = sold.store and sold.first_week <= rivals.week
                group by 1, 2
            )
            select
                weeks.store * 1000 + weeks.t // 13 as cell, weeks.t, ln(weeks.price) as price, weeks.deal as display,
                weeks.feat as feature, ln(round(exp(weeks.logmove))) as y,
                (weeks.promoted = 0 and coalesce(next.promoted, 0) > 0)::int as before,
                (weeks.promoted = 0 and coalesce(last.promoted, 0) > 0)::int as after,
                (rivals.promoted - weeks.promoted) / (listed.n - 1) as rivals
            from weeks
            inner join rivals on weeks.store = rivals.store and weeks.week = rivals.week
            inner join listed on weeks.store = listed.store and weeks.week = listed.week
            left join weeks as next
                on weeks.store = next.store and weeks.brand = next.brand and weeks.week + 1 = next.week
            left join weeks as last
                on weeks.store = last.store and weeks.brand = last.brand and weeks.week - 1 = last.week
            where weeks.brand = ? and cast(date '1989-09-18' + (weeks.week - 1) * interval 7 days as date) <= ?
            """,
            [brand, end],
        ).fetchnumpy()
    return {name: np.asarray(values, dtype=float) for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    args = arguments("Price and promotion response on Dominick's orange juice.").parse_args()
    report = Report("elasticity")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        warehouse = folder / "benchmark.duckdb"
        split = DATASETS["dominicks"].prepare(args.data, warehouse)
        say(f"dominicks: up to {split.cutoff}; dbt build ...")
        # Some of its promotions sold a hundred times the usual, which cleaning refuses: both must read the same rows.
        vars = split.vars | {"response_group": "product_id", "robust_bound": None}
        seconds = build(warehouse, folder, vars)
        with duckdb.connect(warehouse, read_only=True) as connection:
            groups = connection.execute(
                """
                select scope_id, effect, estimate, std_error, n_rows
                from analytics_marts.int_response_estimates where scope = 'group'
                """
            ).fetchall()
            series = connection.execute(
                """
                select
                    response_group, median(elasticity), min(elasticity), max(elasticity),
                    avg(cast(elasticity < 0 as int)), avg(cast(own_elasticity < 0 as int)), max(group_spread), count(*)
                from analytics_marts.fct_price_response group by 1
                """
            ).fetchall()
            (right, own_right, surely, in_range, median) = connection.execute(
                """
                select avg(cast(elasticity < 0 as int)), avg(cast(own_elasticity < 0 as int)),
                    avg(cast(elasticity_upper < 0 as int)), avg(cast(elasticity between -4.5 and -1.5 as int)),
                    median(elasticity)
                from analytics_marts.fct_price_response
                """
            ).fetchall()[0]
            effects = connection.execute(
                """
                select effect, median(uplift), median(typical_intensity), avg(cast(is_sure as int)),
                    avg(cast(is_cannibalised as int)), avg(cast(log_effect > 0 as int))
                from analytics_marts.fct_promotion_response group by 1 order by 1
                """
            ).fetchall()
    ours = {(brand, effect): rest for brand, effect, *rest in groups}
    by_brand = {brand: rest for brand, *rest in series}
    print(
        f"{'brand':<22}{'rows':>7}{'elasticity':>12}{'error':>8}{'plain':>9}{'error':>8}{'spread':>8}"
        f"{'stores from':>13}{'to':>8}{'deal':>8}{'plain':>8}{'rivals':>8}{'plain':>8}"
    )
    differences = []
    for number, name in enumerate(BRANDS, start=1):
        key = str(number)
        rows = raw_rows(args.data, number, split.cutoff)
        coefficients, errors = plain(rows)
        differences += [
            abs(ours[key, effect][0] - value)
            for effect, value in zip(EFFECTS, coefficients, strict=True)
        ]
        price, error, n_rows = ours[key, "price"]
        _, lowest, highest, _, _, spread, _ = by_brand[key]
        print(
            f"{name:<22}{n_rows:>7,}{price:>12.2f}{error:>8.2f}{coefficients[0]:>9.2f}{errors[0]:>8.2f}{spread:>8.2f}"
            f"{lowest:>13.2f}{highest:>8.2f}{ours[key, 'display'][0]:>8.2f}{coefficients[1]:>8.2f}"
            f"{ours[key, 'rivals'][0]:>8.2f}{coefficients[5]:>8.2f}"
        )
        report.figures |= {
            f"elasticity_{key}": round(price, 3),
            f"elasticity_plain_{key}": round(float(coefficients[0]), 3),
        }
    report.ratios["largest_difference_from_plain"] = float(max(differences))
    report.figures |= {
        "share_right_sign": round(right, 4),
        "share_right_sign_own": round(own_right, 4),
        "share_surely_right_sign": round(surely, 4),
        "share_in_published_range": round(in_range, 4),
        "median_elasticity": round(median, 3),
        "dbt_seconds": seconds,
    }
    for effect, uplift, intensity, sure, cannibalised, positive in effects:
        report.figures |= {
            f"{effect}_median_uplift": round(uplift, 4),
            f"{effect}_typical_intensity": round(intensity, 3),
            f"{effect}_share_sure": round(sure, 3),
            f"{effect}_share_above_zero": round(positive, 3),
        }
        if effect == "rivals":
            report.figures["rivals_share_cannibalised"] = round(cannibalised, 3)
    report.print(as_json=args.json)


if __name__ == "__main__":
    main()
