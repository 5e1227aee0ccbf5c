"""Combines the models' forecasts with weights learnt on backtests, and corrects how wide they are.

Quantiles are averaged level by level (Vincentization; Lichtendahl, Grushka-Cockayne & Winkler, Is it better to
average probabilities or quantiles?, Management Science 2013), with weights on the simplex that minimise the scaled pinball loss per
demand class and lead bucket. The average is trimmed: a tenth of the weight is cut off at either end, so that one member who is
far off counts for less (Jose & Winkler, Simple robust averages of forecasts, IJF 2008). That of the means is not, for trimmed
means of skewed demand are too low, and sums of them too. A class with little evidence is drawn towards the whole lead bucket, and that towards equal
weights, which are hard to beat (Claeskens et al., The forecast combination puzzle, IJF 2016). A series then tilts its class's
weights by what each member lost on that series itself, for what suits one series need not suit its neighbour (weights
from each series' own past performance: Bates & Granger, The combination of forecasts, OR Quarterly 1969).

The distance of each quantile from the median is then scaled so that it covered what it promised: split-conformal
prediction on normalised residuals (Romano, Patterson & Candes, Conformalized quantile regression, NeurIPS 2019), on forecasts
of the ensemble itself that were made without knowing what came.

Nothing is learnt from a target later than the cutoff served. Shapes: M members, R rows, Q quantile levels, C classes,
B lead buckets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trendcast.errors import DataError
from trendcast.models.base import QUANTILES, pinball, read_artifact
from trendcast.models.by_measure import of_measure
from trendcast.models.spread import sampled
from trendcast.models.tables import QUANTILE_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Array = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

NAME = "ensemble"
FORMAT = 1
ALL = "all"
MEDIAN = QUANTILES.index(0.5)
LEVELS = np.array(QUANTILES)
MAX_ROWS = 10_000  # rows a set of weights is learnt from, at most
STEPS = 120
# Evidence is worth as much as the prior when it has this many rows, or spans this many horizons: what one
# month favours the next may not, however many rows it has.
PRIOR_ROWS = 2_000
PRIOR_HORIZONS = 4
# A new series' own forecast is worth as much as its neighbours' when its history is this part of the medium window; what the
# backtest may make of that.
PRIOR_SHARE = 0.5
PRIOR_SHARES = 2.0 ** np.arange(-5, 2)
EVIDENCE_ROWS = 200_000  # kept of each cutoff, at most
SCALE_LIMITS = (0.5, 2.0)
# A member counts for a series as its relative loss there to this power; one that lost a twentieth is no better known
# than one that lost a tenth.
TILT = -2.0
LEAST_LOSS = 0.05
# Of the weight, cut off below and above before quantiles are averaged.
TRIM = 0.1
# Combined at once: to order members takes several times the memory of their forecasts.
COMBINED_ROWS = 50_000
# Losses count in units of the series' own error scale: in that of demand a few large series would choose for all. No
# row counts more than this many times the mean.
MOST_WEIGHT = 20.0


@dataclass(frozen=True)
class Rows:
    """Forecasts of all members on the same rows, or of the ensemble alone (M = 1).

    Parameters
    ----------
    quantiles : array [M, R, Q]
    mean : array [M, R]
    demand_class : array [R], text
    lead : array [R]
    actual : array [R]
        NaN where unknown.
    series_id : array [R], text
    error_scale : array [R]
        What MASE divides by; NaN where unknown.
    lead_bucket : int
        Leads that share weights.
    """

    quantiles: Array
    mean: Array
    demand_class: npt.NDArray[np.str_]
    lead: IntArray
    actual: Array
    series_id: npt.NDArray[np.str_]
    error_scale: Array
    lead_bucket: int

    @classmethod
    def of(
        cls, tables: Sequence[pa.Table], about: pa.Table, lead_bucket: int, *, counts: bool
    ) -> Rows:
        """Read the members' forecasts, ordered alike, and what is known of their rows.

        Quantiles of counts are made whole before they are compared: a 90% quantile of 0.4 units is 0 in practice, and
        a member should not look better or worse for saying 0.4.
        """
        quantiles = np.stack([_quantiles(table) for table in tables])
        return cls(
            quantiles=np.rint(quantiles) if counts else quantiles,
            mean=np.stack([_floats(table, "mean") for table in tables]),
            demand_class=np.array(about.column("demand_class").to_pylist(), dtype=np.str_),
            lead=_floats(about, "lead").astype(np.int64),
            actual=_floats(about, "actual"),
            series_id=np.array(about.column("series_id").to_pylist(), dtype=np.str_),
            error_scale=_floats(about, "error_scale"),
            lead_bucket=lead_bucket,
        )

    def __len__(self) -> int:
        return len(self.lead)

    @property
    def bucket(self) -> IntArray:
        """Lead bucket of each row, from 1, [R]."""
        return (self.lead - 1) // self.lead_bucket + 1

    def take(self, rows: npt.NDArray[Any]) -> Rows:
        """Return some of the rows."""
        return replace(
            self,
            quantiles=self.quantiles[:, rows],
            mean=self.mean[:, rows],
            demand_class=self.demand_class[rows],
            lead=self.lead[rows],
            actual=self.actual[rows],
            series_id=self.series_id[rows],
            error_scale=self.error_scale[rows],
        )

    def thinned(self, most: int = EVIDENCE_ROWS) -> Rows:
        """Return a sample to learn from, for a panel of any size."""
        return self if len(self) <= most else self.take(sampled(len(self), most, seed=0))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several cutoffs as one."""
    return Rows(
        quantiles=np.concatenate([p.quantiles for p in parts], axis=1),
        mean=np.concatenate([p.mean for p in parts], axis=1),
        demand_class=np.concatenate([p.demand_class for p in parts]),
        lead=np.concatenate([p.lead for p in parts]),
        actual=np.concatenate([p.actual for p in parts]),
        series_id=np.concatenate([p.series_id for p in parts]),
        error_scale=np.concatenate([p.error_scale for p in parts]),
        lead_bucket=parts[0].lead_bucket,
    )


@dataclass
class Ensemble:
    """Weights and widths, by demand class and lead bucket.

    Parameters
    ----------
    members
        Names of the models combined.
    counts
        Demand comes in whole units, and so do its quantiles.
    weights
        "class:bucket" to one weight a member; ``all`` stands for classes without evidence of their own.
    scales
        "class:bucket" to one factor a quantile level.
    n_rows
        Rows behind each set of weights.
    tilts
        Series to one factor a member on its class's weights.
    prior_share
        History, in medium windows, with which a new series' own forecast counts as much as its neighbours'.
    """

    members: tuple[str, ...]
    counts: bool
    weights: dict[str, list[float]] = field(default_factory=dict)
    scales: dict[str, list[float]] = field(default_factory=dict)
    n_rows: dict[str, int] = field(default_factory=dict)
    tilts: dict[str, list[float]] = field(default_factory=dict)
    prior_share: float = PRIOR_SHARE

    @property
    def equal(self) -> Array:
        """One weight a member, all the same."""
        return np.full(len(self.members), 1 / len(self.members))

    def learn(self, rows: Rows, n_horizons: float) -> None:
        """Learn the weights from members' forecasts and what happened over some horizons."""
        for key, index, parent in _segments(rows):
            prior = np.array(self.weights.get(parent, self.equal)) if parent else self.equal
            sample = index[:: -(-len(index) // MAX_ROWS)]
            found = _simplex_weights(
                rows.quantiles[:, sample],
                rows.actual[sample],
                _row_weights(rows.error_scale[sample]),
                prior,
            )
            share = _share(len(index), n_horizons)
            self.weights[key] = (share * found + (1 - share) * prior).tolist()
            self.n_rows[key] = len(index)

    def tilt(self, losses: Losses, horizon: int) -> None:
        """Learn how each series' weights differ from its class's, from what members lost on it."""
        average = losses.total.mean(axis=1)
        share = losses.n / (losses.n + horizon)
        ratio = losses.total / np.where(average > 0, average, 1)[:, None]
        ratio = np.where(average[:, None] > 0, np.maximum(ratio, LEAST_LOSS), 1.0)
        factors = (share[:, None] * ratio + 1 - share[:, None]) ** TILT
        self.tilts = dict(zip(losses.series_id.tolist(), factors.tolist(), strict=True))

    def calibrate(self, rows: Rows, n_horizons: float) -> None:
        """Learn the widths from the ensemble's own forecasts (M = 1), not yet scaled, and what happened."""
        self.scales = {}
        for key, index, parent in _segments(rows):
            prior = np.log(self.scales[parent]) if parent else np.zeros(len(LEVELS))
            found = np.log(_scales(rows.quantiles[0, index], rows.actual[index]))
            share = _share(len(index), n_horizons)
            self.scales[key] = np.exp(share * found + (1 - share) * prior).tolist()

    def shares(self, rows: Rows) -> Array:
        """Return what each member counts on each row, [R, M]; they add up to 1."""
        weights = _look_up(self.weights, rows, self.equal)
        if self.tilts:
            names, where = np.unique(rows.series_id, return_inverse=True)
            alike = [1.0] * len(self.members)
            tilts = np.array([self.tilts.get(str(name), alike) for name in names])
            weights = weights * tilts.reshape(len(names), len(self.members))[where]
            weights = weights / weights.sum(axis=1, keepdims=True)
        return weights

    def explain(self, rows: Rows, keys: pa.Table, explained: Mapping[str, pa.Table]) -> pa.Table:
        """Mix the members' explanations as their means are mixed, so that the parts add up to the ensemble's mean.

        Parameters
        ----------
        rows
            The members' forecasts, ordered by series and lead, every series with every lead.
        keys
            A member's forecasts on the same rows, for their keys.
        explained
            Explanations of members that have any. What has none is one part under the member's name.
        """
        shares = self.shares(rows)
        series = pa.array(np.unique(rows.series_id).tolist())
        horizon = len(rows) // max(len(series), 1)
        parts: dict[str, Array] = {}
        for m, member in enumerate(self.members):
            covered = np.zeros(len(rows), dtype=bool)
            table = explained.get(member)
            if table is not None and len(table):
                of = pc.index_in(table.column("series_id"), series).to_numpy()
                where = of.astype(np.int64) * horizon + table.column("lead").to_numpy() - 1
                covered[where] = True
                names = table.column("component").combine_chunks().dictionary_encode()
                code, values = names.indices.to_numpy(), _floats(table, "contribution")
                for j, name in enumerate(names.dictionary.to_pylist()):
                    mine = code == j
                    part = np.bincount(where[mine], values[mine], len(rows)) * shares[:, m]
                    parts[name] = parts.get(name, 0) + part
            if not covered.all():
                parts[member] = np.where(covered, 0.0, shares[:, m] * rows.mean[m])
        tables = []
        for name, part in sorted(parts.items()):
            there = pa.array(np.flatnonzero(part))
            columns = ["series_id", "cutoff", "target_date", "lead"]
            table = keys.select(columns).take(there)
            table = table.append_column("component", pa.repeat(pa.scalar(name), len(table)))
            tables.append(table.append_column("contribution", pa.array(part[part != 0])))
        return pa.concat_tables(tables)

    def combine(self, rows: Rows) -> Rows:
        """Return the weighted forecasts, not scaled and not rounded; as rows of one member."""
        weights = self.shares(rows)
        quantiles = np.empty(rows.quantiles.shape[1:])
        for start in range(0, len(rows), COMBINED_ROWS):
            part = slice(start, start + COMBINED_ROWS)
            quantiles[part] = _trimmed_mean(rows.quantiles[:, part], weights[part])
        mean = np.einsum("rm,mr->r", weights, rows.mean)
        return replace(rows, quantiles=quantiles[None], mean=mean[None])

    def finish(self, combined: Rows) -> Array:
        """Return the quantiles to serve, [R, Q]: scaled about the median, ordered, never negative."""
        scales = _look_up(self.scales, combined, np.ones(len(LEVELS)))
        quantiles = combined.quantiles[0]
        median = quantiles[:, [MEDIAN]]
        out = np.maximum(median + scales * (quantiles - median), 0)
        if self.counts:
            out = np.rint(out)
        # Neighbouring levels have factors of their own, which may bring them out of order.
        out[:, MEDIAN:] = np.maximum.accumulate(out[:, MEDIAN:], axis=1)
        out[:, MEDIAN::-1] = np.minimum.accumulate(out[:, MEDIAN::-1], axis=1)
        return np.asarray(out)

    def weights_table(self, n_buckets: int) -> pa.Table:
        """Return one row per demand class, lead bucket and member; equal weights where nothing was learnt."""
        equal = {f"{ALL}:{bucket}": self.equal.tolist() for bucket in range(1, n_buckets + 1)}
        rows = [
            {
                "demand_class": key.rsplit(":", 1)[0],
                "lead_bucket": int(key.rsplit(":", 1)[1]),
                "member": member,
                "weight": weight,
                "n_rows": self.n_rows.get(key, 0),
            }
            for key, weights in (self.weights or equal).items()
            for member, weight in zip(self.members, weights, strict=True)
        ]
        return pa.Table.from_pylist(
            rows,
            schema=pa.schema(
                [
                    ("demand_class", pa.string()),
                    ("lead_bucket", pa.int32()),
                    ("member", pa.string()),
                    ("weight", pa.float64()),
                    ("n_rows", pa.int64()),
                ]
            ),
        )

    def save(self, directory: Path) -> list[Path]:
        """Write ``ensemble.json``."""
        path = directory / "ensemble.json"
        path.write_text(
            json.dumps({"format": FORMAT} | self.__dict__, default=list, indent=1, sort_keys=True)
        )
        return [path]

    @classmethod
    def load(cls, directory: Path) -> Ensemble:
        """Read what ``save`` wrote."""
        data = read_artifact(directory / "ensemble.json", FORMAT)
        del data["format"]
        return cls(**(data | {"members": tuple(data["members"])}))


@dataclass(frozen=True)
class Losses:
    """Pinball loss of M members on N series over n [N] rows each, summed: total [N, M]."""

    series_id: npt.NDArray[np.str_]
    total: Array
    n: IntArray

    @classmethod
    def of(cls, parts: Sequence[Lost], cutoff_t: int) -> Losses:
        """Add up what was lost on targets up to a cutoff."""
        parts = [part for part in parts if part.cutoff_t < cutoff_t]
        series_id, where = np.unique(
            np.concatenate([part.series_id for part in parts]), return_inverse=True
        )
        known = [part.loss[:, :, : cutoff_t - part.cutoff_t] for part in parts]
        totals = np.concatenate(
            [np.nansum(loss, axis=2, dtype=np.float64) for loss in known], axis=1
        )
        rows = np.concatenate([np.isfinite(loss[0]).sum(axis=1) for loss in known])
        total: Array = np.stack([np.bincount(where, t, len(series_id)) for t in totals], axis=1)
        return cls(series_id, total, np.bincount(where, rows, len(series_id)).astype(np.int64))


@dataclass(frozen=True)
class Lost:
    """Pinball loss of M members on N series by lead, from a cutoff: loss [M, N, H], NaN where the target is not known."""

    cutoff_t: int
    series_id: npt.NDArray[np.str_]
    loss: npt.NDArray[np.float32]

    @classmethod
    def of(cls, cutoff_t: int, rows: Rows, horizon: int) -> Lost:
        """Measure it."""
        series_id, where = np.unique(rows.series_id, return_inverse=True)
        # A number for every row and member is kept until the walk ends, so it is a small one.
        loss = np.full((len(rows.quantiles), len(series_id), horizon), np.nan, np.float32)
        for m, quantiles in enumerate(rows.quantiles):
            loss[m, where, rows.lead - 1] = _pinball(quantiles, rows.actual)
        return cls(cutoff_t, series_id, loss)


class Backtest:
    """Walks from the oldest cutoff to the newest: what is learnt for one comes from the older ones alone.

    Parameters
    ----------
    members
        Names of the models combined.
    counts
        Demand comes in whole units.
    horizon, medium
        The horizon and the medium window, in periods.
    """

    def __init__(self, members: Sequence[str], *, counts: bool, horizon: int, medium: int) -> None:
        self.members = tuple(members)
        self.counts = counts
        self.horizon = horizon
        self.medium = medium
        self._past: list[tuple[int, Rows, Rows]] = []  # cutoff, members, the ensemble's own
        self._lost: list[Lost] = []
        # Of new series by cutoff: the lead of every row, and what it would have lost with each of PRIOR_SHARES, [R, K].
        self._new: list[tuple[int, IntArray, Array]] = []

    def ensemble(self, cutoff_t: int) -> Ensemble:
        """Return the ensemble for a cutoff: learnt from targets up to it, equal weights where there are none."""
        found = Ensemble(self.members, self.counts)
        members, own, first = [], [], cutoff_t
        for t, rows, combined in self._past:
            known = np.flatnonzero(rows.lead <= cutoff_t - t)
            if len(known):
                members.append(rows.take(known))
                own.append(combined.take(known))
                first = min(first, t)
        if members:
            n_cutoffs = len({t for t, _, _ in self._past if t < cutoff_t})
            n_horizons = min(n_cutoffs, (cutoff_t - first) / self.horizon)
            found.learn(concatenate(members), n_horizons)
            found.tilt(Losses.of(self._lost, cutoff_t), self.horizon)
            found.calibrate(concatenate(own), n_horizons)
        found.prior_share = self._prior_share(cutoff_t)
        return found

    def _prior_share(self, cutoff_t: int) -> float:
        """Return the share with which new series' rows known at a cutoff would have lost least, drawn to the usual one."""
        known = [losses[lead <= cutoff_t - t] for t, lead, losses in self._new]
        n = sum(map(len, known))
        if not n:
            return PRIOR_SHARE
        best = PRIOR_SHARES[np.argmin(np.sum([losses.sum(axis=0) for losses in known], axis=0))]
        share = n / (n + PRIOR_ROWS)
        return float(best**share * PRIOR_SHARE ** (1 - share))

    def remember_new(self, cutoff_t: int, table: pa.Table, analogy: pa.Table) -> None:
        """Remember what new series' forecasts would have lost had their neighbours counted more or less.

        Parameters
        ----------
        table
            The ensemble's forecasts of a cutoff as for `drawn_to_neighbours`, with actual and error_scale.
        analogy
            As there.
        """
        rows, at = _matched(table, analogy)
        if not len(rows):
            return
        own, other = _quantiles(table)[rows], _quantiles(analogy)[at]
        evidence = _floats(analogy, "evidence_periods")[at]
        actual = _floats(table, "actual")[rows]
        losses = []
        for share in PRIOR_SHARES:
            mixed = _mixed(own, other, _credibility(evidence, share * self.medium)[:, None])
            losses.append(_pinball(np.rint(mixed) if self.counts else mixed, actual))
        weights = _row_weights(_floats(table, "error_scale")[rows])
        lead = _floats(table, "lead")[rows].astype(np.int64)
        self._new.append((cutoff_t, lead, np.column_stack(losses) * weights[:, None]))

    def remember(self, cutoff_t: int, rows: Rows, found: Ensemble, n_parts: int = 1) -> None:
        """Remember what came of the members' forecasts of a cutoff, newer than all before.

        Parameters
        ----------
        rows
            Of all series, or of one of some parts of the panel.
        found
            The ensemble for that cutoff.
        """
        kept = rows.thinned(EVIDENCE_ROWS // n_parts)
        self._past.append((cutoff_t, kept, found.combine(kept)))
        self._lost.append(Lost.of(cutoff_t, rows, self.horizon))


class Ensembles:
    """The ensemble of each measure; with one measure that one.

    Parameters
    ----------
    parts
        Measure to its ensemble, all of the same members.
    """

    def __init__(self, parts: Mapping[str, Ensemble]) -> None:
        self.parts = dict(parts)
        self.members = next(iter(self.parts.values())).members

    def weights_table(self, n_buckets: int) -> pa.Table:
        """Return one row per measure, demand class, lead bucket and member."""
        return pa.concat_tables(
            of_measure(part.weights_table(n_buckets), measure)
            for measure, part in self.parts.items()
        )

    def save(self, directory: Path) -> list[Path]:
        """Write ``ensemble.json``; of several measures into a folder of each."""
        files = []
        for measure, part in self.parts.items():
            folder = self._folder(directory, measure, list(self.parts))
            folder.mkdir(exist_ok=True)
            files += part.save(folder)
        return files

    @classmethod
    def load(cls, directory: Path, measures: Sequence[str]) -> Ensembles:
        """Read what ``save`` wrote."""
        return cls({m: Ensemble.load(cls._folder(directory, m, measures)) for m in measures})

    @staticmethod
    def _folder(directory: Path, measure: str, measures: Sequence[str]) -> Path:
        return directory if len(measures) == 1 else directory / measure


def table_of(keys: pa.Table, mean: Array, quantiles: Array) -> pa.Table:
    """Return forecasts as a table with the ledger's columns, keys as in another model's table."""
    columns = {name: keys.column(name) for name in ("series_id", "cutoff", "target_date", "lead")}
    columns["mean"] = pa.array(mean)
    for k, name in enumerate(QUANTILE_NAMES):
        columns[name] = pa.array(np.ascontiguousarray(quantiles[:, k]))
    return pa.table(columns)


def drawn_to_neighbours(
    table: pa.Table,
    explained: pa.Table | None,
    analogy: pa.Table,
    prior_periods: float,
    *,
    counts: bool,
) -> tuple[pa.Table, pa.Table | None]:
    """Draw forecasts of series with little history to those by analogy, and their explanations with them.

    With n periods, the first sale's among them, the ensemble counts n / (n + ``prior_periods``), credibility's formula (Buhlmann,
    Experience rating and credibility, ASTIN Bulletin 1967): its members take a mean since the first sale for the level, and a few
    periods are not enough to weigh them. Quantiles are averaged as the members' are.

    Parameters
    ----------
    table
        The ensemble's forecasts, ordered by series and lead.
    explained
        Their explanations, None for a backtest.
    analogy
        series_id, lead, mean, the quantiles and evidence_periods; ordered alike, of the series in question alone.
    counts
        Demand comes in whole units.
    """
    rows, at = _matched(table, analogy)
    if not len(rows):
        return table, explained
    share = _credibility(_floats(analogy, "evidence_periods")[at], prior_periods)
    columns = {name: table.column(name) for name in table.column_names}
    borrowed = (1 - share) * _floats(analogy, "mean")[at]
    for name in ("mean", *QUANTILE_NAMES):
        values = _floats(table, name).copy()
        mixed = _mixed(values[rows], _floats(analogy, name)[at], share)
        values[rows] = np.rint(mixed) if counts and name != "mean" else mixed
        columns[name] = pa.array(values)
    drawn = pa.table(columns)
    if explained is None:
        return drawn, None
    names = _names(analogy)
    parts, order = _row_keys(explained, names), _row_keys(table, names)[rows]
    found = np.flatnonzero(parts >= 0)
    where = np.minimum(np.searchsorted(order, parts[found]), max(len(order) - 1, 0))
    contribution = _floats(explained, "contribution").copy()
    contribution[found] *= share[where]
    explained = explained.set_column(
        explained.column_names.index("contribution"), "contribution", pa.array(contribution)
    ).filter(pa.array(contribution != 0))
    keys = table.select(["series_id", "cutoff", "target_date", "lead"]).take(
        pa.array(rows[borrowed != 0])
    )
    keys = keys.append_column("component", pa.repeat(pa.scalar("analogy"), len(keys)))
    keys = keys.append_column("contribution", pa.array(borrowed[borrowed != 0]))
    return drawn, pa.concat_tables([explained, keys.select(explained.column_names)])


def _matched(table: pa.Table, analogy: pa.Table) -> tuple[IntArray, IntArray]:
    """Return the positions of rows that both have, in each; both are ordered by series and lead."""
    if not len(analogy):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    names = _names(analogy)
    here, there = _row_keys(table, names), _row_keys(analogy, names)
    rows = np.flatnonzero(here >= 0)
    # Folds closer together than the horizon lack leads here, never there.
    at = np.minimum(np.searchsorted(there, here[rows]), len(there) - 1)
    kept = there[at] == here[rows]
    return rows[kept], at[kept]


def _names(analogy: pa.Table) -> pa.Array:
    return pc.unique(analogy.column("series_id").combine_chunks())


def _credibility(evidence: Array, prior_periods: float) -> Array:
    """Return what a series' own forecast counts beside its neighbours', [R].

    The period of the first sale is no evidence of how often there is one, but of how much it is, and that the series sells.
    """
    periods = evidence + 1
    return np.asarray(periods / (periods + prior_periods))


def _mixed(own: Array, neighbours: Array, share: Array) -> Array:
    return np.asarray(share * own + (1 - share) * neighbours)


def _row_keys(table: pa.Table, names: pa.Array) -> IntArray:
    """Return a number per series and lead, ascending as they do, [R]; below 0 for series that are not among the names."""
    code = pc.fill_null(pc.index_in(table.column("series_id"), names), -1).to_numpy()
    return np.where(code < 0, -1, code.astype(np.int64) * 100_000 + table.column("lead").to_numpy())


# --- The small sums ---


def _segments(rows: Rows) -> list[tuple[str, IntArray, str | None]]:
    """Return key, rows and parent of every lead bucket, whole and then by demand class."""
    found: list[tuple[str, IntArray, str | None]] = []
    for bucket in np.unique(rows.bucket):
        there = np.flatnonzero(rows.bucket == bucket)
        parent = f"{ALL}:{bucket}"
        found.append((parent, there, None))
        for name in np.unique(rows.demand_class[there]):
            found.append((f"{name}:{bucket}", there[rows.demand_class[there] == name], parent))
    return found


def _share(n_rows: int, n_horizons: float) -> float:
    """Return how far to go from the prior towards what the evidence says."""
    return n_rows / (n_rows + PRIOR_ROWS) * n_horizons / (n_horizons + PRIOR_HORIZONS)


def _look_up(table: Mapping[str, Sequence[float]], rows: Rows, default: Array) -> Array:
    """Return each row's entry: its class's, else its lead bucket's, else the nearest bucket's, else the default."""
    out = np.empty((len(rows), len(default)))
    names, where = np.unique(rows.demand_class, return_inverse=True)
    known = sorted({int(key.rsplit(":", 1)[1]) for key in table})
    for bucket in np.unique(rows.bucket):
        # Folds closer together than the horizon know nothing of the farthest leads.
        near = min(known, key=lambda k: abs(k - int(bucket)), default=int(bucket))
        for j, name in enumerate(names):
            entry = table.get(f"{name}:{near}", table.get(f"{ALL}:{near}", default))
            out[(rows.bucket == bucket) & (where == j)] = entry
    return out


def _pinball(quantiles: Array, actual: Array) -> Array:
    """Return the mean pinball loss of each row, [R]."""
    return np.asarray(pinball(actual, quantiles).mean(axis=1))


def _row_weights(error_scale: Array) -> Array:
    """Return what a row's loss counts, [R]: it is measured in units of the series' own error scale."""
    known = error_scale > 0
    if not known.any():
        return np.ones(len(error_scale))
    scaled = np.where(known, 1 / np.where(known, error_scale, 1), 0)
    scaled = np.minimum(scaled / scaled.mean(), MOST_WEIGHT)
    return np.asarray(scaled / scaled.mean())


def _trimmed_mean(values: Array, weights: Array) -> Array:
    """Return the members' average without the `TRIM` of the weight that lies lowest and the same highest, [R, Q].

    Parameters
    ----------
    values : array [M, R, Q]
    weights : array [R, M]
        Add up to 1.
    """
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    weight = np.take_along_axis(np.broadcast_to(weights.T[:, :, None], values.shape), order, axis=0)
    up_to = np.cumsum(weight, axis=0)
    kept = np.minimum(up_to, 1 - TRIM) - np.maximum(up_to - weight, TRIM)
    return np.asarray(np.sum(np.maximum(kept, 0) * ordered, axis=0) / (1 - 2 * TRIM))


def _simplex_weights(quantiles: Array, actual: Array, importance: Array, start: Array) -> Array:
    """Minimise the mean pinball loss over the simplex by exponentiated gradient (Kivinen & Warmuth 1997).

    Parameters
    ----------
    quantiles : array [M, R, Q]
    actual, importance : array [R]
    start : array [M]
        Where to begin.
    """
    steepest = 1e-300
    weights = 0.9 * start + 0.1 / len(start)  # a weight of 0 would stay 0
    best, best_loss = weights, np.inf
    for step in range(STEPS):
        combined = np.tensordot(weights, quantiles, axes=1)  # [R, Q]
        error = actual[:, None] - combined
        loss = float(np.mean(importance * _pinball(combined, actual)))
        if loss < best_loss:
            best, best_loss = weights, loss
        slope = importance[:, None] * np.where(error < 0, 1 - LEVELS, -LEVELS) / error.size
        gradient = np.array([float(np.sum(slope * member)) for member in quantiles])
        gradient -= gradient.mean()
        # In units of the steepest slope met, so that the unit of demand does not matter.
        steepest = max(steepest, float(np.max(np.abs(gradient))))
        weights = weights * np.exp(-2 / np.sqrt(1 + step) * gradient / steepest)
        weights = weights / weights.sum()
    return best


def _scales(quantiles: Array, actual: Array) -> Array:
    """Return for each level the factor on its distance from the median that would have covered as promised, [Q]."""
    scales = np.ones(len(LEVELS))
    for k, level in enumerate(LEVELS):
        distance = quantiles[:, k] - quantiles[:, MEDIAN]
        apart = np.abs(distance) > 1e-9
        n = int(apart.sum())
        if k == MEDIAN or n < 50:
            continue
        ratio = (actual[apart] - quantiles[apart, MEDIAN]) / np.abs(distance[apart])
        tail = level if level > 0.5 else 1 - level
        rank = min(1.0, np.ceil((n + 1) * tail) / n)
        signed = ratio if level > 0.5 else -ratio
        scales[k] = np.clip(np.quantile(signed, rank), *SCALE_LIMITS)
    return scales


def _quantiles(table: pa.Table) -> Array:
    """Return the quantiles of a table, [R, Q]."""
    return np.column_stack([_floats(table, name) for name in QUANTILE_NAMES])


def _floats(table: pa.Table, name: str) -> Array:
    values: Array = table.column(name).cast(pa.float64()).to_numpy()
    if name in ("mean", *QUANTILE_NAMES) and np.isnan(values).any():
        raise DataError(f"A forecast to be combined has no {name} in some row.")
    return values
