"""The command line: `myriad`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from data.errors import MyriadError
from pipelines.calibration.commands import calibrate
from pipelines.cores import core_count
from pipelines.options import (
    FILE,
    FORECAST_HELP,
    RUNS_HELP,
    TIME,
    TRUTH_HELP,
    matched,
    say_written,
)
from pipelines.score_options import score_options, score_settings

if TYPE_CHECKING:
    from pipelines.against import Scored
    from pipelines.engine import Progress
    from pipelines.job import Job
    from pipelines.score_table import ScoreResult
    from pipelines.truths import Paths

_RUNS = click.option("--runs", type=FILE, default=Path("runs"), show_default=True, help=RUNS_HELP)
_WORKERS = click.option(
    "--workers", type=click.IntRange(1), default=None,
    help="Worker processes, one thread each; by default one per core.",
)  # fmt: skip
_SCHEDULER = click.option(
    "--scheduler", default=None, metavar="ADDRESS",
    help="Compute on the workers of this Dask scheduler, for example tcp://host:8786.",
)  # fmt: skip
_EXPERIMENT = click.argument("experiment", type=FILE)
# Commands that find what they had finished when they are called again.
_GOING_ON = ("run", "all", "nature", "train")


class _Command(click.Group):
    """Ends with the documented code and one line where an error is meant for the user."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with stopped_by_terminate():
                return super().invoke(context)
        except MyriadError as error:
            click.echo(f"myriad: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            [number] = stop.args or (signal.SIGINT,)
            kept = "the same command begins anew"
            if context.invoked_subcommand in _GOING_ON:
                kept = "what was finished is kept, the same command goes on from there"
            click.echo(f"myriad: stopped by {signal.Signals(number).name}; {kept}", err=True)
            sys.exit(128 + number)


@contextmanager
def stopped_by_terminate() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does, so that workers end and locks are let go."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        # It came in a destructor or the callback of a weak reference, out of which nothing is
        # raised, and would be lost.
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            [number] = unraisable.exc_value.args or (signal.SIGINT,)
            threading.Timer(0.01, os.kill, (os.getpid(), number)).start()
        else:
            hook(unraisable)

    before, hook = signal.signal(signal.SIGTERM, stop), sys.unraisablehook
    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


@click.group(cls=_Command)
@click.version_option(package_name="myriadcast", prog_name="myriad")
def main() -> None:
    """Turn one analysis of the atmosphere into a calibrated probabilistic forecast."""


@main.command()
@_EXPERIMENT
@_RUNS
@_WORKERS
@_SCHEDULER
def run(experiment: Path, runs: Path, workers: int | None, scheduler: str | None) -> None:
    """Forecast the ensemble of an EXPERIMENT file; a second run does what is missing."""
    _run(_job(experiment, runs), workers, scheduler).check()


@main.command()
@_EXPERIMENT
@_RUNS
@_WORKERS
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=None,
    help="Member-steps per second of one worker; by default measured.",
)  # fmt: skip
def plan(experiment: Path, runs: Path, workers: int | None, rate: float | None) -> None:
    """Say what a run of an EXPERIMENT will cost: units, files, bytes, memory and time."""
    from pipelines.clusters import worker_count
    from pipelines.estimate import estimate, measured_rate, process_memory

    job = _on(_job(experiment, runs), workers, None)
    planned = job.plan()
    found, count = estimate(planned), worker_count(job.experiment.cluster)
    if not found.pending:
        click.echo(f"{job.folder}: finished, all {found.units} units are done")
        return
    click.echo(found.text(rate or measured_rate(planned), count, process_memory(planned)))
    found.check()


@main.command()
@click.argument("target", type=FILE)
@_RUNS
@click.option("--repair", is_flag=True, help="Compute what is damaged again; TARGET: EXPERIMENT.")
@_WORKERS
@_SCHEDULER
def validate(
    target: Path, runs: Path, repair: bool, workers: int | None, scheduler: str | None
) -> None:
    """Read the whole store TARGET, or that of the EXPERIMENT file TARGET, and prove it sound."""
    from pipelines.validate import validate as validate_store

    if target.is_dir():
        if repair:
            raise click.UsageError("--repair needs the EXPERIMENT file that made the store")
        all_found = [validate_store(target)]
    else:
        job = _on(_job(target, runs), workers, scheduler)
        all_found = job.validate()
        for place, found in enumerate(all_found):
            if repair and found.damages:
                click.echo(found.text())
                all_found[place] = job.repair(found)
    for found in all_found:
        click.echo(found.text())
    for found in all_found:
        found.check()


def _job(experiment: Path, runs: Path) -> Job:
    from pipelines.job import Job

    return Job.read(experiment, runs)


def _run(job: Job, workers: int | None, scheduler: str | None) -> Progress:
    done = _on(job, workers, scheduler).run()
    rate = f", {done.member_steps / done.seconds:.0f} member-steps/s" if done.member_steps else ""
    click.echo(f"{job.written}: {done.units} units done, {done.resumed} of them before{rate}")
    return done


def _on(job: Job, workers: int | None, scheduler: str | None) -> Job:
    """The job on the cluster that the command line names, or else the experiment."""
    from pipelines.experiment import DaskScheduler, LocalProcesses

    if workers and scheduler:
        raise click.UsageError("give --workers or --scheduler, not both")
    if scheduler:
        return job.on(DaskScheduler(kind="scheduler", address=scheduler))
    own = job.experiment.cluster
    memory = own.memory_gb if isinstance(own, LocalProcesses) else None
    return job.on(LocalProcesses(workers=workers, memory_gb=memory)) if workers else job


@main.command()
@_EXPERIMENT
@click.option("--init-time", type=TIME, required=True, help="For example 2006-01-05T00.")
@click.option("--number", type=click.IntRange(0), required=True, help="0 is the control.")
@click.option("--output", type=FILE, required=True, help="NetCDF file to write.")
def member(experiment: Path, init_time: datetime, number: int, output: Path) -> None:
    """Forecast one member of an EXPERIMENT alone, equal to the stored one bit for bit."""
    from pipelines.configuration import naming
    from pipelines.experiment import read_experiment
    from pipelines.replay import replay

    opened = read_experiment(experiment)
    with naming(experiment):
        replay(opened, np.datetime64(init_time, "s"), number, output)
    click.echo(output)


@main.command()
@click.argument("directory", type=FILE)
@click.option(
    "--years",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Training years, over all segments.",
)
@click.option(
    "--segments",
    type=click.IntRange(2),
    default=4,
    show_default=True,
    help="Independent trajectories.",
)
@click.option(
    "--evaluation-days",
    type=click.IntRange(10),
    default=60,
    show_default=True,
    help="Held-out days of each segment, the twin's spin-up of 20 included.",
)
@click.option("--seed", type=click.IntRange(0), default=2001, show_default=True)
@_WORKERS
def nature(
    directory: Path,
    years: float,
    segments: int,
    evaluation_days: int,
    seed: int,
    workers: int | None,
) -> None:
    """Make a nature run and its analyses in DIRECTORY; a second run does what is missing."""
    from pipelines.nature import NatureSettings, run_nature

    settings = NatureSettings(
        years=years, segments=segments, evaluation_days=evaluation_days, seed=seed
    )
    run_nature(directory, settings, workers or 0)
    click.echo(f"{directory}: truth.zarr, analysis.zarr and native.zarr are complete")


@main.command()
@click.argument("training", type=FILE)
def train(training: Path) -> None:
    """Train a checkpoint as a TRAINING file says; a stopped training goes on."""
    from pipelines.train import read_training, run_training

    settings = read_training(training)
    metadata = run_training(settings)
    click.echo(f"{settings.output}: checkpoint {metadata.hash[:12]}")


@main.command()
@click.argument("experiment", type=FILE, required=False)
@_RUNS
@click.option("--forecast", type=FILE, multiple=True, help=FORECAST_HELP)
@click.option("--truth", type=FILE, multiple=True, help=TRUTH_HELP)
@click.option("--climatology", type=FILE, help="A climatology store.")
@click.option("--analysis", type=FILE, multiple=True, help="Analyses, for persistence.")
@click.option("--output", type=FILE, help="Folder to write to; of an EXPERIMENT its own, scores.")
@click.option(
    "--against", type=FILE,
    help="Scores, a run, an experiment or a forecast to test the differences from.",
)  # fmt: skip
@score_options
def score(
    experiment: Path | None,
    runs: Path,
    forecast: tuple[Path, ...],
    truth: tuple[Path, ...],
    climatology: Path | None,
    analysis: tuple[Path, ...],
    output: Path | None,
    against: Path | None,
) -> None:
    """Score the run of an EXPERIMENT, or any --forecast against any --truth, into --output.

    What is there is replaced, unless scores would be lost that these options leave out.
    """
    from pipelines.against import find_scored
    from pipelines.score import score as score_forecast

    given = bool(forecast or truth or climatology or analysis)
    if (experiment is None) != given or (given and not (forecast and truth and output)):
        raise click.UsageError(
            "give an EXPERIMENT, which names its truth, climatology and analyses, or all of "
            "--forecast, --truth and --output"
        )
    forecast, truth, analysis = matched(forecast), matched(truth), matched(analysis)
    settings = score_settings(core_count())
    if experiment is not None:
        job = _job(experiment, runs)
        output = output or job.scores
        own, alike = (
            partial(job.score, settings, output),
            partial(job.score_alike, settings=settings),
        )
    else:

        def alike(scored: Paths, target: Path, against: Scored | None = None) -> ScoreResult:
            references = climatology, analysis or None
            return score_forecast(scored, truth, target, *references, settings, against)

        own = partial(alike, forecast, output)
    if against is not None and against.is_file() and against.suffix in (".yaml", ".yml"):
        against = _job(against, runs).folder
    other = None if against is None else find_scored(against, alike, output)
    result = own(against=other)
    click.echo(result.table())
    if result.comparison is not None:
        click.echo(f"\n{result.comparison.table()}")
    say_written(result.written)


main.add_command(calibrate)


@main.command()
@_EXPERIMENT
@_RUNS
def report(experiment: Path, runs: Path) -> None:
    """Write one HTML file about the run of an EXPERIMENT."""
    click.echo(_job(experiment, runs).report())


@main.command("all")
@_EXPERIMENT
@_RUNS
@_WORKERS
@_SCHEDULER
def everything(experiment: Path, runs: Path, workers: int | None, scheduler: str | None) -> None:
    """Run, score, calibrate and report an EXPERIMENT; ends with a table and what was written."""
    from pipelines.configuration import naming
    from pipelines.references import check_truth_times
    from pipelines.score import ScoreSettings, families_in
    from pipelines.summary import summary_text

    job = _job(experiment, runs)
    with naming(experiment):
        check_truth_times(job.experiment)
    done = _run(job, workers, scheduler)
    settings = ScoreSettings(threads=workers or core_count(), families=families_in(job.scores))
    written = job.score(settings).written
    if len(job.experiment.init_times) > 1 and job.experiment.members > 1:
        written += job.calibrate().written
    else:
        click.echo("calibration needs several init times and members: it is left out", err=True)
    click.echo(summary_text(job.findings()))
    say_written((*written, job.report()))
    done.check()
