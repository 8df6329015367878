"""Units of work on the workers of a Dask scheduler, whatever becomes of the workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

from distributed import Client, Future, KilledWorker

from data.errors import RunError, StoreError
from pipelines.lanes import Lanes, Outcome, Patience
from pipelines.plan import Unit

_POLL = 0.5


def nobody_comes() -> bool:
    """What looks after a cluster that has its workers from the start."""
    return False


class Dispatcher:
    """Has units done on a Dask cluster as `Lanes` decides.

    Parameters
    ----------
    client : distributed.Client
        Of the scheduler.
    task : callable
        What a worker does with a unit; doing it twice, or at once, is harmless.
    units : list of Unit
        What is to be done.
    patience : Patience
        When to give up.
    tend : callable
        Looks after the cluster, at every look at its workers; says whether some may still come,
        however long it takes.
    """

    def __init__(
        self,
        client: Client,
        task: Callable[[Unit], object],
        units: list[Unit],
        patience: Patience,
        tend: Callable[[], bool] = nobody_comes,
    ) -> None:
        self._tend = tend
        self._client, self._task, self._patience = client, task, patience
        self._lanes = Lanes(units, patience)
        self._futures: dict[tuple[str, str], Future] = {}
        self._events: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._seen = self._looked = time.monotonic()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what becomes of each unit, in the order in which they end.

        Raises
        ------
        StoreError
            If a unit cannot be written for a reason that all others share, such as a full disk.
        RunError
            If the scheduler is gone, or no worker is left.
        """
        self._look()
        while self._lanes.working:
            self._assign()
            self._take_ended()
            if time.monotonic() - self._looked > _POLL:
                self._look()
                self._end_hung()
                self._forget_lost()
            yield from self._lanes.decided()
        yield from self._lanes.decided()

    def _look(self) -> None:
        """Take note of workers that have come, and of those that have gone."""
        try:
            present = set(self._client.nthreads())
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"the Dask scheduler is gone ({type(error).__name__}); what was finished is kept, "
                "run again to go on"
            ) from None
        self._looked = time.monotonic()
        self._lanes.note(present)
        if self._tend() or self._lanes.workers:
            self._seen = self._looked
        elif self._looked - self._seen > self._patience.workers:
            raise RunError("no worker is left; what was finished is kept, run again to go on")

    def _assign(self) -> None:
        for worker, key, unit in self._lanes.assign(time.monotonic()):
            future = self._client.submit(
                self._task, unit, key=key, workers=[worker], pure=False, retries=0
            )
            self._futures[worker, key] = future
            future.add_done_callback(lambda _, given=(worker, key): self._events.put(given))

    def _take_ended(self) -> None:
        """Wait a little for a unit to end, and take note of all that have."""
        with suppress(Empty):
            ended = self._events.get(timeout=_POLL)
            while True:
                self._end(*ended)
                ended = self._events.get_nowait()

    def _end(self, worker: str, key: str) -> None:
        if not self._lanes.has(worker, key):
            return  # was given up, and is tried elsewhere
        future, now = self._futures.pop((worker, key)), time.monotonic()
        if future.status == "finished":
            self._lanes.finish(worker, key, now)
        elif future.status == "error":
            error = future.exception()
            if isinstance(error, KilledWorker):
                self._lanes.lose(worker, "its worker died")
            elif isinstance(error, StoreError):
                raise error
            else:
                self._lanes.fail(worker, key, f"{type(error).__name__}: {error}", now)
        else:
            self._lanes.withdraw(worker, key, now)

    def _end_hung(self) -> None:
        """Give up workers that are at one unit for far too long, and have them replaced."""
        hung = self._lanes.give_up_hung(time.monotonic())
        if hung:
            # One without a nanny, or beyond its nanny's reach, is left alone until it goes.
            with suppress(ValueError, OSError, TimeoutError):
                self._client.restart_workers(hung, timeout=5, raise_for_error=False)

    def _forget_lost(self) -> None:
        """Have the scheduler forget what was taken back from workers."""
        for given in [one for one in self._futures if not self._lanes.has(*one)]:
            self._futures.pop(given).release()
