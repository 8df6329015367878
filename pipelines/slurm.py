"""Jobs of a Slurm cluster: submitted, replaced when they end too early, cancelled at the end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

import dask

from data.errors import MissingExtraError, RunError
from pipelines.experiment import Slurm

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster

_PROGRAMS = ("sbatch", "squeue", "scancel")
_ANSWER = 60.0  # seconds that Slurm has for an answer
_EVERY = 5.0  # seconds from one question to the next
_FAREWELL = 60.0  # seconds; Slurm itself kills after 30
_FALSE_STARTS = 3


@dataclass
class SlurmJobs:
    """Keeps as many jobs as are wanted; leaving the context ends them all.

    A job that ends, because its time is over or it was cancelled, is followed by another. When
    three in turn have ended before a worker of theirs came, no more are submitted.

    Attributes
    ----------
    settings : Slurm
        What a job is, as the experiment says.
    wanted : int
        How many there are to be at once.
    threads : int
        Of each worker.
    configuration : mapping of str to object
        Dask's settings on the workers.
    """

    settings: Slurm
    wanted: int
    threads: int
    configuration: Mapping[str, object]
    label: str = field(default_factory=lambda: f"myriad-{socket.gethostname()}-{os.getpid()}")
    cluster: SLURMCluster = field(init=False)
    _names: dict[str, str] = field(init=False, default_factory=dict)
    _started: set[str] = field(init=False, default_factory=set)
    _submitted: int = field(init=False, default=0)
    _asked: float = field(init=False, default=float("-inf"))
    _answered: bool = field(init=False, default=False)
    _false_starts: list[str] = field(init=False, default_factory=list)

    def __enter__(self) -> SlurmJobs:
        """Start the scheduler to which the jobs' workers connect; no job is submitted yet.

        Raises
        ------
        MissingExtraError
            Without dask-jobqueue.
        RunError
            Without Slurm's commands.
        """
        try:
            with _signals_kept():
                from dask_jobqueue import SLURMCluster
        except ImportError:
            raise MissingExtraError(
                "a Slurm cluster needs dask-jobqueue: pip install 'myriadcast[slurm]'"
            ) from None
        missing = [program for program in _PROGRAMS if shutil.which(program) is None]
        if missing:
            raise RunError(
                f"cluster: Slurm is not here: no {', '.join(missing)} on the PATH; the run itself "
                "submits the jobs, so start it on a machine of the Slurm cluster"
            )
        scheduler = dask.config.get("jobqueue.slurm.scheduler-options", None) or {}
        self.cluster = SLURMCluster(
            **self._options(),
            # The scheduler's server of metrics is on any free port.
            scheduler_options={"dashboard_address": ":0"} | scheduler | {"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancel the jobs, and wait until Slurm has ended them: then none writes any longer."""
        try:
            if self._submitted:
                self._cancel()
        finally:
            self.cluster.close()

    def script(self, name: str) -> str:
        """The job script whose worker has this name, or whose workers' names begin with it."""
        scheduler = self.cluster.scheduler
        address = scheduler.contact_address or scheduler.address
        return self.cluster.job_cls(address, name=name, **self._options()).job_script()

    def tend(self) -> bool:
        """Submit jobs that are missing; says whether workers may come, however long it takes.

        Raises
        ------
        RunError
            If no job is left, and Slurm takes no more or they end before a worker comes.
        """
        self._note_started()
        if time.monotonic() - self._asked >= _EVERY:
            listed = _listed()
            self._asked, self._answered = time.monotonic(), listed is not None
            if listed is not None:
                for job in self._names.keys() - listed:
                    self._end(job)
                self._submit_missing()
        return self._answered and bool(self._names)

    def _options(self) -> dict[str, object]:
        """What dask-jobqueue is told of a job."""
        chosen, settings = self.settings, dask.config.serialize(dict(self.configuration))
        return {
            "cores": self.threads * chosen.workers,
            "processes": chosen.workers,
            "job_cpu": chosen.workers,
            "memory": f"{chosen.memory_gb}GB",
            "walltime": chosen.walltime,
            "queue": chosen.queue,
            "account": chosen.account,
            "job_name": self.label,
            "job_extra_directives": list(chosen.directives),
            "job_script_prologue": [
                f"export DASK_INTERNAL_INHERIT_CONFIG={settings}",
                *chosen.prologue,
            ],
        }

    def _note_started(self) -> None:
        """Take note of the jobs of which a worker has come."""
        waited = self._names.keys() - self._started
        if waited:
            come = list(self.cluster.scheduler.aliases)
            for job in waited:
                name = self._names[job]
                if any(one == name or one.startswith(f"{name}-") for one in come):
                    self._started.add(job)
                    self._false_starts.clear()

    def _end(self, job: str) -> None:
        """Take note of a job that is no more."""
        del self._names[job]
        if job not in self._started:
            self._false_starts.append(job)

    def _submit_missing(self) -> None:
        while len(self._names) < self.wanted and len(self._false_starts) < _FALSE_STARTS:
            name = f"{self.label}-{self._submitted}"
            try:
                job = _asked_of("sbatch", "--parsable", script=self.script(name))
            except RunError as refusal:
                if self._names:
                    return  # fewer will do, and it is tried again
                raise RunError(f"{refusal}; what was finished is kept") from None
            self._submitted += 1
            self._names[job.strip().split(";")[0]] = name
        if not self._names:
            raise RunError(
                f"{len(self._false_starts)} Slurm jobs ended before a worker came, the last is "
                f"{_story(self._false_starts[-1])}; what was finished is kept"
            )

    def _cancel(self) -> None:
        """By name, in case an interrupt came between a submission and its answer; and by number."""
        limit = time.monotonic() + _FAREWELL
        for which in ([f"--user={os.getuid()}", f"--name={self.label}"], [*self._names]):
            if which:
                try:
                    _asked_of("scancel", *which)
                except RunError as error:
                    logging.getLogger(__name__).error(f"jobs may be left behind: {error}")
        while time.monotonic() < limit and self._names.keys() & (_listed() or set()):
            time.sleep(0.5)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """To import dask-jobqueue turns Ctrl-C into a silent exit with code 0: undo that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _listed() -> set[str] | None:
    """Numbers of this user's jobs that wait or run; None if Slurm does not answer."""
    try:
        said = _asked_of("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A")
    except RunError:
        return None
    return set(said.split())


def _story(job: str) -> str:
    """What Slurm says of a job that has ended."""
    try:
        said = _asked_of("scontrol", "--oneliner", "show", "job", job)
    except RunError:
        return job
    known = dict(word.split("=", 1) for word in said.split() if "=" in word)
    wanted = ("JobState", "Reason", "ExitCode", "StdOut")
    return f"{job} ({', '.join(f'{key} {known[key]}' for key in wanted if key in known)})"


def _asked_of(program: str, *arguments: str, script: str = "") -> str:
    """What one of Slurm's programs answers.

    Raises
    ------
    RunError
        If it refuses, or gives no answer.
    """
    try:
        done = subprocess.run(
            [program, *arguments], input=script, capture_output=True, text=True, timeout=_ANSWER,
            start_new_session=True,  # Ctrl-C is for the run, which then ends its jobs with these
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"cluster: {program} gives no answer ({error})") from None
    if done.returncode:
        lines = [line.removeprefix(f"{program}: error: ") for line in done.stderr.splitlines()]
        said = "; ".join(filter(None, lines)) or f"exit code {done.returncode}"
        raise RunError(f"cluster: {program} refuses: {said}")
    return done.stdout
