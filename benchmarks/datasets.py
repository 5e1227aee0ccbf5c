"""Data sets as order lines: what each benchmark set looks like to a shop, and the truth it is scored on.

A set that is a panel and not order lines (M4, tourism, hospital, car parts) becomes one line per series and
period with the value as its quantity. Zeros have no line, as in a shop. Series are aligned at their end, so that
one cutoff serves all. Only the lines up to the cutoff enter the warehouse; the truth stays here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

CONFIG = {"storage_compatibility_version": "v1.0.0"}
# What a panel's lines need to pass cleaning whatever their values are.
PANEL_VARS: dict[str, Any] = {
    "shop_schema": "shop",
    "orders_table": "order_lines",
    "products_table": None,
    "promotions_table": None,
    "order_columns": {
        "product_id": "product_id",
        "ordered_at": "ds",
        "quantity": "y",
        "revenue": "y",
    },
    "order_scope": None,
    "order_timezone": None,
    "series_key": ["product_id"],
    "static_attributes": [],
    "min_order_date": "1900-01-01",
    "max_quantity": 1e9,
}


@dataclass(frozen=True)
class DataSet:
    """One benchmark set.

    Parameters
    ----------
    grain, horizon, season_length
        As in trendcast's vars; the season is also the one MASE scales by.
    load
        ``load(connection, folder)`` creates ``panel`` (unique_id, ds, y), every period of every series, zeros
        included, null where nobody knows, and any other tables its vars name. The latter hold what is known in
        advance, so they are not cut.
    lines
        SQL of the order lines with the columns its vars name; must have ``ds``.
    vars
        dbt vars beside grain and horizon.
    mase_season
        The season MASE scales by, where it is not the season_length: M4 takes 1 for weeks.
    """

    name: str
    grain: str
    horizon: int
    season_length: int
    load: Callable[[duckdb.DuckDBPyConnection, Path], None]
    lines: str = "select unique_id as product_id, ds, y from panel where y > 0"
    vars: dict[str, Any] = field(default_factory=dict)
    mase_season: int | None = None

    @property
    def all_vars(self) -> dict[str, Any]:
        """The vars of a run on this set."""
        ours = {"grain": self.grain, "horizon": self.horizon, "season_length": self.season_length}
        return PANEL_VARS | ours | self.vars

    def prepare(self, data: Path, warehouse: Path, windows_back: int = 0) -> Split:
        """Write the order lines up to the cutoff into a new warehouse and return the split.

        Parameters
        ----------
        windows_back
            0 scores the set's last window; 1 leaves that one alone and scores the one before, for tuning.
        """
        with duckdb.connect(config={"memory_limit": "6GB"}) as connection:
            connection.execute("set threads = 2")
            self.load(connection, data)
            ((last,),) = connection.execute("select max(ds) from panel").fetchall()
            end = _earlier(last, self.grain, self.horizon * windows_back)
            cutoff = _earlier(end, self.grain, self.horizon)
            over = _earlier(cutoff, self.grain, -1) - dt.timedelta(days=1)

            def rows(sql: str, *parameters: dt.date) -> pa.Table:
                return connection.sql(sql, params=list(parameters)).to_arrow_table()

            columns = "select unique_id, ds, y from panel"
            # Peers read a series without gaps; the value before one stands in, as for us (var gap_fill).
            carried = """
                select unique_id, ds,
                    last_value(y ignore nulls) over (partition by unique_id order by ds) as y
                from panel
            """
            train = rows(f"select * from ({carried}) where ds <= ? order by 1, 2", cutoff)
            truth = rows(f"{columns} where ds > ? and ds <= ? order by 1, 2", cutoff, end)
            tables = {
                "order_lines": rows(
                    f"select * from ({self.lines}) where cast(ds as date) <= ?", over
                )
            }
            revenue = None
            if self.name.startswith("m5"):
                recent = _earlier(cutoff, self.grain, self.horizon)
                revenue = rows(
                    "select unique_id, sum(y * sell_price) as y from panel "
                    "inner join prices using (store_id, item_id, ds) where ds > ? and ds <= ? group by 1",
                    recent,
                    cutoff,
                )
            for name in ("products", "promotions", "prices", "events"):
                table = self.vars.get(f"{name}_table")
                if table:
                    tables[table] = rows(f"select * from {table}")
        with duckdb.connect(warehouse, config=CONFIG) as connection:
            connection.execute("create schema shop")
            for name, table in tables.items():
                connection.register("came", table)
                connection.execute(f"create table shop.{name} as select * from came")
        return Split(self, cutoff, train, truth, self.all_vars | {"cutoff": str(over)}, revenue)


@dataclass(frozen=True)
class Split:
    """Training panel and truth on either side of a cutoff, and the vars of a run."""

    dataset: DataSet
    cutoff: dt.date
    train: Any  # pyarrow.Table: unique_id, ds, y
    truth: Any
    vars: dict[str, Any]
    #: unique_id, y: revenue of the last ``horizon`` periods of training, where the set has prices.
    revenue: pa.Table | None = None


def _earlier(day: dt.date, grain: str, periods: int) -> dt.date:
    """Return the first day of the period so many periods before the one that begins on ``day``."""
    if grain == "month":
        months = day.year * 12 + day.month - 1 - periods
        return dt.date(months // 12, months % 12 + 1, 1)
    return day - dt.timedelta(days=periods * (7 if grain == "week" else 1))


# --- The sets ---


def _m5(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
    folder = data / "m5"
    connection.execute(
        f"""
        create table panel as
        select store_id || '/' || item_id as unique_id, store_id, item_id, date as ds, cast(sales as double) as y
        from read_parquet('{folder}/sales_daily.parquet')
        """
    )
    connection.execute(
        f"""
        create table prices as
        select price.store_id, price.item_id, calendar.date as ds, price.sell_price
        from read_parquet('{folder}/sell_prices.parquet') as price
        inner join read_parquet('{folder}/calendar.parquet') as calendar using (wm_yr_wk)
        where calendar.date >= date '2015-03-01'
        """
    )
    connection.execute(
        f"""
        create table products as
        select distinct item_id as product_id, dept_id as department, cat_id as category
        from read_parquet('{folder}/series.parquet')
        """
    )
    # Known in advance: list prices by week (weeks of one price are one row), days on which food stamps may be spent
    # (as a promotion of all food in that state), and events.
    connection.execute(
        f"""
        create table price_list as
        with weeks as (
            select
                price.store_id, price.item_id, price.sell_price as price, days.first_ds, days.last_ds,
                price.sell_price is distinct from lag(price.sell_price) over running
                or days.first_ds > lag(days.last_ds) over running + 1 as is_new
            from read_parquet('{folder}/sell_prices.parquet') as price
            inner join (
                select wm_yr_wk, min(date) as first_ds, max(date) as last_ds
                from read_parquet('{folder}/calendar.parquet') group by 1
            ) as days using (wm_yr_wk)
            where days.last_ds >= date '2015-03-01'
            window running as (partition by price.store_id, price.item_id order by days.first_ds)
        ),
        spans as (
            select *, count(case when is_new then 1 end) over (partition by store_id, item_id order by first_ds) as span
            from weeks
        )
        select store_id, item_id, min(first_ds) as start_date, max(last_ds) as end_date, min(price) as price
        from spans group by store_id, item_id, span
        """
    )
    connection.execute(
        f"""
        create table promotions as
        select series.store_id, series.item_id, calendar.date as start_date, calendar.date as end_date, 1.0 as feature
        from (
            unpivot (select date, snap_CA as CA, snap_TX as TX, snap_WI as WI from read_parquet('{folder}/calendar.parquet'))
            on CA, TX, WI into name state_id value snap
        ) as calendar
        inner join read_parquet('{folder}/series.parquet') as series using (state_id)
        where calendar.snap = 1 and calendar.date >= date '2015-03-01' and series.cat_id = 'FOODS'
        """
    )
    connection.execute(
        f"""
        create table events as
        select date, event_name_1 as name from read_parquet('{folder}/calendar.parquet')
        where event_name_1 is not null and date >= date '2015-03-01'
        union all
        select date, event_name_2 from read_parquet('{folder}/calendar.parquet')
        where event_name_2 is not null and date >= date '2015-03-01'
        """
    )


def _m5_store(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
    """Load one store of M5, a tenth of it: what takes the whole an hour is tried here in minutes."""
    _m5(connection, data)
    connection.execute("delete from panel where store_id <> 'CA_3'")


def _panel(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    connection.execute(f"create table panel as {sql}")


def _daily_panel(connection: duckdb.DuckDBPyConnection, series: str) -> None:
    """Sum order lines by day: every day from a series' first sale to the last day of all."""
    _panel(
        connection,
        f"""
        select cast(series.{series} as varchar) as unique_id, days.ds,
            cast(coalesce(sum(order_lines.quantity), 0) as double) as y  -- a sum of integers is a type that pandas lacks
        from (select {series}, min(ds) as first_ds from order_lines group by 1) as series
        cross join (
            select cast(unnest(generate_series(min(ds), max(ds), interval 1 day)) as date) as ds from order_lines
        ) as days
        left join order_lines on series.{series} = order_lines.{series} and days.ds = order_lines.ds
        where days.ds >= series.first_ds
        group by 1, 2
        """,
    )


def _expsmooth(name: str) -> Callable[[duckdb.DuckDBPyConnection, Path], None]:
    def load(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
        file = data / "expsmooth" / f"{name}.parquet"
        # A missing value means that the part was not yet sold.
        _panel(
            connection,
            f"""
            select unique_id, date as ds, y from read_parquet('{file}')
            where y is not null and not isnan(y)
            """,
        )

    return load


def _aligned(rows: str, step: str, last: str) -> str:
    """SQL of index-based series with dates, the last period of each at ``last``."""
    return f"""
        select unique_id, y, cast(date '{last}' - (max(t) over (partition by unique_id) - t) * interval {step} as date) as ds
        from ({rows})
    """


def _m4_weekly(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
    folder = data / "m4_weekly"
    rows = f"""
        select unique_id, t, y from read_parquet('{folder}/weekly_train.parquet')
        union all
        select test.unique_id, test.t + train.n, test.y
        from read_parquet('{folder}/weekly_test.parquet') as test
        inner join (
            select unique_id, max(t) as n from read_parquet('{folder}/weekly_train.parquet') group by 1
        ) as train using (unique_id)
    """
    _panel(connection, _aligned(rows, "'7 days'", "2024-12-30"))


def _tourism(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
    rows = f"""
        select unique_id, y, row_number() over (partition by unique_id order by part desc, t) as t
        from read_parquet('{data}/tourism/tourism.parquet') where unique_id like 'M%'
    """
    _panel(connection, _aligned(rows, "'1 month'", "2024-12-01"))


def _completejourney(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
    folder = data / "completejourney"
    connection.execute(
        f"""
        create table order_lines as
        select
            sales.product_id, sales.quantity, sales.sales_value, products.product_category as category,
            cast(sales.transaction_timestamp at time zone 'UTC' at time zone 'America/New_York' as date) as ds
        from read_parquet('{folder}/transactions.parquet') as sales
        inner join read_parquet('{folder}/products.parquet') as products using (product_id)
        where sales.quantity > 0 and products.product_category is not null
            and products.product_category not in ('COUPON/MISC ITEMS', 'FUEL')
        """
    )
    connection.execute(
        f"""
        create table products as
        select product_id, department, product_category as category
        from read_parquet('{folder}/products.parquet')
        """
    )
    _daily_panel(connection, "category")


def _completejourney_products(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
    """Load the products that sell every few days, by what was known nine months in."""
    folder = data / "completejourney"
    connection.execute(
        f"""
        create table order_lines as
        select
            product_id, quantity, sales_value,
            cast(transaction_timestamp at time zone 'UTC' at time zone 'America/New_York' as date) as ds
        from read_parquet('{folder}/transactions.parquet') as sales
        where quantity > 0 and product_id in (
            select product_id from read_parquet('{folder}/transactions.parquet')
            where transaction_timestamp < date '2017-09-01' group by 1 having count(*) >= 100
        ) and product_id in (
            select product_id from read_parquet('{folder}/products.parquet')
            where product_category not in ('COUPON/MISC ITEMS', 'FUEL')
        )
        """
    )
    connection.execute(
        f"""
        create table products as
        select product_id, department, product_category as category, cast(manufacturer_id as varchar) as brand
        from read_parquet('{folder}/products.parquet')
        """
    )
    _daily_panel(connection, "product_id")


def _dominicks(connection: duckdb.DuckDBPyConnection, data: Path) -> None:
    # Weeks are counted from the one that began on Thursday 1989-09-14; here they begin on the Monday after.
    connection.execute(
        f"""
        create table weeks as
        select
            cast(store as varchar) as store_id, cast(brand as varchar) as brand_id,
            cast(date '1989-09-18' + (week - 1) * interval 7 days as date) as ds, round(exp(logmove)) as y,
            [{", ".join(f"price{k}" for k in range(1, 12))}][brand] as price, deal, feat
        from read_parquet('{data}/dominicks_oj/yx.parquet')
        """
    )
    # A week without a row was not recorded; it is no week without a sale.
    _panel(
        connection,
        """
        select series.unique_id, cast(days.ds as date) as ds, weeks.y, series.store_id, series.brand_id, weeks.price
        from (
            select store_id, brand_id, store_id || '/' || brand_id as unique_id, min(ds) as first_ds
            from weeks group by 1, 2
        ) as series
        cross join (
            select unnest(generate_series((select min(ds) from weeks), (select max(ds) from weeks), interval 7 days)) as ds
        ) as days
        left join weeks on
            series.store_id = weeks.store_id and series.brand_id = weeks.brand_id and days.ds = weeks.ds
        where days.ds >= series.first_ds
        """,
    )
    connection.execute(
        """
        create table promotions as
        select brand_id, store_id, ds as start_date, cast(ds + interval 6 days as date) as end_date, deal, feat
        from weeks where deal > 0 or feat > 0
        """
    )
    connection.execute(
        """
        create table prices as
        select brand_id, store_id, ds as start_date, cast(ds + interval 6 days as date) as end_date, price
        from weeks
        """
    )


_M5 = DataSet(
    "m5",
    "day",
    28,
    7,
    _m5,
    lines="""
        select panel.item_id, panel.store_id, panel.ds, panel.y, panel.y * prices.sell_price as revenue
        from panel left join prices using (store_id, item_id, ds) where panel.y > 0
    """,
    vars={
        "products_table": "products",
        "product_columns": {c: c for c in ("product_id", "department", "category")},
        "order_columns": {
            "product_id": "item_id",
            "location_id": "store_id",
            "ordered_at": "ds",
            "quantity": "y",
            "revenue": "revenue",
        },
        "series_key": ["location_id", "product_id"],
        "static_attributes": ["department", "category"],
        "prices_table": "price_list",
        "price_columns": {
            "product_id": "item_id",
            "location_id": "store_id",
            "start_date": "start_date",
            "end_date": "end_date",
            "price": "price",
        },
        "promotions_table": "promotions",
        "promotion_columns": {
            "product_id": "item_id",
            "location_id": "store_id",
            "start_date": "start_date",
            "end_date": "end_date",
            "feature": "feature",
        },
        "events_table": "events",
        "event_columns": {"date": "date", "name": "name"},
    },
)

DATASETS = {
    dataset.name: dataset
    for dataset in (
        _M5,
        replace(_M5, name="m5_store", load=_m5_store),
        DataSet("m4_weekly", "week", 13, 52, _m4_weekly, mase_season=1),
        # 51 months: folds a quarter apart leave 18 months before the earliest.
        DataSet("carparts", "month", 12, 12, _expsmooth("carparts"), vars={"backtest_step": 3}),
        DataSet("hospital", "month", 12, 12, _expsmooth("hospital"), vars={"backtest_step": 6}),
        DataSet("tourism_monthly", "month", 24, 12, _tourism, vars={"backtest_step": 6}),
        DataSet(
            "dominicks",
            "week",
            8,
            52,
            _dominicks,
            lines="select brand_id, store_id, ds, y, y * price as revenue from panel where y > 0",
            mase_season=1,
            vars={
                "promotions_table": "promotions",
                "prices_table": "prices",
                "promotion_columns": {
                    "product_id": "brand_id",
                    "location_id": "store_id",
                    "start_date": "start_date",
                    "end_date": "end_date",
                    "display": "deal",
                    "feature": "feat",
                },
                "price_columns": {
                    "product_id": "brand_id",
                    "location_id": "store_id",
                    "start_date": "start_date",
                    "end_date": "end_date",
                    "price": "price",
                },
                "order_columns": {
                    "product_id": "brand_id",
                    "location_id": "store_id",
                    "ordered_at": "ds",
                    "quantity": "y",
                    "revenue": "revenue",
                },
                "series_key": ["location_id", "product_id"],
                "gap_fill": {"quantity": "carry_forward", "revenue": "carry_forward"},
            },
        ),
        DataSet(
            "completejourney",
            "day",
            28,
            7,
            _completejourney,
            lines="select product_id, ds, quantity as y, sales_value as revenue, category from order_lines",
            vars={
                "products_table": "products",
                "product_columns": {c: c for c in ("product_id", "department", "category")},
                "order_columns": {
                    "product_id": "product_id",
                    "ordered_at": "ds",
                    "quantity": "y",
                    "revenue": "revenue",
                },
                "series_key": ["category"],
                "static_attributes": ["department"],
            },
        ),
        DataSet(
            "completejourney_products",
            "day",
            28,
            7,
            _completejourney_products,
            lines="select product_id, ds, quantity as y, sales_value as revenue from order_lines",
            vars={
                "products_table": "products",
                "product_columns": {
                    c: c for c in ("product_id", "department", "category", "brand")
                },
                "order_columns": {
                    "product_id": "product_id",
                    "ordered_at": "ds",
                    "quantity": "y",
                    "revenue": "revenue",
                },
                "series_key": ["product_id"],
                "static_attributes": ["category", "department", "brand"],
            },
        ),
    )
}
