"""Imports dbt once, and gives each command that comes in a process of its own: a fork, which costs nothing.

Importing dbt takes seconds, and a run of trendcast calls dbt three times. A fork ends with its command, so the
kernel closes whatever connection or lock dbt has left open.

Started by `trendcast.dbt`. Reads one JSON object a line: ``arguments`` of dbt, ``environment`` and ``folder`` to run
in. What dbt prints goes to standard output, and then a line of `END` and the exit code.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

END = "\0exit "


def main() -> None:
    """Serve until the input ends, which it does with the process that started this one."""
    _die_with_parent()
    # Ctrl-C is for the dbt under way, which stops and says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    under_way: list[int] = []

    def stop(*_: Any) -> None:
        for pid in under_way:
            os.kill(pid, signal.SIGINT)

    signal.signal(signal.SIGTERM, stop)
    from dbt.cli.main import cli

    # dbt makes a hundred thousand objects that live until it ends: to look through them for garbage again and again
    # takes a tenth of its time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    for line in sys.stdin:
        request = json.loads(line)
        if sys.platform != "linux":
            # Elsewhere a fork may not use all of the system's libraries, so this process serves one command.
            _run(cli, request)
        child = os.fork()
        if child == 0:
            _die_with_parent()
            _run(cli, request)
        under_way.append(child)
        _, status = os.waitpid(child, 0)
        under_way.clear()
        print(f"{END}{os.waitstatus_to_exitcode(status)}", flush=True)


def _run(cli: Callable[..., Any], request: dict[str, Any]) -> NoReturn:
    """Become dbt with these arguments."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # requests are not for dbt to read
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    # Spark's client warns of each setting that a server which is up does not take any more.
    warnings.filterwarnings("ignore", module=r"pyspark\.")
    sys.argv = ["dbt", *request["arguments"]]  # dbt's artefacts tell how it was called
    cli(request["arguments"], prog_name="dbt")
    sys.exit()


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is killed, so that no orphan holds the warehouse (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
