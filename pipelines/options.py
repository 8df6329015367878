"""What the options of several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import click

from data.errors import InputError

FILE = click.Path(path_type=Path)
TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
RUNS_HELP = "Folder of all runs; that of an EXPERIMENT is its subfolder NAME."
FORECAST_HELP = "A store, or files of an ensemble; a pattern such as 'fc*.nc' will do."
TRUTH_HELP = "Files that hold the truth."


def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Callback of an option that is not given to its command, but read by `kept`."""
    context.meta[f"{__name__}.{parameter.name}"] = value


def kept(name: str) -> Any:
    """What the command at work was given for an option that was kept."""
    return click.get_current_context().meta[f"{__name__}.{name}"]


def say_written(paths: Sequence[Path]) -> None:
    """Print what was written, a path in a line."""
    click.echo("\nwritten")
    for path in paths:
        click.echo(path)


def matched(patterns: Sequence[Path]) -> tuple[Path, ...]:
    """Files as they are named, or as a pattern such as ``fc*.nc`` finds them, in order.

    Raises
    ------
    InputError
        If a pattern matches none.
    """
    found: list[Path] = []
    for pattern in patterns:
        named = "://" in str(pattern) or not has_magic(str(pattern)) or pattern.exists()
        here = [pattern] if named else [Path(one) for one in sorted(glob(str(pattern)))]
        if not here:
            raise InputError(f"{pattern}: matches no file")
        found += here
    return tuple(found)
