"""Vars of the command line and the project: a misspelt or mistyped one is an error before dbt reads any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPO
from trendcast import cli
from trendcast.errors import UsageError
from trendcast.vars import NULLABLE, TYPES, check_vars, declared_vars, resolved_vars

PROJECT = REPO / "dbt_project"
DECLARED = declared_vars(PROJECT)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A user's project with the package installed, vars of its own and another package's."""
    (tmp_path / "dbt_packages" / "trendcast").mkdir(parents=True)
    installed = tmp_path / "dbt_packages" / "trendcast" / "dbt_project.yml"
    installed.write_text((PROJECT / "dbt_project.yml").read_text())
    (tmp_path / "dbt_packages" / "utils").mkdir()
    (tmp_path / "dbt_packages" / "utils" / "dbt_project.yml").write_text(
        "name: utils\nvars: {utils: {surrogate: md5}}\n"
    )
    write(tmp_path, {"region": "EU", "trendcast": {"horizon": 14}, "my_shop": {"tax": 0.19}})
    return tmp_path


def write(shop: Path, vars: dict[str, Any]) -> None:
    (shop / "dbt_project.yml").write_text(yaml.safe_dump({"name": "my_shop", "vars": vars}))


def refusal(project_dir: Path, vars: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as raised:
        check_vars(project_dir, vars)
    return str(raised.value)


def test_every_var_without_a_type_of_its_own_has_one() -> None:
    """A new var whose default is null needs an entry in `trendcast.vars.TYPES`."""
    assert [name for name, value in DECLARED.items() if value is None and name not in TYPES] == []
    assert sorted((set(TYPES) | set(NULLABLE)) - set(DECLARED)) == []


def test_defaults_are_of_their_types() -> None:
    check_vars(PROJECT, DECLARED)


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_a_misspelt_var_is_refused_with_the_nearest_name(name: str) -> None:
    told = refusal(PROJECT, {name + "x": 1})
    assert f"Unknown var '{name}x' in --vars. Did you mean " in told
    assert f"{sorted(DECLARED)[0]}, " in told


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_no_var_takes_a_value_of_another_type(name: str) -> None:
    of_no_kind = {1, 2}
    kinds = [of_no_kind, [[1]], {"a": {"b": of_no_kind}}][
        : 2 if isinstance(DECLARED[name], dict) else 3
    ]
    told = {refusal(PROJECT, {name: value}) for value in kinds}
    assert all(f"var '{name}' must " in text and "came: " in text for text in told)


@pytest.mark.parametrize(
    ("vars", "told"),
    [
        ({"horizon": "28"}, "var 'horizon' must be a whole number; came: '28' (in --vars)"),
        ({"horizon": True}, "a whole number; came: True"),
        ({"horizon": 7.5}, "a whole number; came: 7.5"),
        ({"horizon": None}, "a whole number; came: None"),
        ({"max_quantity": float("nan")}, "a number; came: nan"),
        ({"champion_margin": "a lot"}, "a number; came: 'a lot'"),
        ({"whole_units": 1}, "true or false; came: 1"),
        ({"series_key": "sku"}, "a list of names; came: 'sku'"),
        ({"series_key": [1]}, "a list of names; came: [1]"),
        ({"models": ["ridge", None]}, "a list of names"),
        ({"measure": []}, "a name or a list of names; came: []"),
        ({"measure": ["quantity", 3]}, "a name or a list of names; came"),
        ({"windows": [7, "28", 91]}, "a list of three whole numbers or null; came"),
        ({"demand_groups": ["department"]}, "a list of lists of names or null"),
        ({"cutoff": "last friday"}, "a date like '2026-01-31' or null; came: 'last friday'"),
        ({"as_of": "2026-02-30"}, "a date like"),
        ({"loaded_before": "noon"}, "a time like"),
        ({"lstm": [16]}, "a mapping; came: [16]"),
        ({"order_columns": "sku"}, "a mapping; came: 'sku'"),
        ({"order_columns": {"quantitiy": "n"}}, "came: 'quantitiy' (in --vars). Did you mean 'quantity'?"),
        ({"price_columns": {"prize": "p"}}, "Did you mean 'price'?"),
        ({"order_columns": {"quantity": ["n"]}}, "map 'quantity' to an SQL expression or null"),
        ({"trendcast": {"horizon": 14}}, "Leave it out: --vars '{horizon: ...}'"),
    ],
)  # fmt: skip
def test_wrong_vars(vars: dict[str, Any], told: str) -> None:
    assert told in refusal(PROJECT, vars)


def test_a_shops_own_vars_are_its_own(shop: Path) -> None:
    check_vars(shop, {"horizon": 7, "region": "US", "tax": 0.2, "surrogate": "sha"})
    write(shop, {"horzion": 7})  # at the top it may be anybody's
    check_vars(shop, {"horzion": 7})
    assert "Unknown var 'regoin' in --vars." in refusal(shop, {"regoin": "EU"})


def test_the_namespace_is_ours(shop: Path) -> None:
    write(shop, {"trendcast": {"horzion": 7}})
    told = refusal(shop, {})
    assert "Unknown var 'horzion' in vars.trendcast of " in told
    assert "dbt_project.yml. Did you mean 'horizon'?" in told
    write(shop, {"trendcast": {"horizon": "7"}})
    assert "var 'horizon' must be a whole number; came: '7' (in vars.trendcast" in refusal(shop, {})
    write(shop, {"horizon": [7]})
    assert "var 'horizon' must be a whole number; came: [7] (in vars of" in refusal(shop, {})


def test_the_nearer_value_wins(shop: Path) -> None:
    assert resolved_vars(shop, {})["horizon"] == 14
    assert resolved_vars(shop, {"horizon": 7})["horizon"] == 7
    assert resolved_vars(shop, {})["grain"] == "day"
    assert set(resolved_vars(shop, {"region": "EU"})) == set(DECLARED)


def test_without_the_package_dbt_speaks_first(tmp_path: Path) -> None:
    write(tmp_path, {})
    check_vars(tmp_path, {"anything": 1})


def test_yaml_dates_are_text() -> None:
    parsed = cli._parse_vars("{cutoff: 2026-01-31, windows: [1, 2, 3], lstm: {units: 3}, 1: x}")
    assert parsed == {
        "cutoff": "2026-01-31",
        "windows": [1, 2, 3],
        "lstm": {"units": 3},
        "1": "x",
    }


@pytest.mark.parametrize(
    ("vars", "told"),
    [
        ("{horzion: 14}", "trendcast: Unknown var 'horzion' in --vars. Did you mean 'horizon'? "),
        ("{lstm: {unit: 14}}", "trendcast: Unknown lstm setting 'unit'. Did you mean 'units'?"),
        ("{lightgbm: {max_rows: many}}", "setting 'max_rows' must be of type int; came: 'many'."),
    ],
)
def test_the_command_line_says_so_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    vars: str,
    told: str,
) -> None:
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(tmp_path / "shop.duckdb"))
    monkeypatch.setenv("DBT_TARGET_PATH", str(tmp_path / "target"))
    monkeypatch.setenv("DBT_LOG_PATH", str(tmp_path / "logs"))
    at = ["--project-dir", str(PROJECT), "--profiles-dir", str(REPO / "profiles")]
    monkeypatch.setattr("sys.argv", ["trendcast", "run", *at, "--vars", vars])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "trendcast_artifacts").exists()
