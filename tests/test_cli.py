"""The command line: help, exit codes, JSON, and every command on real shops."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

import trendcast as package
from tests.conftest import REPO, Shop
from trendcast import __version__, cli, pipeline
from trendcast.cli import app
from trendcast.dbt import Dbt
from trendcast.pipeline import Workspace
from trendcast.project import Project, read_output
from trendcast.summary import print_checks, print_runs

COMMANDS = (
    *(
        "demo",
        "prepare",
        "init",
        "run",
        "train",
        "forecast",
        "backtest",
        "tune",
        "customers",
        "whatif",
    ),
    *("runs", "prune", "doctor", "audit", "reproduce", "publish", "report"),
)
MODELS = ["seasonal_naive", "classical", "ridge", "lightgbm", "lstm", "ensemble"]
RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")


def trendcast(*args: str, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trendcast", *args],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if not k.startswith(("TRENDCAST_", "DBT_"))},
        capture_output=True,
        text=True,
        check=False,
    )


# --- Help ---


def test_the_commands_are_all_here() -> None:
    assert tuple(command.callback.__name__ for command in app.registered_commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(command: str) -> None:
    done = trendcast(command, "--help")
    assert done.returncode == 0
    assert f"Example: trendcast {command}" in " ".join(done.stdout.split())
    assert "--json" in done.stdout
    assert ("--vars" in done.stdout) == (command != "init")  # which writes the project they go to


def test_help_lists_the_commands_and_exit_codes() -> None:
    done = trendcast("-h")
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\s+\S", done.stdout, re.MULTILINE)
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage." in done.stdout


def test_version() -> None:
    assert trendcast("--version").stdout == f"trendcast {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from trendcast.cli import main\n"
        f"for command in [[], *([c] for c in {COMMANDS!r})]:\n"
        "    sys.argv = ['trendcast', *command, '--help']\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as left:\n"
        "        assert not left.code\n"
        "print('modules:', *{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO
    )
    loaded = set(done.stdout.rsplit("modules:", 1)[1].split())
    assert "typer" in loaded
    assert not loaded & {"tensorflow", "keras", "pandas", "numpy", "pyarrow", "duckdb", "dbt"}


# --- Wrong usage: exit code 2, on stderr, before anything is done ---


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["forcast"], "No such command 'forcast'"),
        (["run", "--modle", "ridge"], "No such option"),
        (["runs", "--limit", "0"], "--limit"),
        (["train", "--device", "tpu"], "Unknown device 'tpu'. Did you mean 'gpu'?"),
        (["runs", "--device", "cpu"], "No such option"),  # it trains nothing
        (["runs", "--vars", "[1, 2]"], "must be a mapping like '{horizon: 14}', came: '[1, 2]'"),
        (["runs", "--vars", "horizon 14"], "must be a mapping"),
        (["runs", "--vars", "{horizon: [14"], "--vars is not YAML"),
        (["runs", "--project-dir", "nowhere"], "No dbt_project.yml in"),
        (["runs", "--profiles-dir", "nowhere"], "No profiles.yml in nowhere"),
        (["runs", "--target", "oracle"], "no target 'oracle'. It has: duckdb, postgres, spark."),
    ],
)
def test_wrong_usage(args: list[str], told: str) -> None:
    done = trendcast(*args)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    done = trendcast("run", "--device", "gpu")
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "The device gpu was asked for, and TensorFlow finds none on this machine." in told
    assert "or use --device cpu, or auto" in told
    assert "Traceback" not in done.stderr


def test_unknown_model_suggests_and_lists_the_valid_ones(small_run: Shop) -> None:
    done = small_run.run("run", "--model", "ridge", "--model", "lstmm")
    assert done.returncode == 2
    assert "Unknown model 'lstmm'. Did you mean 'lstm'?" in done.stderr
    assert (
        "Valid: seasonal_naive, analogy, classical, ridge, lightgbm, lstm, ensemble" in done.stderr
    )


def test_a_selection_of_nothing_lists_what_there_is(small_run: Shop) -> None:
    done = small_run.run("run", "--select", "no_such_model")
    assert done.returncode == 2
    assert "'no_such_model' matches no model" in done.stderr
    assert "ftr_history" in done.stderr
    assert len(small_run.query("select * from analytics_trendcast.runs")) == 1


def test_a_forecast_before_any_run(small_run: Shop, tmp_path: Path) -> None:
    """Without a ledger, a command that needs one says how to make it."""
    (tmp_path / "target").mkdir()
    for name in ("manifest.json", "partial_parse.msgpack"):
        (tmp_path / "target" / name).write_bytes((small_run.folder / "target" / name).read_bytes())
    done = Shop(tmp_path, small_run.vars).run("forecast")
    assert done.returncode == 1
    assert "trendcast run" in done.stderr
    assert "Traceback" not in done.stderr


# --- Colours: on a terminal, unless NO_COLOR is set; never in a pipe ---


def on_a_terminal(*args: str, **environment: str) -> str:
    """What a command writes to stderr where that is a terminal."""
    ours, theirs = pty.openpty()
    kept = ("PATH", "HOME", "LANG")
    with subprocess.Popen(
        [sys.executable, "-m", "trendcast", *args],
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={k: os.environ[k] for k in kept if k in os.environ}
        | {"TERM": "xterm-256color"}
        | environment,
    ):
        os.close(theirs)
        written = b""
        with suppress(OSError):  # the end of a terminal is an error on Linux
            while chunk := os.read(ours, 4096):
                written += chunk
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("args", [["runs", "--target", "oracle"], ["run", "--modle", "x"]])
def test_errors_are_red_on_a_terminal_alone(args: list[str]) -> None:
    coloured = on_a_terminal(*args)
    assert re.search(r"\x1b\[1;31m(trendcast|Error):\x1b\[0m ", coloured)
    plain = on_a_terminal(*args, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", plain)  # bold is no colour
    assert not re.search(r"\x1b\[", on_a_terminal(*args, TERM="dumb"))
    piped = trendcast(*args).stderr
    assert "\x1b" not in piped
    unstyled = re.sub(r"\x1b\[[0-9;]*m", "", coloured).replace("\r\n", "\n")
    assert unstyled.split() == piped.split()


def test_tables_are_plain_in_a_pipe(small_run: Shop) -> None:
    done = small_run.run_apart("doctor")
    assert "ok " in done.stdout and "\x1b" not in done.stdout + done.stderr


# --- Completion ---


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("trendcast fo", {"forecast"}),
        ("trendcast re", {"report", "reproduce"}),
        ("trendcast run --mod", {"--model"}),
        ("trendcast run --model l", {"lightgbm", "lstm"}),
        ("trendcast simulate ", {"inventory"}),
    ],
)
def test_bash_completes(typed: str, offered: set[str]) -> None:
    words = typed.split(" ")
    done = subprocess.run(
        [Path(sys.executable).parent / "trendcast"],
        env={
            "PATH": os.environ["PATH"],
            "_TRENDCAST_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.split()) == offered, done.stderr


def test_completion_can_be_shown_and_bash_takes_it() -> None:
    script = Path(sys.executable).parent / "trendcast"
    shown = f"'{script}' --show-completion"
    done = subprocess.run(
        ["bash", "-c", f"source <({shown}) && complete -p trendcast"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split()[-1] == "trendcast" and "-F" in done.stdout, done.stderr


# --- JSON ---


def strict(text: str) -> Any:
    """Parse JSON that has no NaN or Infinity, which JavaScript and jq refuse."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_runs_as_json_is_one_line(small_run: Shop) -> None:
    done = small_run.run("runs", "--json")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    (run,) = strict(done.stdout)
    assert (run["command"], run["status"]) == ("run", "committed")
    assert json.loads(run["models"]) == ["seasonal_naive", "ridge"]


# --- The steps as commands of their own ---


@pytest.fixture(scope="module")
def stepped(small_run: Shop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What backtest, train and forecast tell, run one after the other on a copy of the small shop."""
    import shutil

    folder = tmp_path_factory.mktemp("stepped") / "copy"
    shutil.copytree(small_run.folder, folder)
    shop = Shop(folder, small_run.vars)
    told = {command: shop.run(command, "--json") for command in ("backtest", "train", "forecast")}
    for done in told.values():
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1
    return {"shop": shop} | {command: strict(done.stdout) for command, done in told.items()}


def test_backtest_writes_backtests_only(stepped: dict[str, Any]) -> None:
    told = stepped["backtest"]
    assert told["rows"] == {"backtests": 14}  # 1 series, 7 leads, 1 fold, 2 models
    rows = stepped["shop"].query(
        f"select * from analytics_trendcast.backtests where run_id = '{told['run_id']}'"
    )
    assert {row["model"] for row in rows} == {"seasonal_naive", "ridge"}
    assert all(row["actual"] is not None for row in rows)
    assert {(row["cutoff"], row["fold"]) for row in rows} == {(dt.date(2026, 3, 14), 1)}


def test_train_keeps_the_files_and_coefficients(stepped: dict[str, Any]) -> None:
    told, shop = stepped["train"], stepped["shop"]
    assert set(told["rows"]) == {"coefficients"}
    assert (shop.artifacts_dir / told["run_id"] / "ridge").is_dir()
    assert not (shop.artifacts_dir / told["run_id"] / "uncommitted").exists()


def test_forecast_trains_nothing(stepped: dict[str, Any], small_run: Shop) -> None:
    told, shop = stepped["forecast"], stepped["shop"]
    assert set(told["rows"]) == {"forecasts", "explanations"}
    assert not any(phase.startswith("train") for phase in told["timings"])
    runs = {row["run_id"]: row for row in shop.query("select * from analytics_trendcast.runs")}
    run = runs[told["run_id"]]
    assert run["trained_run_id"] == stepped["train"]["run_id"]
    assert json.loads(run["artifacts"]) == []
    # Trained again on the same data, it forecasts the same to the last bit.
    (first,) = small_run.query("select forecasts_sha256 from analytics_trendcast.runs")
    assert run["forecasts_sha256"] == first["forecasts_sha256"]


def test_a_step_says_what_it_wrote(small_run: Shop, copied: Callable[[Shop], Shop]) -> None:
    shop = copied(small_run)
    done = shop.run("forecast")
    assert done.returncode == 0, done.stderr
    assert RUN_ID.search(done.stdout)
    assert "(forecast) committed: cutoff 2026-03-21, models seasonal_naive, ridge" in done.stdout
    assert "14 forecasts" in done.stdout

    # An altered model is refused, and the refusal is in the ledger.
    (file,) = [p for p in shop.artifacts_dir.glob("*/ridge/*") if p.is_file()]
    file.write_bytes(file.read_bytes() + b" ")
    done = shop.run("forecast")
    assert done.returncode == 1
    assert "was altered" in done.stderr
    (newest, *_) = shop.query(
        "select status, error, forecasts_rows from analytics_trendcast.runs order by finished_at desc"
    )
    assert (newest["status"], newest["forecasts_rows"]) == ("failed", 0)
    assert "was altered" in newest["error"]


# --- The demo ---


def test_run_serves_every_series_of_the_demo(demo_run: Shop) -> None:
    (run,) = demo_run.query("select * from analytics_trendcast.runs")
    assert (run["status"], run["command"]) == ("committed", "run")
    assert json.loads(run["models"]) == [MODELS[0], "analogy", *MODELS[1:]]
    n = run["n_series"]
    (new,) = demo_run.query(
        "select count(*) as n from analytics_trendcast.ftr_analogy where fold = 0"
    )
    assert run["forecasts_rows"] == len(MODELS) * n * run["horizon"] + new["n"]
    (served,) = demo_run.query(
        "select count(distinct series_id) as n, count(*) as rows from analytics_marts.fct_forecasts"
    )
    assert served == {"n": n, "rows": n * run["horizon"]}


def test_forecast_gives_what_the_run_gave(demo_run: Shop, copied: Callable[[Shop], Shop]) -> None:
    """From the stored files, in another process and folder, an LSTM and a regression forecast the same."""
    shop = copied(demo_run)
    told = shop.json("forecast")
    first, again = shop.query("select * from analytics_trendcast.runs order by finished_at")
    assert again["run_id"] == told["run_id"]
    assert again["trained_run_id"] == first["run_id"]
    assert again["forecasts_sha256"] == first["forecasts_sha256"]
    same = "select model, series_id, lead, mean, q05, q50, q95 from analytics_trendcast.forecasts where run_id = '{}'"
    one, other = same.format(first["run_id"]), same.format(again["run_id"])
    assert shop.query(f"({one}) except ({other})") == []
    assert shop.query(f"({other}) except ({one})") == []


def test_a_second_demo_says_that_nothing_has_changed(demo_run: Shop) -> None:
    before = demo_run.path.read_bytes()
    done = demo_run.run("demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Nothing has changed since the last run")
    assert RUN_ID.search(done.stdout)
    for name in (*MODELS, "fct_forecasts"):
        assert name in done.stdout
    assert demo_run.path.read_bytes() == before


def test_runs_lists_the_run(demo_run: Shop) -> None:
    (run,) = demo_run.query("select run_id from analytics_trendcast.runs")
    done = demo_run.run("runs")
    assert done.returncode == 0
    assert run["run_id"] in done.stdout
    # The list of models is wrapped where the terminal is narrow.
    assert all(name in done.stdout for name in MODELS)


@pytest.fixture
def workspace(
    small_run: Shop, copied: Callable[[Shop], Shop], monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """A copy of the small shop as the pipeline sees it, without asking dbt again."""
    shop = copied(small_run)
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(shop.path))
    manifest = json.loads((shop.folder / "target" / "manifest.json").read_text())
    project_dir, profiles_dir = REPO / "dbt_project", REPO / "profiles"
    return Workspace(
        Dbt(project_dir, profiles_dir, vars=shop.vars, target_path=shop.folder / "target"),
        read_output(project_dir, profiles_dir, None),
        Project.from_manifest(manifest),
        shop.artifacts_dir,
    )


def test_current_means_same_data_settings_and_versions(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline.is_current(workspace)

    settings = replace(workspace.project.settings, seed=8)
    changed = replace(workspace, project=replace(workspace.project, settings=settings))
    assert not pipeline.is_current(changed)

    # A run narrowed with --model has the settings of the whole one.
    with duckdb.connect(workspace.output["path"]) as connection:
        before = connection.execute("select models from analytics_trendcast.runs").fetchone()
        connection.execute("update analytics_trendcast.runs set models = ?", ['["ridge"]'])
    assert not pipeline.is_current(workspace)
    with duckdb.connect(workspace.output["path"]) as connection:
        connection.execute("update analytics_trendcast.runs set models = ?", before)
    assert pipeline.is_current(workspace)

    with monkeypatch.context() as later:
        later.setattr(pipeline, "versions", lambda: {"trendcast": "99"})
        assert not pipeline.is_current(workspace)

    # What is known in advance counts as well as what was sold.
    turned = "update analytics_trendcast.ftr_calendar set is_monday = 1 - is_monday"
    with duckdb.connect(workspace.output["path"]) as connection:
        connection.execute(turned)
    assert not pipeline.is_current(workspace)
    with duckdb.connect(workspace.output["path"]) as connection:
        connection.execute(turned)
    assert pipeline.is_current(workspace)

    with duckdb.connect(workspace.output["path"]) as connection:
        connection.execute("update analytics_trendcast.ftr_history set y = y + 1 where t % 50 = 0")
    assert not pipeline.is_current(workspace)

    Path(workspace.output["path"]).unlink()
    assert not pipeline.is_current(workspace)


# --- What people see ---


def a_run(**columns: Any) -> dict[str, Any]:
    at = dt.datetime(2026, 1, 1)
    return {
        "run_id": "20260101T000000-abcdef",
        "command": "run",
        "status": "failed",
        "cutoff": None,
        "n_series": None,
        "models": None,
        "started_at": at,
        "finished_at": at + dt.timedelta(seconds=61),
        "forecasts_rows": None,
        "backtests_rows": None,
        "error": None,
    } | columns


def test_runs_print_errors_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_runs(
        [a_run(error="var 'windows' must be a list [short, medium, long], came: [/x]\nmore")]
    )
    printed = capsys.readouterr().out
    assert "must be a list [short, medium, long], came: [/x]" in printed
    assert "more" not in printed
    assert "20260101T000000-abcdef failed: var" in printed
    print_runs([])
    assert "No runs yet" in capsys.readouterr().out


def test_checks_print_findings_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_checks(
        [{"check": "orders", "status": "fail", "found": "[bold] is no column", "remedy": "[/mend]"}]
    )
    assert capsys.readouterr().out == "fail orders: [bold] is no column\n       [/mend]\n"


def test_a_full_refresh_is_passed_on(monkeypatch):
    asked = {}
    session = SimpleNamespace(run=lambda **options: asked.update(options))
    monkeypatch.setattr(package, "open", lambda *args, **options: session)
    monkeypatch.setattr(cli, "_print", lambda *args: None)
    for arguments, expected in ([], False), (["--full-refresh"], True):
        result = CliRunner().invoke(cli.app, ["run", *arguments])
        assert result.exit_code == 0, result.output
        assert asked["full_refresh"] is expected


def test_a_full_refresh_reaches_dbt(monkeypatch):
    class AskedError(Exception):
        pass

    def build(*args, full_refresh, **options):
        raise AskedError(full_refresh)

    monkeypatch.setattr(pipeline, "_run", lambda *args: nullcontext((None, None)))
    monkeypatch.setattr(pipeline, "_check_contracts", lambda *args, **options: [])
    monkeypatch.setattr(pipeline, "_was_made_with_other_sql", lambda workspace: False)
    monkeypatch.setattr(pipeline, "_build", build)
    workspace = SimpleNamespace(models=lambda names: [])
    for wanted in (False, True):
        with pytest.raises(AskedError, match=str(wanted)):
            pipeline.run(workspace, full_refresh=wanted)
