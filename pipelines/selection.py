"""Part of what is forecast, stored: some members, channels, leads, or a region.

Members lie one in a shard, so that any unit of work can write those of its members that are
stored, and no two write to one shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.layout import Layout
from pipelines.plan import Unit
from pipelines.store import Marker, Store, unit_name
from pipelines.unit_writer import UnitWriter


@dataclass(frozen=True)
class Selection:
    """What of a forecast goes to a store whose shards hold one member each.

    Attributes
    ----------
    store : Store
        Where to.
    layout : Layout
        Of all that is forecast.
    """

    store: Store
    layout: Layout

    def has(self, unit: Unit) -> bool:
        """Whether all members of the unit that are to be stored are."""
        markers = (self.store.marker(unit_name(unit.init, k)) for k, _ in self._stored(unit))
        return all(one is not None and one.fingerprint == unit.fingerprint for one in markers)

    def begun(self, unit: Unit, numbers: tuple[int, ...]) -> Stored:
        """What takes the fields of a unit's members, those without the others."""
        return Stored(self, unit, numbers)

    def _stored(self, unit: Unit) -> list[tuple[int, int]]:
        """Position in the store, and number, of each of the unit's members that is stored."""
        stored = self.store.layout.members.number.values
        places = np.flatnonzero(np.isin(stored, unit.numbers)).tolist()
        return [(place, int(stored[place])) for place in places]

    def mark(self, unit: Unit, shards: dict[int, dict[str, str]]) -> None:
        """Mark the members of a unit, by their positions; one that is not given has diverged."""
        for place, _ in self._stored(unit):
            name = unit_name(unit.init, place)
            if place in shards:
                self.store.mark(Marker(name, unit.fingerprint, (), shards[place]))
            else:
                self.store.keep(unit.init, place, ())
                self.store.mark(Marker(name, unit.fingerprint, (place,), {}))

    def cut(self, lead: int, values: np.ndarray) -> np.ndarray | None:
        """What is stored of one lead, (number, channel, latitude, longitude); None if nothing."""
        ours, theirs = self.store.layout, self.layout
        if theirs.lead_times[lead] not in ours.lead_times:
            return None
        channels = [theirs.channels.index(name) for name in ours.channels]
        rows = np.flatnonzero(np.isin(theirs.grid.latitude, ours.grid.latitude))
        columns = np.flatnonzero(np.isin(theirs.grid.longitude, ours.grid.longitude))
        return values[:, channels][:, :, rows][:, :, :, columns]

    def wanted(self, unit: Unit, numbers: tuple[int, ...]) -> dict[int, int]:
        """Which of these members are stored: their numbers, by their positions in the store."""
        return {place: number for place, number in self._stored(unit) if number in numbers}


class Stored:
    """Stores what is to be of a unit, lead by lead; a context, as `UnitWriter` is."""

    def __init__(self, selection: Selection, unit: Unit, numbers: tuple[int, ...]) -> None:
        self._selection, self._unit = selection, unit
        wanted = selection.wanted(unit, numbers)
        self._places = [numbers.index(number) for number in wanted.values()]
        self._writer = UnitWriter(selection.store, unit.init, tuple(wanted), len(wanted))

    def __enter__(self) -> Stored:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, lead: int, values: np.ndarray) -> None:
        """Take one lead, (number, channel, latitude, longitude)."""
        cut = self._selection.cut(lead, values[self._places]) if self._places else None
        if cut is not None:
            self._writer.add(cut)

    def finish(self) -> None:
        """Write and mark."""
        _, shards = self._writer.finish()
        self._selection.mark(self._unit, shards)
