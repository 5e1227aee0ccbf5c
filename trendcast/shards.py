"""Forecasts made where the rows are: on an engine with workers, each scores shards of series with the model it is sent.

A worker has the shard's rows of the feature tables in a DuckDB of its own, so a model asks for them as it does everywhere
and knows nothing of it. Each series' forecast is the same as without shards: it depends on the model and the series'
own rows alone (`Model.scores_by_series`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from trendcast.features import Features
from trendcast.models import create
from trendcast.models.by_measure import KEYS
from trendcast.models.tables import FORECAST_SCHEMA
from trendcast.streams import from_stream, to_stream
from trendcast.warehouse import quote
from trendcast.warehouse.duckdb import DuckDBWarehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trendcast.features import Cutoff
    from trendcast.models import Model
    from trendcast.project import Project

# The same for all series, and small: every worker is sent all of them.
SHARED = ("ftr_calendar", "ftr_category", "int_cutoffs")
# The model this process loaded last, by the digest of its files.
_loaded: dict[str, Model] = {}


@dataclass(frozen=True)
class Scorer:
    """What a worker is sent once: a stored model, what is the same for all series, and how to ask for it.

    Parameters
    ----------
    files
        For each cutoff to forecast from, the content of the model's files by their path within its folder.
    shared
        Tables of `SHARED`, as Arrow streams: what goes over the wire must not depend on how it is pickled.
    """

    name: str
    files: dict[int, dict[str, bytes]]
    shared: dict[str, bytes]
    project: Project

    def __call__(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Forecast a shard's series, given their rows of the feature tables."""
        with DuckDBWarehouse.open({"settings": {"threads": 1}}, read_only=False) as warehouse:
            for name, rows in tables.items():
                warehouse.lookup(name, rows)
            for name, stream in self.shared.items():
                warehouse.lookup(name, from_stream(stream))
            relations = {name: quote(name) for name in (*tables, *self.shared)}
            features = Features(warehouse, replace(self.project, relations=relations))
            rows = [_forecast(self._model(files), features, t) for t, files in self.files.items()]
            return pa.concat_tables(table.cast(FORECAST_SCHEMA) for table in rows)

    def _model(self, files: dict[str, bytes]) -> Model:
        """Load the model, once in a process however many shards it scores."""
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        if digest not in _loaded:
            model = create(self.name, self.project.settings.measures)
            with TemporaryDirectory() as folder:
                for name, content in files.items():
                    path = Path(folder) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                model.load(Path(folder))
            _loaded.clear()
            _loaded[digest] = model
        return _loaded[digest]


def forecast(model: Model, features: Features, cutoff_t: int) -> pa.Table:
    """Forecast every series from a cutoff: by the engine's workers, where it has any and the model allows, else here."""
    if _has_workers(features, model):
        return _by_workers(features, model, {cutoff_t: _stored(model)})
    return _forecast(model, features, cutoff_t)


def backtest(
    model: Model,
    features: Features,
    wanted: Mapping[Cutoff, Sequence[int]],
    fit: Callable[[Cutoff], None],
) -> Iterator[tuple[Cutoff, int, pa.Table]]:
    """Forecast parts of the panel from folds' cutoffs, as `forecast` does; the engine's workers make all folds of a part in one job.

    Parameters
    ----------
    wanted
        The numbers of the parts (`Features.part`) that are wanted of each fold.
    fit
        Has the model learn what a fold may know; called before the fold is forecast where the model `refits_each_fold`.

    Yields
    ------
    tuple
        The fold, the number of the part, and its rows.
    """
    by_workers = _has_workers(features, model)
    files: dict[Cutoff, dict[str, bytes]] = {}
    for fold, numbers in wanted.items():
        if model.refits_each_fold:
            fit(fold)
        if by_workers:
            if model.refits_each_fold or not files:
                stored = _stored(model)
            files[fold] = stored
            continue
        for number in numbers:
            yield fold, number, _forecast(model, features.part(number), fold.t)
    for number in range(features.n_parts if files else 0):
        folds = [fold for fold in files if number in wanted[fold]]
        if folds:
            sent = {fold.t: files[fold] for fold in folds}
            rows = _by_workers(features.part(number), model, sent)
            for fold in folds:
                yield fold, number, rows.filter(pc.equal(rows.column("cutoff"), fold.date))


def _forecast(model: Model, features: Features, cutoff_t: int) -> pa.Table:
    """Forecast every series that there is at a cutoff; of a part of the panel there may be none."""
    if model.needs_history and not features.has_history(cutoff_t):
        return FORECAST_SCHEMA.empty_table()
    return model.forecast(features, cutoff_t)


def _has_workers(features: Features, model: Model) -> bool:
    return features.has_workers and model.scores_by_series


def _stored(model: Model) -> dict[str, bytes]:
    """Return the content of a model's files by their path."""
    with TemporaryDirectory() as folder:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in model.save(Path(folder))
        }


def _by_workers(features: Features, model: Model, files: dict[int, dict[str, bytes]]) -> pa.Table:
    """Have the engine's workers forecast from several cutoffs, each with the model's files for it."""
    shared = {
        name: to_stream(features.query(f"select * from {features.relation(name)}"))
        for name in SHARED
    }
    rows = features.by_shard(
        _queries(features, list(files)),
        Scorer(model.name, files, shared, features.project),
        FORECAST_SCHEMA,
    )
    return rows.sort_by(KEYS)


def _queries(features: Features, cutoffs: Sequence[int]) -> dict[str, str]:
    """What a model may read of each series: nothing later than the last cutoff, but for what was known in advance."""
    last_t = max(cutoffs)
    known_t = last_t + features.settings.horizon
    listed = ", ".join(map(str, cutoffs))
    until = {
        "int_series": "true",
        "ftr_static": "true",
        "ftr_cutoff": f"t in ({listed})",
        "ftr_history": f"t <= {last_t:d}",
        "ftr_known": f"t <= {known_t:d}",
    }
    return {
        name: f"select * from {features.relation(name)} where {condition}"
        for name, condition in until.items()
    }
