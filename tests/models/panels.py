"""Panels from tables in memory, as the warehouse gives them: spans, then rows in batches."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from trendcast.panel import Panel, Roles


def read_panel(
    history: pa.Table, known: pa.Table, static: pa.Table, roles: Roles, **about: Any
) -> Panel:
    spans = history.group_by("series_id", use_threads=False).aggregate([("t", "min"), ("t", "max")])
    spans = spans.select(["series_id", "t_min", "t_max"]).rename_columns(
        ["series_id", "first", "last"]
    )
    history_rows, known_rows = (table.to_batches(max_chunksize=7) for table in (history, known))
    calendar = about.pop("calendar", pa.table({"t": pa.array([], pa.int64())}))
    return Panel.read(spans, history_rows, known_rows, calendar, static, roles, **about)
