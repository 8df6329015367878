"""Statistics of all members, kept while they are forecast, with or without storing members.

A unit of work forecasts its members lead by lead and keeps what `scoring.kept` says of them; the
units of an init time are added up in a tree of files (`pipelines.parts`), and what they come to is
written as one store for each init time. Every step of that can be done twice, late, or at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from data.channel import channel
from data.errors import ConfigurationError, StoreError
from pipelines.parts import Contents, Lead, Node, Shape, Tree, opened
from pipelines.plan import Forecast, Plan, Unit, hashed
from pipelines.selection import Selection
from pipelines.shards import writing
from pipelines.statistics_store import Statistics, attributes_of, open_statistics
from pipelines.store import Standing, Store, statistics_folder
from scoring.kept import Kept, partners
from scoring.sketch import LARGEST_VALUE


class DivergedError(Exception):
    """Some members have a value that is not finite, or beyond all bounds."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        super().__init__(numbers)
        self.numbers = numbers


@dataclass(frozen=True)
class InFlightSink:
    """Keeps statistics of a unit's members, and stores those that are to be stored.

    Attributes
    ----------
    folder : pathlib.Path
        Where statistics go.
    plan : Plan
    selection : Selection or None
        What is stored.
    """

    folder: Path
    plan: Plan
    selection: Selection | None

    def has(self, unit: Unit) -> bool:
        """Whether the unit has been added up, and what is to be stored of it is."""
        stored = self.selection is None or self.selection.has(unit)
        return stored and self._kept(unit)

    def _kept(self, unit: Unit) -> bool:
        return self.finished(unit.init) or self.tree(unit.init).has(self._leaf(unit))

    def take(self, unit: Unit, forecast: Forecast) -> Callable[[], None]:
        """Add up the unit, whole and once; see `engine.Sink`."""
        numbers = unit.numbers
        while True:  # without the members that diverge, found out at whatever lead
            try:
                self._take(unit, numbers, forecast)
            except DivergedError as error:
                numbers = tuple(number for number in numbers if number not in error.numbers)
            else:
                break
        return partial(self.finish, unit.init)

    def _take(self, unit: Unit, numbers: tuple[int, ...], forecast: Forecast) -> None:
        members = self.plan.ensemble.members
        pairs = np.array([members[number].pair for number in numbers], dtype=int)
        lost = tuple(number for number in unit.numbers if number not in numbers)
        count = len(partners(pairs)[0]) if numbers else 0
        contents = Contents(len(numbers), count, 0 in numbers, lost)
        with ExitStack() as stack:
            stored = None
            if self.selection is not None:
                stored = stack.enter_context(self.selection.begun(unit, numbers))
            writer = stack.enter_context(self.tree(unit.init).written(self._leaf(unit), contents))
            if numbers:
                for lead, values in enumerate(forecast(numbers)):
                    writer.add(self._kept_at(values, np.array(numbers, np.int32), pairs))
                    if stored is not None:
                        stored.add(lead, values)
            if stored is not None:
                stored.finish()

    def _kept_at(self, values: np.ndarray, numbers: np.ndarray, pairs: np.ndarray) -> Lead:
        """What is kept of (number, channel, latitude, longitude)."""
        integers = self._integers(values, numbers)
        kept = tuple(
            Kept.of(integers[:, index], numbers, pairs, self._bins, thresholds)
            for index, thresholds in enumerate(self._integer_thresholds)
        )
        return Lead(kept, integers[0] if numbers[0] == 0 else None)

    def _integers(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Multiples of each channel's quantum, (number, channel, cell) int32."""
        quanta = [channel(name).quantum for name in self.plan.layout.channels]
        flat = values.reshape(*values.shape[:2], -1)
        with np.errstate(over="ignore"):  # what diverges is found out just below
            scaled = flat / np.array(quanta, np.float32)[:, None]
        np.rint(scaled, out=scaled)
        sound = (np.abs(scaled) < LARGEST_VALUE).all(axis=(1, 2))
        if not sound.all():
            raise DivergedError(tuple(numbers[~sound].tolist()))
        return scaled.astype(np.int32)

    @property
    def _bins(self) -> int:
        return self.plan.kept.bins

    @cached_property
    def _thresholds(self) -> tuple[tuple[float, ...], ...]:
        return tuple(self.plan.kept.exceedance.get(name, ()) for name in self.plan.layout.channels)

    @cached_property
    def _integer_thresholds(self) -> list[list[float]]:
        names = self.plan.layout.channels
        return [
            [level / channel(name).quantum for level in own]
            for name, own in zip(names, self._thresholds, strict=True)
        ]

    @cached_property
    def _blocks(self) -> list[int]:
        """The checkpoint of every block of members, in order."""
        first = self.plan.units[0].init
        return [unit.checkpoint for unit in self.plan.units if unit.init == first]

    def _leaf(self, unit: Unit) -> Node:
        return Node(unit.checkpoint, 0, unit.block - self._blocks.index(unit.checkpoint))

    def path(self, init: int) -> Path:
        """The store of an init time's statistics."""
        return self.folder / f"{self._stamp(init)}.zarr"

    def _stamp(self, init: int) -> str:
        return np.datetime_as_string(self.plan.layout.init_times[init], "s").replace(":", "")

    @cached_property
    def fingerprints(self) -> dict[int, str]:
        """Of each init time's position: digest of all that decides its statistics."""
        own = [self._bins, self._thresholds]
        return {unit.init: hashed([unit.fingerprint, *own]) for unit in self.plan.units}

    def tree(self, init: int) -> Tree:
        """Where the units of an init time are added up."""
        layout, blocks = self.plan.layout, self._blocks
        name = f"{self._stamp(init)}.{self.fingerprints[init]}-{self.plan.kept.block}.parts"
        thresholds = tuple(len(own) for own in self._thresholds)
        cells = int(np.prod(layout.grid.shape))
        shape = Shape(len(layout.lead_times), len(layout.channels), cells, self._bins, thresholds)
        counts = np.bincount(blocks).tolist()
        return Tree(self.folder / name, tuple(counts), shape)

    def finished(self, init: int) -> bool:
        """Whether the statistics of an init time are there, with all of its units."""
        found = attributes_of(self.path(init))
        return (found.get("fingerprint"), found.get("units_of_work")) == (
            self.fingerprints[init],
            len(self._blocks),
        )

    def finish(self, init: int) -> None:
        """Write the statistics of an init time if all of its units have been added up.

        If all members have diverged there are none; the parts then stay, and say so.
        """
        tree = self.tree(init)
        if tree.complete():
            with suppress(FileNotFoundError):  # another worker has done it, and removed the parts
                if self.write(init, tree):
                    shutil.rmtree(tree.folder, ignore_errors=True)

    def write(self, init: int, tree: Tree) -> bool:
        """Write what there is of an init time; says whether there is a member that is finite."""
        layout = self.plan.layout
        units = [unit for unit in self.plan.units if unit.init == init]
        present = [unit for unit in units if tree.has(self._leaf(unit))]
        with opened([path for own in tree.present() for path in own], tree.shape) as parts:
            by_checkpoint = iter(parts)
            grouped = [[next(by_checkpoint) for _ in own] for own in tree.present()]
            lost = {number for part in parts for number in part.contents.diverged}
            completed = np.zeros(layout.shape[1], dtype=bool)
            completed[[number for unit in present for number in unit.numbers]] = True
            completed[sorted(lost)] = False
            if completed.any():
                self._statistics(init).write(self.path(init), grouped, completed, len(present))
            return bool(completed.any())

    def diverged(self, init: int) -> list[int]:
        """Numbers of the members of an init time that are left out as not finite."""
        if self.finished(init):
            with open_statistics(self.path(init)) as found:
                return np.flatnonzero(~found.completed.values).tolist()
        tree = self.tree(init)
        with opened([path for own in tree.present() for path in own], tree.shape) as parts:
            return sorted(number for part in parts for number in part.contents.diverged)

    def _statistics(self, init: int) -> Statistics:
        layout = self.plan.layout
        time, digest = layout.init_times[init], self.fingerprints[init]
        return Statistics(layout, time, self._bins, self._thresholds, digest)


@dataclass(frozen=True)
class InFlightTarget:
    """Where a run goes that keeps statistics: those, and a store of what is to be stored."""

    plan: Plan

    @property
    def _inits(self) -> list[int]:
        return sorted({unit.init for unit in self.plan.units})

    @cached_property
    def sink(self) -> InFlightSink:
        """What takes the units."""
        store = self._store
        selection = None if store is None else Selection(store, self.plan.layout)
        return InFlightSink(statistics_folder(self.plan.path), self.plan, selection)

    @cached_property
    def _store(self) -> Store | None:
        stored = self.plan.stored
        return None if stored is None else Store(self.plan.path, stored)

    def create(self) -> None:
        """Refuse statistics of another experiment, clean up, and lay the store out.

        Raises
        ------
        StoreError
            If the target holds something else, or cannot be written.
        """
        self.check()
        with writing(self.sink.folder):
            self.sink.folder.mkdir(parents=True, exist_ok=True)
        if self._store is not None:
            self._store.create()
        self.sweep()
        for init in self._inits:
            tree = self.sink.tree(init)
            tree.resume()
            if not self.sink.finished(init):
                self.sink.finish(init)

    def check(self) -> None:
        """Refuse statistics of another experiment.

        Raises
        ------
        StoreError
            If there are some of an init time of the plan.
        """
        for name in self.plan.kept.exceedance:
            if name not in self.plan.layout.channels:
                raise ConfigurationError(
                    f"in_flight: exceedance of {name!r}, which is not among the channels "
                    f"({', '.join(self.plan.layout.channels)})"
                )
        for init in self._inits:
            path, tree = self.sink.path(init), self.sink.tree(init)
            found = attributes_of(path).get("fingerprint", self.sink.fingerprints[init])
            stamp = path.name.removesuffix(".zarr")
            others = [one for one in path.parent.glob(f"{stamp}.*.parts") if one != tree.folder]
            if found != self.sink.fingerprints[init] or others:
                raise StoreError(
                    f"{others[0] if others else path}: is of another experiment, other statistics "
                    "or another block; nothing was changed: choose another name or remove it"
                )

    def pending(self) -> list[Unit]:
        """The units that are not done."""
        self.check()
        return [unit for unit in self.plan.units if not self.sink.has(unit)]

    def conclude(self) -> Standing:
        """Write statistics of what there is where units have failed."""
        for init in self._inits:
            tree = self.sink.tree(init)
            if not self.sink.finished(init) and tree.folder.exists():
                self.sink.write(init, tree)
        if self._store is not None:
            self._store.complete()
        completed = np.zeros(self.plan.layout.shape[:2], dtype=bool)
        for init, numbers in self._completed():
            completed[init] = numbers
        diverged = [(init, number) for init in self._inits for number in self.sink.diverged(init)]
        return Standing(completed, diverged)

    def sweep(self) -> None:
        """Remove the litter of killed writers, and parts that are in what is finished."""
        for litter in self.sink.folder.glob("*.partial"):
            shutil.rmtree(litter, ignore_errors=True)
        for init in self._inits:
            tree = self.sink.tree(init)
            for litter in tree.folder.glob("*.partial"):
                litter.unlink(missing_ok=True)
            if self.sink.finished(init):
                shutil.rmtree(tree.folder, ignore_errors=True)
        if self._store is not None:
            self._store.sweep()

    def _completed(self) -> Iterator[tuple[int, np.ndarray]]:
        for init in self._inits:
            with suppress(StoreError), open_statistics(self.sink.path(init)) as found:
                yield init, found.completed.values
