"""Histograms of any number of members that are never all present, by cell, with a known error.

Values are integers: multiples of the quantum that a store rounds to. The bins of a cell are 2^k
integers wide, begin at multiples of 2^k, and k is the smallest for which the members, from the
smallest to the largest, lie within the given number of bins. Where more spread comes in, pairs of
neighbouring bins are added (uniform collapse: Epicoco, Melle, Cafaro, Pulimeno and Morleo, 2020,
doi:10.48550/arXiv.2004.08604, there for logarithmic bins). Nothing but integers is added, and k
follows from the extremes, which merge exactly: so the sketch is a function of the set of members,
the same to the last bit in whatever order and grouping they came. Sketches whose centroids move
(t-digest) or whose buffers are sampled (KLL) are not.

A member is known to its bin, that is to within W = 2^k - 1 quanta, and exactly where k = 0: with
few members or little spread nothing is lost. The members of a bin are taken as independent and
evenly spread over it; what is read off is then at most W from the truth in a quantile, and W
(F^2 + (1 - F)^2), between W / 2 and W, in the CRPS (`crps_bound`), where F is the share of members
below the truth. W is below 2 (largest - smallest) / (bins - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.errors import InputError
from scoring.quantiles import Definition
from scoring.statistic import Statistic
from scoring.tile import Tile

# Squares of 100,000 values below this add up to less than 2^63.
LARGEST_VALUE = 2**22
FEWEST_BINS = 4


@dataclass(frozen=True)
class Sketch:
    """What is kept of an ensemble of integers, cell by cell; merges exactly.

    Attributes
    ----------
    members : int
        M, at least 1, the same in every cell.
    counts : numpy.ndarray
        (cell, bin), unsigned; the smallest member is in the first bin.
    smallest, largest : numpy.ndarray
        (cell,) int32
    """

    members: int
    counts: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, bins: int) -> Sketch:
        """The sketch of some members.

        Parameters
        ----------
        values : numpy.ndarray
            (member, cell) int32, absolutely smaller than `LARGEST_VALUE`.
        bins : int
            At least 4.

        Raises
        ------
        InputError
            If there are fewer bins, or no members.
        """
        if bins < FEWEST_BINS or not len(values):
            raise InputError(
                f"a sketch needs {FEWEST_BINS} bins and a member, found {bins} and {len(values)}"
            )
        members, cells = values.shape
        smallest, largest = values.min(axis=0), values.max(axis=0)
        exponent = exponents(smallest, largest, bins)
        place = values >> exponent
        place += np.arange(cells, dtype=np.int32) * bins - (smallest >> exponent)
        counts = np.bincount(place.ravel(), minlength=cells * bins).reshape(cells, bins)
        return cls(members, counts.astype(count_type(members)), smallest, largest)

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return self.counts.shape[1]

    @cached_property
    def exponent(self) -> np.ndarray:
        """k, (cell,) int32; a bin is 2^k wide."""
        return exponents(self.smallest, self.largest, self.bins)

    @cached_property
    def resolution(self) -> np.ndarray:
        """W = 2^k - 1, (cell,) float64: how far apart members of one bin can be."""
        return np.exp2(self.exponent) - 1

    @cached_property
    def _start(self) -> np.ndarray:
        """Lower end of the first bin, (cell,) int32."""
        return self.smallest >> self.exponent << self.exponent

    @cached_property
    def _before(self) -> np.ndarray:
        """Members in earlier bins, (cell, bin + 1) int64."""
        before = np.zeros((len(self.counts), self.bins + 1), dtype=np.int64)
        np.cumsum(self.counts, axis=1, out=before[:, 1:])
        return before

    @cached_property
    def difference_sum(self) -> np.ndarray:
        """Sum over ordered pairs of members of |x_i - x_j|, (cell,) float64.

        Between bins by the distances of their middles, and W / 3 for the two of one bin.
        """
        inner = self._before[:, 1:-1]
        between = 2 * np.exp2(self.exponent) * (inner * (self.members - inner)).sum(axis=1)
        counts = self.counts.astype(np.int64)
        within = (counts * (counts - 1)).sum(axis=1)
        return between + self.resolution / 3 * within

    def quantiles(self, levels: Sequence[float], definition: Definition) -> np.ndarray:
        """Quantiles, (cell, level) float64; each within W of that of the members."""
        position = definition.position(np.asarray(levels, float), self.members)
        position = np.clip(position, 0, self.members - 1)
        lower = np.floor(position).astype(int)
        found = np.empty((len(self.counts), lower.size))
        for column, (low, share) in enumerate(zip(lower, position - lower, strict=True)):
            value = self._ordered(low)
            if share > 0:
                value = value + share * (self._ordered(low + 1) - value)
            found[:, column] = value
        return found

    def _ordered(self, place: int) -> np.ndarray:
        """The member with so many before it, (cell,): its expected value within its bin."""
        bin_ = (self._before[:, 1:] <= place).sum(axis=1)
        cells = np.arange(len(bin_))
        first, count = self._before[cells, bin_], self.counts[cells, bin_]
        within = (place - first + 1) / (count + 1.0) * self.resolution
        value = self._start + bin_ * np.exp2(self.exponent) + within
        return np.clip(value, self.smallest, self.largest)

    def below(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Members below these values, and not above them.

        Parameters
        ----------
        values : numpy.ndarray
            (cell,), any numbers.

        Returns
        -------
        tuple of numpy.ndarray
            Two of (cell,) float64, at most the members of one bin from the truth.
        """
        place = self._place(values)
        spread = place.count * place.share
        sharp = (self.resolution == 0) & place.inside
        below = place.before + np.where(sharp, place.count * (place.offset > 0), spread)
        return below, place.before + np.where(sharp, place.count, spread)

    def crps(self, values: np.ndarray) -> np.ndarray:
        """Fair CRPS (Ferro, 2014, doi:10.1002/qj.2270) against these truths, (cell,) float64."""
        members = self.members
        return self.absolute_error(values) - self.difference_sum / (2 * members * (members - 1))

    def absolute_error(self, values: np.ndarray) -> np.ndarray:
        """Mean over members of |x - y|, (cell,) float64; within W / 2."""
        place, width = self._place(values), np.exp2(self.exponent)
        middle = np.arange(self.bins) * width[:, None] + self.resolution[:, None] / 2
        away = np.abs(middle - (values - self._start)[:, None])
        total = np.einsum("cb,cb->c", away, self.counts.astype(np.float64))
        inside = place.inside & (place.offset < self.resolution)
        W = np.where(inside, self.resolution, 1.0)
        spread = (place.offset**2 + (W - place.offset) ** 2) / (2 * W)
        pointwise = np.abs(self.resolution / 2 - place.offset)
        total += np.where(inside, place.count * (spread - pointwise), 0.0)
        return total / self.members

    def crps_bound(self, values: np.ndarray) -> np.ndarray:
        """How far the fair CRPS can be from that of the members, (cell,) float64.

        The score is an integral over x of j (j - 1) / (M (M - 1)), j being the number of members
        below x, or above it beyond the truth. Within a bin j lies between its values at the ends,
        in the truth as in the estimate.
        """
        place = self._place(values)
        before, upto = place.before, place.before + place.count
        left, right = self._share(before), self._share(self.members - upto)
        offset = np.clip(place.offset, 0, self.resolution)
        rise = offset * (self._share(upto) - left)
        fall = (self.resolution - offset) * (self._share(self.members - before) - right)
        return self.resolution * (left + right) + np.where(place.inside, rise + fall, 0.0)

    def _share(self, count: np.ndarray) -> np.ndarray:
        return count * (count - 1) / (self.members * (self.members - 1))

    def _place(self, values: np.ndarray) -> _Place:
        width = np.exp2(self.exponent)
        distance = values - self._start
        bin_ = np.floor(distance / width)
        inside = (bin_ >= 0) & (bin_ < self.bins)
        held = np.clip(bin_, 0, self.bins - 1).astype(int)
        cells = np.arange(len(held))
        count = np.where(inside, self.counts[cells, held], 0).astype(np.float64)
        past = np.where(bin_ < 0, 0, self.members)
        before = np.where(inside, self._before[cells, held], past).astype(np.float64)
        offset = distance - held * width
        share = np.clip(offset / np.maximum(self.resolution, 1.0), 0, 1)
        return _Place(inside, before, count, offset, share)


@dataclass(frozen=True)
class _Place:
    """Where values lie among the bins, each (cell,): whether in one, members in the bins before,
    members in it, distance from its lower end, and that as a share of W."""

    inside: np.ndarray
    before: np.ndarray
    count: np.ndarray
    offset: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class CRPSBound(Statistic):
    """How far the fair CRPS of a sketch can be from that of the members; 0 of members."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return np.zeros(tile.truth.size)


def exponents(smallest: np.ndarray, largest: np.ndarray, bins: int) -> np.ndarray:
    """The smallest k for which all from `smallest` to `largest` is in so many bins, int32."""
    exponent = np.zeros(smallest.shape, dtype=np.int32)
    while (wide := (largest >> exponent) - (smallest >> exponent) >= bins).any():
        exponent += wide
    return exponent


def count_type(members: int) -> np.dtype:
    """The smallest unsigned type that counts so many."""
    return np.min_scalar_type(members)


def merge(parts: Sequence[Sketch]) -> Sketch:
    """The sketch of the members of all parts, which must be different ones.

    Raises
    ------
    InputError
        If they have different numbers of bins.
    """
    if len({part.bins for part in parts}) != 1:
        raise InputError(f"sketches of {sorted({part.bins for part in parts})} bins cannot merge")
    members = sum(part.members for part in parts)
    smallest = np.minimum.reduce([part.smallest for part in parts])
    largest = np.maximum.reduce([part.largest for part in parts])
    counts = np.zeros(parts[0].counts.shape, dtype=count_type(members))
    whole = Sketch(members, counts, smallest, largest)
    for part in parts:
        _add(part, whole)
    return whole


def _add(part: Sketch, whole: Sketch) -> None:
    """Add a part's counts to those of the whole, whose extremes include the part's."""
    moved = (part.exponent != whole.exponent) | (part._start != whole._start)
    cells = np.flatnonzero(~moved)
    if cells.size == len(moved):
        np.add(whole.counts, part.counts, out=whole.counts, casting="unsafe")
        return
    whole.counts[cells] += part.counts[cells].astype(whole.counts.dtype)
    cells = np.flatnonzero(moved)
    # A bin of the whole is a run of the part's: the differences of running totals at its ends.
    before = np.zeros((cells.size, part.bins + 1), dtype=np.uint32)
    np.cumsum(part.counts[cells], axis=1, out=before[:, 1:], dtype=np.uint32)
    apart = (whole._start[cells] - part._start[cells]) >> part.exponent[cells]
    steps = whole.exponent[cells] - part.exponent[cells]
    ends = (np.arange(whole.bins + 1, dtype=np.int32) << steps[:, None]) + apart[:, None]
    np.clip(ends, 0, part.bins, out=ends)
    found = np.diff(np.take_along_axis(before, ends, axis=1), axis=1)
    whole.counts[cells] += found.astype(whole.counts.dtype)
