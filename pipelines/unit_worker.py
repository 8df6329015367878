"""What a run puts on the workers of a Dask scheduler, and takes from them again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from distributed import Client, WorkerPlugin, get_worker

from data.errors import RunError
from pipelines.dispatch import Dispatcher, nobody_comes
from pipelines.lanes import Outcome, Patience
from pipelines.plan import Unit, versions

_FAREWELL = 10.0  # seconds

# What is done with a unit: it is computed, and what is left to do then, if anything, is given back.
Task = Callable[[Unit], Callable[[], object] | None]

# To be closed by whoever stops before the end: only then have the workers ended.
Outcomes = Generator[Outcome, None, None]


@dataclass
class UnitWorker(WorkerPlugin):
    """Keeps a run's task on one worker: its checkpoints are loaded from disk once and stay.

    Attributes
    ----------
    name : str
        Tells this run from others on the same workers.
    task : callable
        What is done with a unit.
    versions : dict
        Of the packages that decide values, where the run was planned.
    turn : threading.Lock or None
        On a worker that has taken up the run: who has it computes.
    """

    name: str
    task: Task
    versions: dict[str, str] = field(default_factory=versions)
    turn: threading.Lock | None = None

    def setup(self, worker: object) -> None:
        """One thread of mathematics: the processes are the parallelism."""
        import torch  # here: a scheduler, and a run that only watches one, need not wait for it

        self.check()
        torch.set_num_threads(1)
        self.turn = threading.Lock()

    def check(self) -> None:
        """Refuse what would compute other values.

        Raises
        ------
        RunError
            If this process has other versions than the one that planned the run.
        """
        if versions() != self.versions:
            raise RunError(f"a worker has {versions()}, the run was planned with {self.versions}")


def _on_worker(name: str, unit: Unit) -> None:
    """Compute a unit when no other is computed, and do the rest of it beside the next one."""
    plugin = get_worker().plugins[name]
    if plugin.turn is None:  # Dask keeps to itself that a worker which came late was refused
        plugin.check()
    with plugin.turn:
        rest = plugin.task(unit)
    if rest is not None:
        rest()


def dispatched(
    client: Client,
    task: Task,
    units: list[Unit],
    patience: Patience,
    tend: Callable[[], bool] = nobody_comes,
) -> Outcomes:
    """Have units done by the workers of a scheduler; what becomes of them, as `Dispatcher` says.

    Raises
    ------
    RunError
        If the workers cannot take up the run.
    """
    plugin = UnitWorker(f"units-{client.id}", task)
    try:
        _take_up(client, plugin)
        on_worker = partial(_on_worker, plugin.name)
        yield from Dispatcher(client, on_worker, units, patience, tend).outcomes()
    finally:
        if client.status == "running":
            # Also of what they could not take up: the scheduler would go on giving it to workers
            # that come for somebody else. One that never had it says so (KeyError); one that
            # hangs at the very end, its unit done elsewhere, never answers.
            with suppress(TimeoutError, KeyError):
                client.sync(_unregister, client, plugin.name)


def _take_up(client: Client, plugin: UnitWorker) -> None:
    """Have all workers, and those that come later, keep the task.

    Raises
    ------
    RunError
        If one cannot: it has other versions of packages, or lacks one.
    """
    try:
        client.register_plugin(plugin)
    except RunError:
        raise
    except Exception as error:  # whatever their environment lacks
        raise RunError(
            f"the workers cannot take up the run: {error}; they need "
            "myriadcast and its packages as they are here"
        ) from None


async def _unregister(client: Client, name: str) -> None:
    await asyncio.wait_for(client.unregister_worker_plugin(name), _FAREWELL)
