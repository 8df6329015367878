"""Sorted members divided by thresholds: how many lie on each side, and how far beyond.

Threshold-weighted scores, Brier scores, ranks and exceedance need nothing else of an ensemble.
A threshold v is found by bisection; sums beyond it are those of whole blocks of the sorted
members, and of the one block that v divides.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Protocol

import numpy as np

# Products of larger matrices wake the threads of OpenBLAS, which cost more than they give.
_MULTIPLIED = 2**17
SEARCHED, WORKED = 2**15, 2**13  # values dealt with at a time, so that they stay in cache


class Sorted(Protocol):
    """Sorted members in blocks, as a tile has them."""

    @property
    def size(self) -> int: ...
    @property
    def padded(self) -> np.ndarray: ...
    @property
    def blocks(self) -> np.ndarray: ...
    @property
    def prefix(self) -> np.ndarray: ...


class Cut:
    """Members of each cell divided by thresholds.

    Parameters
    ----------
    members : Sorted
        (cell, member), deviations from the truth.
    values : numpy.ndarray
        (cell, threshold): threshold minus truth, in the precision of the members.
    """

    def __init__(self, members: Sorted, values: np.ndarray) -> None:
        self.members = members
        self._exact = np.ascontiguousarray(values)

    @cached_property
    def values(self) -> np.ndarray:
        """Threshold minus truth, (cell, threshold), float64."""
        return self._exact.astype(np.float64)

    @cached_property
    def not_above(self) -> np.ndarray:
        """Members at or below each threshold, (cell, threshold) int."""
        return count_not_above(self.members.padded, self._exact, self.members.size)

    @cached_property
    def below(self) -> np.ndarray:
        """Members strictly below each threshold, (cell, threshold) int."""
        below = self.not_above.copy()
        value = self._exact
        last = np.take_along_axis(self.members.padded, np.maximum(below - 1, 0), axis=1)
        cells = np.flatnonzero(((last == value) & (below > 0)).any(axis=1))
        if cells.size:
            lower = np.nextafter(value[cells], -np.inf)
            padded, size = self.members.padded[cells], self.members.size
            below[cells] = count_not_above(padded, lower, size)
        return below

    @cached_property
    def excess(self) -> np.ndarray:
        """Sum of (d - v)_+, (cell, threshold)."""
        after = self._width - (self._block + 1) * self._length
        beyond = self.members.prefix[-1, 0][:, None] - self._sums_of_blocks(0, 1)
        return self._over[0] + beyond - after * self.values - self._surplus * self._last_over

    @cached_property
    def ranked_excess(self) -> np.ndarray:
        """Sum of w (d - v)_+, w_i = 2i - M - 1, (cell, threshold)."""
        width, size, after = self._width, self.members.size, (self._block + 1) * self._length
        weight = width * (width - size) - after * (after - size)
        beyond = self.members.prefix[-1, 1][:, None] - self._sums_of_blocks(1, 1)
        divided = self._weighted(self._over)
        return divided + beyond - weight * self.values - width * self._surplus * self._last_over

    @cached_property
    def shortfall(self) -> np.ndarray:
        """Sum of (v - d)_+, (cell, threshold)."""
        before = self._block * self._length
        beyond = before * self.values - self._sums_of_blocks(0, 0)
        return self._under[0] + beyond - self._surplus * self._last_under

    @cached_property
    def ranked_shortfall(self) -> np.ndarray:
        """Sum of w (v - d)_+, w_i = 2i - M - 1, (cell, threshold)."""
        before = self._block * self._length
        weight = before * (before - self.members.size)
        beyond = weight * self.values - self._sums_of_blocks(1, 0)
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

    @cached_property
    def _last_over(self) -> np.ndarray:
        return np.maximum(self.members.padded[:, -1:] - self.values, 0)

    @cached_property
    def _last_under(self) -> np.ndarray:
        return np.maximum(self.values - self.members.padded[:, -1:], 0)

    @cached_property
    def _cells(self) -> np.ndarray:
        return np.arange(len(self.values))[:, None]

    @cached_property
    def _block(self) -> np.ndarray:
        """The block that each threshold divides: no member of those before it lies above the
        threshold, none of those after it below."""
        # The length is a power of two, and shifts are many times faster than divisions.
        return np.maximum(self.not_above.astype(np.intp) - 1, 0) >> (self._length.bit_length() - 1)

    @cached_property
    def _over(self) -> np.ndarray:
        return self._sums_of_divided(1)

    @cached_property
    def _under(self) -> np.ndarray:
        return self._sums_of_divided(-1)

    def _sums_of_divided(self, sign: int) -> np.ndarray:
        """Sums of (d - v)_+, or with sign -1 of (v - d)_+, over the divided block, plain and by
        position, (2, cell, threshold).

        In float64, since a threshold may lie far from members that are near each other.
        """
        blocks = self.members.blocks.reshape(-1, self._length)
        places = (self._block + self._cells * (len(blocks) // len(self._exact))).ravel()
        values = self.values.ravel()
        sums = np.empty((values.size, 2))
        step = max(1, WORKED // self._length)
        for first in range(0, values.size, step):
            some = slice(first, first + step)
            amounts = blocks.take(places[some], axis=0).astype(np.float64)
            amounts -= values[some, None]
            amounts *= sign
            np.maximum(amounts, 0, out=amounts)
            np.matmul(amounts, _basis(self._length, amounts.dtype), out=sums[some])
        return sums.T.reshape(2, *self._exact.shape)

    def _weighted(self, sums: np.ndarray) -> np.ndarray:
        """Sum of w times the amounts of the divided block."""
        return 2 * sums[1] + (2 * self._block * self._length - self.members.size + 1) * sums[0]

    def _sums_of_blocks(self, which: int, divided: int) -> np.ndarray:
        """Sums of d (0) or w d (1) over the blocks before the divided one, or (1) with it."""
        cells = len(self._exact)
        place = (2 * self._block + (2 * divided + which)) * cells + self._cells
        return self.members.prefix.reshape(-1).take(place)


def block_sums(blocks: np.ndarray) -> np.ndarray:
    """Sums of the values of each block, and of 0, 1, ... times them.

    Parameters
    ----------
    blocks : numpy.ndarray
        (block, length), contiguous.

    Returns
    -------
    numpy.ndarray
        (block, 2), of the same type.
    """
    number, length = blocks.shape
    basis = _basis(length, blocks.dtype)
    sums = np.empty((number, 2), blocks.dtype)
    step = max(1, _MULTIPLIED // length)
    for first in range(0, number, step):
        some = slice(first, first + step)
        np.matmul(blocks[some], basis, out=sums[some])
    return sums


@cache
def _basis(length: int, dtype: np.dtype) -> np.ndarray:
    return np.stack([np.ones(length), np.arange(length)], axis=1).astype(dtype)


def count_not_above(ascending: np.ndarray, values: np.ndarray, entries: int) -> np.ndarray:
    """How many of the first entries of each row lie at or below each value, by bisection of all
    at once.

    Parameters
    ----------
    ascending : numpy.ndarray
        (cell, entry), contiguous.
    values : numpy.ndarray
        (cell, ...), of the same type.
    entries : int
        How many of a row count.

    Returns
    -------
    numpy.ndarray
        The shape of `values`, int32; any for NaN.
    """
    cells, width = ascending.shape
    flat, wanted = ascending.reshape(-1), values.reshape(cells, -1)
    count = np.empty(wanted.shape, np.int32)
    rows = max(1, SEARCHED // max(1, wanted.shape[1]))
    for first in range(0, cells, rows):
        some = slice(first, first + rows)
        start = np.arange(first, min(first + rows, cells))[:, None] * width
        count[some] = _search(flat, entries, wanted[some], start) - start
    return count.reshape(values.shape)


def _search(flat: np.ndarray, left: int, values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Where among the `left` entries from `start` on the first above each value is."""
    place = np.empty(values.shape, np.intp)
    place[...] = start
    entry = np.empty(values.shape, flat.dtype)
    reached, step = np.empty(values.shape, bool), np.empty(values.shape, np.int32)
    while left > 0:
        half = (left + 1) // 2
        flat[half - 1 :].take(place, out=entry, mode="clip")
        np.less_equal(entry, values, out=reached)
        np.multiply(reached.view(np.int8), np.int32(half), out=step)
        place += step
        left //= 2
    return place
