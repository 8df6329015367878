"""CRPS that looks at some values only: threshold-weighted and outcome-weighted.

A weight is 1 on one side of a threshold, or between two, and 0 elsewhere. The threshold-weighted
CRPS is the CRPS of v(members) and v(truth), v the integral of the weight: max(z, t), min(z, t) or
both (Gneiting and Ranjan, 2011, doi:10.1198/jbes.2010.08110; Allen, Ginsbourger and Ziegel, 2023,
doi:10.1137/22M1532184). The outcome-weighted CRPS is that of the members within the weight, where
the truth is, and 0 elsewhere (Holzmann and Klar, 2017, doi:10.1214/17-AOAS1088).

Both follow from sums beyond thresholds of the sorted members, without another sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.errors import InputError
from scoring.crps import FAIR, Estimated, Estimator, kernel_score
from scoring.thresholds import Constants, Reference, Thresholds, check_thresholds
from scoring.tile import Structure, Tile


@dataclass(frozen=True)
class Within:
    """The members within a weight, (cell, threshold) each.

    Attributes
    ----------
    truth : numpy.ndarray
        Whether the truth is within.
    count : numpy.ndarray
        Members within, n.
    error_sum : numpy.ndarray
        Sum of |d| over them; right where the truth is within.
    difference_sum : numpy.ndarray
        Sum of |d_i - d_j| over pairs of them.
    """

    truth: np.ndarray
    count: np.ndarray
    error_sum: np.ndarray
    difference_sum: np.ndarray


class Weight(Protocol):
    """Which values matter: `Above`, `Below` or `Between`."""

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Name and values of the axis of thresholds."""
        ...

    @property
    def references(self) -> tuple[Reference, ...]:
        """Fields that the thresholds need."""
        ...

    def error_sum(self, tile: Tile) -> np.ndarray:
        """Sum of |v(x_i) - v(y)|, (cell, threshold)."""
        ...

    def difference_sum(self, tile: Tile) -> np.ndarray:
        """Sum of |v(x_i) - v(x_j)|, (cell, threshold)."""
        ...

    def chained(self, tile: Tile) -> np.ndarray:
        """v(x_i) less the truth, members in their own order, (cell, threshold, member)."""
        ...

    def within(self, tile: Tile) -> Within:
        """The members where the weight is 1."""
        ...


@dataclass(frozen=True)
class _OneSided:
    """A weight with one threshold for each score."""

    thresholds: Thresholds

    def __post_init__(self) -> None:
        check_thresholds(self.thresholds)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Of the thresholds."""
        return self.thresholds.labels

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the thresholds."""
        return self.thresholds.references


@dataclass(frozen=True)
class Above(_OneSided):
    """Values above a threshold t: v(z) = max(z, t).

    Parameters
    ----------
    thresholds : Thresholds
        One score each.
    """

    def error_sum(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        cut = tile.cut(self.thresholds)
        excess, value = cut.excess, cut.values
        straddled = 2 * tile.origin.excess - excess - tile.size * value
        return np.where(value >= 0, excess, straddled)

    def difference_sum(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        return 2 * tile.cut(self.thresholds).ranked_excess

    def chained(self, tile: Tile) -> np.ndarray:
        """(cell, threshold, member)"""
        return np.maximum(tile.centred[:, None], tile.cut(self.thresholds).values[..., None])

    def within(self, tile: Tile) -> Within:
        """Members and truth strictly above."""
        cut = tile.cut(self.thresholds)
        excess, count = cut.excess, tile.size - cut.not_above
        total = excess + count * cut.values
        difference = 2 * (cut.ranked_excess - cut.not_above * excess)
        return Within(cut.truth_above, count, 2 * tile.origin.excess - total, difference)


@dataclass(frozen=True)
class Below(_OneSided):
    """Values at or below a threshold t: v(z) = min(z, t).

    Parameters
    ----------
    thresholds : Thresholds
        One score each.
    """

    def error_sum(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        cut = tile.cut(self.thresholds)
        shortfall, value = cut.shortfall, cut.values
        straddled = 2 * tile.origin.shortfall - shortfall + tile.size * value
        return np.where(value <= 0, shortfall, straddled)

    def difference_sum(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        return -2 * tile.cut(self.thresholds).ranked_shortfall

    def chained(self, tile: Tile) -> np.ndarray:
        """(cell, threshold, member)"""
        return np.minimum(tile.centred[:, None], tile.cut(self.thresholds).values[..., None])

    def within(self, tile: Tile) -> Within:
        """Members and truth at or below."""
        cut = tile.cut(self.thresholds)
        shortfall, count = cut.shortfall, cut.not_above
        total = count * cut.values - shortfall
        difference = -2 * (cut.ranked_shortfall + (tile.size - count) * shortfall)
        return Within(~cut.truth_above, count, 2 * tile.origin.shortfall + total, difference)


@dataclass(frozen=True)
class Between:
    """Values above a lower threshold and at or below an upper one: v(z) = min(max(z, a), b).

    Parameters
    ----------
    lower, upper : Thresholds
        As many; one score for each two. Each lower one is to be below its upper one.

    Raises
    ------
    InputError
        If their numbers differ, or a constant lower one lies above its upper one.
    """

    lower: Thresholds
    upper: Thresholds

    def __post_init__(self) -> None:
        check_thresholds(self.lower)
        check_thresholds(self.upper)
        low, high = self._ends
        if low.shape != high.shape:
            raise InputError(f"{low.size} lower thresholds do not fit {high.size} upper ones")
        if isinstance(self.lower, Constants) and isinstance(self.upper, Constants):
            for lower, upper in zip(low, high, strict=True):
                if lower > upper:
                    raise InputError(
                        f"a lower threshold must not lie above its upper one, found {lower:g} to "
                        f"{upper:g}"
                    )

    @property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        return next(iter(self.lower.labels.values())), next(iter(self.upper.labels.values()))

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Both thresholds, as text."""
        return {"interval": np.array([f"{a:g} to {b:g}" for a, b in zip(*self._ends, strict=True)])}

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the thresholds."""
        return self.lower.references + self.upper.references

    def error_sum(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        return Above(self.lower).error_sum(tile) - Above(self.upper).error_sum(tile)

    def difference_sum(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        return Above(self.lower).difference_sum(tile) - Above(self.upper).difference_sum(tile)

    def chained(self, tile: Tile) -> np.ndarray:
        """(cell, threshold, member)"""
        low, high = tile.cut(self.lower).values, tile.cut(self.upper).values
        return np.clip(tile.centred[:, None], low[..., None], high[..., None])

    def within(self, tile: Tile) -> Within:
        """Members and truth above the lower and not above the upper threshold."""
        low, high = tile.cut(self.lower), tile.cut(self.upper)
        count, beyond = high.not_above - low.not_above, tile.size - high.not_above
        width, excess = high.values - low.values, high.excess
        over_low = low.excess - excess - beyond * width
        positive = tile.origin.excess - excess - beyond * high.values
        ranked = low.ranked_excess - high.ranked_excess - width * high.not_above * beyond
        ranked += (tile.size - 2 * low.not_above - count) * over_low
        total = over_low + count * low.values
        truth = low.truth_above & ~high.truth_above
        return Within(truth, count, 2 * positive - total, 2 * ranked)


@dataclass(frozen=True)
class _WeightedCRPS(Estimated):
    """A CRPS for each threshold of a weight."""

    weight: Weight
    estimator: Estimator = FAIR

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Of the weight."""
        return self.weight.labels

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the weight."""
        return self.weight.references


@dataclass(frozen=True)
class ThresholdWeightedCRPS(_WeightedCRPS):
    """CRPS of v(members) and v(truth), in the unit of the forecast: the integral of the squared
    difference of distributions over the values that matter.

    Parameters
    ----------
    weight : Weight
        ``Above(Constants((10.0, 20.0)))``, `Below` or `Between`.
    estimator : Estimator
        `FAIR` (default), `STANDARD`, `STRATIFIED`, ...
    """

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        return kernel_score(_Chained(tile, self.weight), self.estimator)


@dataclass(frozen=True)
class OutcomeWeightedCRPS(_WeightedCRPS):
    """CRPS of the members within the weight where the truth is within it, 0 where it is not.

    NaN where the truth is within and fewer members are than the estimator needs.

    Parameters
    ----------
    weight : Weight
        ``Above(Constants((10.0, 20.0)))``, `Below` or `Between`.
    estimator : Estimator
        `FAIR` (default), `STANDARD`, `AlmostFair`; there is no stratified one.
    """

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        within = self.weight.within(tile)
        score = kernel_score(_Conditional(within, self.minimum_members), self.estimator)
        return np.where(within.truth, score, 0 * within.error_sum)


class _Chained:
    """v(members) and v(truth) as a sample to score."""

    def __init__(self, tile: Tile, weight: Weight) -> None:
        self._tile, self._weight = tile, weight

    @property
    def size(self) -> int:
        return self._tile.size

    @property
    def structure(self) -> Structure:
        return self._tile.structure

    @property
    def mean_absolute_error(self) -> np.ndarray:
        return self._weight.error_sum(self._tile) / self.size

    @property
    def difference_sum(self) -> np.ndarray:
        return self._weight.difference_sum(self._tile)

    @property
    def centred(self) -> np.ndarray:
        return self._weight.chained(self._tile)


class _Conditional:
    """The members within a weight as a sample to score, NaN where they are too few."""

    def __init__(self, within: Within, fewest: int) -> None:
        self._within = within
        self.size = np.where(within.count >= fewest, within.count, np.nan)

    @property
    def structure(self) -> Structure:
        raise InputError("the outcome-weighted CRPS has no stratified estimator")

    @property
    def mean_absolute_error(self) -> np.ndarray:
        return self._within.error_sum / self.size

    @property
    def difference_sum(self) -> np.ndarray:
        return self._within.difference_sum

    @property
    def centred(self) -> np.ndarray:
        raise InputError("the outcome-weighted CRPS has no stratified estimator")
