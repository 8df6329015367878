"""Sorted members divided by thresholds: how many lie on each side, and how far beyond.

Threshold-weighted scores, Brier scores, ranks and exceedance need nothing else of an ensemble.
A threshold v is found by bisection; sums up to it are those of whole blocks of the sorted
members, and of the first members of the one block that v divides.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Protocol

import numpy as np

from scoring.bisection import count_not_above
from scoring.loops import call, library

# Products of larger matrices wake the threads of OpenBLAS, which cost more than they give.
_MULTIPLIED = 2**17
_WORKED = 2**15  # values dealt with at a time, so that they stay in cache


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
    truth_above : numpy.ndarray
        (cell, threshold): whether the truth lies above the threshold; False for a missing one.
    """

    def __init__(self, members: Sorted, values: np.ndarray, truth_above: np.ndarray) -> None:
        self.members = members
        self.truth_above = truth_above
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
        lower = np.nextafter(self._exact, -np.inf)
        return count_not_above(self.members.padded, lower, self.members.size)

    @cached_property
    def excess(self) -> np.ndarray:
        """Sum of (d - v)_+, (cell, threshold)."""
        above = self._width - self._count
        return self._sums_above[0] - above * self.values - self._surplus * self._last_over

    @cached_property
    def ranked_excess(self) -> np.ndarray:
        """Sum of w (d - v)_+, w_i = 2i - M - 1, (cell, threshold)."""
        width, size = self._width, self.members.size
        weight = width * (width - size) - self._count * (self._count - size)
        padding = width * self._surplus * self._last_over
        return self._sums_above[1] - weight * self.values - padding

    @cached_property
    def shortfall(self) -> np.ndarray:
        """Sum of (v - d)_+, (cell, threshold)."""
        return self._count * self.values - self._sums_below[0] - self._surplus * self._last_under

    @cached_property
    def ranked_shortfall(self) -> np.ndarray:
        """Sum of w (v - d)_+, w_i = 2i - M - 1, (cell, threshold)."""
        weight = self._count * (self._count - self.members.size)
        padding = self._width * self._surplus * self._last_under
        return weight * self.values - self._sums_below[1] - padding

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
    def _count(self) -> np.ndarray:
        """Members at or below each threshold, (cell, threshold) int; with the last one, also
        its repetitions."""
        count = self.not_above.astype(np.intp)
        return np.where(count == self.members.size, self._width, count)

    @cached_property
    def _block(self) -> np.ndarray:
        """The block that each threshold divides."""
        # The length is a power of two, and shifts are many times faster than divisions.
        return np.maximum(self._count - 1, 0) >> (self._length.bit_length() - 1)

    @cached_property
    def _sums_above(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums of d and of w d over the members above, (cell, threshold) each."""
        whole, before = self.members.prefix[-1], self._sums_of_blocks(self._block + 1)
        within = self._sums_of_divided(1)
        plain, ranked = (
            whole[which][:, None] - before[which] + within[which] for which in range(2)
        )
        return plain, ranked

    @cached_property
    def _sums_below(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums of d and of w d over the members at or below, (cell, threshold) each."""
        before, within = self._sums_of_blocks(self._block), self._sums_of_divided(0)
        return before[0] + within[0], before[1] + within[1]

    def _sums_of_blocks(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums of d and of w d over so many blocks."""
        cells, prefix = len(number), self.members.prefix.reshape(-1)
        place = 2 * cells * number + self._cells
        return prefix.take(place), prefix.take(place + cells)

    def _sums_of_divided(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums of d and of w d over the part of the divided block that lies at or below the
        threshold (0) or above it (1).

        In float64, since a threshold may lie far from members that are near each other.
        """
        length, blocks = self._length, self.members.blocks
        places = (self._block + self._cells * blocks.shape[1]).ravel()
        count = (self._count - self._block * length).ravel()
        blocks, sums = blocks.reshape(-1, length), np.empty((places.size, 2))
        part, basis = _parts(length, blocks.dtype)[side], _basis(length, sums.dtype)
        step = max(1, _WORKED // length)
        for first in range(0, places.size, step):
            some = slice(first, first + step)
            amounts = blocks.take(places[some], axis=0)
            amounts *= part.take(count[some], axis=0)
            np.matmul(amounts.astype(sums.dtype), basis, out=sums[some])
        plain, by_position = sums.reshape(*self._exact.shape, 2).transpose(2, 0, 1)
        rank = 2 * length * self._block - self.members.size + 1
        return plain, 2 * by_position + rank * plain


def block_sums(blocks: np.ndarray, out: np.ndarray) -> None:
    """Sums of the values of each block, and of 0, 1, ... times them.

    Parameters
    ----------
    blocks : numpy.ndarray
        (block, length), contiguous.
    out : numpy.ndarray
        (block, 2), of the same type, to be filled.
    """
    number, length = blocks.shape
    basis = _basis(length, blocks.dtype)
    step = max(1, _MULTIPLIED // length)
    for first in range(0, number, step):
        some = slice(first, first + step)
        np.matmul(blocks[some], basis, out=out[some])


def block_prefix(sums: np.ndarray, length: int, size: int) -> np.ndarray:
    """Sums of d and of w d, w_i = 2i - M - 1, over the first 0, 1, ... blocks.

    Parameters
    ----------
    sums : numpy.ndarray
        (cell, block, 2), as `block_sums` gives them.
    length : int
        Values in a block.
    size : int
        M.

    Returns
    -------
    numpy.ndarray
        (block + 1, 2, cell), float64.
    """
    return (_prefix_by_numpy if library() is None else _prefix_by_library)(sums, length, size)


def _prefix_by_library(sums: np.ndarray, length: int, size: int) -> np.ndarray:
    cells, number, _ = sums.shape
    prefix = np.empty((number + 1, 2, cells))
    name = f"prefix_{sums.dtype}"
    call(name, np.ascontiguousarray(sums), cells, number, length, size, prefix)
    return prefix


def _prefix_by_numpy(sums: np.ndarray, length: int, size: int) -> np.ndarray:
    cells, number, _ = sums.shape
    prefix = np.zeros((number + 1, 2, cells))
    prefix[1:] = sums.transpose(1, 2, 0)
    prefix[1:, 1] *= 2
    prefix[1:, 1] += prefix[1:, 0] * (2.0 * length * np.arange(number) - size + 1)[:, None]
    for block in range(number):  # many times faster than numpy.cumsum
        prefix[block + 1] += prefix[block]
    return prefix


@cache
def _basis(length: int, dtype: np.dtype) -> np.ndarray:
    return np.stack([np.ones(length), np.arange(length)], axis=1).astype(dtype)


@cache
def _parts(length: int, dtype: np.dtype) -> np.ndarray:
    """Which values of a block are the first 0, 1, ... and which are the others, as 1 and 0,
    (2, length + 1, length)."""
    first = np.tri(length + 1, length, -1, dtype)
    return np.stack([first, 1 - first])
