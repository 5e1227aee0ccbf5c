"""The dbt vars: which there are, what type each takes, and which a command was given.

dbt takes any name for a var and says nothing, so `horzion: 14` would forecast the default horizon. The vars that the
package declares in its ``dbt_project.yml`` are the schema: a var has the type of its default. What a default
cannot say, such as the type of one that is null, stands in the tables below.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from trendcast.errors import ProjectError, UsageError

PACKAGE = "trendcast"
TEXT, WHOLE, NUMBER, SWITCH, NAMES, MAPPING = (
    *("text", "a whole number", "a number", "true or false"),
    *("a list of names", "a mapping"),
)
DATE, TIME = "a date like '2026-01-31'", "a time like '2026-01-31 12:00:00'"
WINDOWS, GROUPS = "a list of three whole numbers", "a list of lists of names"
NUMBERS = "a list of numbers"
NAME_OR_NAMES = "a name or a list of names"
# Vars whose default is null or, being a number or text, does not show all they take.
TYPES = {
    **{
        name: TEXT
        for name in (
            *(
                "shop_database",
                "products_table",
                "promotions_table",
                "events_table",
                "prices_table",
            ),
            *("reviews_table", "inventory_table", "exchange_rates_table", "supply_table"),
            *(
                "launches_table",
                "purchase_orders_table",
                "order_scope",
                "order_timezone",
                "review_timezone",
            ),
            *("test_order_when", "cancelled_when", "return_when", "currency"),
            *("holiday_country", "holiday_subdivision", "response_group", "customer_item"),
        )
    },
    **{name: DATE for name in ("as_of", "cutoff", "min_order_date")},
    "loaded_before": TIME,
    **{name: NUMBER for name in ("robust_bound", "stockout_chance", "max_quantity")},
    **{name: NUMBER for name in ("max_unit_price", "outlier_threshold", "lead_time_days")},
    **{name: NUMBER for name in ("lead_time_std_days", "review_days", "pack_size")},
    **{name: NUMBER for name in ("minimum_order", "order_cost", "shortage_cost_share")},
    **{name: NUMBER for name in ("trend_support", "freshness_days", "volume_low", "volume_high")},
    **{
        name: WHOLE
        for name in ("season_length", "backtest_step", "response_periods", "train_periods")
    },
    "windows": WINDOWS,
    "demand_groups": GROUPS,
    "neighbour_groups": GROUPS,
    "promotion_depths": NUMBERS,
    "measure": NAME_OR_NAMES,
}
# These may be null although their default is not.
NULLABLE = (
    *("products_table", "promotions_table", "order_scope", "order_timezone", "holiday_country"),
    *("robust_bound", "static_attributes", "gap_fill", "features"),
)
# Keys of a mapping of columns beside those of its default; a shop may name attributes of products as it likes.
MORE_COLUMNS = {
    "order_columns": ("status", "currency"),
    "promotion_columns": ("location_id", "planned_discount"),
    "supply_columns": ("location_id",),
    "launch_columns": ("planned_on",),
}
ANY_COLUMNS = ("product_columns",)


def check_vars(project_dir: Path, given: Mapping[str, Any]) -> None:
    """Refuse a var nobody declares, and one that is not of its type, before dbt reads any of them.

    Parameters
    ----------
    project_dir
        The root project. Its own vars, and those of other packages, are its own business.
    given
        What ``--vars`` gave; they go to every package, so they carry no namespace.

    Raises
    ------
    UsageError
        Names the var, where it was set, what is valid and the nearest name.
    """
    declared = declared_vars(project_dir)
    if not declared:
        return  # the package is not installed yet, which dbt says better
    if isinstance(given.get(PACKAGE), Mapping):
        raise UsageError(
            f"--vars has the namespace {PACKAGE!r}, which dbt would ignore: vars of the command line go to every "
            f"package. Leave it out: --vars '{{{', '.join(given[PACKAGE])}: ...}}'."
        )
    project = _vars_of(project_dir)
    ours = project.get(PACKAGE) if isinstance(project.get(PACKAGE), Mapping) else {}
    root = {name: value for name, value in project.items() if name != PACKAGE}
    _check("--vars", given, declared, known=_others(project_dir) | _flat(root))
    if not _is_package(project_dir):
        path = str(project_dir / "dbt_project.yml")
        _check(f"vars.{PACKAGE} of {path}", ours or {}, declared)
        theirs = {name: value for name, value in root.items() if name in declared}
        _check(f"vars of {path}", theirs, declared)


def resolved_vars(project_dir: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value every var of the package has in a run: defaults, the root project's, the command line's."""
    declared = declared_vars(project_dir)
    project = _vars_of(project_dir)
    ours = project.get(PACKAGE) if isinstance(project.get(PACKAGE), Mapping) else {}
    layers = (declared, project, ours or {}, given)
    return {name: value for layer in layers for name, value in layer.items() if name in declared}


def package_dir(project_dir: Path) -> Path:
    """Return the folder of the trendcast package: the project itself, or where dbt installs it."""
    return project_dir if _is_package(project_dir) else _packages_dir(project_dir) / PACKAGE


def declared_vars(project_dir: Path) -> dict[str, Any]:
    """Return the vars the trendcast package declares, with their defaults; empty where it is not installed."""
    declared = _vars_of(package_dir(project_dir)).get(PACKAGE)
    return dict(declared) if isinstance(declared, Mapping) else {}


def plain(value: Any) -> Any:
    """Return a value as dbt takes it: YAML reads 2026-01-31 as a date, dbt vars are JSON."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dt.date | dt.datetime):
        return str(value)
    return value


def _check(
    where: str, given: Mapping[str, Any], declared: Mapping[str, Any], known: set[str] | None = None
) -> None:
    for name, value in given.items():
        if name in declared:
            _check_type(where, name, plain(value), declared[name])
        elif name not in (known or ()):
            close = get_close_matches(str(name), list(declared), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UsageError(
                f"Unknown var {name!r} in {where}.{hint} Valid: {', '.join(sorted(declared))}."
            )


def _check_type(where: str, name: str, value: Any, default: Any) -> None:
    """Refuse a value that is not of the var's type."""
    kind = TYPES.get(name) or _kind_of(default)
    may_be_null = default is None or name in NULLABLE
    if kind is None or (value is None and may_be_null):
        return
    if not _is_of(kind, value):
        valid = kind + (" or null" if may_be_null else "")
        raise UsageError(f"var {name!r} must be {valid}; came: {value!r} (in {where})")
    if name.endswith("_columns"):
        _check_columns(where, name, value, default)


def _check_columns(where: str, name: str, value: Mapping[str, Any], default: Any) -> None:
    """Refuse a canonical column that does not exist, and one that is mapped to no SQL expression."""
    valid = [*default, *MORE_COLUMNS.get(name, ())]
    for column, expression in value.items():
        if column not in valid and name not in ANY_COLUMNS:
            close = get_close_matches(str(column), valid, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise UsageError(
                f"var {name!r} must map {', '.join(valid)}; came: {column!r} (in {where}).{hint}"
            )
        if expression is not None and not isinstance(expression, str | int | float):
            raise UsageError(
                f"var {name!r} must map {column!r} to an SQL expression or null; came: {expression!r} (in {where})"
            )


def _kind_of(default: Any) -> str | None:
    if isinstance(default, bool):
        return SWITCH
    for python, kind in (
        *((int, WHOLE), (float, NUMBER), (str, TEXT)),
        *((list, NAMES), (dict, MAPPING)),
    ):
        if isinstance(default, python):
            return kind
    return None


def _is_of(kind: str, value: Any) -> bool:
    if kind in (WHOLE, NUMBER):
        number = isinstance(value, int if kind == WHOLE else int | float)
        return number and not isinstance(value, bool) and abs(value) < float("inf")
    if kind in (DATE, TIME):
        return isinstance(value, str) and _is_moment(value, date=kind == DATE)
    if kind in (NAMES, GROUPS, WINDOWS, NUMBERS):
        item: Callable[[Any], bool] = {
            NAMES: _is_name,
            GROUPS: lambda x: _is_of(NAMES, x),
            WINDOWS: _is_whole,
            NUMBERS: lambda x: _is_of(NUMBER, x),
        }[kind]
        return isinstance(value, list) and all(item(x) for x in value)
    if kind == NAME_OR_NAMES:
        return _is_name(value) or (_is_of(NAMES, value) and bool(value))
    return isinstance(value, {TEXT: str, SWITCH: bool, MAPPING: Mapping}[kind])


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any) -> bool:
    return _is_of(WHOLE, value)


def _is_moment(text: str, *, date: bool) -> bool:
    try:
        dt.date.fromisoformat(text) if date else dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_package(project_dir: Path) -> bool:
    return bool(_project(project_dir).get("name") == PACKAGE)


def _packages_dir(project_dir: Path) -> Path:
    return project_dir / str(_project(project_dir).get("packages-install-path", "dbt_packages"))


def _others(project_dir: Path) -> set[str]:
    """Names of the vars that other installed packages declare."""
    found: set[str] = set()
    packages = _packages_dir(project_dir)
    for path in sorted(packages.glob("*/dbt_project.yml")) if packages.is_dir() else ():
        if path.parent.name != PACKAGE:
            found |= _flat(_vars_of(path.parent))
    return found


def _flat(declared: Mapping[str, Any]) -> set[str]:
    """Names of vars and, for a name of a package or a var that is a mapping, those inside."""
    inside = {name for value in declared.values() if isinstance(value, Mapping) for name in value}
    return set(declared) | inside


def _vars_of(folder: Path) -> dict[str, Any]:
    found = _project(folder).get("vars")
    return dict(found) if isinstance(found, Mapping) else {}


def _project(folder: Path) -> dict[str, Any]:
    path = folder / "dbt_project.yml"
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=16)
def _read(path: Path, changed_at: int) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ProjectError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}
