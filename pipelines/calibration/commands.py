"""`myriad calibrate judge | fit | apply | update`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from pipelines.options import (
    FILE,
    FORECAST_HELP,
    RUNS_HELP,
    TIME,
    TRUTH_HELP,
    keep,
    kept,
    matched,
    say_written,
)

if TYPE_CHECKING:
    from pipelines.calibration.by_lead import Forecasts
    from pipelines.calibration.folder import Calibration
    from pipelines.calibration.methods import Method
    from pipelines.calibration.steps import Interval
    from pipelines.job import Job

METHODS = (
    "aggregation",
    "conformal",
    "tracking",
    "adaptive",
    "mapping",
    "emos",
    "member_by_member",
    "degree_by_degree",
)
_CALIBRATION = click.option(
    "--calibration", type=FILE, required=True, help="Folder of the calibration."
)
# Read by `_inputs`, which knows what goes together.
_EXPERIMENT = click.argument(
    "experiment", type=FILE, required=False, expose_value=False, callback=keep
)
_RUNS = click.option(
    "--runs", type=FILE, default=Path("runs"), show_default=True, help=RUNS_HELP,
    expose_value=False, callback=keep,
)  # fmt: skip
_FORECAST = click.option(
    "--forecast", type=FILE, multiple=True, help=FORECAST_HELP, expose_value=False, callback=keep
)
_MODEL = click.option(
    "--model", multiple=True, metavar="NAME=PATH", expose_value=False, callback=keep,
    help="Instead of --forecast: one of several forecasts that are made one, by its name; a store, "
    "files or tables. A name that is given again, or a pattern, adds files.",
)  # fmt: skip
_TRUTH = click.option(
    "--truth", type=FILE, multiple=True, help=TRUTH_HELP, expose_value=False, callback=keep
)


def _of_forecasts(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which a command finds a calibration and forecasts."""
    for option in (_MODEL, _FORECAST, _CALIBRATION, _RUNS, _EXPERIMENT):
        command = option(command)
    return command


@click.group()
def calibrate() -> None:
    """Make forecasts hold what they promise: fit, apply and update a calibration, or judge one."""


@calibrate.command()
@click.argument("experiment", type=FILE, expose_value=False, callback=keep)
@_RUNS
@click.option(
    "--calibrated", type=FILE, multiple=True,
    help="Stores that `apply` wrote of this forecast, or a pattern: judge these instead, on dates "
    "that they were not fitted on.",
)  # fmt: skip
@click.option(
    "--models", type=FILE,
    help="YAML file of settings of `aggregation`: judge these models too, by default checkpoints.",
)  # fmt: skip
def judge(calibrated: tuple[Path, ...], models: Path | None) -> None:
    """Calibrate the quantiles of the run of an EXPERIMENT on some dates and judge them on others.

    By split conformal quantiles; any other method is judged by what it has written: --calibrated.
    Writes coverage before and after, and scores by model, which the report shows; by channel and
    lead.
    """
    from pipelines.calibration.judge import CalibrationSettings
    from pipelines.calibration.methods import read_aggregation

    chosen = None if models is None else read_aggregation(models)
    result = _job().calibrate(CalibrationSettings(calibrated=matched(calibrated), models=chosen))
    click.echo(result.table())
    say_written(result.written)


@calibrate.command()
@_of_forecasts
@_TRUTH
@click.option("--method", type=click.Choice(METHODS), help="With its default settings.")
@click.option("--settings", type=FILE, help="YAML file: `method` and its settings.")
@click.option(
    "--dates", multiple=True, metavar="FIRST/LAST",
    help="Init times to fit on, for example 2006-01-01/2006-02-28T12; an end may be left empty. "
    "Several are added up; all init times by default.",
)  # fmt: skip
@click.option("--known-by", type=TIME, help="Leave out truths of later valid times.")
@click.option("--channel", multiple=True, help="All by default.")
def fit(
    calibration: Path,
    method: str | None,
    settings: Path | None,
    dates: tuple[str, ...],
    known_by: datetime | None,
    channel: tuple[str, ...],
) -> None:
    """Fit a calibration to the run of an EXPERIMENT, or to any --forecast and --truth."""
    from pipelines.calibration import steps

    forecasts, truths = _inputs()
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
    _summarise(done)


@calibrate.command()
@_of_forecasts
@click.option("--output", type=FILE, required=True, help="Store to write.")
@click.option("--init-time", type=TIME, multiple=True, help="All by default.")
def apply(calibration: Path, output: Path, init_time: tuple[datetime, ...]) -> None:
    """Calibrate the run of an EXPERIMENT, or any --forecast, and write it as a store.

    Member methods give an ensemble store as the raw one, quantile methods a store of quantiles, of
    the channels that were fitted.
    """
    from pipelines.calibration import steps
    from pipelines.calibration.folder import Calibration

    forecasts = _forecasts()
    opened = Calibration.open(calibration)
    times = [np.datetime64(time, "s") for time in init_time]
    click.echo(steps.apply(opened, forecasts, output, times))


@calibrate.command()
@_of_forecasts
@_TRUTH
def update(calibration: Path) -> None:
    """Take in what has become known since; the same update again changes nothing."""
    from pipelines.calibration import steps
    from pipelines.calibration.folder import Calibration

    forecasts, truths = _inputs()
    before = Calibration.open(calibration)
    after, changed = steps.update(before, calibration, forecasts, truths)
    said = f"now {after.hash}, after {after.init_times[-1]}" if changed else "nothing is new"
    click.echo(f"{calibration}: {said}")
    if changed:
        _summarise(after)


def _summarise(calibration: Calibration) -> None:
    """Print what the method says of each channel, if it does."""
    for name, state in calibration.states.items():
        if said := calibration.method.summary(state):
            click.echo(f"{name}, the last dates by what was known before\n{said}")


def _inputs() -> tuple[Forecasts, Sequence[Path]]:
    """Forecast and truth of the experiment, or as given."""
    if _experiment("--forecast (or --model) and --truth", _given(), kept("truth")):
        job = _job()
        return [job.forecast], [job.truth]
    return _forecast_or_models(), matched(kept("truth"))


def _forecasts() -> Forecasts:
    """The forecast of the experiment, or as given."""
    if _experiment("--forecast (or --model)", _given()):
        return [_job().forecast]
    return _forecast_or_models()


def _given() -> tuple[object, ...]:
    if kept("forecast") and kept("model"):
        raise click.UsageError("give --forecast or --model")
    return kept("forecast") or kept("model")


def _forecast_or_models() -> Forecasts:
    """Files of the forecast, or of each model by its name."""
    if kept("forecast"):
        return matched(kept("forecast"))
    models: dict[str, list[Path]] = {}
    for text in kept("model"):
        name, separator, path = text.partition("=")
        if not (name and separator and path):
            raise click.BadParameter(
                f"{text!r} is no model, expected NAME=PATH", param_hint="--model"
            )
        models.setdefault(name, []).extend(matched([Path(path)]))
    return models


def _experiment(options: str, *given: tuple[object, ...]) -> bool:
    """Whether there is an experiment, and none of what may be given instead; or all of that."""
    named = kept("experiment") is not None
    if named == any(given) or (not named and not all(given)):
        raise click.UsageError(f"give an EXPERIMENT, or {options}")
    return named


def _job() -> Job:
    from pipelines.job import Job

    return Job.read(kept("experiment"), kept("runs"))


def _method(name: str | None, settings: Path | None) -> Method:
    from pipelines.calibration.methods import method_from, read_method

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
