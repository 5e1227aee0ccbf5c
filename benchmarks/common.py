"""The form all benchmarks share: progress on stderr, a readable table, and one JSON object for machines."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trendcast.pipeline import versions

if TYPE_CHECKING:
    from collections.abc import Iterable


def arguments(description: str) -> argparse.ArgumentParser:
    """Return the parser every benchmark starts from."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--json", action="store_true", help="end stdout with one JSON object")
    parser.add_argument(
        "--runs", type=int, default=3, help="how often to measure; medians are reported"
    )
    return parser


def say(text: str) -> None:
    """Tell what is going on, on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Report:
    """What a benchmark found: ratios first, then the figures they come from.

    Parameters
    ----------
    benchmark
        Name of the module.
    ratios
        Ours over the peer's; below one is better for us.
    figures
        Name to value, with the unit in the name.
    """

    benchmark: str
    ratios: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def print(self, *, as_json: bool) -> None:
        """Print the table, and the JSON object last if wanted."""
        for title, values in (("ratios", self.ratios), ("figures", self.figures)):
            print(f"{self.benchmark}: {title}")
            for name, value in values.items():
                print(f"  {name:<44} {_shown(value)}")
        if as_json:
            print(json.dumps(self.as_dict(), default=str))

    def as_dict(self) -> dict[str, Any]:
        """Return the object `--json` prints."""
        return {
            "benchmark": self.benchmark,
            "ratios": self.ratios,
            "figures": self.figures,
            "machine": machine(),
            "versions": versions(),
            "date": dt.date.today().isoformat(),
        }


def machine() -> dict[str, Any]:
    """Describe the machine the figures hold for."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages * size / 2**30),
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
    }


def median(values: Iterable[float], digits: int = 2) -> float:
    """Return the median, rounded."""
    return round(statistics.median(values), digits)


def _shown(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else str(value)
