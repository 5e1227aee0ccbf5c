"""What a long command is doing: on stderr, only on a terminal; and how long each phase took."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Progress:
    """Times phases and, on a terminal, shows the one under way on a single line.

    Parameters
    ----------
    timings
        Seconds per finished phase, in order; a phase entered twice adds up.
    """

    timings: dict[str, float] = field(default_factory=dict)
    _phase: str = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        outer, self._phase = self._phase, name
        self.update("")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = round(self.timings.get(name, 0.0) + time.perf_counter() - start, 2)
            self._phase = outer
            self._show("")

    def update(self, message: str) -> None:
        """Show what the phase is at."""
        self._show(f"{self._phase}: {message}" if message else f"{self._phase} ...")

    @staticmethod
    def _show(line: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[2K" + line[:110])
            sys.stderr.flush()
