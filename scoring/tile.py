"""Tiles of an ensemble: about a megabyte of members, centred on the truth and sorted once.

Every score of an ensemble that does not ask which member is which is a function of the sorted
deviations ``d_(1) <= ... <= d_(M)`` of the members from the truth. Centring first keeps float32
exact for fields such as geopotential (54,000 +- 60); a tile that stays in cache makes the sort
the only cost that matters; sums are accumulated in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product

import numpy as np

from data.errors import InputError

TILE_VALUES = 2**18


@dataclass(frozen=True)
class Structure:
    """Which members depend on each other.

    Attributes
    ----------
    groups : numpy.ndarray
        (member,) int: members that share a checkpoint share a number.
    pairs : numpy.ndarray
        (member,) int: the two members of an antithetic pair share a number; -1 is unpaired.
    """

    groups: np.ndarray
    pairs: np.ndarray

    @classmethod
    def independent(cls, members: int) -> Structure:
        """One group and no pairs."""
        return cls(np.zeros(members, int), np.full(members, -1))


@dataclass(frozen=True)
class Tile:
    """Some cells with all their members.

    Attributes
    ----------
    deviations : numpy.ndarray
        (cell, member), float32 or float64: member minus truth, ascending along members.
    truth : numpy.ndarray
        (cell,)
    source : numpy.ndarray
        (..., member): the members as they came, in their order and not centred.
    structure : Structure
        Which members depend on each other, in the order of `source`.
    """

    deviations: np.ndarray
    truth: np.ndarray
    source: np.ndarray
    structure: Structure

    @property
    def size(self) -> int:
        """Number of members, M."""
        return self.deviations.shape[1]

    @property
    def centred(self) -> np.ndarray:
        """Member minus truth in the members' own order, (cell, member), a new array."""
        return self.source.reshape(-1, self.size) - self.truth[:, None]

    @cached_property
    def _wide(self) -> np.ndarray:
        return self.deviations.astype(np.float64)

    @cached_property
    def mean_error(self) -> np.ndarray:
        """Ensemble mean minus truth, (cell,), float64."""
        return self._wide @ np.full(self.size, 1 / self.size)

    @cached_property
    def mean_absolute_error(self) -> np.ndarray:
        """S = mean_i |d_i|, (cell,), float64."""
        return np.abs(self._wide) @ np.full(self.size, 1 / self.size)

    @cached_property
    def difference_sum(self) -> np.ndarray:
        """T = sum_ij |d_i - d_j| = 2 sum_i (2i - M - 1) d_(i), (cell,), float64."""
        return 2 * (self._wide @ rank_weights(self.size))

    @cached_property
    def variance(self) -> np.ndarray:
        """s^2 = sum_i (d_i - mean)^2 / (M - 1), (cell,), float64; NaN for a single member."""
        if self.size == 1:
            return np.full(self.truth.shape, np.nan)
        anomaly = self._wide - self.mean_error[:, None]
        return np.vecdot(anomaly, anomaly) / (self.size - 1)

    def count_below(self, deviation: np.ndarray) -> np.ndarray:
        """How many members lie strictly below each cell's `deviation`, (cell,) int."""
        return _bisect(self.deviations, deviation, np.less)

    def count_not_above(self, deviation: np.ndarray) -> np.ndarray:
        """How many members lie at or below each cell's `deviation`, (cell,) int."""
        return _bisect(self.deviations, deviation, np.less_equal)

    def compress(self, cells: np.ndarray, size: int) -> Tile:
        """The tile of these cells with their `size` lowest members, for members that are NaN."""
        structure = Structure.independent(size)
        lowest = self.deviations[cells, :size]
        return Tile(lowest, self.truth[cells], lowest + self.truth[cells, None], structure)


def rank_weights(size: int) -> np.ndarray:
    """w_i = 2i - M - 1 for i = 1..M, (member,), float64."""
    return np.arange(1 - size, size, 2, dtype=np.float64)


def _bisect(ascending: np.ndarray, value: np.ndarray, goes_left: np.ufunc) -> np.ndarray:
    """Number of leading entries of each row for which ``goes_left(entry, value)`` holds."""
    cells, size = ascending.shape
    count = np.zeros(cells, np.intp)
    rows = np.arange(cells)
    step = 1 << (size.bit_length() - 1)
    while step:
        ahead = count + step
        inside = ahead <= size
        entry = ascending[rows, np.minimum(ahead, size) - 1]
        count = np.where(inside & goes_left(entry, value), ahead, count)
        step >>= 1
    return count


def tiles(
    forecast: np.ndarray,
    truth: np.ndarray,
    structure: Structure,
    share: int = 0,
    shares: int = 1,
    tile_values: int = TILE_VALUES,
) -> Iterator[tuple[slice, Tile]]:
    """Cut an ensemble into sorted tiles.

    Parameters
    ----------
    forecast : numpy.ndarray
        (outer, member, inner), any strides.
    truth : numpy.ndarray
        (outer, inner)
    structure : Structure
        Of the members.
    share, shares : int
        Take every `shares`-th tile from number `share` on, so that threads can divide the work.
    tile_values : int
        Values in a tile, about; 2**18 float32 values are a megabyte.

    Yields
    ------
    cells : slice
        Of the flattened (outer, inner) cells.
    tile : Tile
        Valid until the next one is asked for: its buffer is used again.
    """
    outer, size, inner = forecast.shape
    dtype = forecast.dtype if forecast.dtype in (np.float32, np.float64) else np.float64
    cells = max(1, tile_values // size)
    rows = max(1, min(outer, cells // max(inner, 1)))
    columns = min(inner, cells)
    buffer = np.empty((rows * columns, size), dtype)
    corners = product(range(0, outer, rows), range(0, inner, columns))
    for start, left in islice(corners, share, None, shares):
        source = forecast[start : start + rows, :, left : left + columns].transpose(0, 2, 1)
        target = truth[start : start + rows, left : left + columns]
        deviations = buffer[: target.size]
        np.subtract(
            source, target[..., None], out=deviations.reshape(source.shape), casting="same_kind"
        )
        deviations.sort(axis=1)
        # A tile of several rows is as wide as the array, so its cells are contiguous.
        first = start * inner + left
        cells_here = slice(first, first + target.size)
        yield cells_here, Tile(deviations, target.ravel(), source, structure)


def three_axes(forecast: np.ndarray, axis: int) -> np.ndarray:
    """The ensemble as (outer, member, inner), a view where memory allows it.

    Raises
    ------
    InputError
        If there is no member.
    """
    axis = axis % forecast.ndim
    if forecast.shape[axis] == 0:
        raise InputError("an ensemble without members cannot be scored")
    before, after = forecast.shape[:axis], forecast.shape[axis + 1 :]
    shape = (int(np.prod(before)), forecast.shape[axis], int(np.prod(after)))
    return forecast.reshape(shape)
