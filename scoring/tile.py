"""Tiles of an ensemble: about four megabytes of members, centred on the truth and sorted once.

Every score of an ensemble that does not ask which member is which is a function of the sorted
deviations ``d_(1) <= ... <= d_(M)`` of the members from the truth. Centring first keeps float32
exact for fields such as geopotential (54,000 +- 60); a tile that stays in cache makes the sort
the only cost that matters.

Sorted members are cut into blocks of about the square root of their number. One product of
matrices gives the sum of every block in the precision of the members, short enough to lose
nothing; blocks are added up in float64. Whatever lies beyond a threshold is then a sum over whole
blocks and over one block that the threshold divides (`scoring/cut.py`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, product
from typing import Protocol

import numpy as np

from data.errors import InputError
from scoring.bisection import count_not_above
from scoring.cut import Cut, block_prefix
from scoring.sorting import LONGEST, block_length, padded_size, sort_blocks, subtract

TILE_VALUES = 2**20


class TooFewMembersError(InputError):
    """These members, as they depend on each other, do not make up what a statistic needs."""


@dataclass(frozen=True)
class Structure:
    """Which members depend on each other.

    Numbers of pairs hold within a group; partners in two groups count as independent. Of models
    that are alike they are not while errors grow linearly: the stratified CRPS is then too good by
    up to (E|x+ - x-| - E|x - x'|) / 2M, x' being independent. Partners should share a checkpoint.

    Attributes
    ----------
    groups : numpy.ndarray
        (member,) int: members that share a checkpoint share a number.
    pairs : numpy.ndarray
        (member,) int: the two members of an antithetic pair in a group share a number; -1 is
        unpaired.
    """

    groups: np.ndarray
    pairs: np.ndarray

    @classmethod
    def independent(cls, members: int) -> Structure:
        """One group and no pairs."""
        return cls(np.zeros(members, int), np.full(members, -1))

    @cached_property
    def strata(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each group: positions of its members, and of the first and the second of each pair.

        Raises
        ------
        InputError
            If more than two members share a pair.
        """
        groups = [np.flatnonzero(self.groups == group) for group in np.unique(self.groups)]
        return [(members, *_partners(self.pairs, members)) for members in groups]

    @property
    def dependent(self) -> bool:
        """Whether there are several groups, or pairs."""
        return bool((self.groups != self.groups[0]).any() or (self.pairs >= 0).any())


def _partners(pairs: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the first and of the second member of each complete pair in a group."""
    first, second = [], []
    own = pairs[members]
    for pair in np.unique(own[own >= 0]):
        positions = members[own == pair]
        if positions.size > 2:
            raise InputError(f"pair {pair} has {positions.size} members in one group, expected 2")
        if positions.size == 2:
            first.append(positions[0])
            second.append(positions[1])
    return np.array(first, int), np.array(second, int)


class Divider(Protocol):
    """Thresholds, equal by value."""

    def deviations(self, tile: Tile) -> np.ndarray:
        """Threshold minus truth, (cell, threshold), in the precision of the members."""
        ...

    def truth_above(self, tile: Tile) -> np.ndarray:
        """Whether the truth lies above, (cell, threshold)."""
        ...


@dataclass(frozen=True)
class Truth:
    """The truth as a threshold."""

    def deviations(self, tile: Tile) -> np.ndarray:
        """(cell, 1)"""
        return np.zeros((tile.truth.size, 1), tile.dtype)

    def truth_above(self, tile: Tile) -> np.ndarray:
        """(cell, 1)"""
        return np.zeros((tile.truth.size, 1), bool)


TRUTH = Truth()


@dataclass(frozen=True)
class Tile:
    """Some cells with all their members.

    Attributes
    ----------
    padded : numpy.ndarray
        (cell, block * length), float32 or float64: member minus truth, ascending along members,
        the last one repeated until the last block is full; NaN in cells where a member or the
        truth is missing or infinite.
    sums : numpy.ndarray
        (cell, block, 2), of the same type: of each block the sums of its values, and of 0, 1, ...
        times them.
    size : int
        Number of members, M.
    truth : numpy.ndarray
        (cell,)
    source : numpy.ndarray
        (..., member): the members as they came, in their order and not centred.
    structure : Structure
        Which members depend on each other, in the order of `source`.
    references : mapping
        Fields that statistics compare with, by what identifies them: (cell, level).
    """

    padded: np.ndarray
    sums: np.ndarray
    size: int
    truth: np.ndarray
    source: np.ndarray
    structure: Structure
    references: Mapping[Hashable, np.ndarray] = field(default_factory=dict)
    _cuts: dict[Divider, Cut] = field(default_factory=dict, init=False, repr=False)

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64: precision of the members."""
        return self.padded.dtype

    @property
    def deviations(self) -> np.ndarray:
        """(cell, member), float32 or float64: member minus truth, ascending along members."""
        return self.padded[:, : self.size]

    @property
    def centred(self) -> np.ndarray:
        """Member minus truth in the members' own order, (cell, member), a new array; NaN in cells
        that are missing."""
        centred = np.empty((self.truth.size, self.size), self.dtype)
        subtract(self.source.reshape(-1, self.size), self.truth[:, None], centred)
        centred[self.missing] = np.nan
        return centred

    @cached_property
    def missing(self) -> np.ndarray:
        """Whether a member or the truth is missing or infinite, (cell,)."""
        return np.isnan(self.padded[:, 0])

    @cached_property
    def blocks(self) -> np.ndarray:
        """The padded deviations as (cell, block, length)."""
        return self.padded.reshape(self.truth.size, -1, block_length(self.size))

    @cached_property
    def prefix(self) -> np.ndarray:
        """Sums of d and of w d, w_i = 2i - M - 1, over the first 0, 1, ... blocks.

        (block + 1, 2, cell), float64, the repeated last member included.
        """
        return block_prefix(self.sums, self.blocks.shape[2], self.size)

    @cached_property
    def total(self) -> np.ndarray:
        """Sums of d and of w d over all members, (2, cell), float64."""
        width, last = self.padded.shape[1], self.padded[:, -1].astype(np.float64)
        surplus = width - self.size
        return self.prefix[-1] - np.outer([surplus, width * surplus], last)

    @property
    def mean_error(self) -> np.ndarray:
        """Ensemble mean minus truth, (cell,), float64."""
        return self.total[0] / self.size

    @cached_property
    def mean_absolute_error(self) -> np.ndarray:
        """S = mean_i |d_i|, (cell,), float64."""
        return (2 * self.origin.excess[:, 0] - self.total[0]) / self.size

    @property
    def difference_sum(self) -> np.ndarray:
        """T = sum_ij |d_i - d_j| = 2 sum_i (2i - M - 1) d_(i), (cell,), float64."""
        return 2 * self.total[1]

    @cached_property
    def variance(self) -> np.ndarray:
        """s^2 = sum_i (d_i - mean)^2 / (M - 1), (cell,), float64; NaN for a single member."""
        if self.size == 1:
            return np.full(self.truth.shape, np.nan)
        square, mean = self._squares(self.padded), self.mean_error
        variance = square - self.size * mean**2
        # Far from the truth little is left: there once more, about the median, which lies within
        # a standard deviation of the mean.
        far = np.flatnonzero(~(variance > square / 10))
        if far.size:
            median = self.padded[far, self.size // 2]
            square = self._squares(self.padded[far] - median[:, None])
            variance[far] = square - self.size * (mean[far] - median) ** 2
        return np.maximum(variance, 0) / (self.size - 1)

    def _squares(self, padded: np.ndarray) -> np.ndarray:
        """Sum of squares over members, (cell,), float64."""
        cells, width = padded.shape
        # The longest parts that are whole blocks.
        parts = padded.reshape(cells, -1, math.gcd(width, LONGEST) if width > LONGEST else width)
        last = padded[:, -1].astype(np.float64)
        sums = np.vecdot(parts, parts).sum(axis=1, dtype=np.float64)
        return sums - (width - self.size) * last**2

    @property
    def origin(self) -> Cut:
        """The members divided by the truth, one threshold."""
        return self.cut(TRUTH)

    def forget(self) -> None:
        """Drop all cuts: a tile and its cuts hold each other, so that their arrays would pile up
        until garbage is collected."""
        self._cuts.clear()

    def cut(self, thresholds: Divider) -> Cut:
        """The members divided by thresholds; found once for thresholds that are equal."""
        if thresholds not in self._cuts:
            values, above = thresholds.deviations(self), thresholds.truth_above(self)
            self._cuts[thresholds] = Cut(self, values, above)
        return self._cuts[thresholds]

    def weighted_count(self, thresholds: Divider, weights: np.ndarray) -> np.ndarray:
        """Sum over many thresholds of a weight times the members not above, (cell,), float64."""
        return count_not_above(self.padded, thresholds.deviations(self), self.size) @ weights

    def ordered(self, positions: np.ndarray) -> np.ndarray:
        """The members at some positions of their order, counted from 0, (cell, position)."""
        return self.padded.take(positions, axis=1, mode="clip").astype(np.float64)

    @cached_property
    def parts(self) -> list[tuple[np.ndarray, Tile]]:
        """Cells with the same members there, and the tile of these members; others have none."""
        if not self.missing.any():
            return [(np.arange(self.truth.size), self)]
        present = np.isfinite(self.source.reshape(-1, self.size))
        present[np.isnan(self.truth)] = False
        # Which ones are missing matters only where members depend on each other.
        kinds = present if self.structure.dependent else present.sum(axis=1, keepdims=True)
        _, first, kind = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
        groups = [np.flatnonzero(kind.ravel() == number) for number in range(first.size)]
        return [
            (cells, self._of(cells, present[cells])) for cells in groups if present[cells[0]].any()
        ]

    def _of(self, cells: np.ndarray, present: np.ndarray) -> Tile:
        """The tile of these cells with the members present, (cell, member), as many in each."""
        size = int(present[0].sum())
        padded = np.empty((cells.size, padded_size(size)), self.dtype)
        source = self.source.reshape(-1, self.size)[cells][present].reshape(-1, size)
        subtract(source, self.truth[cells, None], padded[:, :size])
        structure = Structure.independent(size)
        if self.structure.dependent:
            there = present[0]
            structure = Structure(self.structure.groups[there], self.structure.pairs[there])
        references = {name: values[cells] for name, values in self.references.items()}
        sums = sort_blocks(padded, size)
        return Tile(padded, sums, size, self.truth[cells], source, structure, references)


def rank_weights(size: int) -> np.ndarray:
    """w_i = 2i - M - 1 for i = 1..M, (member,), float64."""
    return np.arange(1 - size, size, 2, dtype=np.float64)


def tiles(
    forecast: np.ndarray,
    truth: np.ndarray,
    structure: Structure,
    share: int = 0,
    shares: int = 1,
    tile_values: int = TILE_VALUES,
    references: Mapping[Hashable, np.ndarray] | None = None,
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
        Values in a tile, about; 2**20 float32 values are four megabytes.
    references : mapping, optional
        Fields that statistics compare with, (outer * inner, level).

    Yields
    ------
    cells : slice
        Of the flattened (outer, inner) cells.
    tile : Tile
        Valid until the next one is asked for: its buffer is used again.
    """
    outer, size, inner = forecast.shape
    dtype = forecast.dtype if forecast.dtype in (np.float32, np.float64) else np.float64
    if not np.isfinite(truth).all():
        truth = np.where(np.isfinite(truth), truth, np.nan)  # infinite is missing
    width = padded_size(size)
    cells = max(1, tile_values // width)
    rows = max(1, min(outer, cells // max(inner, 1)))
    columns = max(1, min(inner, cells))
    buffer = np.empty((rows * columns, width), dtype)
    corners = product(range(0, outer, rows), range(0, inner, columns))
    for start, left in islice(corners, share, None, shares):
        source = forecast[start : start + rows, :, left : left + columns].transpose(0, 2, 1)
        target = truth[start : start + rows, left : left + columns]
        padded = buffer[: target.size]
        deviations = padded.reshape(*target.shape, width)[..., :size]
        subtract(source, target[..., None], deviations)
        sums = sort_blocks(padded, size)
        # A tile of several rows is as wide as the array, so its cells are contiguous.
        first = start * inner + left
        place = slice(first, first + target.size)
        beside = {name: values[place] for name, values in (references or {}).items()}
        yield place, Tile(padded, sums, size, target.ravel(), source, structure, beside)


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
