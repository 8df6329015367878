"""The scheduler on its own: what it costs for each unit, and what failures cost a huge run.

``python benchmarks/scheduler.py overhead``: units that only sleep, on processes of this machine;
what is more than their sleep is the scheduler's. ``python benchmarks/scheduler.py simulation``: a
simulation in discrete events of workers that die, hang and straggle, in which units are given out
by the very code that gives them out in a run (`pipelines.lanes`); only workers and clock are made
up. Both are seeded and print a table.
"""

from __future__ import annotations

import argparse
import heapq
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

# This folder has a script with the name of a package: the repository comes before it.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import psutil

from data.key import Key
from pipelines.clusters import local_processes
from pipelines.lanes import Lanes, Patience
from pipelines.plan import Unit

_LOOK = 5.0


@dataclass(frozen=True)
class Machines:
    """Workers and their failures; times in seconds.

    Attributes
    ----------
    workers : int
    failure : float
        Mean time to the death of a worker, with the unit that it is at; exponential.
    hang : float
        Mean computing time to a worker that hangs.
    restart : float
        From a death to a new worker.
    load : float
        Loading a checkpoint that the worker has not loaded last.
    jitter : float
        Standard deviation of the logarithm of a unit's time.
    slow : float
        Share of the workers that take `slower` times as long for everything.
    slower : float
    """

    workers: int = 256
    failure: float = 100 * 3600.0
    hang: float = 1000 * 3600.0
    restart: float = 120.0
    load: float = 30.0
    jitter: float = 0.03
    slow: float = 0.02
    slower: float = 1.5


@dataclass
class Worker:
    """One life of a worker: what it has been given, in order, and what it has loaded."""

    pace: float
    loaded: int | None = None
    given: list[tuple[str, Unit]] = field(default_factory=list)
    started: float = 0.0


@dataclass(frozen=True)
class Result:
    """What became of a simulated run; hours are those of all workers together."""

    hours: float
    efficiency: float
    lost: float
    loading: float
    tail: float
    retries: int
    failed: int
    decisions: float


class Simulation:
    """A run of some units, each of the same length, on workers that fail.

    Parameters
    ----------
    machines : Machines
    units : list of Unit
    seconds : float
        What a unit takes on a worker of the usual pace.
    key : Key
        Of all draws.
    """

    def __init__(self, machines: Machines, units: list[Unit], seconds: float, key: Key) -> None:
        self._machines, self._units, self._seconds = machines, units, seconds
        self._random = key.generator()
        # Patience that fits the units: ten times the slowest one, as in a run.
        self._lanes = Lanes(units, Patience(first=20 * seconds))
        self._workers: dict[str, Worker] = {}
        self._events: list[tuple[float, int, str, str, str]] = []
        self._count = 0
        self._now = self._lost = self._loading = self._deciding = 0.0
        self._retries = 0
        self._idle_since: float | None = None

    def run(self) -> Result:
        """Simulate to the end."""
        for _ in range(self._machines.workers):
            self._appear()
        self._at(0.0, "look")
        failed = finished = 0
        while self._lanes.working:
            self._now, _, what, worker, key = heapq.heappop(self._events)
            self._happen(what, worker, key)
            started = time.process_time()
            given = list(self._lanes.assign(self._now))
            self._deciding += time.process_time() - started
            for name, given_key, unit in given:
                self._receive(name, given_key, unit)
            for outcome in self._lanes.decided():
                failed += outcome.failure is not None
                finished += outcome.failure is None
            if all(one.given for one in self._workers.values()):
                self._idle_since = None
            elif self._idle_since is None:
                self._idle_since = self._now
        spent = self._machines.workers * self._now
        tail = 0.0 if self._idle_since is None else self._now - self._idle_since
        return Result(
            hours=self._now / 3600, efficiency=finished * self._seconds / spent,
            lost=self._lost / spent, loading=self._loading / spent, tail=tail / 3600,
            retries=self._retries, failed=failed,
            decisions=1e3 * self._deciding / len(self._units),
        )  # fmt: skip

    def _at(self, moment: float, what: str, worker: str = "", key: str = "") -> None:
        self._count += 1
        heapq.heappush(self._events, (moment, self._count, what, worker, key))

    def _appear(self) -> None:
        """A new worker, and the moment of its death."""
        self._count += 1
        name = f"worker-{self._count:06d}"
        slow = self._random.random() < self._machines.slow
        self._workers[name] = Worker(self._machines.slower if slow else 1.0)
        self._at(self._now + self._random.exponential(self._machines.failure), "death", name)

    def _happen(self, what: str, worker: str, key: str) -> None:
        if what == "look":
            self._look()
        elif what == "back":
            self._appear()
        elif worker in self._workers:
            if what == "death":
                self._die(worker)
            else:
                self._end(worker, key)

    def _look(self) -> None:
        """What the dispatcher does at intervals: who is there, and who hangs."""
        self._lanes.note(set(self._workers))
        for worker in self._lanes.give_up_hung(self._now):
            self._die(worker)
        self._at(self._now + _LOOK, "look")

    def _die(self, worker: str) -> None:
        gone = self._workers.pop(worker)
        if gone.given:
            self._lost += self._now - gone.started
            self._retries += 1
        self._at(self._now + self._machines.restart, "back")

    def _end(self, worker: str, key: str) -> None:
        at = self._workers[worker]
        if at.given and at.given[0][0] == key:
            at.given.pop(0)
            self._lanes.finish(worker, key, self._now)
            self._begin(worker)

    def _receive(self, worker: str, key: str, unit: Unit) -> None:
        if worker in self._workers:  # one that has died is noticed at the next look
            self._workers[worker].given.append((key, unit))
            if len(self._workers[worker].given) == 1:
                self._begin(worker)

    def _begin(self, worker: str) -> None:
        """Compute what was given first; one that hangs never ends it."""
        at, machines = self._workers[worker], self._machines
        if not at.given:
            return
        key, unit = at.given[0]
        load = 0.0 if at.loaded == unit.checkpoint else machines.load
        at.loaded, at.started = unit.checkpoint, self._now
        self._loading += load
        length = at.pace * self._seconds * self._random.lognormal(0.0, machines.jitter)
        if self._random.exponential(machines.hang) > length:
            self._at(self._now + load + length, "end", worker, key)


def units_of(members: int, block: int, checkpoints: int, inits: int) -> list[Unit]:
    """Units in the order of a plan: members are divided over the checkpoints in turn."""
    each = members // checkpoints
    return [
        Unit(init, first // block, tuple(range(first, min(first + block, members))),
             min(first // each, checkpoints - 1), "")
        for init in range(inits)
        for first in range(0, members, block)
    ]  # fmt: skip


def cases() -> Iterator[tuple[str, Machines, int, int]]:
    """Names, machines, members in a unit and init times."""
    usual = Machines()
    calm = replace(usual, failure=1e12, hang=1e12, slow=0.0)
    for block in (32, 8, 2):
        yield f"one init time, units of {block}, nothing fails", calm, block, 1
        yield f"one init time, units of {block}", usual, block, 1
    yield "ten init times, units of 8", usual, 8, 10
    worse = replace(usual, failure=usual.failure / 10, hang=usual.hang / 10, slow=0.1)
    yield "ten init times, ten times the failures", worse, 8, 10
    yield "ten init times, checkpoints take 10 min", replace(usual, load=600.0), 8, 10


def simulation(seconds_per_step: float, seed: int) -> None:
    """Print what becomes of 7,424 members x 60 steps of 29 checkpoints."""
    print(f"{'':44s} {'hours':>7s} {'efficiency':>10s} {'lost':>7s} {'loading':>7s} "
          f"{'tail, h':>7s} {'retries':>7s} {'failed':>6s} {'ms/unit':>7s}")  # fmt: skip
    for name, machines, block, inits in cases():
        units = units_of(7424, block, 29, inits)
        seconds = 60 * block * seconds_per_step
        found = Simulation(machines, units, seconds, Key(seed) / name).run()
        print(f"{name:44s} {found.hours:7.2f} {found.efficiency:10.1%} {found.lost:7.2%} "
              f"{found.loading:7.2%} {found.tail:7.2f} {found.retries:7d} {found.failed:6d} "
              f"{found.decisions:7.3f}", flush=True)  # fmt: skip


@dataclass(frozen=True)
class Sleep:
    """A unit that only takes time."""

    seconds: float

    def __call__(self, unit: Unit) -> None:
        """Wait."""
        time.sleep(self.seconds)


def overhead(workers: int, count: int) -> None:
    """Print what it costs to have a unit done, as units get shorter."""
    for seconds in (0.2, 0.05, 0.0):
        units = [Unit(0, block, tuple(range(8)), 0, "") for block in range(count)]
        outcomes = local_processes(workers).outcomes(Sleep(seconds), units, Patience())
        for _ in zip(range(2 * workers), outcomes, strict=False):
            pass  # processes have started
        measured = count - 4 * workers  # the last ones do not wait in a window
        started, driver, others = time.perf_counter(), time.process_time(), children_time()
        for _ in zip(range(measured), outcomes, strict=False):
            pass
        spent = [time.perf_counter() - started, time.process_time() - driver]
        wall, driver, others = [
            1e3 * one / measured for one in (*spent, children_time() - others)
        ]  # fmt: skip
        print(f"units of {seconds * 1e3:5.0f} ms on {workers} workers: {wall:7.2f} ms each, "
              f"{wall - 1e3 * seconds / workers:6.2f} ms more than their share of sleep; computed "
              f"{driver:5.2f} ms each by the scheduler, {others:5.2f} ms by the workers; "
              f"load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
        for _ in outcomes:
            pass


def children_time() -> float:
    """Seconds that processes below this one have computed."""
    below = psutil.Process().children(recursive=True)
    return sum(sum(process.cpu_times()[:2]) for process in below)


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["overhead", "simulation"], nargs="?", default="overhead")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--seconds-per-step", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.what == "overhead":
        overhead(chosen.workers, chosen.units)
    else:
        simulation(chosen.seconds_per_step, chosen.seed)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
