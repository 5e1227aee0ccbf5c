"""Packs the report's content into one HTML file.

Curves are kept as whole multiples of a step of the series' own, one 400th to 1000th of the largest value on its
chart, as differences in time or from a curve nearby; each number is two bytes, and low and high bytes of a block
lie apart, which is what makes them compress. The page unpacks a series when it is looked at.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import struct
import zlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from trendcast.report.content import Array, Content

IntArray = npt.NDArray[np.int64]
# Fewest levels between zero and the largest value of a chart: more than a screen's rows of pixels show apart.
LEVELS = 400


def render(content: Content) -> str:
    """Return the page; what it shows of the data is text only, whatever the data say."""
    scripts = [_asset("vendor/uPlot.iife.min.js"), _asset("report.js")]
    # Only these very scripts may run, and nothing may be loaded from anywhere.
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "run": html.escape(str(content.about["run_id"])),
        "css": _asset("vendor/uPlot.min.css") + _asset("report.css"),
        "uplot": scripts[0],
        "script": scripts[1],
        "data": base64.b64encode(pack(content)).decode(),
    }
    page = _asset("report.html")
    # One pass, so that a part which happens to hold another's marker is left alone.
    pieces = page.split("{{")
    return pieces[0] + "".join(
        parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:])
    )


def pack(content: Content) -> bytes:
    """Return the content compressed: the length of its JSON, the JSON, then the blocks' bytes."""
    steps = _steps(content)
    whole = {name: np.rint(block.values / steps[:, None]) for name, block in content.blocks.items()}
    blocks: list[dict[str, Any]] = []
    planes: list[bytes] = []
    for name, block in content.blocks.items():
        values = whole[name]
        # Only a block over the same dates can be near.
        base = block.base
        if base is not None and content.blocks[base].at != block.at:
            base = None
        if base is not None:
            values = values - np.nan_to_num(whole[base])
        # Noise is smaller itself than its differences, and a level or a trend the other way round.
        found = {in_time: _planes(_codes(values, in_time=in_time)) for in_time in (True, False)}
        in_time = min(found, key=lambda key: len(zlib.compress(found[key], 6)))
        planes.append(found[in_time])
        blocks.append(
            {
                "name": name,
                "at": block.at,
                "base": base,
                "inTime": in_time,
            }
        )
    if content.promotions is not None:
        planes.append(content.promotions.tobytes())
    text = json.dumps(
        {
            "about": content.about,
            "dates": [str(date) for date in content.dates],
            "series": content.series | {"step": [float(f"{s:.1g}") for s in steps]},
            "blocks": blocks,
            "promotions": content.promotions is not None,
        },
        separators=(",", ":"),
        allow_nan=False,
    ).encode()
    return zlib.compress(struct.pack("<I", len(text)) + text + b"".join(planes), 9)


def _steps(content: Content) -> Array:
    """Return the step [N] each series is rounded to: 1, 2 or 5 times a power of ten."""
    largest = np.zeros(content.n_series)
    for block in content.blocks.values():
        if block.values.shape[1]:
            largest = np.fmax(largest, np.nan_to_num(np.abs(block.values)).max(axis=1))
    finest = np.where(largest > 0, largest, 1.0) / LEVELS
    power = 10.0 ** np.floor(np.log10(finest))
    ratio = finest / power
    return np.asarray(power * np.where(ratio >= 5, 5, np.where(ratio >= 2, 2, 1)))


def _codes(values: Array, *, in_time: bool) -> npt.NDArray[np.uint16]:
    """Return whole numbers as codes without a sign; 0 stands for none."""
    known = np.isfinite(values)
    whole = np.nan_to_num(values).astype(np.int64)
    if in_time and values.shape[1]:
        # The last known value before each.
        last = np.where(known, np.arange(values.shape[1]), -1)
        last = np.maximum.accumulate(last, axis=1)
        before = np.concatenate([np.full((len(values), 1), -1), last[:, :-1]], axis=1)
        held = np.take_along_axis(whole, np.maximum(before, 0), axis=1)
        whole = whole - np.where(before >= 0, held, 0)
    folded = np.where(whole >= 0, 2 * whole, -2 * whole - 1) + 1
    return np.where(known, folded, 0).astype(np.uint16)


def _planes(codes: npt.NDArray[np.uint16]) -> bytes:
    return (codes & 255).astype(np.uint8).tobytes() + (codes >> 8).astype(np.uint8).tobytes()


def _asset(name: str) -> str:
    return files("trendcast.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
