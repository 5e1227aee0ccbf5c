"""What each customer buys next: a recurrent network over their visits, blended with the SQL baselines.

For a cutoff and a customer the network reads the last visits (the items of each, how long ago it was, how long after
the one before) and says for every item how likely it is bought in the days after the cutoff. Beside the recurrent part
each item's own counts go straight to its output (a wide and deep network, Cheng et al. 2016): how often a customer
bought an item before says most of it. The network of a fold learns from cutoffs whose days after are over by the
fold's own cutoff, and from nothing later.

The blend is a weighted mean of the methods' scores, each over the customer's best. Its weights are those with the best NDCG on
fold 2; fold 1 is not looked at until the accuracy mart is.

Shapes: C customers, I items, B examples, L visits, M items of a visit, W windows counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trendcast.errors import DataError, WarehouseError
from trendcast.models.backend import import_tensorflow

if TYPE_CHECKING:
    from trendcast.project import Project
    from trendcast.warehouse import Warehouse

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

RECURRENT, BLEND = "gru", "blend"
BASELINES = ("popularity", "repeat", "together")
FOLDS = (0, 1, 2)  # the last cutoff, the one to report on, the one the blend is tuned on
TOP = 10
NEEDED = ("int_customer_orders", "int_customer_cutoffs", "int_next_purchase_baselines")
VISITS, VISIT_ITEMS = 16, 20  # of a customer, the newest; of a visit
WINDOWS = (28, 91, 364)  # days over which an item's visits are counted
ANCHOR_STEP = 14  # days between the cutoffs the network learns from
MAX_EXAMPLES = 20_000
EPOCHS, BATCH, UNITS = 8, 128, 48


@dataclass(frozen=True)
class Visits:
    """Who bought which item when, one row per customer, day and item, ordered by them.

    Parameters
    ----------
    customers, items
        Names; the rows hold their positions, items counted from 1.
    customer, day, item : array [rows]
        Days are counted from 1970-01-01.
    """

    customers: list[str]
    items: list[str]
    customer: Ints
    day: Ints
    item: Ints

    @classmethod
    def read(cls, warehouse: Warehouse, project: Project) -> Visits:
        """Read the orders of items that the baselines may propose."""
        found = warehouse.query(
            f"""
            select orders.customer_id, orders.order_date, orders.item
            from {project.relation("int_customer_orders")} as orders
            where orders.item in (select item from {project.relation("int_next_purchase_baselines")})
            order by {warehouse.text_order("orders.customer_id")}, 2, {warehouse.text_order("orders.item")}
            """
        )
        columns = [found.column(name).combine_chunks() for name in ("customer_id", "item")]
        customers, items = (
            sorted(column.dictionary_encode().dictionary.to_pylist()) for column in columns
        )
        at = [
            pa.compute.index_in(column, pa.array(names, column.type)).to_numpy().astype(np.int32)
            for column, names in zip(columns, (customers, items), strict=True)
        ]
        days = found.column("order_date").cast(pa.int32()).to_numpy()
        return cls(customers, items, at[0], days, at[1] + 1)

    def counts(self, after: int, upto: int) -> Array:
        """Return on how many days after one and up to another each customer bought each item, [C, I]."""
        counted = np.zeros((len(self.customers), len(self.items)), np.float32)
        rows = (self.day > after) & (self.day <= upto)
        np.add.at(counted, (self.customer[rows], self.item[rows] - 1), 1)
        return counted

    def inputs(self, cutoff: int) -> dict[str, npt.NDArray[Any]]:
        """Return what the network reads at a cutoff, for every customer: items [C, L, M], times [C, L, 2], counts [C, I, W]."""
        n = len(self.customers)
        items = np.zeros((n, VISITS, VISIT_ITEMS), np.int32)
        times = np.zeros((n, VISITS, 2), np.float32)
        known = self.day <= cutoff
        customer, day, item = self.customer[known], self.day[known], self.item[known]
        if len(customer):
            new = np.r_[True, (np.diff(customer) != 0) | (np.diff(day) != 0)]
            visit = np.cumsum(new) - 1
            starts = np.flatnonzero(new)
            of, on = customer[starts], day[starts]
            # The newest visit of each customer stands last, so zeros come first.
            ends = np.searchsorted(of, of, side="right")
            place = VISITS - (ends - np.arange(len(of)))
            within = np.arange(len(customer)) - starts[visit]
            kept = (place[visit] >= 0) & (within < VISIT_ITEMS)
            items[customer[kept], place[visit][kept], within[kept]] = item[kept]
            first = np.r_[True, np.diff(of) != 0]
            gap = np.where(first, 0, np.diff(on, prepend=on[0]))
            shown = place >= 0
            times[of[shown], place[shown], 0] = np.log1p(cutoff - on[shown])
            times[of[shown], place[shown], 1] = np.log1p(gap[shown])
        counts = np.stack([np.log1p(self.counts(cutoff - w, cutoff)) for w in WINDOWS], axis=-1)
        return {"items": items, "times": times, "counts": counts}

    def known(self, cutoff: int) -> npt.NDArray[np.bool_]:
        """Return who had bought by a cutoff, [C]."""
        found = np.zeros(len(self.customers), bool)
        found[self.customer[self.day <= cutoff]] = True
        return found


def learn(
    warehouse: Warehouse, project: Project, seed: int, progress: Callable[[str], None]
) -> tuple[dict[tuple[int, str], pa.Table], dict[str, float]]:
    """Rank the items of every customer at every fold's cutoff.

    Returns
    -------
    tables : dict
        Fold and model to rows of the ledger table ``next_purchases``.
    weights : dict
        The blend's weight of each method.

    Raises
    ------
    WarehouseError
        dbt has not built the customers' marts.
    DataError
        No order has a customer, or the history is too short to learn from.
    """
    for name in NEEDED:
        if not warehouse.exists(project.relation(name)):
            raise WarehouseError(
                f"The table {project.relation(name)} does not exist. Run `trendcast run` or `dbt build` first."
            )
    visits = Visits.read(warehouse, project)
    if not visits.customers:
        raise DataError(
            "No order line has both a customer and an item, so there is nobody to propose anything to. Check what the var "
            "`order_columns` maps customer_id to, and the var `customer_item`."
        )
    rows = warehouse.query(
        f"select fold, cutoff from {project.relation('int_customer_cutoffs')} order by fold"
    )
    dates = dict(
        zip(rows.column("fold").to_pylist(), rows.column("cutoff").to_pylist(), strict=True)
    )
    days = rows.column("cutoff").cast(pa.int32()).to_pylist()
    ahead = days[0] - days[1]
    scores: dict[int, dict[str, Array]] = {}
    for fold in sorted(FOLDS, reverse=True):
        progress(f"fold {fold}")
        scores[fold] = _baselines(warehouse, project, visits, fold)
        scores[fold][RECURRENT] = _recurrent(visits, days[fold], ahead, seed)
    tuned = days[2]
    truth = visits.counts(tuned, tuned + ahead) > 0
    weights = blend_weights(scores[2], truth, visits.known(tuned), seed)
    tables = {}
    for fold in FOLDS:
        known = visits.known(days[fold])
        for model, values in (
            (RECURRENT, scores[fold][RECURRENT]),
            (BLEND, blended(scores[fold], weights)),
        ):
            tables[fold, model] = _ranked(visits, values, known, dates[fold])
    return tables, weights


def _baselines(
    warehouse: Warehouse, project: Project, visits: Visits, fold: int
) -> dict[str, Array]:
    """Return the scores of the SQL baselines, [C, I] each; 0 for what they do not propose."""
    found = {}
    for method in BASELINES:
        rows = warehouse.query(
            f"""
            select customer_id, item, score from {project.relation("int_next_purchase_baselines")}
            where fold = ? and method = ?
            """,
            [fold, method],
        )
        values = np.zeros((len(visits.customers), len(visits.items)), np.float32)
        at = [
            pa.compute.index_in(rows.column(name), pa.array(names, pa.string()))
            for name, names in (("customer_id", visits.customers), ("item", visits.items))
        ]
        known = pa.compute.and_(at[0].is_valid(), at[1].is_valid()).to_numpy()
        customer, item = (
            np.asarray(pa.compute.fill_null(place, 0).to_numpy())[known] for place in at
        )
        values[customer, item] = rows.column("score").to_numpy()[known]
        found[method] = values
    return found


def _recurrent(visits: Visits, cutoff: int, ahead: int, seed: int) -> Array:
    """Train a network on what was over by the cutoff and return its chances after it, [C, I]."""
    import_tensorflow()
    import keras

    keras.utils.set_random_seed(seed)
    inputs, bought = _examples(visits, cutoff, ahead, seed)
    model = network(len(visits.items), bought.mean(axis=0))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(
        3e-3, EPOCHS * -(-len(bought) // BATCH)
    ))  # fmt: skip
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(inputs, bought, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    logits = model.predict(visits.inputs(cutoff), batch_size=1024, verbose=0)
    chances: Array = 1 / (1 + np.exp(-logits))
    return chances


def _examples(
    visits: Visits, cutoff: int, ahead: int, seed: int
) -> tuple[dict[str, npt.NDArray[Any]], Array]:
    """Return inputs and what was bought after them, [B, I], at cutoffs whose days after end by this one."""
    first = int(visits.day.min())
    anchors = list(range(cutoff - ahead, first + ahead - 1, -ANCHOR_STEP))
    if not anchors:
        raise DataError(
            f"The orders up to a cutoff of the backtest span {cutoff - first + 1} days; to learn what customers buy in "
            f"{ahead} days takes {2 * ahead} at least. Set the var `customer_days` lower, or wait for more orders."
        )
    generator = np.random.default_rng(seed)
    parts: list[tuple[dict[str, npt.NDArray[Any]], Array]] = []
    each = max(MAX_EXAMPLES // len(anchors), 1)
    for anchor in anchors:
        chosen = np.flatnonzero(visits.known(anchor))
        if len(chosen) > each:
            chosen = np.sort(generator.choice(chosen, each, replace=False))
        read = {name: values[chosen] for name, values in visits.inputs(anchor).items()}
        parts.append((read, (visits.counts(anchor, anchor + ahead) > 0)[chosen].astype(np.float32)))
    names = parts[0][0].keys()
    inputs = {name: np.concatenate([read[name] for read, _ in parts]) for name in names}
    return inputs, np.concatenate([bought for _, bought in parts])


def network(n_items: int, share: Array) -> Any:
    """Return the network; its output starts at each item's share of buyers, [I]."""
    import keras
    from keras import layers, ops

    items = keras.Input((VISITS, VISIT_ITEMS), dtype="int32", name="items")
    times = keras.Input((VISITS, 2), name="times")
    counts = keras.Input((n_items, len(WINDOWS)), name="counts")
    vectors = layers.Embedding(n_items + 1, 32)(items)
    there = ops.expand_dims(ops.cast(ops.not_equal(items, 0), "float32"), -1)
    basket = ops.sum(vectors * there, axis=2) / ops.maximum(ops.sum(there, axis=2), 1.0)
    state = layers.GRU(UNITS)(layers.Concatenate()([basket, times]))
    share = np.clip(share, 1e-4, 1 - 1e-4)
    bias = keras.initializers.Constant(np.log(share / (1 - share)))
    small = keras.initializers.RandomNormal(stddev=0.01, seed=1)
    deep = layers.Dense(n_items, bias_initializer=bias, kernel_initializer=small)(
        layers.Dropout(0.2, seed=2)(state)
    )
    # The same three weights for every item.
    wide = layers.Dense(1, use_bias=False, kernel_initializer="zeros")(counts)
    return keras.Model([items, times, counts], deep + ops.squeeze(wide, -1))


def blended(scores: dict[str, Array], weights: dict[str, float]) -> Array:
    """Return the weighted mean of the methods' scores, each over the customer's best, [C, I]."""
    total = np.zeros_like(next(iter(scores.values())))
    for name, values in scores.items():
        total += np.float32(weights[name]) * _over_best(values)
    return total


def _over_best(values: Array) -> Array:
    best = values.max(axis=1, keepdims=True)
    return np.asarray(values / np.where(best > 0, best, 1), np.float32)


def blend_weights(
    scores: dict[str, Array], truth: npt.NDArray[np.bool_], known: npt.NDArray[np.bool_], seed: int
) -> dict[str, float]:
    """Return the weights, in tenths, with the best NDCG; of equals the first, which trusts the network most."""
    judged = np.flatnonzero(known & truth.any(axis=1))
    names = [RECURRENT, *BASELINES]
    if not len(judged):
        return {name: 1 / len(names) for name in names}
    if len(judged) > 2000:
        judged = np.sort(np.random.default_rng(seed).choice(judged, 2000, replace=False))
    parts = [_over_best(scores[name][judged]) for name in names]
    best, found = -1.0, tuple[int, ...]()
    for tenths in _simplex(len(names), 10):
        mixed = sum(np.float32(w / 10) * part for w, part in zip(tenths, parts, strict=True))
        value = ndcg(np.asarray(mixed), truth[judged])
        if value > best + 1e-9:
            best, found = value, tenths
    return {name: tenth / 10 for name, tenth in zip(names, found, strict=True)}


def _simplex(n: int, total: int) -> Iterator[tuple[int, ...]]:
    """All ways to share a whole number among n, those that give the first most at the start."""
    for rest in itertools.product(range(total + 1), repeat=n - 1):
        if sum(rest) <= total:
            yield (total - sum(rest), *rest)


def ndcg(scores: Array, truth: npt.NDArray[np.bool_]) -> float:
    """Return the mean NDCG of the first ten; both [C, I], every customer with something bought."""
    top = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    gains = 1 / np.log2(np.arange(2, top.shape[1] + 2))
    found = (np.take_along_axis(truth, top, axis=1) * gains).sum(axis=1)
    ideal = np.cumsum(gains)[np.minimum(truth.sum(axis=1), top.shape[1]) - 1]
    return float((found / ideal).mean())


def _ranked(visits: Visits, scores: Array, known: npt.NDArray[np.bool_], cutoff: Any) -> pa.Table:
    """Return the first ten items of every known customer, as rows of the ledger."""
    customers = np.flatnonzero(known)
    top = np.argsort(-scores[customers], axis=1, kind="stable")[:, :TOP]
    n = top.shape[1]
    return pa.table(
        {
            "customer_id": pa.array(visits.customers).take(pa.array(np.repeat(customers, n))),
            "item_rank": pa.array(np.tile(np.arange(1, n + 1, dtype=np.int32), len(customers))),
            "item": pa.array(visits.items).take(pa.array(top.ravel())),
            "cutoff": pa.array([cutoff] * (n * len(customers)), pa.date32()),
            "score": np.take_along_axis(scores[customers], top, axis=1).ravel().astype(np.float64),
        }
    )
