"""How an ensemble is evaluated: with all members present, or one block of them after the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import numpy as np

from data.errors import InputError
from pipelines.verification import Block, Verification
from scoring.blocks import EXCHANGEABLE, FEWEST, BlockScores, Strata, stratified_blocks
from scoring.crps import CRPS, FAIR, STANDARD, STRATIFIED
from scoring.moments import (
    AbsoluteError,
    EnsembleMean,
    ExpectedSquaredError,
    MeanError,
    SquaredError,
    UnbiasedSquaredError,
    Variance,
)
from scoring.quantiles import IntervalHits
from scoring.rank import Outlier, RankHistogram
from scoring.statistic import PROPAGATE, Missing, Statistic, evaluate_arrays
from scoring.sums import weighted_sum
from scoring.thresholds import Reference
from scoring.tile import Structure

ERRORS = (CRPS(STANDARD), MeanError(), AbsoluteError(), SquaredError())
_SPREADS = (Variance(), ExpectedSquaredError(), UnbiasedSquaredError())
_MOST_BINS = 20
_AT_ONCE = 16

Values = Mapping[Statistic, np.ndarray]


@dataclass(frozen=True)
class Asked:
    """What is asked of an ensemble.

    Attributes
    ----------
    missing : Missing
        What to do with missing members and truth.
    threads : int
        Tiles worked on at a time.
    added : tuple of Statistic
        Beside those that every ensemble has.
    references : mapping of Reference to numpy.ndarray
        Fields that these name, (lead_time, *cells, level).
    """

    missing: Missing = PROPAGATE
    threads: int = 1
    added: tuple[Statistic, ...] = ()
    references: Mapping[Reference, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """An ensemble at one block.

    Attributes
    ----------
    values : mapping of Statistic to numpy.ndarray
        (lead_time, *cells, *labels), `EnsembleMean` among them.
    added : mapping of Statistic to numpy.ndarray
        What was asked for beside them.
    areas : numpy.ndarray or None
        (number, region, lead_time): each member's sum of values times shares of the area; None
        where there are no members.
    control : numpy.ndarray or None
        (1, lead_time, *cells): number 0, where it is finished.
    """

    values: Values
    added: Values
    areas: np.ndarray | None
    control: np.ndarray | None


class Members(Protocol):
    """How many members are present at a time, and what can then be said of the ensemble.

    Attributes
    ----------
    present : int or None
        Members in memory at a time; None is all.
    memory : int
        Most bytes of them that are useful.
    estimator : str
        What is added to the name of an estimator of the CRPS.
    """

    present: int | None
    memory: int
    estimator: str

    def evaluate(
        self,
        pair: Verification,
        block: Block,
        truth: np.ndarray,
        shares: np.ndarray,
        asked: Asked,
    ) -> Evaluated:
        """Statistics of the ensemble at a block.

        Parameters
        ----------
        pair : Verification
            To read the members of.
        block : Block
            Where.
        truth : numpy.ndarray
            (lead_time, *cells)
        shares : numpy.ndarray
            (region, *cells), of the area of each region.
        asked : Asked
            What, and how.
        """
        ...


@dataclass(frozen=True)
class AllMembers:
    """All members at once: every statistic is exact."""

    present = None
    memory = sys.maxsize
    estimator = ""

    def evaluate(
        self,
        pair: Verification,
        block: Block,
        truth: np.ndarray,
        shares: np.ndarray,
        asked: Asked,
    ) -> Evaluated:
        """As `Members.evaluate`."""
        members = pair.members(block)
        bins = RankHistogram(min(pair.forecast.sizes["number"] + 1, _MOST_BINS))
        estimators = [CRPS(FAIR), *([CRPS(STRATIFIED)] if is_stratified(pair) else [])]
        statistics = (*estimators, *ERRORS, *_SPREADS, bins, Outlier(), IntervalHits())
        added = tuple(one for one in asked.added if one not in statistics)
        values = evaluate_arrays(
            (*statistics, EnsembleMean(), *added),
            members,
            truth,
            structure=pair.structure(block.numbers),
            missing=asked.missing,
            threads=asked.threads,
            references=asked.references,
        )
        beside = {one: values.pop(one) for one in added}
        control = np.flatnonzero(pair.forecast.number.values[block.numbers] == 0)
        first = members[control] if control.size else None
        return Evaluated(values, beside, area_means(members, shares), first)


@dataclass(frozen=True)
class MemberBlocks:
    """One block of members after the other, for ensembles that do not fit into memory.

    Mean, variance and what follows from them are exact; the CRPS is the mean of the blocks' own;
    ranks and quantiles, which need all members at once, are left out.

    Parameters
    ----------
    size : int
        Members in a block, at least 128.
    exchangeable : bool
        Declares that members may be taken in their order, whatever checkpoint they come from.

    Raises
    ------
    InputError
        If blocks are smaller.
    """

    size: int = FEWEST
    exchangeable: bool = False
    memory: ClassVar[int] = 2**23

    def __post_init__(self) -> None:
        stratified_blocks(np.zeros(1), self.size)

    @property
    def present(self) -> int:
        """Members at a time."""
        return 2 * self.size

    @property
    def estimator(self) -> str:
        """What it adds to the name of an estimator."""
        return f", mean over blocks of {self.size} members"

    def evaluate(
        self,
        pair: Verification,
        block: Block,
        truth: np.ndarray,
        shares: np.ndarray,
        asked: Asked,
    ) -> Evaluated:
        """As `Members.evaluate`."""
        groups = self._groups(pair)[block.numbers]
        strata = EXCHANGEABLE if self.exchangeable else Strata.of(groups)
        stratified = is_stratified(pair)
        total, areas, control = None, [], None
        for places in stratified_blocks(groups, self.size):
            part = replace(block, numbers=block.numbers[places])
            members = pair.members(part)
            structure = Structure.independent(places.size)
            if stratified:
                structure = pair.structure(part.numbers)
            scores = BlockScores.of(members, truth, structure, strata, asked.missing, asked.threads)
            total = scores if total is None else total + scores
            areas.append(area_means(members, shares))
            place = np.flatnonzero(pair.forecast.number.values[part.numbers] == 0)
            control = members[place] if place.size else control
        estimators = (FAIR, STRATIFIED) if stratified else (FAIR,)
        return Evaluated(total.statistics(estimators), {}, np.concatenate(areas), control)

    def _groups(self, pair: Verification) -> np.ndarray:
        count = pair.forecast.sizes["number"]
        if self.exchangeable:
            return np.zeros(count, int)
        if "checkpoint" not in pair.forecast.coords:
            raise InputError(
                f"{pair.where}: has no coordinate 'checkpoint', so blocks of members cannot be "
                "made a fair picture of the ensemble; declare its members exchangeable if they are"
            )
        return pair.forecast.checkpoint.values


ALL_MEMBERS = AllMembers()


def is_stratified(pair: Verification) -> bool:
    """Whether members depend on each other, and at every date each checkpoint has two that are
    no partners, as the stratified CRPS needs."""
    everyone = pair.structure(np.arange(pair.forecast.sizes["number"]))
    if np.unique(everyone.groups).size == 1 and (everyone.pairs < 0).all():
        return False
    dates = np.unique(pair.forecast.completed.values, axis=0)
    return all(
        _has_independent_members(pair.structure(np.flatnonzero(date)))
        for date in dates
        if np.count_nonzero(date) > 1
    )


def _has_independent_members(structure: Structure) -> bool:
    for group in np.unique(structure.groups):
        own = structure.pairs[structure.groups == group]
        _, counts = np.unique(own[own >= 0], return_counts=True)
        if own.size * (own.size - 1) == 2 * np.count_nonzero(counts == 2):
            return False
    return True


def of_single(forecast: np.ndarray, truth: np.ndarray) -> Values:
    """Statistics of a single forecast, whose CRPS is its absolute error (Gneiting and Raftery,
    2007, doi:10.1198/016214506000001437); both arrays alike."""
    error = np.subtract(forecast, truth).astype(np.float64)
    absolute = np.abs(error)
    return {
        CRPS(STANDARD): absolute,
        MeanError(): error,
        AbsoluteError(): absolute,
        SquaredError(): error**2,
        EnsembleMean(): error + truth,
    }


def area_means(members: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Sums over cells of values times shares of the area.

    Parameters
    ----------
    members : numpy.ndarray
        (number, lead_time, *cells)
    shares : numpy.ndarray
        (region, *cells)

    Returns
    -------
    numpy.ndarray
        (number, region, lead_time), float64.
    """
    flat = shares.reshape(len(shares), -1)
    parts = []
    for start in range(0, len(members), _AT_ONCE):
        wide = members[start : start + _AT_ONCE].astype(np.float64)
        samples = wide.reshape(-1, flat.shape[1], 1)
        sums = weighted_sum(samples, flat).reshape(len(flat), *wide.shape[:2])
        parts.append(sums.transpose(1, 0, 2))
    return np.concatenate(parts)
