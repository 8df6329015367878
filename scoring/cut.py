"""Sorted members divided by thresholds: how many lie on each side, and how far beyond.

Threshold-weighted scores, Brier scores, ranks and exceedance need nothing else of an ensemble.
A threshold v is found by bisection; sums beyond it are those of whole blocks of the sorted
members, and of the one block that v divides.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np


class Sorted(Protocol):
    """Sorted members in blocks, as a tile has them."""

    @property
    def size(self) -> int: ...
    @property
    def padded(self) -> np.ndarray: ...
    @property
    def blocks(self) -> np.ndarray: ...
    @property
    def basis(self) -> np.ndarray: ...
    @property
    def prefix(self) -> np.ndarray: ...


class Cut:
    """Members of each cell divided by thresholds.

    Parameters
    ----------
    members : Sorted
        (cell, member), deviations from the truth.
    values : numpy.ndarray
        (cell, threshold), float64: threshold minus truth.
    """

    def __init__(self, members: Sorted, values: np.ndarray) -> None:
        self.members = members
        self.values = values

    @cached_property
    def not_above(self) -> np.ndarray:
        """Members at or below each threshold, (cell, threshold) int."""
        value = self.values.astype(self.members.padded.dtype)
        return np.minimum(count_not_above(self.members.padded, value), self.members.size)

    @cached_property
    def below(self) -> np.ndarray:
        """Members strictly below each threshold, (cell, threshold) int."""
        below = self.not_above.copy()
        value = self.values.astype(self.members.padded.dtype)
        last = np.take_along_axis(self.members.padded, np.maximum(below - 1, 0), axis=1)
        cells = np.flatnonzero(((last == value) & (below > 0)).any(axis=1))
        if cells.size:
            lower = np.nextafter(value[cells], -np.inf)
            count = count_not_above(self.members.padded[cells], lower)
            below[cells] = np.minimum(count, self.members.size)
        return below

    @property
    def excess(self) -> np.ndarray:
        """Sum of (d - v)_+, (cell, threshold)."""
        after = self._width - (self._block + 1) * self._length
        beyond = self._sums_of_blocks(0, -1) - self._sums_of_blocks(0, self._block + 1)
        return self._over[0] + beyond - after * self.values - self._surplus * self._last_over

    @property
    def ranked_excess(self) -> np.ndarray:
        """Sum of w (d - v)_+, w_i = 2i - M - 1, (cell, threshold)."""
        width, size, after = self._width, self.members.size, (self._block + 1) * self._length
        weight = width * (width - size) - after * (after - size)
        beyond = self._sums_of_blocks(1, -1) - self._sums_of_blocks(1, self._block + 1)
        divided = self._weighted(self._over)
        return divided + beyond - weight * self.values - width * self._surplus * self._last_over

    @property
    def shortfall(self) -> np.ndarray:
        """Sum of (v - d)_+, (cell, threshold)."""
        before = self._block * self._length
        beyond = before * self.values - self._sums_of_blocks(0, self._block)
        return self._under[0] + beyond - self._surplus * self._last_under

    @property
    def ranked_shortfall(self) -> np.ndarray:
        """Sum of w (v - d)_+, w_i = 2i - M - 1, (cell, threshold)."""
        before = self._block * self._length
        weight = before * (before - self.members.size)
        beyond = weight * self.values - self._sums_of_blocks(1, self._block)
        divided = self._weighted(self._under)
        return divided + beyond - self._width * self._surplus * self._last_under

    @property
    def _length(self) -> int:
        return self.members.blocks.shape[-1]

    @property
    def _width(self) -> int:
        return self.members.padded.shape[1]

    @property
    def _surplus(self) -> int:
        """How often the last member is repeated."""
        return self._width - self.members.size

    @property
    def _last_over(self) -> np.ndarray:
        return np.maximum(self.members.padded[:, -1:] - self.values, 0)

    @property
    def _last_under(self) -> np.ndarray:
        return np.maximum(self.values - self.members.padded[:, -1:], 0)

    @cached_property
    def _cells(self) -> np.ndarray:
        return np.arange(len(self.values))[:, None]

    @cached_property
    def _block(self) -> np.ndarray:
        """The block that each threshold divides: no member of those before it lies above the
        threshold, none of those after it below."""
        return np.maximum(self.not_above - 1, 0) // self._length

    @cached_property
    def _beyond(self) -> np.ndarray:
        """d - v of that block, (cell, threshold, length).

        In float64, since a threshold may lie far from members that are near each other.
        """
        blocks = self.members.blocks
        places = self._block + self._cells * blocks.shape[1]
        divided = blocks.reshape(-1, self._length).take(places, axis=0)
        if not self.values.any():  # the truth: nothing to subtract, so nothing to lose
            return divided
        return np.subtract(divided, self.values[..., None], dtype=np.float64)

    @cached_property
    def _over(self) -> np.ndarray:
        return self._summed(np.maximum(self._beyond, 0))

    @cached_property
    def _under(self) -> np.ndarray:
        return self._summed(np.maximum(-self._beyond, 0))

    def _summed(self, amounts: np.ndarray) -> np.ndarray:
        """Sums over the divided block, plain and by position, (2, cell, threshold), float64."""
        basis = self.members.basis.astype(amounts.dtype)
        sums = amounts.reshape(-1, self._length) @ basis
        return sums.T.astype(np.float64).reshape(2, *self.values.shape)

    def _weighted(self, sums: np.ndarray) -> np.ndarray:
        """Sum of w times the amounts of the divided block."""
        return 2 * sums[1] + (2 * self._block * self._length - self.members.size + 1) * sums[0]

    def _sums_of_blocks(self, which: int, block: np.ndarray | int) -> np.ndarray:
        """Sums of d (0) or w d (1) over the first blocks, (cell, threshold)."""
        return self.members.prefix[block, which, self._cells]


def count_not_above(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many entries of each row lie at or below each value, by bisection of all at once.

    Parameters
    ----------
    ascending : numpy.ndarray
        (cell, entry)
    values : numpy.ndarray
        (cell, ...), of the same type.

    Returns
    -------
    numpy.ndarray
        The shape of `values`, int; 0 for NaN.
    """
    cells, left = ascending.shape
    if ascending.strides[1] != ascending.itemsize:
        ascending = np.ascontiguousarray(ascending)
    stride = ascending.strides[0] // ascending.itemsize
    flat = np.lib.stride_tricks.as_strided(
        ascending, ((cells - 1) * stride + left,), (ascending.itemsize,), writeable=False
    )
    start = (np.arange(cells) * stride).reshape(-1, *(1,) * (values.ndim - 1))
    place = np.broadcast_to(start, values.shape).copy()
    while left > 0:
        half = max(left // 2, 1)
        reached = flat[half - 1 :].take(place, mode="clip") <= values
        # Narrow products: this line and the one above are all the cost.
        place += reached.view(np.int8) * np.int32(half)
        left -= half
    return place - start
