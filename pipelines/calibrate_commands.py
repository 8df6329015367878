"""`myriad calibrate judge | fit | apply | update`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from data.errors import ConfigurationError

if TYPE_CHECKING:
    from pipelines.calibration import Interval
    from pipelines.calibration_methods import Method

METHODS = (
    "conformal",
    "tracking",
    "adaptive",
    "mapping",
    "emos",
    "member_by_member",
    "degree_by_degree",
)
_FILE = click.Path(path_type=Path)
_TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
_RUNS = click.option(
    "--runs", type=_FILE, default=Path("runs"), show_default=True,
    help="Folder of all runs; that of an EXPERIMENT is its subfolder NAME.",
)  # fmt: skip
_EXPERIMENT = click.argument("experiment", type=_FILE, required=False)
_CALIBRATION = click.option(
    "--calibration", type=_FILE, required=True, help="Folder of the calibration."
)
_FORECAST = click.option(
    "--forecast", type=_FILE, multiple=True, help="A store, or files of an ensemble."
)
_TRUTH = click.option("--truth", type=_FILE, multiple=True, help="Files that hold the truth.")


@click.group()
def calibrate() -> None:
    """Make forecasts hold what they promise: fit, apply and update a calibration, or judge one."""


@calibrate.command()
@click.argument("experiment", type=_FILE)
@_RUNS
def judge(experiment: Path, runs: Path) -> None:
    """Calibrate the quantiles of the run of an EXPERIMENT on some dates and judge them on others.

    Writes coverage before and after, which the report shows; by channel and lead.
    """
    from pipelines.job import Job

    click.echo(Job.read(experiment, runs).calibrate().table())


@calibrate.command()
@_EXPERIMENT
@_RUNS
@_CALIBRATION
@_FORECAST
@_TRUTH
@click.option("--method", type=click.Choice(METHODS), help="With its default settings.")
@click.option("--settings", type=_FILE, help="YAML file: `method` and its settings.")
@click.option(
    "--dates", multiple=True, metavar="FIRST/LAST",
    help="Init times to fit on, for example 2006-01-01/2006-02-28T12; an end may be left empty. "
    "Several are added up; all init times by default.",
)  # fmt: skip
@click.option("--known-by", type=_TIME, help="Leave out truths of later valid times.")
@click.option("--channel", multiple=True, help="All by default.")
def fit(
    experiment: Path | None,
    runs: Path,
    calibration: Path,
    forecast: tuple[Path, ...],
    truth: tuple[Path, ...],
    method: str | None,
    settings: Path | None,
    dates: tuple[str, ...],
    known_by: datetime | None,
    channel: tuple[str, ...],
) -> None:
    """Fit a calibration to the run of an EXPERIMENT, or to any --forecast and --truth."""
    from pipelines import calibration as steps

    forecasts, truths = _inputs(experiment, runs, forecast, truth)
    wanted = steps.FitSettings(
        channel,
        dates=tuple(map(_interval, dates)),
        known_by=None if known_by is None else np.datetime64(known_by, "s"),
    )
    done = steps.fit(forecasts, truths, calibration, _method(method, settings), wanted)
    click.echo(
        f"{calibration}: {done.method.method} {done.hash}, fitted on {done.init_times.size} init "
        f"times of {len(done.channels)} channels"
    )


@calibrate.command()
@_EXPERIMENT
@_RUNS
@_CALIBRATION
@_FORECAST
@click.option("--output", type=_FILE, required=True, help="Store to write.")
@click.option("--init-time", type=_TIME, multiple=True, help="All by default.")
def apply(
    experiment: Path | None,
    runs: Path,
    calibration: Path,
    forecast: tuple[Path, ...],
    output: Path,
    init_time: tuple[datetime, ...],
) -> None:
    """Calibrate the run of an EXPERIMENT, or any --forecast, and write it as a store.

    Member methods give an ensemble store as the raw one, quantile methods a store of quantiles.
    """
    from pipelines import calibration as steps
    from pipelines.calibration_folder import Calibration

    forecasts, _ = _inputs(experiment, runs, forecast, None)
    times = [np.datetime64(time, "s") for time in init_time]
    click.echo(steps.apply(Calibration.open(calibration), forecasts, output, times))


@calibrate.command()
@_EXPERIMENT
@_RUNS
@_CALIBRATION
@_FORECAST
@_TRUTH
def update(
    experiment: Path | None,
    runs: Path,
    calibration: Path,
    forecast: tuple[Path, ...],
    truth: tuple[Path, ...],
) -> None:
    """Take in what has become known since; the same update again changes nothing."""
    from pipelines import calibration as steps
    from pipelines.calibration_folder import Calibration

    forecasts, truths = _inputs(experiment, runs, forecast, truth)
    before = Calibration.open(calibration)
    after, changed = steps.update(before, calibration, forecasts, truths)
    said = f"now {after.hash}, after {after.init_times[-1]}" if changed else "nothing is new"
    click.echo(f"{calibration}: {said}")


def _inputs(
    experiment: Path | None,
    runs: Path,
    forecast: tuple[Path, ...],
    truth: tuple[Path, ...] | None,
) -> tuple[Sequence[Path], Sequence[Path]]:
    """Forecast and truth of an experiment, or as given; no truth where `truth` is None."""
    from pipelines.job import Job

    named = bool(forecast) and (truth is None or bool(truth))
    if (experiment is not None) == bool(forecast or truth) or (experiment is None and not named):
        options = "--forecast" if truth is None else "--forecast and --truth"
        raise click.UsageError(f"give an EXPERIMENT, or {options}")
    if experiment is None:
        return forecast, truth or ()
    job = Job.read(experiment, runs)
    if truth is None:
        return [job.forecast], []
    if job.experiment.truth is None:
        raise ConfigurationError("truth: is needed here; the experiment names none")
    return [job.forecast], [job.experiment.truth]


def _method(name: str | None, settings: Path | None) -> Method:
    from pipelines.calibration_methods import method_from, read_method

    if (name is None) == (settings is None):
        raise click.UsageError("give --method or --settings")
    return method_from({"method": name}) if settings is None else read_method(settings)


def _interval(text: str) -> Interval:
    """First and last time of ``FIRST/LAST``."""
    ends = text.split("/")
    try:
        if len(ends) != 2:
            raise ValueError
        first, last = (np.datetime64(end, "s") if end else None for end in ends)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no period, expected for example 2006-01-01/2006-02-28T12",
            param_hint="--dates",
        ) from None
    return first, last
