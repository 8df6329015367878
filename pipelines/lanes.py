"""Which worker computes which unit, and when one is given up; knows no cluster and no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from pipelines.plan import Unit

WINDOW = 2


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
    twin : float
        What takes this many times as long as the slowest unit so far is begun a second time where
        a worker has nothing else to do.
    workers : float
        Seconds without a single worker after which the run is given up.
    """

    attempts: int = 3
    factor: float = 10.0
    least: float = 120.0
    first: float = 3600.0
    twin: float = 1.5
    workers: float = 600.0


@dataclass(frozen=True)
class Outcome:
    """What became of a unit; `failure` is None if it is finished."""

    unit: Unit
    failure: str | None = None


@dataclass(frozen=True)
class Attempt:
    """A unit that is to be tried.

    Attributes
    ----------
    unit : Unit
    failures : int
        How often it has failed.
    failed_on : str or None
        The worker on which it failed the last time.
    suspect : bool
        Whether it was on a worker that died with two units: it is tried alone, to know.
    """

    unit: Unit
    failures: int = 0
    failed_on: str | None = None
    suspect: bool = False


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

    def take(self, worker: str, lane: Lane, users: Mapping[int, int]) -> Attempt | None:
        """The next one for a worker; None if there is none for it.

        Of the checkpoint that it has loaded if there is one, else of that with the most units in
        wait for each worker that is at it. Not one that has failed on this very worker, unless
        that is all there are; and a suspect only where nothing else is under way.
        """
        order = sorted(
            (checkpoint for checkpoint, queue in self._queues.items() if queue),
            key=lambda one: (
                one != lane.checkpoint,
                -len(self._queues[one]) / (1 + users.get(one, 0)),
            ),
        )
        for failed_here in (False, True) if sum(users.values()) <= 1 else (False,):
            for queue in (self._queues[checkpoint] for checkpoint in order):
                for attempt in queue:
                    fits = failed_here or attempt.failed_on != worker
                    if fits and not (attempt.suspect and lane.attempts):
                        queue.remove(attempt)
                        return attempt
        return None


@dataclass
class Lane:
    """What one worker has been given: while the first is computed the second waits, and while the
    first is written the second is computed."""

    checkpoint: int | None = None
    since: float = 0.0
    attempts: dict[str, Attempt] = field(default_factory=dict)

    @property
    def suspect(self) -> bool:
        """Whether it is at a unit that is to be tried alone."""
        return any(attempt.suspect for attempt in self.attempts.values())


class Lanes:
    """Keeps every worker busy with a window of two units, and gives up none too early.

    A unit counts a failure when it raises, when a worker that is at it alone dies (killed, or out
    of memory), or when it takes far longer than others do; then it goes to another worker. At the
    end, when nothing waits, what takes long is begun on an idle worker as well, and whichever is
    first counts: else the whole run would wait for one that hangs. Times are seconds on any clock
    that never goes back.

    Parameters
    ----------
    units : list of Unit
        What is to be done.
    patience : Patience
        When to give up.
    """

    def __init__(self, units: list[Unit], patience: Patience) -> None:
        self._waiting = Waiting(units)
        self._patience = patience
        self._lanes: dict[str, Lane] = {}
        self._hung: set[str] = set()
        self._slowest: float | None = None
        self._given = 0
        self._done: set[str] = set()
        self._decided: list[Outcome] = []

    @property
    def working(self) -> bool:
        """Whether units wait, or are with workers and not done."""
        return bool(self._waiting) or any(
            attempt.unit.name not in self._done
            for lane in self._lanes.values()
            for attempt in lane.attempts.values()
        )

    @property
    def workers(self) -> int:
        """Workers that there are, without those that hang."""
        return len(self._lanes)

    def has(self, worker: str, key: str) -> bool:
        """Whether a unit is still with the worker that it was given to."""
        return worker in self._lanes and key in self._lanes[worker].attempts

    def decided(self) -> Iterator[Outcome]:
        """What has become of units since the last call."""
        while self._decided:
            yield self._decided.pop()

    def note(self, present: set[str]) -> None:
        """Take note of workers that have come, and of those that have gone."""
        for worker in self._lanes.keys() - present:
            self.lose(worker, "its worker died")
        self._hung &= present
        for worker in sorted(present - self._lanes.keys() - self._hung):
            self._lanes[worker] = Lane()

    def assign(self, now: float) -> Iterator[tuple[str, str, Unit]]:
        """Give units to the workers that have room: worker, a key of its own, unit."""
        # The last units are not queued behind one another while a worker is idle.
        for depth in range(1, WINDOW + 1 if len(self._waiting) > len(self._lanes) else 2):
            for worker, lane in self._lanes.items():
                if len(lane.attempts) < depth and self._waiting and not lane.suspect:
                    users = Counter(one.checkpoint for one in self._lanes.values())
                    attempt = self._waiting.take(worker, lane, users)
                    if attempt is not None:
                        yield worker, self._give(lane, attempt, now), attempt.unit
        for worker, attempt in self._late(now):
            yield worker, self._give(self._lanes[worker], attempt, now), attempt.unit

    def _late(self, now: float) -> list[tuple[str, Attempt]]:
        """What takes long, and what waits behind it, each with an idle worker to begin it too."""
        idle = [worker for worker, lane in self._lanes.items() if not lane.attempts]
        if self._waiting or not idle or self._slowest is None:
            return []
        limit = self._patience.twin * self._slowest
        busy = sorted((lane for lane in self._lanes.values() if lane.attempts), key=_since)
        late = [lane for lane in busy if now - lane.since > limit]
        at = [attempt for lane in late for attempt in lane.attempts.values()]
        copies = Counter(attempt.unit.name for lane in busy for attempt in lane.attempts.values())
        alone = [one for one in at if copies[one.unit.name] == 1]
        undone = [one for one in alone if one.unit.name not in self._done]
        return list(zip(idle, undone, strict=False))

    def _give(self, lane: Lane, attempt: Attempt, now: float) -> str:
        """Note what a worker is given, under a key of its own."""
        self._given += 1
        key = f"unit-{attempt.unit.name}-{self._given}"
        if not lane.attempts:
            lane.since = now
        lane.checkpoint = attempt.unit.checkpoint
        lane.attempts[key] = attempt
        return key

    def finish(self, worker: str, key: str, now: float) -> None:
        """A unit is finished; nothing happens if it was given up before."""
        if attempt := self._ended(worker, key):
            lane = self._lanes[worker]
            self._slowest = max(now - lane.since, self._slowest or 0.0)
            lane.since = now
            if attempt.unit.name not in self._done:
                self._done.add(attempt.unit.name)
                self._decided.append(Outcome(attempt.unit))

    def fail(self, worker: str, key: str, reason: str, now: float) -> None:
        """A unit has raised."""
        if attempt := self._ended(worker, key):
            self._lanes[worker].since = now
            self._count(attempt, worker, reason)

    def withdraw(self, worker: str, key: str, now: float) -> None:
        """A unit will not be computed there, for no fault of its own."""
        if attempt := self._ended(worker, key):
            self._lanes[worker].since = now
            self._put_back(attempt)

    def _ended(self, worker: str, key: str) -> Attempt | None:
        lane = self._lanes.get(worker)
        return None if lane is None else lane.attempts.pop(key, None)

    def lose(self, worker: str, reason: str) -> None:
        """Take back what a worker was given that has died.

        Of two units, one being written and the other computed, nobody knows which it was that
        killed it: neither counts a failure, and each is tried once more, alone.
        """
        attempts = self._lanes.pop(worker, Lane()).attempts.values()
        for attempt in attempts:
            if len(attempts) == 1:
                self._count(attempt, worker, reason)
            else:
                self._put_back(replace(attempt, suspect=True))

    def _put_back(self, attempt: Attempt) -> None:
        if not self._has_twin(attempt.unit):
            self._waiting.add(attempt)

    def _has_twin(self, unit: Unit) -> bool:
        """Whether a unit is done, or under way elsewhere."""
        return unit.name in self._done or any(
            attempt.unit.name == unit.name
            for lane in self._lanes.values()
            for attempt in lane.attempts.values()
        )

    def _count(self, attempt: Attempt, worker: str, reason: str) -> None:
        failures = attempt.failures + 1
        if failures < self._patience.attempts:
            self._put_back(replace(attempt, failures=failures, failed_on=worker))
        elif not self._has_twin(attempt.unit):
            self._done.add(attempt.unit.name)
            self._decided.append(Outcome(attempt.unit, f"{reason} ({failures} times tried)"))

    def give_up_hung(self, now: float) -> list[str]:
        """Workers that are at one unit for far too long; they get no more."""
        limit = self._patience.first
        if self._slowest is not None:
            limit = max(self._patience.least, self._patience.factor * self._slowest)
        hung = [
            worker
            for worker, lane in self._lanes.items()
            if lane.attempts and now - lane.since > limit
        ]
        for worker in hung:
            self._hung.add(worker)
            first, *others = self._lanes.pop(worker).attempts.values()
            self._count(first, worker, f"took longer than {limit:.0f} s")
            for attempt in others:
                self._put_back(attempt)
        return hung


def _since(lane: Lane) -> float:
    return lane.since
