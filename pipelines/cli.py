"""The command line: `myriad`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from data.errors import MyriadError

_FILE = click.Path(path_type=Path)
_RUNS = click.option(
    "--runs", type=_FILE, default=Path("runs"), show_default=True,
    help="Folder of all runs; this one goes to its subfolder NAME.",
)  # fmt: skip
_WORKERS = click.option(
    "--workers", type=click.IntRange(1), default=None,
    help="Worker processes, one thread each; by default one per core.",
)  # fmt: skip
_EXPERIMENT = click.argument("experiment", type=_FILE)


class _Command(click.Group):
    """Ends with the documented code and one line where an error is meant for the user."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except MyriadError as error:
            click.echo(f"myriad: {error}", err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Command)
@click.version_option(package_name="myriadcast", prog_name="myriad")
def main() -> None:
    """Turn one analysis of the atmosphere into a calibrated probabilistic forecast."""


@main.command()
@_EXPERIMENT
@_RUNS
@_WORKERS
def run(experiment: Path, runs: Path, workers: int | None) -> None:
    """Forecast the ensemble of an EXPERIMENT file; a second run does what is missing."""
    from pipelines import engine
    from pipelines.experiment import read_experiment
    from pipelines.plan import make_plan

    settings = read_experiment(experiment)
    plan = make_plan(settings, runs / settings.name / "forecast.zarr")
    done = engine.run(plan, workers or len(os.sched_getaffinity(0)))
    rate = f", {done.member_steps / done.seconds:.0f} member-steps/s" if done.member_steps else ""
    click.echo(f"{plan.path}: {done.units} units finished, {done.resumed} of them before{rate}")


@main.command()
@_EXPERIMENT
@click.option("--init-time", "init_time", required=True, help="For example 2006-01-05T00.")
@click.option("--number", type=click.IntRange(0), required=True, help="0 is the control.")
@click.option("--output", type=_FILE, required=True, help="NetCDF file to write.")
def member(experiment: Path, init_time: str, number: int, output: Path) -> None:
    """Forecast one member of an EXPERIMENT alone, equal to the stored one bit for bit."""
    from pipelines.experiment import read_experiment
    from pipelines.replay import replay

    click.echo(replay(read_experiment(experiment), np.datetime64(init_time, "s"), number, output))
