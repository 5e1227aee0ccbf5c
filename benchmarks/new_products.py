"""Forecasts of series with little or no history, beside simple alternatives on the same series.

``python -m benchmarks.new_products --data DIR [--sets m5_store] [--window 1] [--seed 7] [--json]``. Of 5% of the established series
the history is hidden, up to 0, 3, 7, 14 or 28 periods before the cutoff, order lines and list prices alike; that they are
to be launched then stands in the plan (source `launches`). What came after the cutoff is the truth. ``--window 0`` is for reporting; settings
are chosen on earlier windows.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.accuracy import NAIVE, OURS, our_forecasts, run_trendcast
from benchmarks.common import Report, arguments, say
from benchmarks.datasets import CONFIG, DATASETS, Split
from benchmarks.metrics import LEVELS, QUANTILES, Truth

SHARE = 0.05
VISIBLE = (0, 3, 7, 14, 28)  # periods of history that are left, in turn
SETS = ("m5_store", "completejourney_products")
NEIGHBOURS = "neighbours"
#: Days of the neighbours' demand that the alternative takes its quantiles from.
RECENT = 28
TIERS = 3


@dataclass(frozen=True)
class Hidden:
    """Which series are hidden, and from which day on each may be seen.

    Parameters
    ----------
    visible
        Series to the periods that are left of its history.
    since
        Series to the first day that is left; the day after the cutoff where nothing is.
    """

    visible: dict[str, int]
    since: dict[str, dt.date]


def choose(split: Split, seed: int) -> Hidden:
    """Draw series that have sold for two horizons and more, and in the last quarter of a year too."""
    train, cutoff = split.train, split.cutoff
    with duckdb.connect() as connection:
        connection.register("train", train)
        rows = connection.sql(
            """
            select unique_id from train group by 1
            having min(case when y > 0 then ds end) <= $1::date - 119
                and max(case when y > 0 then ds end) > $1::date - 91
            order by 1
            """,
            params=[cutoff],
        ).fetchall()
    names = np.array([name for (name,) in rows])
    chosen = np.random.default_rng(seed).permutation(names)[: round(SHARE * len(names))]
    visible = {str(name): VISIBLE[i % len(VISIBLE)] for i, name in enumerate(chosen)}
    one = dt.timedelta(days=1)
    since = {name: cutoff + one - dt.timedelta(days=n) for name, n in visible.items()}
    return Hidden(visible, since)


def hide(split: Split, warehouse: Path, hidden: Hidden) -> Split:
    """Take the hidden series' past from the warehouse, put their launches into it, and return the split with the vars for them."""
    vars = split.vars
    columns = vars["order_columns"]
    keys = [column for column in ("product_id", "location_id") if column in columns]

    def series(mapping: dict[str, str]) -> str:
        return " || '/' || ".join(
            f"cast({mapping[column]} as varchar)" for column in vars["series_key"]
        )

    rows = pa.table({"unique_id": list(hidden.since), "since": list(hidden.since.values())})
    with duckdb.connect(warehouse, config=CONFIG) as connection:
        connection.register("hidden", rows)
        listed = ", ".join(f"lines.{columns[key]} as {key}" for key in keys)
        connection.execute(
            f"""
            create table shop.launches as
            select distinct {listed}, hidden.since as launch_date
            from shop.order_lines as lines
            inner join hidden on {series(columns)} = hidden.unique_id
            """
        )
        connection.execute(
            f"""
            delete from shop.order_lines using hidden
            where {series(columns)} = hidden.unique_id and cast(ds as date) < hidden.since
            """
        )
        if vars.get("prices_table"):
            of = series(vars["price_columns"])
            table = f"shop.{vars['prices_table']}"
            connection.execute(
                f"delete from {table} using hidden where {of} = hidden.unique_id and end_date < hidden.since"
            )
            connection.execute(
                f"update {table} set start_date = greatest(start_date, hidden.since) from hidden where {of} = hidden.unique_id"
            )
    source = {
        "launches_table": "launches",
        "launch_columns": {c: c for c in (*keys, "launch_date")},
    }
    return replace(split, vars=vars | source)


def neighbours(split: Split, hidden: Hidden, warehouse: Path) -> pa.Table:
    """Forecast by the empirical quantiles of what the category's other products of the price tier sold at the location, on like weekdays."""
    vars = split.vars
    location = "location_id" in vars["order_columns"]
    with duckdb.connect(warehouse, read_only=True, config=CONFIG) as connection:
        connection.execute("set schema = 'shop'")
        connection.register("train", split.train)
        of = "split_part(unique_id, '/', 2)" if location else "unique_id"
        price = "cast(null as double)"
        if vars.get("prices_table"):
            columns = vars["price_columns"]
            price = f"""(
                select last(price order by start_date) from {vars["prices_table"]} as prices
                where {columns["product_id"]} = product and {columns["location_id"]} = location and start_date <= $1::date + 1
            )"""
        return connection.sql(
            f"""
            with series as (
                select unique_id, {of} as product, {"split_part(unique_id, '/', 1)" if location else "''"} as location,
                    unique_id in (select unnest($2)) as is_hidden
                from (select distinct unique_id from train)
            ),
            priced as (
                select series.*, products.category, {price} as price
                from series left join products on cast(products.product_id as varchar) = series.product
            ),
            tiered as (
                select
                    priced.*,
                    case when price is null then 0 else ntile({TIERS}) over (partition by location, category order by price) end as tier
                from priced
            ),
            sold as (
                select location, category, tier, isodow(ds) as weekday, y
                from train inner join tiered using (unique_id)
                where not is_hidden and ds > $1::date - {RECENT}
            ),
            spread as (
                select location, category, tier, weekday, avg(y) as mean, quantile_disc(y, {LEVELS.tolist()}) as q
                from sold group by all
            ),
            -- For a category that has no other series.
            whole as (
                select weekday, avg(y) as mean, quantile_disc(y, {LEVELS.tolist()}) as q from sold group by all
            )
            select
                unique_id, ds, coalesce(spread.mean, whole.mean) as mean,
                {", ".join(f"coalesce(spread.q, whole.q)[{k + 1}] as {name}" for k, name in enumerate(QUANTILES))}
            from tiered
            cross join (select $1::date + lead::integer as ds from (select unnest(range(1, {split.dataset.horizon + 1})) as lead))
            inner join whole on isodow(ds) = whole.weekday
            left join spread
                on
                    tiered.location = spread.location and tiered.category = spread.category
                    and tiered.tier = spread.tier and isodow(ds) = spread.weekday
            where is_hidden
            """,
            params=[split.cutoff, list(hidden.visible)],
        ).to_arrow_table()


def score(truth: Truth, rows: pa.Table, hidden: Hidden) -> dict[str, dict[str, float]]:
    """Return scores over all hidden series, and over those with so many periods left."""
    groups: dict[str, set[str]] = {"all": set(hidden.visible)}
    for n in VISIBLE:
        groups[str(n)] = {name for name, visible in hidden.visible.items() if visible == n}
    found = {}
    for group, names in groups.items():
        index = np.array([i for i, name in enumerate(truth.series) if name in names])
        part = replace(
            truth,
            series=[truth.series[i] for i in index],
            actual=truth.actual[index],
            scale=truth.scale[index],
            history=[truth.history[i] for i in index],
        )
        found[group] = part.score(rows)
    return found


def benchmark(
    name: str, data: Path, window: int, seed: int, keep: Path | None
) -> dict[str, dict[str, dict[str, float]]]:
    """Score one data set; returns model to group to scores."""
    dataset = DATASETS[name]
    with tempfile.TemporaryDirectory() as text:
        folder = keep or Path(text)
        folder.mkdir(parents=True, exist_ok=True)
        warehouse = folder / f"{name}_{window}.duckdb"
        warehouse.unlink(missing_ok=True)
        split = dataset.prepare(data, warehouse, window)
        truth = Truth.of(split.train, split.truth, dataset.mase_season or dataset.season_length)
        hidden = choose(split, seed)
        split = hide(split, warehouse, hidden)
        say(f"{name}: {len(truth.series):,} series, of {len(hidden.visible)} the history is hidden")
        beside = neighbours(split, hidden, warehouse)
        ran = run_trendcast(split, warehouse, folder)
        say(f"{name}: {ran['seconds']} s")
        forecasts = our_forecasts(warehouse) | {NEIGHBOURS: beside}
    return {model: score(truth, rows, hidden) for model, rows in forecasts.items()}


def main() -> None:
    """Measure and print."""
    parser = arguments("Series with little or no history, beside simple alternatives.")
    parser.add_argument("--sets", default=",".join(SETS), help="comma-separated")
    parser.add_argument("--window", type=int, default=0, help="windows before the last; tune on 1")
    parser.add_argument("--seed", type=int, default=7, help="of which series are hidden")
    parser.add_argument("--keep", type=Path, help="folder in which to keep the warehouses")
    args = parser.parse_args()
    report = Report("new_products")
    report.figures = {"window": args.window}
    for name in args.sets.split(","):
        if name not in DATASETS:
            raise SystemExit(f"Unknown set {name!r}. Valid: {', '.join(DATASETS)}.")
        found = benchmark(name, args.data, args.window, args.seed, args.keep)
        _show(name, found)
        ours = found[OURS]
        for other in (NEIGHBOURS, NAIVE):
            for group in ("all", "0"):
                ratio = ours[group]["scaled_pinball"] / found[other][group]["scaled_pinball"]
                report.ratios[f"{name}_{group}_scaled_pinball_to_{other}"] = round(ratio, 4)
        report.figures |= {
            f"{name}_{model}_{group}_{measure}": scores[measure]
            for model, groups in found.items()
            for group, scores in groups.items()
            for measure in ("scaled_pinball", "coverage_80", "coverage_80_split", "bias")
            if measure in scores
        }
    if args.json:
        report.print(as_json=True)


def _show(name: str, found: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print one set's tables, by periods of history left."""
    for measure in ("scaled_pinball", "coverage_80", "coverage_80_split", "bias"):
        print(f"{name + ' ' + measure:<46}" + "".join(f"{group:>9}" for group in ("all", *VISIBLE)))
        for model, groups in sorted(
            found.items(), key=lambda kv: kv[1]["all"].get("scaled_pinball", np.inf)
        ):
            cells = (groups[str(g)].get(measure, np.nan) for g in ("all", *VISIBLE))
            print(f"  {model:<44}" + "".join(f"{cell:>9.3f}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
