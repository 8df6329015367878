"""The continuous ranked probability score of an ensemble, and its estimators.

With deviations d_i = x_i - y, S = mean_i |d_i| and the mean absolute difference of two different
members G = sum_{i != j} |d_i - d_j| / (M (M - 1)), every estimator is S - c G / 2. They differ in
c, that is, in what they hold the members to be: the whole forecast (standard), or a sample from
it (fair). Always say which one it is: at M = 10 they differ by a tenth of the spread term.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from data.errors import InputError
from scoring.identity import make_floats
from scoring.statistic import Statistic
from scoring.tile import Structure, Tile, TooFewMembersError, rank_weights


class Sample(Protocol):
    """What an estimator asks of members: a tile, or a function of its members.

    Arrays are (cell,), or (cell, threshold) where the function has a parameter.
    """

    @property
    def size(self) -> int | np.ndarray:
        """Number of members, M; an array where cells differ."""
        ...

    @property
    def structure(self) -> Structure:
        """Which members depend on each other."""
        ...

    @property
    def mean_absolute_error(self) -> np.ndarray:
        """S = mean_i |d_i|, float64."""
        ...

    @property
    def difference_sum(self) -> np.ndarray:
        """T = sum_ij |d_i - d_j|, float64."""
        ...

    @property
    def centred(self) -> np.ndarray:
        """Members in their own order along a last axis."""
        ...


class Estimator(Protocol):
    """How the spread of the members enters the score."""

    @property
    def name(self) -> str:
        """What every output calls it."""
        ...

    @property
    def minimum_members(self) -> int:
        """Fewest members it is defined for."""
        ...

    def spread(self, sample: Sample) -> np.ndarray:
        """c G, the mean absolute difference to halve and take off."""
        ...


@dataclass(frozen=True)
class Standard:
    """c = (M - 1) / M: the members are the whole forecast (Gneiting and Raftery, 2007,
    doi:10.1198/016214506000001437)."""

    name: ClassVar[str] = "standard"
    minimum_members: ClassVar[int] = 1

    def spread(self, sample: Sample) -> np.ndarray:
        """(cell, ...)"""
        return sample.difference_sum / sample.size**2


@dataclass(frozen=True)
class Fair:
    """c = 1: the members are independent draws from the forecast (Ferro, 2014,
    doi:10.1002/qj.2270). Unbiased for the score of an infinite ensemble."""

    name: ClassVar[str] = "fair"
    minimum_members: ClassVar[int] = 2

    def spread(self, sample: Sample) -> np.ndarray:
        """(cell, ...)"""
        return sample.difference_sum / (sample.size * (sample.size - 1))


@dataclass(frozen=True)
class AlmostFair:
    """c = 1 - (1 - alpha) / M (Lang et al., 2024, doi:10.48550/arXiv.2412.15832).

    Parameters
    ----------
    alpha : float
        1 is fair, 0 is standard.
    """

    alpha: float = 0.95
    minimum_members: ClassVar[int] = 2

    def __post_init__(self) -> None:
        make_floats(self, "alpha")

    @property
    def name(self) -> str:
        """With the value of alpha."""
        return f"almost fair {self.alpha:g}"

    def spread(self, sample: Sample) -> np.ndarray:
        """(cell, ...)"""
        return (1 - (1 - self.alpha) / sample.size) * FAIR.spread(sample)


@dataclass(frozen=True)
class SubEnsemble:
    """c = 1 - 1 / m: the expected standard score of m members drawn from these without
    replacement (Ferro, Richardson and Weigel, 2008, doi:10.1002/met.45).

    Parameters
    ----------
    size : int
        m, at least 1.

    Raises
    ------
    InputError
        If it is less.
    """

    size: int
    minimum_members: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"an expected score is that of 1 member or more, found {self.size}")

    @property
    def name(self) -> str:
        """With the size."""
        return f"expected for {self.size} members"

    def spread(self, sample: Sample) -> np.ndarray:
        """(cell, ...)"""
        return (1 - 1 / self.size) * FAIR.spread(sample)


@dataclass(frozen=True)
class Stratified:
    """Fair for members that come in groups (checkpoints) and in antithetic pairs.

    The forecast is the mixture of the groups with weights n_k / M. Members of different groups
    are independent; within a group, partners of a pair are not, and their differences are left
    out of the mean over the admissible ordered pairs, whose number is N_k:

    c G = [ sum_{k != l} sum |x_i - x_j| + sum_k n_k^2 / N_k sum_admissible |x_i - x_j| ] / M^2.

    One group without pairs is `Fair`.
    """

    name: ClassVar[str] = "stratified"
    minimum_members: ClassVar[int] = 2

    def spread(self, sample: Sample) -> np.ndarray:
        """(cell, ...)"""
        if not sample.structure.dependent:
            return FAIR.spread(sample)
        total = sample.difference_sum.copy()
        for group in groups_of(sample):
            total += group.size**2 * group.apart - (group.apart * group.admissible + group.partners)
        return total / sample.size**2


@dataclass(frozen=True)
class Group:
    """How far the members of one group lie apart.

    Attributes
    ----------
    size : int
        Members, n_k.
    admissible : int
        Ordered pairs of independent members, N_k.
    apart : numpy.ndarray
        (cell, ...): mean over these of |x_i - x_j|, float64.
    partners : numpy.ndarray
        (cell, ...): sum of |x_i - x_j| over ordered pairs of partners, float64.
    """

    size: int
    admissible: int
    apart: np.ndarray
    partners: np.ndarray


def groups_of(sample: Sample) -> Iterator[Group]:
    """The groups that members come in.

    Raises
    ------
    TooFewMembersError
        If a group has no two independent members.
    """
    centred = sample.centred
    for members, first, second in sample.structure.strata:
        admissible = members.size * (members.size - 1) - 2 * first.size
        if admissible == 0:
            raise TooFewMembersError(
                f"the stratified CRPS needs two independent members in every group, found "
                f"members {members.tolist()} (by position) alone or only paired"
            )
        group = np.ascontiguousarray(centred[..., members])  # sorts twice as fast
        group.sort(axis=-1)
        within = 2 * (group.astype(np.float64) @ rank_weights(members.size))
        apart = centred[..., first].astype(np.float64) - centred[..., second]
        partners = 2 * np.abs(apart).sum(axis=-1)
        yield Group(members.size, admissible, (within - partners) / admissible, partners)


STANDARD = Standard()
FAIR = Fair()
STRATIFIED = Stratified()


class Estimated(Statistic):
    """A statistic with an estimator, which says how many members it needs."""

    estimator: Estimator

    @property
    def minimum_members(self) -> int:
        """Fewest members that the estimator is defined for."""
        return self.estimator.minimum_members


@dataclass(frozen=True)
class CRPS(Estimated):
    """Continuous ranked probability score, S - c G / 2, in the unit of the forecast.

    Parameters
    ----------
    estimator : Estimator
        `FAIR` (default), `STANDARD`, `STRATIFIED`, ``AlmostFair(0.95)``, ``SubEnsemble(10)``.
    """

    estimator: Estimator = FAIR

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return kernel_score(tile, self.estimator)


@dataclass(frozen=True)
class ExpectedCRPS(Statistic):
    """Expected standard CRPS of ensembles of several sizes drawn from the members without
    replacement, S - (1 - 1/m) G / 2 (Ferro, Richardson and Weigel, 2008, doi:10.1002/met.45).

    Parameters
    ----------
    sizes : tuple of int
        m, at least 1; beyond M it is the score expected of a larger ensemble.

    Raises
    ------
    InputError
        If there is no size, or one below 1.
    """

    sizes: tuple[int, ...]
    minimum_members: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(f"sizes of ensembles are 1 or more, found {self.sizes}")

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The sizes."""
        return {"size": np.array(self.sizes)}

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, size)"""
        share = 1 - 1 / np.array(self.sizes)
        return tile.mean_absolute_error[:, None] - np.outer(FAIR.spread(tile), share) / 2


def kernel_score(sample: Sample, estimator: Estimator) -> np.ndarray:
    """S - c G / 2: the score of the members, or of a function of members and truth (Gneiting and
    Raftery, 2007, doi:10.1198/016214506000001437, section 5)."""
    return sample.mean_absolute_error - estimator.spread(sample) / 2
