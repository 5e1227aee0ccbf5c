"""Imports dbt once, parses a project once, and gives each command a process of its own: a fork, which costs nothing.

Importing dbt takes seconds, parsing a project takes seconds, and a run of trendcast calls dbt four times. This process parses
the project itself and keeps the manifest until a file, a setting or the environment is another. A fork has that at once;
what a command does to it is lost with the fork, as are the connections and locks that dbt leaves open: the kernel closes them.

Started by `trendcast.dbt`. Reads one JSON object a line: ``command``, of dbt with its arguments; ``project``, the arguments
that say which project it is, with what settings; ``project_dir`` and ``profiles_dir``, as among them; ``environment`` and
``folder`` to run in. What dbt prints goes to standard output, and then a line of `END` and the exit code. Where a project
cannot be parsed this process ends with the exit code, for nobody knows what state dbt is in then.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

END = "\0exit "
# They parse what they need themselves: one installs what a project consists of, one repeats another command as it was.
ON_THEIR_OWN = ("deps", "retry")
# What a folder has that is Python's or dbt's own.
NOT_SOURCES = frozenset({"pyvenv.cfg", "partial_parse.msgpack"})
# Endings of the files that a project may consist of.
SOURCES = (".sql", ".yml", ".yaml", ".csv", ".md", ".py", ".dbtignore")


@dataclass(frozen=True)
class Parsed:
    """A project as dbt has parsed it, and the fingerprint of what it was parsed from."""

    fingerprint: Any
    manifest: Any


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
    # Spark's client warns of each setting that a server which is up does not take any more.
    warnings.filterwarnings("ignore", module=r"pyspark\.")
    import dbt.cli.main  # noqa: F401

    # dbt makes a hundred thousand objects that live until it ends: to look through them for garbage again and again
    # takes a tenth of its time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    parsed: Parsed | None = None
    for line in sys.stdin:
        request = json.loads(line)
        command = request["command"]
        if sys.platform != "linux":
            # Elsewhere a fork may not use all of the system's libraries, so this process serves one command.
            _run(request, None)
        if command[0] not in ON_THEIR_OWN and (
            command == ["parse"] or parsed is None or parsed.fingerprint != _fingerprint(request)
        ):
            parsed = None
            gc.unfreeze()  # else what was parsed before would stay for good
            gc.collect()
            with _interruptible():
                parsed = _parse(request, quiet=command != ["parse"])
            gc.freeze()
        if command == ["parse"]:
            print(f"{END}0", flush=True)
            continue
        child = os.fork()
        if child == 0:
            _die_with_parent()
            _run(request, parsed)
        under_way.append(child)
        _, status = os.waitpid(child, 0)
        under_way.clear()
        print(f"{END}{os.waitstatus_to_exitcode(status)}", flush=True)


def _parse(request: dict[str, Any], *, quiet: bool) -> Parsed:
    """Have dbt parse the project here."""
    fingerprint = _fingerprint(
        request
    )  # before: what changes meanwhile is for the next command to see
    _take_place(request)
    # dbt's parser in Rust would leave threads behind, which no fork has: one that parsed would wait for them for ever.
    how = ["parse", "--no-static-parser", *request["project"]]
    code, manifest = _invoke(["--quiet", *how] if quiet else how, None)
    if code:
        sys.exit(code)
    return Parsed(fingerprint, manifest)


def _run(request: dict[str, Any], parsed: Parsed | None) -> NoReturn:
    """Become dbt with this command."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # requests are not for dbt to read
    _take_place(request)
    command = request["command"]
    known = parsed.manifest if parsed and command[0] not in ON_THEIR_OWN else None
    code, _ = _invoke([*command, *request["project"]], known)
    sys.exit(code)


def _invoke(arguments: Sequence[str], manifest: Any) -> tuple[int, Any]:
    """Run dbt in this process; return its exit code and what came of it."""
    from dbt.cli.exceptions import DbtUsageException
    from dbt.cli.main import dbtRunner

    arguments = ["--no-use-colors", *arguments]
    sys.argv = ["dbt", *arguments]  # dbt's artefacts tell how it was called
    done = dbtRunner(manifest=manifest).invoke(arguments)
    if isinstance(done.exception, DbtUsageException):
        print(done.exception, flush=True)  # all others dbt tells itself
    return (2 if done.exception else 0 if done.success else 1), done.result


def _take_place(request: dict[str, Any]) -> None:
    """Go where the one who asks is, with the same environment."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])


def _fingerprint(request: dict[str, Any]) -> tuple[Any, ...]:
    """Return what parsing a project depends on: its settings, the environment, and every file with time and size."""
    files, seen = [_stamp(os.path.join(request["profiles_dir"], "profiles.yml"))], set()
    for folder, folders, names in os.walk(request["project_dir"], followlinks=True):
        place = os.path.realpath(folder)  # a package may be a link to where this project lies in
        if place in seen or NOT_SOURCES.intersection(names):
            folders.clear()
            continue
        seen.add(place)
        folders[:] = [name for name in folders if not name.startswith(".") and name != "logs"]
        files += [_stamp(os.path.join(folder, name)) for name in names if name.endswith(SOURCES)]
    return request["project"], request["folder"], request["environment"], sorted(files)


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        about = os.stat(path)
    except OSError:  # it has gone, or was never there: dbt will say so
        return path, 0, 0
    return path, about.st_mtime_ns, about.st_size


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have signals end what this process itself does inside."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent is killed, so that no orphan holds the warehouse (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
