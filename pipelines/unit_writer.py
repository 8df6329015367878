"""Fields of a unit on their way to a store: a window is written while the next one is computed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipelines.store import Store


class UnitWriter:
    """Writes some members, lead by lead; a context, which ends when nothing is being written.

    Leads are gathered until they fill a window, the leads of one shard. A window is rounded,
    compressed, written and flushed by a thread of its own, so that two are held at a time: this
    one, and the one that is being filled. What cannot be written is raised by the next call.

    Parameters
    ----------
    store : Store
        Where to.
    init : int
        Position of the init time.
    blocks : sequence of int
        Positions of the blocks whose members are given, all of them but the last one full.
    members : int
        How many are given.
    """

    def __init__(self, store: Store, init: int, blocks: Sequence[int], members: int) -> None:
        self._store, self._init, self._blocks = store, init, blocks
        self._lead = 0
        self._fields = np.empty((members, 0))
        self._finite = np.ones(members, dtype=bool)
        self._shards: dict[int, dict[str, str]] = {block: {} for block in blocks}
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def __enter__(self) -> UnitWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until nothing is being written."""
        self._thread.shutdown()

    def add(self, values: np.ndarray) -> None:
        """Take the next lead, (number, channel, latitude, longitude).

        Raises
        ------
        StoreError
            If a window before could not be written.
        """
        layout = self._store.layout
        place = self._lead % layout.leads_together
        if place == 0:
            leads = min(layout.leads_together, layout.shape[2] - self._lead)
            shape = (len(values), len(layout.channels), leads, *layout.grid.shape)
            self._fields = np.empty(shape, dtype=np.float32)
        self._fields[:, :, place] = values
        self._lead += 1
        if place == self._fields.shape[2] - 1:
            self._wait()
            first = self._lead - self._fields.shape[2]
            self._written = self._thread.submit(self._write, first, self._fields)
            self._fields = np.empty((len(values), 0))

    def finish(self) -> tuple[np.ndarray, dict[int, dict[str, str]]]:
        """Wait until all leads, which have been given, are durable; remove what else lies there.

        Returns
        -------
        tuple
            (number,) bool, which members are finite; of each block the checksum of each shard.

        Raises
        ------
        StoreError
            If one could not be written.
        """
        self._wait()
        for block, shards in self._shards.items():
            self._store.keep(self._init, block, shards)
        return self._finite, self._shards

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()

    def _write(self, lead: int, fields: np.ndarray) -> None:
        self._finite &= [bool(np.isfinite(member).all()) for member in fields]
        size = self._store.layout.block
        for position, block in enumerate(self._blocks):
            part = fields[position * size : (position + 1) * size]
            self._shards[block] |= self._store.write_window(self._init, block, lead, part)
