"""Errors a user can act on: each says what came, what is valid and what to do."""

from __future__ import annotations

# A shop may have thirty thousand series; an error names so many.
LISTED = 30


class TrendcastError(Exception):
    """Base of every error trendcast raises on purpose; the CLI prints it and exits with ``exit_code``."""

    exit_code = 1


class UsageError(TrendcastError):
    """The command was given something it cannot take: a wrong option, model, selection or setting."""

    exit_code = 2


class ProjectError(UsageError):
    """The dbt project, its profile or its settings cannot be used."""


class DataError(TrendcastError):
    """The shop's data cannot be forecast: a missing column, an empty table, too short a history."""


class DbtError(TrendcastError):
    """dbt failed; the message names the models and tests that did."""


class WarehouseError(TrendcastError):
    """The warehouse cannot be opened, read or written."""


class WarehouseLockedError(WarehouseError):
    """Another process holds the warehouse or a run is under way; the message says which."""


class ArtifactError(TrendcastError):
    """A model file is missing, altered, made by another version, or cannot be written."""


class Stopped(BaseException):
    """The process was told to end, by Ctrl-C; no KeyboardInterrupt, which the command line's library would swallow."""


class Terminated(Stopped):
    """The process was told to end by SIGTERM, which does not reach dbt by itself."""


def one_of(what: str, came: str, valid: list[str]) -> UsageError:
    """Build the error for a name that is not among the valid ones, with the nearest as a suggestion."""
    from difflib import get_close_matches

    close = get_close_matches(came, valid, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    more = f" and {len(valid) - LISTED:,} more" if len(valid) > LISTED else ""
    return UsageError(f"Unknown {what} {came!r}.{hint} Valid: {', '.join(valid[:LISTED])}{more}.")
