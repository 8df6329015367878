"""What the options of several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)
TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
RUNS_HELP = "Folder of all runs; that of an EXPERIMENT is its subfolder NAME."
FORECAST_HELP = "A store, or files of an ensemble."
TRUTH_HELP = "Files that hold the truth."


def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Callback of an option that is not given to its command, but read by `kept`."""
    context.meta[f"{__name__}.{parameter.name}"] = value


def kept(name: str) -> Any:
    """What the command at work was given for an option that was kept."""
    return click.get_current_context().meta[f"{__name__}.{name}"]
