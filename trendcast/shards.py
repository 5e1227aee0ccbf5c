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

from trendcast.features import Features
from trendcast.models import create
from trendcast.models.by_measure import KEYS
from trendcast.models.tables import FORECAST_SCHEMA
from trendcast.warehouse import quote
from trendcast.warehouse.duckdb import DuckDBWarehouse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trendcast.models import Model
    from trendcast.project import Project

# Rows of the panel that a worker holds at once, about.
SHARD_ROWS = 1_000_000
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
        Content of the model's files, by their path within its folder.
    shared
        Tables of `SHARED`, as Arrow streams: what goes over the wire must not depend on how it is pickled.
    """

    name: str
    files: dict[str, bytes]
    shared: dict[str, bytes]
    project: Project
    cutoff_t: int

    def __call__(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Forecast a shard's series, given their rows of the feature tables."""
        with DuckDBWarehouse.open({"settings": {"threads": 1}}, read_only=False) as warehouse:
            for name, rows in tables.items():
                warehouse.lookup(name, rows)
            for name, stream in self.shared.items():
                warehouse.lookup(name, pa.ipc.open_stream(stream).read_all())
            relations = {name: quote(name) for name in (*tables, *self.shared)}
            features = Features(warehouse, replace(self.project, relations=relations))
            return self._model().forecast(features, self.cutoff_t).cast(FORECAST_SCHEMA)

    def _model(self) -> Model:
        """Load the model, once in a process however many shards it scores."""
        digest = hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()
        if digest not in _loaded:
            model = create(self.name, self.project.settings.measures)
            with TemporaryDirectory() as folder:
                for name, content in self.files.items():
                    path = Path(folder) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                model.load(Path(folder))
            _loaded.clear()
            _loaded[digest] = model
        return _loaded[digest]


def forecast(model: Model, features: Features, cutoff_t: int) -> pa.Table:
    """Forecast every series from a cutoff: by the engine's workers, where it has any and the model allows, else here."""
    if not (features.has_workers and model.scores_by_series):
        return model.forecast(features, cutoff_t)
    with TemporaryDirectory() as folder:
        files = {
            str(path.relative_to(folder)): path.read_bytes() for path in model.save(Path(folder))
        }
    shared = {
        name: _stream(features.query(f"select * from {features.relation(name)}")) for name in SHARED
    }
    rows = features.by_shard(
        _queries(features, cutoff_t),
        Scorer(model.name, files, shared, features.project, cutoff_t),
        FORECAST_SCHEMA,
        SHARD_ROWS,
    )
    return rows.sort_by(KEYS)


def _queries(features: Features, cutoff_t: int) -> dict[str, str]:
    """What a model may read of each series: nothing later than the cutoff, but for what was known in advance."""
    known_t = cutoff_t + features.settings.horizon
    until = {
        "int_series": "true",
        "ftr_static": "true",
        "ftr_cutoff": f"t = {cutoff_t:d}",
        "ftr_history": f"t <= {cutoff_t:d}",
        "ftr_known": f"t <= {known_t:d}",
    }
    return {
        name: f"select * from {features.relation(name)} where {condition}"
        for name, condition in until.items()
    }


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    content: bytes = sink.getvalue().to_pybytes()
    return content
