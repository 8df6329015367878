"""The ensemble engine: units of work on a Dask cluster of single-threaded processes."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import dask
import numpy as np
import torch
from distributed import Client, Future, LocalCluster, WorkerPlugin, as_completed, get_worker
from tqdm import tqdm

from data.errors import RunError, StoreError
from pipelines.plan import Plan, Unit
from pipelines.store import Store

_RETRIES = 2
_WINDOW = 2
_SCHEDULER = {
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 3,
    "distributed.comm.timeouts.connect": "60s",
    "distributed.logging.distributed": "error",
    # Dask's default trims freed memory at once. A network frees its fields at every step, and to
    # fetch them back from the system, page by page, takes as long as its arithmetic.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**28,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**28,
}


@dataclass(frozen=True)
class Progress:
    """What a run did.

    Attributes
    ----------
    units, resumed : int
        Units in the plan, and how many of them were finished before.
    member_steps : int
        Member-steps computed now.
    seconds : float
        Wall time of computing and writing, without the start of the workers.
    """

    units: int
    resumed: int
    member_steps: int
    seconds: float


@dataclass
class UnitWorker(WorkerPlugin):
    """Keeps one worker's plan: its checkpoints are loaded from disk once and stay."""

    plan: Plan
    name: str = field(default="unit-worker", init=False)

    def setup(self, worker: object) -> None:
        """One thread of mathematics: the processes are the parallelism."""
        torch.set_num_threads(1)


def run(plan: Plan, workers: int, quiet: bool = False) -> Progress:
    """Compute every unit of the plan that is not finished yet.

    Raises
    ------
    StoreError
        If the store is another experiment's, cannot be written, or another run is at work on it.
    RunError
        If units failed after their retries; all others are finished.
    """
    store = Store(plan.path, plan.layout)
    with alone(plan.path):
        store.create()
        todo = pending(plan, store)
        started = time.monotonic()
        failed = _compute_all(plan, todo, workers, quiet) if todo else {}
        seconds = time.monotonic() - started
        store.complete(_completed(plan, store))
    if failed:
        unit, reason = next(iter(failed.items()))
        raise RunError(
            f"{plan.path}: {len(failed)} of {len(plan.units)} units failed, the first is {unit}: "
            f"{reason}; the others are finished, run again to retry"
        )
    steps = sum(len(unit.numbers) for unit in todo) * plan.steps
    return Progress(len(plan.units), len(plan.units) - len(todo), steps, seconds)


def pending(plan: Plan, store: Store) -> list[Unit]:
    """The units without a marker of this very experiment and analysis, in order."""
    marked = store.marked()
    return [unit for unit in plan.units if marked.get(unit.name) != unit.fingerprint]


def compute_unit(plan: Plan, unit: Unit) -> str:
    """Forecast one unit, write its shards, mark it; returns its name. Idempotent."""
    fields = unit_fields(plan, unit.init, unit.numbers)
    store = Store(plan.path, plan.layout)
    store.write(unit.init, unit.block, fields)
    store.mark(unit.name, unit.fingerprint)
    return unit.name


def unit_fields(plan: Plan, init: int, numbers: tuple[int, ...]) -> np.ndarray:
    """Forecasts of these members from one init time.

    Returns
    -------
    numpy.ndarray
        (number, channel, lead_time, latitude, longitude), float32, as the forecaster gives them.
    """
    shape = plan.layout.shape
    fields = np.empty((len(numbers), len(plan.layout.channels), *shape[2:]), dtype=np.float32)
    with torch.inference_mode():
        for lead, values in enumerate(
            plan.ensemble.trajectories(plan.layout.init_times[init], numbers)
        ):
            fields[:, :, lead] = values.numpy()
    return fields


def _compute_on_worker(unit: Unit) -> str:
    return compute_unit(get_worker().plugins["unit-worker"].plan, unit)


def _compute_all(plan: Plan, todo: list[Unit], workers: int, quiet: bool) -> dict[str, str]:
    """Run the units on a cluster of processes; returns the reasons of those that failed."""
    for name in ("distributed", "asyncio"):  # an interrupt makes both print what it cut short
        logging.getLogger(name).setLevel(logging.CRITICAL)
    failed: dict[str, str] = {}
    total = sum(len(unit.numbers) for unit in todo) * plan.steps
    with (
        dask.config.set(_SCHEDULER),
        LocalCluster(
            n_workers=min(workers, len(todo)),
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
        tqdm(total=total, unit=" member-steps", disable=quiet, smoothing=0.1) as bar,
    ):
        client.register_plugin(UnitWorker(plan))
        for future, unit in _windowed(client, todo, _WINDOW * workers):
            if future.status == "finished":
                bar.update(len(unit.numbers) * plan.steps)
            else:
                failed[unit.name] = repr(future.exception())
    return failed


def _windowed(client: Client, todo: list[Unit], window: int) -> Iterator[tuple[Future, Unit]]:
    """Yield each unit's future as it ends, keeping `window` of them submitted."""
    waiting = iter(todo)
    units: dict[str, Unit] = {}

    def submit(unit: Unit) -> Future:
        future = client.submit(
            _compute_on_worker, unit, key=f"unit-{unit.name}", retries=_RETRIES, pure=False
        )
        units[future.key] = unit
        return future

    ended = as_completed([submit(unit) for unit in islice(waiting, window)])
    for future in ended:
        yield future, units.pop(future.key)
        for unit in islice(waiting, 1):
            ended.add(submit(unit))


def _completed(plan: Plan, store: Store) -> np.ndarray:
    """(init_time, number), bool: whether the member's unit is finished."""
    completed = np.zeros(plan.layout.shape[:2], dtype=bool)
    marked = store.marked()
    for unit in plan.units:
        completed[unit.init, list(unit.numbers)] = marked.get(unit.name) == unit.fingerprint
    return completed


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the store against a second run; the system lets go when this process ends, however."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreError(f"{path}: another run is at work on this store") from None
    finally:
        os.close(handle)
