"""The forecast as one HTML file that opens anywhere, offline: a portfolio view and an explorer of every series."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trendcast.errors import ArtifactError
from trendcast.report.content import Content, read
from trendcast.report.page import render

if TYPE_CHECKING:
    from trendcast.pipeline import Workspace

__all__ = ["Content", "read", "render", "write"]


def write(workspace: Workspace, out: Path, *, limit: int) -> dict[str, Any]:
    """Write the report of the run in force; the file appears whole or not at all.

    Parameters
    ----------
    out
        The HTML file.
    limit
        Series to show at most, those with the most revenue first. Portfolio figures are always of all.

    Returns
    -------
    dict
        file, bytes, run_id, n_series (shown) and n_series_total.

    Raises
    ------
    TrendcastError
        There is no committed run, or the marts were never built.
    ArtifactError
        The file cannot be written.
    """
    with workspace.connect() as warehouse:
        content = read(warehouse, workspace.project, limit=limit)
    page = render(content).encode()
    try:
        replace(out, page)
    except OSError as error:
        raise ArtifactError(
            f"{out} cannot be written: {error.strerror or error}. Choose another file with --out."
        ) from error
    return {
        "file": str(out),
        "bytes": len(page),
        "run_id": content.about["run_id"],
        "n_series": content.n_series,
        "n_series_total": content.about["n_series"],
    }


def replace(path: Path, data: bytes) -> None:
    """Write a file aside and put it in its place, so that who has the old one open never sees half of the new one."""
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files that only the owner reads; a report is made to be passed on.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(aside, 0o666 & ~mask)
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
