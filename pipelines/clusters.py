"""Who computes: the run itself, processes of this machine, a Dask scheduler, or Slurm jobs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import dask
import psutil
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

from data.errors import RunError, StoreError
from pipelines import experiment as settings
from pipelines.cores import core_count
from pipelines.lanes import Outcome, Patience
from pipelines.pinning import CORES, PinnedWorker, has_whole_cores
from pipelines.plan import Unit
from pipelines.slurm import SlurmJobs
from pipelines.unit_worker import Outcomes, Task, dispatched

# One unit is computed while the one before is written.
_THREADS = 2
# Ctrl-C reaches all processes of a terminal; the run ends the workers itself, and says one line.
_UNINTERRUPTED = ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"]

CONFIGURATION = {
    "distributed.scheduler.work-stealing": False,
    # The dispatcher decides what is tried again: the scheduler reports a dead worker at once.
    "distributed.scheduler.allowed-failures": 0,
    # No unit holds anything that could be spilled, and one that is paused would never go on.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.comm.timeouts.connect": "60s",
    # What nobody looks at: samples of stacks 100 times a second, which take turns with the
    # computing thread, the lag of event loops 50 times, and figures of disks.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.disk": False,
    "distributed.logging.distributed": "error",
    # Dask's default trims freed memory at once. A network frees its fields at every step, and to
    # fetch them back from the system, page by page, takes as long as its arithmetic.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**28,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**28,
}


class Cluster(Protocol):
    """Does units of work; which kind it is decides nothing about the values."""

    def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
        """Yield what becomes of each unit, as they end."""
        ...


@dataclass(frozen=True)
class InProcess:
    """The run itself, one unit after the other."""

    def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
        """Yield what becomes of each unit; one that fails is tried again at once."""
        with _one_thread():
            for unit in units:
                yield _tried(task, unit, patience.attempts)


def _tried(task: Task, unit: Unit, attempts: int) -> Outcome:
    for _ in range(attempts):
        try:
            if (rest := task(unit)) is not None:
                rest()
        except StoreError:
            raise
        except Exception as error:
            failure = f"{type(error).__name__}: {error} ({attempts} times tried)"
        else:
            return Outcome(unit)
    return Outcome(unit, failure)


@dataclass(frozen=True)
class LocalProcesses:
    """Processes of this machine, of which each computes on a single thread.

    Attributes
    ----------
    workers : int
        How many.
    memory : int
        Bytes that each may use; one that wants more is ended, and its unit tried again.
    cores : pathlib.Path
        Where they claim a core each; see `PinnedWorker`.
    """

    workers: int
    memory: int
    cores: Path = CORES

    def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
        """Yield what becomes of each unit."""
        with self.started(min(self.workers, len(units))) as client:
            yield from dispatched(client, task, units, patience)

    @contextmanager
    def started(self, count: int) -> Iterator[Client]:
        """So many of the processes; each has a core of its own if there are as many."""
        with (
            _quiet(),
            LocalCluster(
                n_workers=count,
                threads_per_worker=_THREADS,
                memory_limit=self.memory,
                preload=_UNINTERRUPTED,
                # The scheduler's server of metrics: on any free port, and for this machine alone.
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            if has_whole_cores(self.workers):
                client.register_plugin(PinnedWorker(self.cores))
            yield client


@dataclass(frozen=True)
class LocalGpus:
    """Processes of this machine, each of which sees one GPU.

    Attributes
    ----------
    devices : tuple of str
        The GPUs, as in ``CUDA_VISIBLE_DEVICES``.
    memory : int
        Bytes of the machine's memory that each may use.
    """

    devices: tuple[str, ...]
    memory: int

    def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
        """Yield what becomes of each unit."""
        with self.started(len(units)) as client:
            yield from dispatched(client, task, units, patience)

    @contextmanager
    def started(self, count: int) -> Iterator[Client]:
        """So many of the processes, or all that there are."""
        options = {
            "nthreads": _THREADS,
            "memory_limit": self.memory,
            "preload": _UNINTERRUPTED,
            "silence_logs": logging.CRITICAL,
        }
        workers = {
            device: {"cls": Nanny, "options": options | {"env": {"CUDA_VISIBLE_DEVICES": device}}}
            for device in self.devices[:count]
        }
        scheduler = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
        with (
            _quiet(),
            SpecCluster(
                workers,
                {"cls": Scheduler, "options": scheduler},
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client


@dataclass(frozen=True)
class DaskScheduler:
    """The workers of a scheduler that is there already and stays."""

    address: str

    def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
        """Yield what becomes of each unit.

        Raises
        ------
        RunError
            If the scheduler does not answer, no worker of it comes, or they cannot take up the run.
        """
        with _quiet(), _connected(self.address) as client:
            try:
                # Those that come later and cannot take up the run just end, and say why nowhere
                # but in their own logs: the first is asked.
                client.wait_for_workers(1, timeout=patience.workers)
            except TimeoutError:
                raise RunError(
                    f"{self.address}: no worker has come in {patience.workers:.0f} s"
                ) from None
            yield from dispatched(client, task, units, patience)


@dataclass(frozen=True)
class Slurm:
    """Jobs of a Slurm cluster."""

    settings: settings.Slurm

    def outcomes(self, task: Task, units: list[Unit], patience: Patience) -> Outcomes:
        """Yield what becomes of each unit.

        Raises
        ------
        MissingExtraError
            Without dask-jobqueue.
        RunError
            If there is no Slurm here, it takes no job, or jobs end before their workers come.
        """
        wanted = min(self.settings.jobs, -(-len(units) // self.settings.workers))
        with (
            _quiet(),
            SlurmJobs(self.settings, wanted, _THREADS, CONFIGURATION) as jobs,
            Client(jobs.cluster) as client,
        ):
            yield from dispatched(client, task, units, patience, jobs.tend)


def make_cluster(chosen: settings.ClusterSettings) -> Cluster:
    """The cluster of an experiment."""
    match chosen:
        case settings.InProcess():
            return InProcess()
        case settings.LocalProcesses():
            return local_processes(chosen.workers, chosen.memory_gb)
        case settings.LocalGpus():
            return local_gpus(chosen.devices, chosen.memory_gb)
        case settings.DaskScheduler():
            return DaskScheduler(chosen.address)
        case settings.Slurm():
            return Slurm(chosen)


def local_processes(workers: int | None, memory_gb: float | None = None) -> LocalProcesses:
    """Processes of this machine: by default one per core, with an equal share of its memory."""
    workers = workers or core_count()
    return LocalProcesses(workers, _share(workers, memory_gb))


def local_gpus(devices: tuple[str, ...] | None, memory_gb: float | None = None) -> LocalGpus:
    """Processes of this machine: by default one for each GPU that this process sees.

    Raises
    ------
    RunError
        If it sees none.
    """
    if not devices:
        import torch

        devices = visible_gpus(os.environ, torch.cuda.device_count())
    if not devices:
        raise RunError("cluster: one process per GPU is asked for, and no GPU is to be seen here")
    return LocalGpus(devices, _share(len(devices), memory_gb))


def visible_gpus(environment: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Names of this many GPUs, for ``CUDA_VISIBLE_DEVICES`` of a process below this one."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    names = [str(k) for k in range(count)] if named is None else named.split(",")
    return tuple(name.strip() for name in names[:count])


def _share(workers: int, memory_gb: float | None) -> int:
    """Bytes for each worker: as given, or an equal share of the machine's."""
    if memory_gb is None:
        return psutil.virtual_memory().total // workers
    return int(memory_gb * 1e9)


def worker_count(chosen: settings.ClusterSettings) -> int:
    """Workers of a cluster; of a scheduler those that it has now.

    Raises
    ------
    RunError
        If the scheduler does not answer.
    """
    match chosen:
        case settings.InProcess():
            return 1
        case settings.LocalProcesses():
            return local_processes(chosen.workers).workers
        case settings.LocalGpus():
            return len(local_gpus(chosen.devices).devices)
        case settings.DaskScheduler():
            with _quiet(), _connected(chosen.address) as client:
                return max(1, len(client.nthreads()))
        case settings.Slurm():
            return chosen.jobs * chosen.workers


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise RunError(f"{address}: no Dask scheduler answers ({error})") from None
    with client:
        yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Our settings of Dask, and nothing printed of what an interrupt cuts short."""
    for name in ("distributed", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(CONFIGURATION):
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of mathematics, as on a worker, so that sums are taken in the same order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
