"""What is kept of members that are not: sketch, moments, extremes, counts; exact under merging.

Everything is a sum of integers or an extreme, so that parts merge to the same bits in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoring import sketch
from scoring.sketch import Sketch
from scoring.tile import Structure


@dataclass(frozen=True)
class Kept:
    """What is kept of some members of one checkpoint, cell by cell; values are integers.

    Attributes
    ----------
    sketch : Sketch
        How they are distributed, from the smallest to the largest.
    smallest_number, largest_number : numpy.ndarray
        (cell,) int32: the first member that is as small, as large.
    total, squares : numpy.ndarray
        (cell,) int64: sums of values and of their squares.
    apart : numpy.ndarray
        (cell,) int64: sum over antithetic pairs of |x+ - x-|.
    above : numpy.ndarray
        (threshold, cell) int32: members above each threshold.
    """

    sketch: Sketch
    smallest_number: np.ndarray
    largest_number: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    apart: np.ndarray
    above: np.ndarray

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        numbers: np.ndarray,
        pairs: np.ndarray,
        bins: int,
        thresholds: Sequence[float] = (),
    ) -> Kept:
        """What is kept of these members.

        Parameters
        ----------
        values : numpy.ndarray
            (member, cell) int32, absolutely smaller than `sketch.LARGEST_VALUE`.
        numbers : numpy.ndarray
            (member,) int32, ascending.
        pairs : numpy.ndarray
            (member,): partners share a number, -1 is unpaired; partners must both be here.
        bins : int
            Of the sketch.
        thresholds : sequence of float
            As integers are counted.
        """
        wide = values.astype(np.int64)
        first, second = partners(pairs)
        apart = np.abs(values[first] - values[second]).sum(axis=0, dtype=np.int64)
        above = [(values > level).sum(axis=0, dtype=np.int32) for level in thresholds]
        return cls(
            Sketch.of(values, bins),
            numbers[values.argmin(axis=0)],
            numbers[values.argmax(axis=0)],
            wide.sum(axis=0),
            np.einsum("mc,mc->c", wide, wide),
            apart,
            np.array(above, dtype=np.int32).reshape(len(thresholds), values.shape[1]),
        )

    @property
    def mean(self) -> np.ndarray:
        """Mean of the members, (cell,) float64."""
        return self.total / self.sketch.members

    @property
    def variance(self) -> np.ndarray:
        """Variance with M - 1, (cell,) float64; 0 for a single member."""
        count = self.sketch.members
        squares = self.squares - self.total * (self.total / count)
        return np.maximum(squares, 0.0) / max(1, count - 1)


def partners(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the first and the second of each complete pair."""
    [(_, first, second)] = Structure(np.zeros(len(pairs), int), pairs).strata
    return first, second


def merge(parts: Sequence[Kept]) -> Kept:
    """What is kept of the members of all parts, which must be different ones."""
    whole = sketch.merge([part.sketch for part in parts])
    smallest = [(part.sketch.smallest, part.smallest_number) for part in parts]
    largest = [(part.sketch.largest, part.largest_number) for part in parts]
    return Kept(
        whole,
        _first_number(smallest, whole.smallest),
        _first_number(largest, whole.largest),
        *(
            np.sum([getattr(part, name) for part in parts], axis=0)
            for name in ("total", "squares", "apart")
        ),
        np.sum([part.above for part in parts], axis=0, dtype=np.int32),
    )


def _first_number(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], extreme: np.ndarray
) -> np.ndarray:
    """The lowest number of a member that is at the extreme."""
    none = np.iinfo(np.int32).max
    reaching = [np.where(values == extreme, numbers, none) for values, numbers in parts]
    return np.minimum.reduce(reaching)


def dependence(parts: Sequence[Kept], pairs: Sequence[int]) -> np.ndarray | None:
    """What the stratified CRPS (`scoring.crps.Stratified`) takes off less than the fair one: the
    mean absolute difference of admissible pairs of members less that of all, (cell,) float64.

    Parameters
    ----------
    parts : sequence of Kept
        Of each checkpoint.
    pairs : sequence of int
        Complete antithetic pairs of each.

    Returns
    -------
    numpy.ndarray or None
        None if a checkpoint has no two members that are independent.
    """
    whole = sketch.merge([part.sketch for part in parts])
    members = whole.members
    total = whole.difference_sum.copy()
    for part, count in zip(parts, pairs, strict=True):
        own = part.sketch.members
        admissible = own * (own - 1) - 2 * count
        if admissible == 0:
            return None
        within = part.sketch.difference_sum
        total += own**2 / admissible * (within - 2 * part.apart) - within
    return total / members**2 - whole.difference_sum / (members * (members - 1))
