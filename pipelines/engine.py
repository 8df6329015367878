"""The ensemble engine: units of work on a cluster, each of which takes effect exactly once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from tqdm import tqdm

from data.errors import DegradedError, MyriadError, RunError, StoreError
from pipelines.ensemble import Ensemble
from pipelines.lanes import Patience
from pipelines.layout import Layout
from pipelines.plan import Forecast, Plan, Unit
from pipelines.store import Marker, Standing, Store
from pipelines.unit_writer import UnitWriter

if TYPE_CHECKING:
    from pipelines.clusters import Cluster
    from pipelines.models import Models

_SLOWEST_STEP = 10.0  # seconds of one member


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
        Wall time of computing and writing, the start of the workers included.
    lost : str
        Which members are not whole, and why; empty if all are.
    """

    units: int
    resumed: int
    member_steps: int
    seconds: float
    lost: str = ""

    def check(self) -> None:
        """Say at the very end that members are lost.

        Raises
        ------
        DegradedError
            If any is.
        """
        if self.lost:
            raise DegradedError(f"degraded: {self.lost}")


Rest = Callable[[], None]


class Sink(Protocol):
    """What is done with the fields of a unit: they are stored, or added to sums."""

    def has(self, unit: Unit) -> bool:
        """Whether the unit has taken effect."""
        ...

    def take(self, unit: Unit, forecast: Forecast) -> Rest:
        """Let a unit take effect, whole and once, however often this is done.

        Parameters
        ----------
        unit : Unit
            What is to take effect.
        forecast : callable
            Forecasts members of it, lead by lead.

        Returns
        -------
        callable
            What is left to do when all is forecast, and may be done beside the next unit: not
            before it has ended has the unit taken effect.
        """
        ...


class Target(Protocol):
    """Where a run goes."""

    @property
    def sink(self) -> Sink:
        """What takes the units, on the workers."""
        ...

    def create(self) -> None:
        """Make what is needed before any unit, or take up what is there; see `Store.create`."""
        ...

    def pending(self) -> list[Unit]:
        """The units that are not done, in order."""
        ...

    def conclude(self) -> Standing:
        """Let readers see what is there, after all units; gives it back."""
        ...

    def sweep(self) -> None:
        """Remove the litter of killed writers."""
        ...


@dataclass(frozen=True)
class StoreTarget:
    """A store of all members."""

    plan: Plan

    @property
    def _store(self) -> Store:
        return Store(self.plan.path, self.plan.layout)

    @property
    def sink(self) -> StoreSink:
        """What writes the units."""
        return StoreSink(self._store)

    def create(self) -> None:
        """Lay the store out, or take up the one that is there."""
        self._store.create()

    def pending(self) -> list[Unit]:
        """The units without a marker, in order.

        Raises
        ------
        StoreError
            If the store is another experiment's, or one was made from another analysis: what is
            finished is never written over.
        """
        self._store.check()
        plan, markers = self.plan, self._store.markers()
        for unit in plan.units:
            if unit.name in markers and markers[unit.name].fingerprint != unit.fingerprint:
                raise StoreError(
                    f"{plan.path}: forecasts from {plan.layout.init_times[unit.init]} are there "
                    "already, made from another analysis or climatology; nothing was changed: "
                    "choose another name or remove that store"
                )
        return [unit for unit in plan.units if unit.name not in markers]

    def conclude(self) -> Standing:
        """Write which members are completed, by the markers."""
        markers = self._store.complete()
        marked = [unit for unit in self.plan.units if unit.name in markers]
        return Standing(
            self._store.completed(markers),
            [(unit.init, number) for unit in marked for number in markers[unit.name].diverged],
        )

    def sweep(self) -> None:
        """Remove drafts."""
        self._store.sweep()


def target_of(plan: Plan) -> Target:
    """Where the run of a plan goes."""
    if plan.kept is None:
        return StoreTarget(plan)
    from pipelines.in_flight import InFlightTarget  # with all of scoring

    return InFlightTarget(plan)


@dataclass(frozen=True)
class StoreSink:
    """Writes a unit's shards, each while the next is computed, then marks it."""

    store: Store

    def has(self, unit: Unit) -> bool:
        """Whether the unit is marked, with this very fingerprint."""
        marker = self.store.marker(unit.name)
        return marker is not None and marker.fingerprint == unit.fingerprint

    def take(self, unit: Unit, forecast: Forecast) -> Rest:
        """Write, and give back what marks; see `Sink.take`."""
        with ExitStack() as stack:
            writer = UnitWriter(self.store, unit.init, (unit.block,), len(unit.numbers))
            stack.enter_context(writer)
            for values in forecast(unit.numbers):
                writer.add(values)
            stack.pop_all()
        return partial(self._mark, unit, writer)

    def _mark(self, unit: Unit, writer: UnitWriter) -> None:
        with writer:
            finite, shards = writer.finish()
        diverged = tuple(n for n, whole in zip(unit.numbers, finite, strict=True) if not whole)
        self.store.mark(Marker(unit.name, unit.fingerprint, diverged, shards[unit.block]))


@dataclass(frozen=True)
class UnitTask:
    """Forecasts a unit and gives it to a sink; doing it twice, or at once, is harmless."""

    ensemble: Ensemble
    layout: Layout
    sink: Sink

    def __call__(self, unit: Unit) -> Rest | None:
        """Compute a unit, unless another worker has done it; gives back the rest of the work."""
        if self.sink.has(unit):
            return None
        init_time = self.layout.init_times[unit.init]
        return self.sink.take(unit, partial(_leads, self.models, init_time))

    @cached_property
    def models(self) -> Models:
        """What forecasts, kept from unit to unit."""
        from pipelines.models import Models  # with torch, which only workers need

        return Models(self.ensemble)


def run(
    plan: Plan, cluster: Cluster | None, quiet: bool = False, patience: Patience | None = None
) -> Progress:
    """Compute every unit of the plan that is not finished yet.

    Without a cluster only what is finished is concluded.

    Raises
    ------
    StoreError
        If the store is another experiment's, cannot be written, or another run is at work on it.
    RunError
        If, after their retries, fewer members of an init time are whole than the experiment
        demands; all other units are finished.
    """
    target = target_of(plan)
    patience = patience or patience_for(plan)
    with alone(plan.path):
        target.create()
        todo = target.pending()
        started = time.monotonic()
        try:
            failed = _compute_all(plan, target, cluster, todo, quiet, patience)
        except MyriadError:
            target.conclude()
            raise
        else:
            standing = target.conclude()
        finally:
            # All that is done after an interrupt: it may have come while zarr held a lock.
            target.sweep()
        seconds = time.monotonic() - started
    lost = _lost(plan, standing, failed)
    steps = sum(len(unit.numbers) for unit in todo) * plan.steps
    return Progress(len(plan.units), len(plan.units) - len(todo), steps, seconds, lost)


def patience_for(plan: Plan) -> Patience:
    """That of a run: until a unit is finished, time enough for one on a slow worker."""
    longest = max(len(unit.numbers) for unit in plan.units) * plan.steps
    return Patience(first=max(Patience.first, _SLOWEST_STEP * longest))


def unit_fields(plan: Plan, init_time: np.datetime64, numbers: tuple[int, ...]) -> np.ndarray:
    """Forecasts of these members from one init time, in this process.

    Returns
    -------
    numpy.ndarray
        (number, channel, lead_time, latitude, longitude), float32, as the forecaster gives them.
    """
    return _stacked(_leads(plan.models, init_time, numbers), len(numbers), plan.layout)


def _leads(
    models: Models, init_time: np.datetime64, numbers: tuple[int, ...]
) -> Iterator[np.ndarray]:
    for values in models.trajectories(init_time, numbers):
        yield values.numpy()


def _stacked(leads: Iterator[np.ndarray], members: int, layout: Layout) -> np.ndarray:
    """(number, channel, lead_time, latitude, longitude)"""
    shape = (members, len(layout.channels), *layout.shape[2:])
    fields = np.empty(shape, dtype=np.float32)
    for lead, values in enumerate(leads):
        fields[:, :, lead] = values
    return fields


def _compute_all(
    plan: Plan,
    target: Target,
    cluster: Cluster | None,
    todo: list[Unit],
    quiet: bool,
    patience: Patience,
) -> dict[str, str]:
    """Have the units done; returns the reasons of those that failed."""
    failed: dict[str, str] = {}
    if not todo:
        return failed
    if cluster is None:
        raise StoreError(f"{plan.path}: units were taken away meanwhile; run again")
    task = UnitTask(plan.ensemble, plan.layout, target.sink)
    total = sum(len(unit.numbers) for unit in todo) * plan.steps
    with (
        closing(cluster.outcomes(task, todo, patience)) as outcomes,
        tqdm(total=total, unit=" member-steps", disable=quiet, smoothing=0.1) as bar,
    ):
        for outcome in outcomes:
            if outcome.failure is None:
                bar.update(len(outcome.unit.numbers) * plan.steps)
            else:
                failed[outcome.unit.name] = outcome.failure
    return failed


def _lost(plan: Plan, standing: Standing, failed: dict[str, str]) -> str:
    """Which members are not whole, in words.

    Raises
    ------
    RunError
        If too few of an init time are.
    """
    wanted = plan.ensemble.experiment
    named = [
        f"member {number} from {plan.layout.init_times[init]}" for init, number in standing.diverged
    ]
    parts = []
    if failed:
        unit, reason = next(iter(failed.items()))
        parts.append(
            f"{len(failed)} of {len(plan.units)} units failed, the first is {unit}: {reason}"
        )
    if named:
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        parts.append(f"not finite, and kept out of scores: {', '.join(named[:5])}{more}")
    lost = f"{plan.path}: {'; '.join(parts)}" if parts else ""
    whole = standing.completed[sorted({unit.init for unit in plan.units})].sum(axis=1)
    fewest = wanted.members if wanted.min_members is None else wanted.min_members
    if lost and whole.min() < fewest:
        raise RunError(
            f"{lost}; {whole.min()} members of an init time are whole, expected {fewest}"
            f"{' (min_members)' if wanted.min_members else ''}; what is finished is kept, run "
            "again to retry what failed"
        )
    return lost


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the store against a second run; the system lets go when this process ends, however."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreError(f"{path}: another run is at work on this store") from None
    finally:
        os.close(handle)
