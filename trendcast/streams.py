"""Rows as Arrow streams: what goes over a wire must not depend on how it is pickled."""

from __future__ import annotations

import pyarrow as pa


def to_stream(rows: pa.Table, *, compression: str | None = None) -> bytes:
    """Return rows as an Arrow stream; ``compression`` is one of Arrow's, as 'zstd'."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_table(rows)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def from_stream(stream: bytes) -> pa.Table:
    """Return the rows of an Arrow stream."""
    return pa.ipc.open_stream(stream).read_all()
