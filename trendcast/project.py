"""The dbt project as trendcast sees it: its profile, its settings and its columns' roles.

Settings live in dbt. The model ``ftr_design`` carries them, rendered and checked, in
``config.meta.trendcast``; roles stand beside the columns in the features' YAML. Python reads both from the
manifest, so a ``--vars`` override reaches both sides.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateError, Undefined
from jinja2.nativetypes import NativeEnvironment

from trendcast.errors import ProjectError

PACKAGE = "trendcast"
PACKAGED_PROJECT = Path(__file__).parent / "_project"
FEATURE_MODELS = (
    *("ftr_history", "ftr_known", "ftr_calendar", "ftr_static"),
    *("ftr_category", "ftr_cutoff", "ftr_design"),
)
MARTS_TAG = "trendcast_marts"


@dataclass(frozen=True)
class Settings:
    """The project's settings, rendered from dbt vars; see ``dbt_project.yml`` for what each means."""

    panel: str
    grain: str
    days_per_period: float
    season_length: int
    windows: tuple[int, ...]
    features: dict[str, bool]
    horizon: int
    max_quantity: float
    lead_bucket: int
    series_key: tuple[str, ...]
    #: The leading one of the measures: its series have the ids of the sales they are made of.
    measure: str
    measures: tuple[str, ...]
    backtest_folds: int
    backtest_step: int
    models: tuple[str, ...]
    champion_metric: str
    champion_margin: float
    seed: int
    train_periods: int
    train_stride: int
    train_rows: int
    order_columns: dict[str, str]
    order_timezone: str | None
    #: SQL expression of a raw order line's date on the shop's clock, as staging reads it.
    order_date: str
    robust_bound: float | None
    classical: dict[str, Any]
    lightgbm: dict[str, Any]
    lstm: dict[str, Any]

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Settings:
        """Build from ``config.meta.trendcast`` of ``ftr_design``."""
        fields = {name: meta[name] for name in cls.__dataclass_fields__ if name in meta}
        missing = sorted(set(cls.__dataclass_fields__) - set(fields))
        if missing:
            raise ProjectError(
                f"The model ftr_design lacks the settings {', '.join(missing)} in config.meta.trendcast. "
                "Update the trendcast dbt package to the version of the Python package."
            )
        for name in ("windows", "series_key", "measures", "models"):
            fields[name] = tuple(fields[name])
        return cls(**fields)


@dataclass(frozen=True)
class Column:
    """A feature column and the role its YAML gives it."""

    name: str
    model: str
    role: str
    unit: str = "none"
    component: str = "other"
    #: Only for models that choose among features themselves.
    wide: bool = False
    #: Years of history from which there is anything to learn from it.
    needs_years: int = 0


@dataclass(frozen=True)
class Project:
    """Relations, settings and roles read from a dbt manifest.

    Parameters
    ----------
    relations
        dbt model name (of the trendcast package) to rendered relation name.
    settings
        The rendered settings.
    columns
        Every feature column with a role, in YAML order.
    orders
        Rendered relation name of the order lines' source.
    orders_schema
        Its schema, ``demo_shop`` for the demo.
    code
        Digest of the SQL of the package's models and macros.
    """

    relations: dict[str, str]
    settings: Settings
    columns: tuple[Column, ...]
    orders: str
    orders_schema: str
    code: str
    #: Rendered relation names of the shop's tables, by source table name; those it has not are left out.
    sources: dict[str, str] = field(default_factory=dict)
    #: Whether the user's project has a stg_order_lines of its own, which reads what it likes.
    stages_orders_itself: bool = False
    #: The database (of DuckDB, the catalog) of the features.
    database: str = ""
    #: Names of the models a BI tool reads.
    marts: tuple[str, ...] = ()

    @classmethod
    def from_manifest(cls, manifest: dict[str, Any]) -> Project:
        """Read what trendcast needs; raise ProjectError where the package is not in the project."""
        nodes = {
            node["name"]: node
            for node in manifest["nodes"].values()
            if node["resource_type"] == "model" and node["package_name"] == PACKAGE
        }
        # A user's own version of a model wins over the package's, as it does for ref().
        for node in manifest["nodes"].values():
            if (
                node["resource_type"] == "model"
                and node["package_name"] != PACKAGE
                and node["name"] in FEATURE_MODELS
            ):
                nodes[node["name"]] = node
        if "ftr_design" not in nodes:
            raise ProjectError(
                "The dbt project has no model ftr_design: the trendcast package is not installed in it. "
                "Add it to packages.yml and run `dbt deps`, or pass --project-dir."
            )
        source = manifest["sources"].get(f"source.{PACKAGE}.shop.order_lines")
        if source is None:
            raise ProjectError("The dbt project has no source shop.order_lines.")
        settings = Settings.from_meta(nodes["ftr_design"]["config"]["meta"]["trendcast"])
        return cls(
            relations={
                name: node["relation_name"] for name, node in nodes.items() if node["relation_name"]
            },
            settings=settings,
            columns=tuple(_columns(nodes, settings.features)),
            orders=source["relation_name"],
            orders_schema=source["schema"],
            code=_code(manifest, nodes),
            sources={
                source["name"]: source["relation_name"]
                for source in manifest["sources"].values()
                if source["package_name"] == PACKAGE
            },
            stages_orders_itself=f"model.{PACKAGE}.stg_order_lines" not in manifest["nodes"],
            database=nodes["ftr_design"]["database"],
            marts=tuple(sorted(name for name, node in nodes.items() if MARTS_TAG in node["tags"])),
        )

    def fingerprint(self) -> str:
        """Digest of all that decides what a run makes of its data: the settings and the SQL."""
        text = json.dumps([self.settings.__dict__, self.code], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def relation(self, name: str) -> str:
        """Return the rendered relation name of a model."""
        if name not in self.relations:
            raise ProjectError(f"The dbt project has no enabled model {name}.")
        return self.relations[name]

    def with_role(self, *roles: str, wide: bool = False) -> list[Column]:
        """Return the columns of the roles, in the order of the models and their YAML; with the wide ones on request."""
        return [c for c in self.columns if c.role in roles and (wide or not c.wide)]


def _code(manifest: dict[str, Any], nodes: dict[str, Any]) -> str:
    """Digest of the package's models, as `nodes` has them, and of its macros."""
    models = {name: node["raw_code"] for name, node in nodes.items()}
    macros = {
        macro["name"]: macro["macro_sql"]
        for macro in manifest["macros"].values()
        if macro["package_name"] == PACKAGE
    }
    text = json.dumps([models, macros], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _columns(nodes: dict[str, Any], built: dict[str, bool]) -> list[Column]:
    columns = []
    for model in FEATURE_MODELS:
        for column in nodes[model]["columns"].values() if model in nodes else ():
            meta = (column.get("config") or {}).get("meta") or column.get("meta") or {}
            if "role" in meta and built.get(meta.get("group", ""), True):
                columns.append(
                    Column(
                        name=column["name"],
                        model=model,
                        role=meta["role"],
                        unit=meta.get("unit", "none"),
                        component=meta.get("component", "other"),
                        wide=meta.get("wide", False),
                        needs_years=meta.get("needs_years", 0),
                    )
                )
    return columns


def find_project_dir(given: Path | None) -> Path:
    """Return the folder with ``dbt_project.yml``: the one given, DBT_PROJECT_DIR, here or ./dbt_project."""
    candidates: list[Path | None] = (
        [given] if given else [_from_environment("DBT_PROJECT_DIR"), Path(), Path("dbt_project")]
    )
    for folder in candidates:
        if folder and (folder / "dbt_project.yml").is_file():
            return folder
    looked = ", ".join(str(c.resolve()) for c in candidates if c)
    raise ProjectError(f"No dbt_project.yml in {looked}. Pass --project-dir.")


def find_profiles_dir(given: Path | None, project_dir: Path) -> Path:
    """Return the folder with ``profiles.yml``, looked for where dbt does and in ``../profiles``."""
    candidates: list[Path | None] = (
        [given]
        if given
        else [
            _from_environment("DBT_PROFILES_DIR"),
            Path(),
            Path("profiles"),
            project_dir,
            project_dir.parent / "profiles",
            Path.home() / ".dbt",
        ]
    )
    for folder in candidates:
        if folder and (folder / "profiles.yml").is_file():
            return folder
    looked = ", ".join(str(c) for c in candidates if c)
    raise ProjectError(f"No profiles.yml in {looked}. Pass --profiles-dir.")


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def profile_name(project_dir: Path) -> str:
    """Return the name of the profile dbt would use."""
    project = _read_yaml(project_dir / "dbt_project.yml")
    return str(_Renderer()(os.environ.get("DBT_PROFILE") or project.get("profile")))


def read_output(project_dir: Path, profiles_dir: Path, target: str | None) -> dict[str, Any]:
    """Return the rendered output (connection) that dbt would use.

    Raises
    ------
    ProjectError
        The profile or the target does not exist, or an environment variable without default is not set.
    """
    render = _Renderer()
    path = profiles_dir / "profiles.yml"
    name = profile_name(project_dir)
    profiles = _read_yaml(path)
    if name not in profiles:
        valid = ", ".join(str(p) for p in profiles if p != "config")
        raise ProjectError(f"{path} has no profile {name!r}. It has: {valid}.")
    profile = profiles[name]
    if not isinstance(profile, dict) or not isinstance(profile.get("outputs"), dict):
        raise ProjectError(f"The profile {name!r} of {path} has no `outputs`.")
    try:
        chosen = target or os.environ.get("DBT_TARGET") or render(profile.get("target", "default"))
        if chosen not in profile["outputs"]:
            valid = ", ".join(profile["outputs"])
            raise ProjectError(f"Profile {name!r} has no target {chosen!r}. It has: {valid}.")
        output: dict[str, Any] = render(profile["outputs"][chosen])
    except (TemplateError, ValueError) as error:
        raise ProjectError(f"The profile {name!r} of {path} cannot be rendered: {error}") from error
    return output


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds."""
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ProjectError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ProjectError(f"{path} must be a mapping, came: {str(content)[:40]!r}")
    return content


class _Renderer:
    """Renders a profile's Jinja as dbt does: env_var() and the type filters."""

    def __init__(self) -> None:
        self._environment = NativeEnvironment(undefined=Undefined)
        self._environment.globals["env_var"] = _env_var
        self._environment.filters.update(
            as_number=lambda v: float(v) if "." in str(v) else int(v),
            as_bool=lambda v: str(v).lower() in ("true", "1", "yes"),
            as_text=str,
            as_native=lambda v: v,
        )

    def __call__(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, str) and "{{" in value:
            return self._environment.from_string(value).render()
        return value


def _env_var(name: str, default: str | None = None) -> str:
    value = os.environ.get(name, default)
    if value is None:
        raise ProjectError(f"profiles.yml needs the environment variable {name}, which is not set.")
    return value
