"""What trendcast reads of a dbt project: profile, settings, roles."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO
from trendcast.dbt import Dbt
from trendcast.errors import DbtError, ProjectError, UsageError
from trendcast.project import (
    FEATURE_MODELS,
    Project,
    Settings,
    find_profiles_dir,
    find_project_dir,
    read_output,
)

PROFILES = """
shop:
  target: "{{ env_var('SHOP_TARGET', 'dev') }}"
  outputs:
    dev:
      type: duckdb
      path: "{{ env_var('SHOP_PATH', 'dev.duckdb') }}"
      threads: "{{ env_var('SHOP_THREADS', '3') | as_number }}"
      ratio: "{{ '0.5' | as_number }}"
      read_only: "{{ 'False' | as_bool }}"
      settings: {list: ["{{ env_var('SHOP_PATH', 'x') }}"], plain: 4}
    prod:
      type: duckdb
      path: "{{ env_var('SHOP_SECRET_PATH') }}"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a project and its profiles, and no variable of ours in the environment."""
    for name in ("SHOP_TARGET", "SHOP_PATH", "SHOP_THREADS", "DBT_TARGET", "DBT_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "profiles.yml").write_text(PROFILES)
    (tmp_path / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    return tmp_path


# --- The profile ---


def test_output_takes_defaults_where_the_environment_is_silent(folder: Path) -> None:
    assert read_output(folder, folder, None) == {
        "type": "duckdb",
        "path": "dev.duckdb",
        "threads": 3,
        "ratio": 0.5,
        "read_only": False,
        "settings": {"list": ["x"], "plain": 4},
    }


def test_output_takes_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PATH", "/data/my shop.duckdb")
    monkeypatch.setenv("SHOP_THREADS", "8")
    output = read_output(folder, folder, None)
    assert (output["path"], output["threads"]) == ("/data/my shop.duckdb", 8)
    assert output["settings"]["list"] == ["/data/my shop.duckdb"]


@pytest.mark.parametrize("how", ["argument", "DBT_TARGET", "SHOP_TARGET"])
def test_target_is_chosen_as_dbt_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("SHOP_SECRET_PATH", "prod.duckdb")
    if how != "argument":
        monkeypatch.setenv(how, "prod")
    output = read_output(folder, folder, "prod" if how == "argument" else None)
    assert output["path"] == "prod.duckdb"


def test_missing_variable_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_SECRET_PATH", raising=False)
    with pytest.raises(ProjectError, match="SHOP_SECRET_PATH"):
        read_output(folder, folder, "prod")


@pytest.mark.parametrize(
    ("remote", "asked", "partitions"),
    [
        (None, None, 4),
        ("local-cluster[2,1,1024]", None, 4),
        ("sc://spark.example.com:15002", None, 200),
        ("sc://spark.example.com:15002", "1000", 1000),
    ],
)
def test_spark_shuffles_into_as_many_partitions_as_suit_the_cluster(
    monkeypatch: pytest.MonkeyPatch, remote: str | None, asked: str | None, partitions: int
) -> None:
    for name, value in (("REMOTE", remote), ("PARTITIONS", asked)):
        monkeypatch.delenv(f"TRENDCAST_SPARK_{name}", raising=False)
        if value:
            monkeypatch.setenv(f"TRENDCAST_SPARK_{name}", value)
    output = read_output(REPO / "dbt_project", REPO / "profiles", "spark")
    assert output["server_side_parameters"]["spark.sql.shuffle.partitions"] == partitions


def test_unknown_target_lists_the_valid_ones(folder: Path) -> None:
    with pytest.raises(ProjectError, match=r"no target 'staging'.*dev, prod"):
        read_output(folder, folder, "staging")


def test_unknown_profile_lists_the_valid_ones(folder: Path) -> None:
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: warehouse\n")
    with pytest.raises(ProjectError, match=r"no profile 'warehouse'.*shop"):
        read_output(folder, folder, None)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("profiles.yml", "shop: [unclosed"),
        ("profiles.yml", "shop: {target: dev}"),
        ("profiles.yml", "shop: {target: dev, outputs: {dev: {path: '{{ unknown() }}'}}}"),
        ("profiles.yml", "shop: {target: dev, outputs: {dev: {path: '{{ unclosed'}}}"),
        ("profiles.yml", "just text"),
        ("dbt_project.yml", "name: [unclosed"),
        ("dbt_project.yml", "just text"),
    ],
)
def test_broken_file_is_named(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(ProjectError, match=file):
        read_output(folder, folder, None)


def test_shipped_profile_is_the_default_of_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRENDCAST_TARGET", raising=False)
    monkeypatch.delenv("TRENDCAST_THREADS", raising=False)
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", "elsewhere.duckdb")
    output = read_output(REPO / "dbt_project", REPO / "profiles", None)
    assert (output["type"], output["path"], output["threads"]) == ("duckdb", "elsewhere.duckdb", 2)
    assert output["config_options"] == {"storage_compatibility_version": "v1.0.0"}


# --- Where things are ---


def test_project_is_found_here_or_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBT_PROJECT_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dbt_project").mkdir()
    (tmp_path / "dbt_project" / "dbt_project.yml").touch()
    assert find_project_dir(None) == Path("dbt_project")
    (tmp_path / "dbt_project.yml").touch()
    assert find_project_dir(None) == Path()


def test_a_given_folder_is_never_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    with pytest.raises(ProjectError, match=str(tmp_path)):
        find_project_dir(tmp_path)
    with pytest.raises(ProjectError, match=str(tmp_path)):
        find_profiles_dir(tmp_path, REPO / "dbt_project")


def test_profiles_are_found_beside_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBT_PROFILES_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_profiles_dir(None, REPO / "dbt_project").resolve() == REPO / "profiles"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "profiles.yml").touch()
    monkeypatch.setenv("DBT_PROFILES_DIR", str(elsewhere))
    assert find_profiles_dir(None, REPO / "dbt_project") == elsewhere


# --- Settings and roles in the manifest ---


def test_settings_are_rendered(project: Project) -> None:
    settings = project.settings
    assert (settings.grain, settings.horizon, settings.season_length) == ("day", 28, 7)
    assert settings.windows == (7, 28, 91)
    assert settings.series_key == ("category",)
    assert settings.backtest_step == settings.horizon  # the default of an unset var
    assert settings.order_columns["quantity"] == "quantity"


def test_missing_settings_are_named(manifest: dict[str, Any]) -> None:
    meta = manifest["nodes"]["model.trendcast.ftr_design"]["config"]["meta"]["trendcast"]
    less = {k: v for k, v in meta.items() if k not in ("horizon", "grain")}
    with pytest.raises(ProjectError, match="lacks the settings grain, horizon"):
        Settings.from_meta(less)
    assert Settings.from_meta(meta | {"of_a_later_version": 1}) == Settings.from_meta(meta)


def test_every_setting_changes_the_fingerprint(project: Project) -> None:
    from dataclasses import fields, replace

    changed = [
        replace(project, settings=replace(project.settings, **{f.name: "other"}))
        for f in fields(Settings)
    ]
    prints = {p.fingerprint() for p in changed}
    assert len(prints | {project.fingerprint()}) == len(fields(Settings)) + 1


def test_changed_sql_changes_the_fingerprint(manifest: dict[str, Any]) -> None:
    import copy

    before = Project.from_manifest(manifest).fingerprint()
    assert Project.from_manifest(copy.deepcopy(manifest)).fingerprint() == before
    for kind, name, text in (
        ("nodes", "model.trendcast.ftr_history", "raw_code"),
        ("macros", "macro.trendcast.trailing", "macro_sql"),
    ):
        changed = copy.deepcopy(manifest)
        changed[kind][name][text] += " "
        assert Project.from_manifest(changed).fingerprint() != before


def test_roles_are_those_of_the_yaml(project: Project) -> None:
    import yaml

    path = REPO / "dbt_project/models/features/_features__models.yml"
    expected = [
        (model["name"], column["name"], column["config"]["meta"]["role"])
        for name in FEATURE_MODELS
        for model in yaml.safe_load(path.read_text())["models"]
        if model["name"] == name
        for column in model["columns"]
        if "role" in column.get("config", {}).get("meta", {})
        # A group that is off is not built, so no model may ask for its columns.
        and project.settings.features.get(column["config"]["meta"].get("group"), True)
    ]
    assert "median_medium" not in {name for _, name, _ in expected}  # off by default
    assert [(c.model, c.name, c.role) for c in project.columns] == expected
    y = next(c for c in project.columns if c.name == "y")
    assert (y.role, y.unit, y.component) == ("history", "demand", "level")


def test_one_yaml_line_adds_a_feature(manifest: dict[str, Any]) -> None:
    changed = copy.deepcopy(manifest)
    columns = changed["nodes"]["model.trendcast.ftr_known"]["columns"]
    columns["holiday"] = {"name": "holiday", "config": {"meta": {"role": "known"}}}
    columns["note"] = {"name": "note", "config": {"meta": {}}}
    names = [c.name for c in Project.from_manifest(changed).with_role("known")]
    assert "holiday" in names
    assert "note" not in names


def own_model(node: dict[str, Any]) -> dict[str, Any]:
    """A user's model of the same name, in their own package and schema."""
    mine = copy.deepcopy(node)
    mine["package_name"], mine["relation_name"] = "my_shop", '"dwh"."my_shop"."ftr_known"'
    mine["columns"] = {
        "loyalty_day": {"name": "loyalty_day", "config": {"meta": {"role": "known"}}}
    }
    return mine


def test_a_users_own_features_model_wins(manifest: dict[str, Any]) -> None:
    nodes = manifest["nodes"]
    mine = own_model(nodes["model.trendcast.ftr_known"])
    # Whichever comes first in the manifest.
    for ordered in ({"mine": mine} | nodes, nodes | {"mine": mine}):
        project = Project.from_manifest(manifest | {"nodes": ordered})
        assert project.relation("ftr_known") == '"dwh"."my_shop"."ftr_known"'
        known = [c.name for c in project.columns if c.model == "ftr_known"]
        assert known == ["loyalty_day"]


def test_models_of_others_are_not_ours(manifest: dict[str, Any]) -> None:
    other = copy.deepcopy(manifest["nodes"]["model.trendcast.runs"])
    other["package_name"], other["relation_name"] = "my_shop", '"dwh"."my_shop"."runs"'
    project = Project.from_manifest(manifest | {"nodes": manifest["nodes"] | {"other": other}})
    assert "my_shop" not in project.relation("runs")


def test_a_project_without_the_package_is_told_so(manifest: dict[str, Any]) -> None:
    with pytest.raises(ProjectError, match=r"packages\.yml"):
        Project.from_manifest(manifest | {"nodes": {}})
    with pytest.raises(ProjectError, match=r"shop\.order_lines"):
        Project.from_manifest(manifest | {"sources": {}})


def test_unknown_relation_is_named(project: Project) -> None:
    with pytest.raises(ProjectError, match="no enabled model ftr_weather"):
        project.relation("ftr_weather")


@pytest.mark.parametrize(
    ("vars", "told"),
    [
        ({"grain": "hour"}, "var 'grain' must be one of day, week, month; came: hour"),
        ({"horizon": 0}, "var 'horizon' must be a whole number of at least 1; came: 0"),
    ],
)
def test_wrong_var_is_a_usage_error_of_one_line(
    tmp_path: Path, vars: dict[str, Any], told: str
) -> None:
    dbt = Dbt(REPO / "dbt_project", REPO / "profiles", vars=vars, target_path=tmp_path)
    with pytest.raises(UsageError) as raised:
        dbt.parse()
    assert str(raised.value) == told


def test_a_selection_matches_models_by_name_and_tag(dbt: Dbt, manifest: dict[str, Any]) -> None:
    matched = dbt.matching(["ftr_known", "tag:trendcast_ledger", "no_such_model"])
    ledger = ["backtests", "coefficients", "explanations", "forecasts", "next_purchases"]
    ledger += ["runs", "scenarios", "tuning_trials", "weights"]
    assert sorted(matched) == sorted(["ftr_known", *ledger])


def test_what_had_too_little_memory_side_by_side_is_built_again_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "dbt_project.yml": "{name: shop, version: '1.0', profile: trendcast, models: {+materialized: table}}",
        "models/small.sql": "select 1 as x",
        "models/big.sql": (
            "select {{ \"error('Out of Memory Error: of the test')\" if target.threads > 1 else 1 }} as x "
            "from {{ ref('small') }}"
        ),
        "models/after.sql": "select x from {{ ref('big') }}",
        "models/wrong.sql": "select error('{{ var('wrong') }}') as x",
    }
    (tmp_path / "models").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(tmp_path / "shop.duckdb"))
    monkeypatch.setenv("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
    vars = {"wrong": "Out of Memory Error: whatever runs beside it"}
    dbt = Dbt(tmp_path, REPO / "profiles", vars=vars, target_path=tmp_path / "target")
    told: list[str] = []
    assert dbt.build(["+after"], progress=told.append) == {"success": 3}
    begun = [line for line in told if "START" in line]
    assert [
        name for line in begun for name in ("small", "big", "after") if f".{name} " in line
    ] == [
        *("small", "big"),
        *("big", "after"),
    ]
    with pytest.raises(DbtError, match=r"1 of 1 nodes:\n  shop\.wrong: .*whatever runs beside"):
        dbt.build(["wrong"])


def test_a_project_is_parsed_once_and_again_when_anything_of_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "select {{ var('number', 1) }} as x, '{{ env_var('OF_SHOP', 'none') }}' as y"
    (tmp_path / "dbt_project.yml").write_text(
        "{name: shop, version: '1.0', profile: trendcast, flags: {send_anonymous_usage_stats: false}}"
    )
    model = tmp_path / "models" / "first.sql"
    model.parent.mkdir()
    model.write_text(text)
    monkeypatch.setenv("TRENDCAST_DUCKDB_PATH", str(tmp_path / "shop.duckdb"))
    target = tmp_path / "target"
    dbt = Dbt(tmp_path, REPO / "profiles", target_path=target)

    def compiled(dbt: Dbt = dbt) -> str:
        dbt.compile(["first"])
        return (target / "compiled" / "shop" / "models" / "first.sql").read_text()

    def parsed_at() -> int:
        return (target / "perf_info.json").stat().st_mtime_ns  # only parsing writes it

    assert compiled() == "select 1 as x, 'none' as y"
    before = parsed_at()
    assert compiled() == "select 1 as x, 'none' as y"
    assert dbt.matching(["first", "second"]) == ["first"]
    assert parsed_at() == before
    model.write_text(text + ", 3 as z")
    assert compiled() == "select 1 as x, 'none' as y, 3 as z"
    monkeypatch.setenv("OF_SHOP", "some")
    assert compiled() == "select 1 as x, 'some' as y, 3 as z"
    assert compiled(replace(dbt, vars={"number": 2})) == "select 2 as x, 'some' as y, 3 as z"
    (model.parent / "second.sql").write_text("select 2 as x")
    assert dbt.matching(["first", "second"]) == ["first", "second"]
    (model.parent / "third.sql").write_text("select * from {{ ref('nowhere') }}")
    with pytest.raises(DbtError, match="nowhere"):
        dbt.matching(["first"])
    (model.parent / "third.sql").unlink()
    with pytest.raises(DbtError, match="No such option"):
        dbt.matching(["first", "--no-such"])
    assert compiled() == "select 1 as x, 'some' as y, 3 as z"


def test_what_dbt_cannot_read_is_told_without_the_drivers_farewell(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("{name: shop, version: '1', profile: trendcast}")
    with pytest.raises(DbtError, match="'1' is not valid") as raised:
        Dbt(tmp_path, REPO / "profiles", target_path=tmp_path / "target").parse()
    assert "nanobind" not in str(raised.value)
