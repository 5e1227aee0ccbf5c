"""Runs dbt in processes of its own, so that no connection or lock is left behind."""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trendcast.dbt_server import END
from trendcast.errors import DbtError, Terminated, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Upstream of the ledger (the features and all they need, a user's own staging included), and from it on.
FEATURES = ("+tag:trendcast_features",)
BEFORE_LEDGER = (*FEATURES, "tag:trendcast_ledger")
FROM_LEDGER = ("tag:trendcast_ledger+", "tag:trendcast_marts+")
SERVER = "trendcast.dbt_server"
# How the macros of dbt_project/macros/settings.sql refuse a var.
_WRONG_VAR = re.compile(r"var '\w+' must be ")
# What DuckDB says where the nodes that are under way need more together than its memory_limit.
_OUT_OF_MEMORY = "Out of Memory Error"


@dataclass(frozen=True)
class Dbt:
    """How to call dbt for one project.

    Parameters
    ----------
    project_dir, profiles_dir
        Folders with ``dbt_project.yml`` and ``profiles.yml``.
    target
        Name of the profile's output; None for its default.
    vars
        Overrides of the project's vars.
    target_path
        Where dbt writes its artefacts; None for the project's own.
    """

    project_dir: Path
    profiles_dir: Path
    target: str | None = None
    vars: dict[str, Any] = field(default_factory=dict)
    target_path: Path | None = None

    @property
    def artifacts_dir(self) -> Path:
        """Where dbt leaves ``manifest.json`` and ``run_results.json``."""
        return self.target_path or self.project_dir / os.environ.get("DBT_TARGET_PATH", "target")

    def parse(self) -> dict[str, Any]:
        """Return the manifest as the project stands now, with the vars given."""
        self._run(["parse"])
        return self.manifest()

    def manifest(self) -> dict[str, Any]:
        """Return the manifest the last dbt command wrote."""
        manifest: dict[str, Any] = json.loads((self.artifacts_dir / "manifest.json").read_text())
        return manifest

    def build(
        self,
        select: Sequence[str],
        *,
        tests: bool = True,
        full_refresh: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> dict[str, int]:
        """Build and, if wanted, test what ``select`` names; return how many nodes ended in each status.

        A build makes what is new since the last one; with ``full_refresh`` it makes everything. Nodes that run side by side share
        the memory: those for which it was not enough, and what hangs on them, are built once more, one at a time.

        Raises
        ------
        DbtError
            A model or a test failed; names them with their messages.
        """
        # Unit tests test the SQL, not the data: they belong in CI (`dbt build` runs them), not in every run.
        build = [
            "build",
            "--indirect-selection",
            "buildable",
            "--exclude-resource-type",
            "unit_test",
        ]
        command = build if tests else ["run"]
        refresh = ["--full-refresh"] if full_refresh else []
        results = []
        try:
            self._run([*command, *refresh, "--select", *select], progress=progress)
        except DbtError as error:
            if _OUT_OF_MEMORY not in str(error):
                raise
            results += [r for r in self._results() if r["status"] in ("success", "pass", "warn")]
            self._run(["retry", "--threads", "1"], progress=progress)
        results += self._results()
        return dict(Counter(result["status"] for result in results))

    def install(self) -> None:
        """Install the packages of ``packages.yml``, as `dbt deps` does."""
        self._run(["deps"])

    def prepare(self) -> None:
        """Make what the engine needs beside its own functions; see the macro prepare_engine."""
        self._run(["run-operation", "trendcast.prepare_engine"])

    def compile(self, select: Sequence[str]) -> None:
        """Render the SQL of what ``select`` names, under ``compiled`` of the artefacts, and run none of it."""
        self._run(["compile", "--select", *select])

    def matching(self, select: Sequence[str]) -> list[str]:
        """Names of the nodes a selection matches; dbt itself shrugs at an empty one."""
        # As JSON, because warnings of Python's come between the lines.
        how = ["--resource-type", "model", "--output", "json", "--output-keys", "name"]
        listed = self._run(["--quiet", "ls", *how, "--select", *select])
        return [json.loads(line)["name"] for line in listed.splitlines() if line.startswith("{")]

    def _results(self) -> list[dict[str, Any]]:
        path = self.artifacts_dir / "run_results.json"
        results: list[dict[str, Any]] = json.loads(path.read_text())["results"]
        return results

    def _run(
        self, arguments: Sequence[str], *, progress: Callable[[str], None] | None = None
    ) -> str:
        project_dir, profiles_dir = str(self.project_dir), str(self.profiles_dir)
        project = ["--project-dir", project_dir, "--profiles-dir", profiles_dir]
        if self.target:
            project += ["--target", self.target]
        if self.vars:
            project += ["--vars", json.dumps(self.vars)]
        if self.target_path:
            project += ["--target-path", str(self.target_path)]
            project += ["--log-path", str(self.target_path / "logs")]
        request = {
            "command": list(arguments),
            "project": project,
            "project_dir": project_dir,
            "profiles_dir": profiles_dir,
        }
        results = self.artifacts_dir / "run_results.json"
        before = results.stat().st_mtime_ns if results.exists() else 0
        lines: list[str] = []

        def tell(line: str) -> None:
            lines.append(line)
            if progress:
                progress(line.rstrip())

        returncode = _server().run(request, tell)
        if returncode:
            ran = results.exists() and results.stat().st_mtime_ns != before
            raise self._failure(lines, self._results() if ran else [])
        return "\n".join(lines)

    def _failure(self, lines: list[str], results: list[dict[str, Any]]) -> DbtError | UsageError:
        """Say what failed, from dbt's results where it got that far and from its output otherwise."""
        failed = [r for r in results if r["status"] in ("error", "fail", "runtime error")]
        if failed:
            shown = "\n".join(f"  {_name(r)}: {_message(r)}" for r in failed[:10])
            more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
            return DbtError(
                f"dbt failed on {len(failed)} of {len(results)} nodes:\n{shown}{more}\n"
                f"Compiled SQL is under {self.artifacts_dir / 'compiled'}."
            )
        wrong = next((line.strip() for line in lines if _WRONG_VAR.match(line.strip())), None)
        if wrong:
            return UsageError(wrong)
        text = "\n".join(_without_clock(line) for line in lines if line.strip())
        text = text.partition("\nnanobind: leaked")[0]  # what DuckDB's driver says of every end
        start = text.find("Encountered an error:")
        detail = text[start:] if start >= 0 else "\n".join(text.splitlines()[-15:])
        return DbtError(f"dbt could not run:\n{detail.strip()}")


class _Server:
    """A process that has dbt imported and runs one command after the other, see `trendcast.dbt_server`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._owner = os.getpid()

    @property
    def serves(self) -> bool:
        """Whether it is up, and not that of the process this one was forked from."""
        return self._owner == os.getpid() and self._process.poll() is None

    def run(self, request: dict[str, Any], tell: Callable[[str], None]) -> int:
        """Run dbt as if it were started here and now, tell each line it prints, and return its exit code."""
        environment = os.environ | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        request |= {"environment": environment, "folder": str(Path.cwd())}
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        ended = False
        try:
            print(json.dumps(request), file=process.stdin, flush=True)
            for line in process.stdout:
                text, end, code = line.rstrip("\n").partition(END)
                if text or not end:
                    tell(text)
                if end:
                    ended = True
                    return int(code)
        except Terminated:
            process.terminate()  # Ctrl-C reaches dbt by itself; this does not
            raise
        finally:
            if not ended:
                # It ended with its command; or we were interrupted, and wait until dbt has let go of the warehouse.
                process.__exit__(None, None, None)
        return process.returncode

    def stop(self) -> None:
        """End it, between two commands."""
        if self.serves:
            self._process.kill()
            self._process.wait()


_this_thread = threading.local()


def _server() -> _Server:
    """Return the server of this thread; the kernel ends it with the thread (Linux)."""
    server: _Server | None = getattr(_this_thread, "server", None)
    if server is None or not server.serves:
        server = _this_thread.server = _Server()
        atexit.register(server.stop)
    return server


def _name(result: dict[str, Any]) -> str:
    return str(result["unique_id"]).split(".", 1)[-1]


def _message(result: dict[str, Any]) -> str:
    return " ".join(str(result.get("message") or result["status"]).split())


def _without_clock(line: str) -> str:
    return line[10:] if line[2:3] == ":" and line[5:6] == ":" else line
