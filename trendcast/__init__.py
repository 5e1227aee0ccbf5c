"""trendcast: SQL-native forecasting inside the warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from trendcast.session import Session

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(
    project_dir: str | PathLike[str] | None = None,
    *,
    profiles_dir: str | PathLike[str] | None = None,
    target: str | None = None,
    vars: Mapping[str, Any] | None = None,
    artifacts_dir: str | PathLike[str] | None = None,
    target_path: str | PathLike[str] | None = None,
    device: str | None = None,
) -> Session:
    """Open a dbt project with trendcast in it, to run it and to read what came of it.

    Parameters
    ----------
    project_dir
        Folder with ``dbt_project.yml``; None: here or ./dbt_project.
    profiles_dir
        Folder with ``profiles.yml``; None: where dbt looks, or ./profiles.
    target
        Output of the dbt profile; None for its default.
    vars
        Overrides of dbt vars, such as ``{"horizon": 14}``.
    artifacts_dir
        Folder of the model files; None: trendcast_artifacts beside the warehouse.
    target_path
        Where dbt writes its artefacts; None: the project's own.
    device
        What networks train on in this process: ``cpu``, ``gpu``, or ``auto``, a GPU where there is one; None: what the
        environment's ``TRENDCAST_DEVICE`` says, or ``auto``.

    Raises
    ------
    UsageError
        There is no project or profile, a var is unknown or of another type, or the device is not there.

    Examples
    --------
    >>> shop = trendcast.open("shop")          # doctest: +SKIP
    >>> shop.forecast("YOGURT")                # doctest: +SKIP
    >>> shop.plot("YOGURT")                    # doctest: +SKIP
    """
    from pathlib import Path

    from trendcast.models.backend import use_device
    from trendcast.pipeline import Workspace
    from trendcast.session import Session
    from trendcast.vars import plain

    def path(given: str | PathLike[str] | None) -> Path | None:
        return None if given is None else Path(given)

    use_device(device)
    return Session(
        Workspace.open(
            project_dir=path(project_dir),
            profiles_dir=path(profiles_dir),
            target=target,
            vars={str(name): plain(value) for name, value in (vars or {}).items()},
            artifacts_dir=path(artifacts_dir),
            target_path=path(target_path),
        )
    )
