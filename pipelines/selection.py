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

    def put(self, unit: Unit, fields: dict[int, np.ndarray]) -> None:
        """Write and mark the members of a unit, (channel, lead_time, latitude, longitude) each;
        one that is not given has diverged."""
        for place, number in self._stored(unit):
            name = unit_name(unit.init, place)
            if number in fields:
                shards = self.store.write(unit.init, place, fields[number][None])
                self.store.mark(Marker(name, unit.fingerprint, (), shards))
            else:
                self.store.mark(Marker(name, unit.fingerprint, (place,), {}))

    def cut(self, lead: int, values: np.ndarray) -> tuple[int, np.ndarray] | None:
        """What is stored of one lead, (number, channel, latitude, longitude), and its place among
        the leads stored; None if the lead is not."""
        ours, theirs = self.store.layout, self.layout
        place = np.flatnonzero(ours.lead_times == theirs.lead_times[lead])
        if not place.size:
            return None
        channels = [theirs.channels.index(name) for name in ours.channels]
        rows = np.flatnonzero(np.isin(theirs.grid.latitude, ours.grid.latitude))
        columns = np.flatnonzero(np.isin(theirs.grid.longitude, ours.grid.longitude))
        return int(place[0]), values[:, channels][:, :, rows][:, :, :, columns]

    def wanted(self, unit: Unit, numbers: tuple[int, ...]) -> list[int]:
        """Which of these members are stored."""
        return [number for _, number in self._stored(unit) if number in numbers]


class Stored:
    """Collects what is stored of a unit, lead by lead."""

    def __init__(self, selection: Selection, unit: Unit, numbers: tuple[int, ...]) -> None:
        self._selection, self._unit = selection, unit
        self._numbers = selection.wanted(unit, numbers)
        self._places = [numbers.index(number) for number in self._numbers]
        layout = selection.store.layout
        shape = (len(self._numbers), len(layout.channels), *layout.shape[2:])
        self._fields = np.empty(shape, dtype=np.float32)

    def add(self, lead: int, values: np.ndarray) -> None:
        """Take one lead, (number, channel, latitude, longitude)."""
        cut = self._selection.cut(lead, values[self._places]) if self._numbers else None
        if cut is not None:
            place, found = cut
            self._fields[:, :, place] = found

    def finish(self) -> None:
        """Write and mark."""
        self._selection.put(self._unit, dict(zip(self._numbers, self._fields, strict=True)))
