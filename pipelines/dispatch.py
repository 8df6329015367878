"""Units of work on the workers of a Dask scheduler, whatever becomes of the workers."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue

from distributed import Client, Future, KilledWorker

from data.errors import RunError, StoreError
from pipelines.plan import Unit

WINDOW = 2
_POLL = 0.5


@dataclass(frozen=True)
class Patience:
    """How long, and how often, the engine hopes.

    Attributes
    ----------
    attempts : int
        How often a unit is tried before it is given up.
    factor : float
        A unit may take this many times as long as the slowest one so far.
    least : float
        Seconds that a unit may take in any case.
    first : float
        Seconds that a unit may take before any other is finished.
    workers : float
        Seconds without a single worker after which the run is given up.
    """

    attempts: int = 3
    factor: float = 10.0
    least: float = 120.0
    first: float = 3600.0
    workers: float = 600.0


@dataclass(frozen=True)
class Outcome:
    """What became of a unit; `failure` is None if it is finished."""

    unit: Unit
    failure: str | None = None


@dataclass(frozen=True)
class Attempt:
    """A unit that is to be tried, how often it has failed, and on which worker the last time."""

    unit: Unit
    failures: int = 0
    failed_on: str | None = None


class Waiting:
    """Attempts in wait, by checkpoint, so that a worker can stay with the one it has loaded."""

    def __init__(self, units: list[Unit]) -> None:
        self._queues: dict[int, deque[Attempt]] = {}
        for unit in units:
            self.add(Attempt(unit))

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, attempt: Attempt) -> None:
        """Put one more at the end of its checkpoint's queue."""
        self._queues.setdefault(attempt.unit.checkpoint, deque()).append(attempt)

    def take(self, worker: str, loaded: int | None, users: Mapping[int, int]) -> Attempt | None:
        """The next one for a worker; None if there is none for it.

        Of the checkpoint that it has loaded if there is one, else of that with the most units in
        wait for each worker that is at it. Not one that has failed on this very worker, unless
        that is all there are.
        """
        order = sorted(
            (checkpoint for checkpoint, queue in self._queues.items() if queue),
            key=lambda one: (one != loaded, -len(self._queues[one]) / (1 + users.get(one, 0))),
        )
        for checkpoint in order:
            queue = self._queues[checkpoint]
            for attempt in queue:
                if attempt.failed_on != worker:
                    queue.remove(attempt)
                    return attempt
        alone = sum(users.values()) <= 1
        return self._queues[order[0]].popleft() if order and alone else None


@dataclass
class Lane:
    """What one worker has been given: the first is computed, the others wait beside it."""

    checkpoint: int | None = None
    since: float = 0.0
    attempts: dict[str, tuple[Attempt, Future]] = field(default_factory=dict)


class Dispatcher:
    """Keeps every worker busy with a window of two units, and gives up none too early.

    A unit counts a failure when it raises, when the worker that computes it dies (killed, or out
    of memory), or when it takes far longer than others do; then it goes to another worker. Units
    that only waited beside it go elsewhere without one.

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
    """

    def __init__(
        self, client: Client, task: Callable[[Unit], object], units: list[Unit], patience: Patience
    ) -> None:
        self._client, self._task, self._patience = client, task, patience
        self._waiting = Waiting(units)
        self._lanes: dict[str, Lane] = {}
        self._hung: set[str] = set()
        self._slowest: float | None = None
        self._events: SimpleQueue[tuple[str, Future]] = SimpleQueue()
        self._failed: list[Outcome] = []
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
        while self._waiting or any(lane.attempts for lane in self._lanes.values()):
            self._assign()
            yield from self._next_ended()
            if time.monotonic() - self._looked > _POLL:
                self._look()
                self._end_hung()
            while self._failed:
                yield self._failed.pop()

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
        for worker in self._lanes.keys() - present:
            self._lose(worker, "its worker died")
        self._hung &= present
        for worker in present - self._lanes.keys() - self._hung:
            self._lanes[worker] = Lane()
        if self._lanes:
            self._seen = self._looked
        elif self._looked - self._seen > self._patience.workers:
            raise RunError("no worker is left; what was finished is kept, run again to go on")

    def _assign(self) -> None:
        # The last units are not queued behind one another while a worker is idle.
        for depth in range(1, WINDOW + 1 if len(self._waiting) > len(self._lanes) else 2):
            for worker, lane in self._lanes.items():
                if len(lane.attempts) < depth:
                    self._give(worker, lane)

    def _give(self, worker: str, lane: Lane) -> None:
        users = Counter(one.checkpoint for one in self._lanes.values())
        attempt = self._waiting.take(worker, lane.checkpoint, users)
        if attempt is None:
            return
        key = f"unit-{attempt.unit.name}-{attempt.failures}-{time.monotonic_ns()}"
        future = self._client.submit(
            self._task, attempt.unit, key=key, workers=[worker], pure=False, retries=0
        )
        if not lane.attempts:
            lane.since = time.monotonic()
        lane.checkpoint = attempt.unit.checkpoint
        lane.attempts[key] = attempt, future
        future.add_done_callback(lambda ended: self._events.put((worker, ended)))

    def _next_ended(self) -> Iterator[Outcome]:
        """Wait a little for a unit to end, and yield it if it is finished."""
        try:
            worker, future = self._events.get(timeout=_POLL)
        except Empty:
            return
        lane = self._lanes.get(worker)
        if lane is None or future.key not in lane.attempts:
            return  # was given up, and is tried elsewhere
        if future.status == "error" and isinstance(future.exception(), KilledWorker):
            self._lose(worker, "its worker died")
            return
        attempt, _ = lane.attempts.pop(future.key)
        seconds, lane.since = time.monotonic() - lane.since, time.monotonic()
        if future.status == "finished":
            self._slowest = max(seconds, self._slowest or 0.0)
            yield Outcome(attempt.unit)
        elif future.status == "error":
            error = future.exception()
            if isinstance(error, StoreError):
                raise error
            self._fail(attempt, worker, f"{type(error).__name__}: {error}")
        else:
            self._waiting.add(attempt)

    def _lose(self, worker: str, reason: str) -> None:
        """Take back what a worker was given; what it was at counts a failure."""
        lane = self._lanes.pop(worker)
        for position, (attempt, future) in enumerate(lane.attempts.values()):
            future.release()
            if position == 0:
                self._fail(attempt, worker, reason)
            else:
                self._waiting.add(attempt)

    def _fail(self, attempt: Attempt, worker: str, reason: str) -> None:
        failures = attempt.failures + 1
        if failures < self._patience.attempts:
            self._waiting.add(replace(attempt, failures=failures, failed_on=worker))
        else:
            self._failed.append(Outcome(attempt.unit, f"{reason} ({failures} times tried)"))

    def _end_hung(self) -> None:
        """Give up workers that are at one unit for far too long, and have them replaced."""
        limit = self._patience.first
        if self._slowest is not None:
            limit = max(self._patience.least, self._patience.factor * self._slowest)
        now = time.monotonic()
        hung = [
            worker
            for worker, lane in self._lanes.items()
            if lane.attempts and now - lane.since > limit
        ]
        for worker in hung:
            self._hung.add(worker)
            self._lose(worker, f"took longer than {limit:.0f} s")
        if hung:
            # One without a nanny, or beyond its nanny's reach, is left alone until it goes.
            with suppress(ValueError, OSError, TimeoutError):
                self._client.restart_workers(hung, timeout=5, raise_for_error=False)
