"""Replays of decisions on the backtest, in money, against what a planner does today.

`inventory` replays the order levels of ``int_order_levels``: at every fold's cutoff each policy reviews the stock with
what was known then, and what really sold afterwards says how often stock ran out and what was held. The policies:

- ``trendcast``: order up to the level in the mart, a quantile of the demand until the next order arrives.
- ``moving average min/max``: when the position is at or below the minimum, (lead time + cover) times the mean of the medium
  window, order up to the maximum, which is the mean times the review interval higher.
- ``normal safety stock``: order up to mean x P + z x std x sqrt(P) for the P periods of lead time and review interval, the
  textbook's (Silver, Pyke & Thomas, Inventory and Production Management in Supply Chains, 2017, chapter 6), with mean
  and standard deviation of the medium window.
- ``normal, as often in stock``: that with the factor z, the same for all series and found with hindsight, that runs out of
  stock as seldom as ``trendcast``: what is left to save is what forecasts save.
- ``trendcast, newsvendor`` and ``normal, newsvendor``: the same at each series' critical ratio instead of its service level.

Shapes: N series, K reviews, T periods.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trendcast.errors import DataError, UsageError, WarehouseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from trendcast.pipeline import Workspace

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_MAX, NORMAL = "moving average min/max", "normal safety stock"
NORMAL_AS_OFTEN = "normal, as often in stock"


@dataclass(frozen=True)
class Cycles:
    """What came of each review: one number per series and replenishment cycle.

    The cycle of a review are the ``review`` periods that follow its order's arrival, [N, K].
    """

    demand: Array
    short: Array
    held: Array
    orders: Array


def replay(
    trigger: Array,
    level: Array,
    demand: Array,
    lead: IntArray,
    review: int,
    *,
    pack: Array,
    minimum: Array,
) -> Cycles:
    """Run a periodic-review policy; what is not in stock is not sold.

    Parameters
    ----------
    trigger, level : array [N, K]
        At a review, a stock position at or below ``trigger`` is raised to ``level``.
    demand : array [N, T]
        Demand of the periods after the first review; T is at least ``K * review + max(lead)``.
    lead : array [N]
        Periods from an order to its arrival: one placed at the end of a period serves the demand ``lead`` periods later.
    review : int
        Periods between reviews.
    pack, minimum : array [N]
        Orders are whole packs, of at least so many units.

    Returns
    -------
    Cycles
        ``held`` sums the stock at the end of each period of a cycle.
    """
    n, reviews = level.shape
    periods = reviews * review + int(lead.max(initial=0))
    rows = np.arange(n)
    short, held = np.zeros((n, periods)), np.zeros((n, periods))
    arrivals = np.zeros((n, periods + int(lead.max(initial=0)) + 1))
    orders = np.zeros((n, reviews))
    # The first review's order is there from the start: its cycle is counted from its arrival on.
    on_hand = level[:, 0].copy()
    for t in range(periods):
        k, since = divmod(t, review)
        if since == 0 and 0 < k < reviews:
            position = on_hand + arrivals[:, t:].sum(axis=1)
            wanted = np.maximum(level[:, k] - position, minimum)
            ordered = np.ceil(np.round(wanted / pack, 9)) * pack
            due = (position <= trigger[:, k]) & (level[:, k] > position)
            np.add.at(arrivals, (rows, t + lead), np.where(due, ordered, 0.0))
            orders[:, k] = due
        on_hand = on_hand + arrivals[:, t]
        sold = np.minimum(on_hand, demand[:, t])
        short[:, t] = demand[:, t] - sold
        on_hand = on_hand - sold
        held[:, t] = on_hand
        arrivals[:, t] = 0.0

    def by_cycle(values: Array) -> Array:
        starts = np.arange(reviews)[None, :] * review + lead[:, None]
        columns = starts[:, :, None] + np.arange(review)
        return np.asarray(values[rows[:, None, None], columns].sum(axis=2))

    return Cycles(by_cycle(demand[:, :periods]), by_cycle(short), by_cycle(held), orders)


def inventory(workspace: Workspace, *, cover_days: float = 7.0) -> dict[str, Any]:
    """Replay the order levels of the backtest's cutoffs beside two policies of planners.

    Reviews that are a review interval apart follow each other on the same stock; with cutoffs farther apart each review is
    a cycle of its own, with the stock it would have ordered.

    Parameters
    ----------
    cover_days
        Days of mean demand that the moving average's minimum adds to the lead time.

    Returns
    -------
    dict
        ``policies`` (target and achieved service level, fill rate, units short, costs), what they were replayed
        on, and ``saved``: by policy of a planner, the share of its total cost that trendcast saves.

    Raises
    ------
    UsageError
        Quantity is not forecast.
    WarehouseError
        The marts were never built.
    DataError
        No fold has an older one to measure the spread of sums on, or none is old enough for its cycle to be over.
    """
    project = workspace.project
    if project.settings.measure != "quantity":
        raise UsageError(
            "Stock is replayed in units: the var `measure` must be quantity, or a list with it."
        )
    with workspace.connect() as warehouse:
        if not warehouse.exists(project.relation("int_order_levels")):
            raise WarehouseError(
                f"{project.relation('int_order_levels')} does not exist. Run `trendcast run` or `dbt build` first."
            )
        reviews = warehouse.query(
            f"""
            select
                levels.series_id, cutoffs.cutoff_t, levels.lead_periods, levels.review_periods, levels.service_level,
                levels.critical_ratio, levels.service_units, levels.newsvendor_units, history.mean_medium,
                history.std_medium, supply.pack_size, supply.minimum_order, supply.holding_cost, supply.shortage_cost
            from {project.relation("int_order_levels")} as levels
            inner join {project.relation("int_cutoffs")} as cutoffs on levels.cutoff = cutoffs.cutoff
            inner join {project.relation("int_supply")} as supply on levels.series_id = supply.series_id
            inner join {project.relation("ftr_history")} as history
                on levels.series_id = history.series_id and cutoffs.cutoff_t = history.t
            where levels.fold > 0 and levels.is_measured
            order by {warehouse.text_order("levels.series_id")}, cutoffs.cutoff_t
            """
        )
        demand = warehouse.query(
            f"""
            select series_id, t, y from {project.relation("ftr_history")}
            where t > (select min(cutoff_t) from {project.relation("int_cutoffs")}) order by {warehouse.text_order("series_id")}, t
            """
        )
    if not len(reviews):
        raise DataError(
            "No backtest to replay: the order levels of a cutoff need an older one, whose forecasts had come to pass, to "
            "measure sums on. Run `trendcast run` with a larger var `backtest_folds`."
        )
    days = project.settings.days_per_period
    chains = list(_chains(reviews, demand))
    if not chains:
        raise DataError(
            "No replenishment cycle of the backtest is over: lead time and review interval reach beyond the data's end. "
            "Shorten them, or take a larger var `backtest_step`."
        )
    plans = [_plans(chain, cover_days / days) for chain in chains]
    names = [name for name in plans[0] if all(name in plan for plan in plans)]
    policies = [_outcome(name, chains, [plan[name] for plan in plans], days) for name in names]
    policies.append(_normal_at(policies[0]["service_level"], chains, days))
    cost = {row["policy"]: row["total_cost"] for row in policies}
    return {
        "n_series": len(set(reviews.column("series_id").to_pylist())),
        "n_cutoffs": len(set(reviews.column("cutoff_t").to_pylist())),
        "policies": policies,
        "saved": {
            other: 1 - cost["trendcast"] / cost[other] if cost[other] else None
            for other in (MIN_MAX, NORMAL, NORMAL_AS_OFTEN)
        },
    }


@dataclass(frozen=True)
class _Chain:
    """Reviews that follow each other, of the series that have them all: columns [N, K] or [N], demand [N, T]."""

    columns: dict[str, Array]
    demand: Array


def _chains(reviews: pa.Table, demand: pa.Table) -> Iterator[_Chain]:
    """Cut the backtest into runs of cutoffs that are a review interval apart."""
    names = np.array(reviews.column("series_id").to_pylist())
    at = np.asarray(reviews.column("cutoff_t")).astype(np.int64)
    review = int(np.asarray(reviews.column("review_periods"))[0])
    series, row = np.unique(names, return_inverse=True)
    cutoffs = np.unique(at)
    kept = [c for c in reviews.column_names if c != "series_id"]
    cube = {c: np.full((len(series), len(cutoffs)), np.nan) for c in kept}
    for name, values in cube.items():
        values[row, np.searchsorted(cutoffs, at)] = np.asarray(
            reviews.column(name), dtype=np.float64
        )

    t = np.asarray(demand.column("t")).astype(np.int64)
    last_t, first_t = int(t.max()), int(cutoffs[0]) + 1
    sold = np.full((len(series), last_t - first_t + 1), np.nan)
    of = np.array(demand.column("series_id").to_pylist())
    known = np.isin(of, series) & (t >= first_t)
    sold[np.searchsorted(series, of[known]), t[known] - first_t] = np.asarray(
        demand.column("y"), dtype=np.float64
    )[known]

    lead = np.nanmax(cube["lead_periods"], axis=1)
    for run in np.split(cutoffs, np.flatnonzero(np.diff(cutoffs) != review) + 1):
        # Reviews whose cycle is over for every series; those with long lead times must not drop the others' last.
        over = [c for c in run if c + review + lead.min() <= last_t]
        if not over:
            continue
        place = np.searchsorted(cutoffs, over)
        whole = np.isfinite(cube["service_units"][:, place]).all(axis=1)
        whole &= over[-1] + review + lead <= last_t
        if not whole.any():
            continue
        start = int(over[0]) + 1 - first_t
        length = len(over) * review + int(lead[whole].max())
        window = sold[whole, start : start + length]
        yield _Chain(
            {name: values[whole][:, place] for name, values in cube.items()},
            # Beyond the end of the data only of series whose cycles are over before it.
            np.pad(np.nan_to_num(window), ((0, 0), (0, length - window.shape[1]))),
        )


@dataclass(frozen=True)
class _Plan:
    """A policy on a chain, [N, K] each: what it aims at, and its levels."""

    target: Array
    trigger: Array
    level: Array


def _normal(chain: _Chain, z: Array | float) -> Array:
    """Order-up-to levels of the normal approximation, [N, K]."""
    columns = chain.columns
    protection = columns["lead_periods"] + columns["review_periods"]
    spread = z * columns["std_medium"] * np.sqrt(protection)
    return np.asarray(np.ceil(columns["mean_medium"] * protection + spread))


def _plans(chain: _Chain, cover: float) -> dict[str, _Plan]:
    """Return each policy's levels; `cover` in periods."""
    columns = chain.columns
    quantile = np.vectorize(NormalDist().inv_cdf)
    service, ratio = columns["service_level"], columns["critical_ratio"]
    protection = columns["lead_periods"] + columns["review_periods"]
    lowest = np.ceil(columns["mean_medium"] * (columns["lead_periods"] + cover))
    highest = np.ceil(columns["mean_medium"] * (protection + cover))
    normal = _normal(chain, quantile(service))
    plans = {
        "trendcast": _Plan(service, columns["service_units"], columns["service_units"]),
        MIN_MAX: _Plan(service, lowest, highest),
        NORMAL: _Plan(service, normal, normal),
    }
    # Without prices or costs nobody knows what a stockout costs.
    if np.isfinite(ratio).all():
        units = columns["newsvendor_units"]
        normal = _normal(chain, quantile(np.clip(ratio, 1e-4, 1 - 1e-4)))
        plans["trendcast, newsvendor"] = _Plan(ratio, units, units)
        plans["normal, newsvendor"] = _Plan(ratio, normal, normal)
    return plans


def _normal_at(service_level: float, chains: list[_Chain], days: float) -> dict[str, Any]:
    """Replay the normal safety stock with the least factor that runs out no more often than `service_level` allows.

    It is what a planner would hold who had found the factor out; half of a policy's savings may be nothing but a
    target that was met.
    """
    low, high = 0.0, 16.0
    row: dict[str, Any] = {}
    for _ in range(12):
        z = (low + high) / 2
        levels = [_normal(chain, z) for chain in chains]
        target = [np.full_like(level, service_level) for level in levels]
        plans = [_Plan(t, level, level) for t, level in zip(target, levels, strict=True)]
        found = _outcome(NORMAL_AS_OFTEN, chains, plans, days)
        if found["service_level"] >= service_level:
            high, row = z, found
        else:
            low = z
    return row or found


def _outcome(name: str, chains: list[_Chain], plans: list[_Plan], days: float) -> dict[str, Any]:
    """Replay a policy on every chain and sum its cycles up."""
    totals = dict.fromkeys(
        (
            "n_cycles",
            "target",
            "in_stock",
            "demand",
            "short",
            "held",
            "holding_cost",
            "shortage_cost",
        ),
        0.0,
    )
    for chain, plan in zip(chains, plans, strict=True):
        columns = chain.columns
        cycles = replay(
            plan.trigger,
            plan.level,
            chain.demand,
            columns["lead_periods"][:, 0].astype(np.int64),
            int(columns["review_periods"][0, 0]),
            pack=columns["pack_size"][:, 0],
            minimum=columns["minimum_order"][:, 0],
        )
        held = cycles.held * days
        for key, values in {
            "n_cycles": np.ones_like(held),
            "target": plan.target,
            "in_stock": cycles.short <= 1e-9,
            "demand": cycles.demand,
            "short": cycles.short,
            "held": held,
            "holding_cost": np.nan_to_num(held * columns["holding_cost"]),
            "shortage_cost": np.nan_to_num(cycles.short * columns["shortage_cost"]),
        }.items():
            totals[key] += float(values.sum())
    demand = totals["demand"]
    return {
        "policy": name,
        "n_cycles": int(totals["n_cycles"]),
        "target_service_level": totals["target"] / totals["n_cycles"],
        "service_level": totals["in_stock"] / totals["n_cycles"],
        "fill_rate": 1 - totals["short"] / demand if demand else None,
        "units_short": totals["short"],
        "unit_days_held": totals["held"],
        "holding_cost": totals["holding_cost"],
        "shortage_cost": totals["shortage_cost"],
        "total_cost": totals["holding_cost"] + totals["shortage_cost"],
    }
