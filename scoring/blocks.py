"""Scores of an ensemble that is never all present: one block of members after the other.

Moments of the whole ensemble and the error of its members are exact: they merge. The differences
between members do not: those of members in different blocks are never seen. What is seen stands
for them. The mean difference between independent members, which the stratified CRPS needs, has the
same expectation in a block as in the ensemble. The other estimators also count partners of a pair
and members of one checkpoint, which have a larger or smaller share of the pairs within a block than
of all pairs; both are kept apart and given the share that they have in the ensemble. So all are
unbiased, and with 128 members or more in a block the noise is small.

That holds only if each block is a fair picture of the ensemble: in the order of their checkpoints
the first 128 members are one checkpoint, and where checkpoints have offsets the CRPS is wrong by
tenths. Blocks must therefore hold every checkpoint in its share, unless the members are declared
exchangeable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.crps import CRPS, FAIR, STRATIFIED, Estimator, groups_of, kernel_score
from scoring.labels import SOURCE, load, save
from scoring.moments import MeanError, Variance, of_moments
from scoring.statistic import PROPAGATE, Missing, Statistic, evaluate_arrays
from scoring.tile import Structure, Tile

FEWEST = 128
_ARRAYS = (
    "truth", "mean_error", "squares", "mean_absolute_error", "independent", "surplus",
)  # fmt: skip
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Strata:
    """What share of the whole ensemble each checkpoint has.

    Attributes
    ----------
    shares : mapping of int to float
        By checkpoint, summing to 1; empty for exchangeable members.
    """

    shares: Mapping[int, float]

    @classmethod
    def of(cls, groups: np.ndarray) -> Strata:
        """From the checkpoint of every member of the ensemble, (member,)."""
        names, counts = np.unique(groups, return_counts=True)
        return cls(dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True)))

    def check(self, groups: np.ndarray) -> None:
        """Raise InputError unless a block holds every checkpoint in its share.

        One member more or less is allowed, or a twentieth of the checkpoint's share.
        """
        for name, share in self.shares.items():
            expected = share * groups.size
            found = int(np.count_nonzero(groups == name))
            if abs(found - expected) > max(1.0, _TOLERANCE * expected):
                raise InputError(
                    f"a block of {groups.size} members has {found} of checkpoint {name}, expected "
                    f"{expected:.4g}, its share of the ensemble: deal the members over the blocks "
                    "by checkpoint (`stratified_blocks`), or declare them exchangeable"
                )


EXCHANGEABLE = Strata({})


def stratified_blocks(groups: np.ndarray, size: int = FEWEST) -> list[np.ndarray]:
    """Positions of members by block; each block holds every checkpoint in its share.

    Parameters
    ----------
    groups : numpy.ndarray
        (member,): checkpoint of each; all alike where members are exchangeable.
    size : int
        Members in a block, about, but not fewer; at least 128. A smaller ensemble is one block.

    Returns
    -------
    list of numpy.ndarray
        Ascending positions, each checkpoint's next to each other, which stores read fast.

    Raises
    ------
    InputError
        If `size` is below 128.
    """
    if size < FEWEST:
        raise InputError(f"blocks need at least {FEWEST} members, found {size}")
    number = max(1, groups.size // size)
    dealt = [np.array_split(np.flatnonzero(groups == name), number) for name in np.unique(groups)]
    # Checkpoints give their surplus to different ends, or the first block would get all of it.
    dealt = [parts[::-1] if place % 2 else parts for place, parts in enumerate(dealt)]
    return [np.sort(np.concatenate(parts)) for parts in zip(*dealt, strict=True)]


@dataclass(frozen=True)
class _Differences(Statistic):
    """S, and the two parts of the differences between members: see `BlockScores`."""

    minimum_members: ClassVar[int] = 2

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The three."""
        return {"part": np.arange(3)}

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, part)"""
        independent = FAIR.spread(tile)
        surplus = -independent
        if tile.structure.dependent:
            groups = list(groups_of(tile))
            surplus = sum(
                group.partners - (group.size**2 - group.admissible) * group.apart
                for group in groups
            ) / tile.size  # fmt: skip
            independent = (tile.difference_sum - tile.size * surplus) / tile.size**2
        return np.stack([tile.mean_absolute_error, independent, surplus], axis=-1)


@dataclass(frozen=True)
class BlockScores:
    """What is known of an ensemble from the blocks of members seen so far; merges with `+`.

    Attributes
    ----------
    members : int
        M, members seen.
    truth : numpy.ndarray
        (*cells)
    mean_error : numpy.ndarray
        (*cells), mean of member minus truth, float64.
    squares : numpy.ndarray
        (*cells), sum over members of (member - mean)^2, float64.
    mean_absolute_error : numpy.ndarray
        (*cells), S, mean over members of |member - truth|, float64.
    independent, surplus : numpy.ndarray
        (*cells), parts of the differences between members, means over blocks weighted by their
        members, float64: see `difference_sum`.
    """

    members: int
    truth: np.ndarray
    mean_error: np.ndarray
    squares: np.ndarray
    mean_absolute_error: np.ndarray
    independent: np.ndarray
    surplus: np.ndarray

    @classmethod
    def of(
        cls,
        forecast: np.ndarray,
        truth: np.ndarray,
        structure: Structure,
        strata: Strata,
        missing: Missing = PROPAGATE,
        threads: int = 1,
    ) -> BlockScores:
        """One block.

        Parameters
        ----------
        forecast : numpy.ndarray
            (member, *cells)
        truth : numpy.ndarray
            (*cells)
        structure : Structure
            Checkpoints and pairs of the block's members.
        strata : Strata
            Of the whole ensemble; `EXCHANGEABLE` declares that any block will do.
        missing : Missing
            Must be `PROPAGATE`: blocks have no counts by cell.
        threads : int
            Tiles worked on at a time.

        Raises
        ------
        InputError
            If the block is no fair picture of the ensemble, or has no two independent members of
            some checkpoint.
        """
        strata.check(structure.groups)
        if missing != PROPAGATE:
            raise InputError("blocks of members have no counts by cell: omit needs all members")
        wanted = (MeanError(), Variance(), _Differences())
        found = evaluate_arrays(wanted, forecast, truth, 0, structure, threads=threads)
        members = forecast.shape[0]
        squares = found[Variance()] * (members - 1)
        parts = np.moveaxis(found[_Differences()], -1, 0)
        return cls(members, np.asarray(truth), found[MeanError()], squares, *parts)

    def __add__(self, other: BlockScores) -> BlockScores:
        """Of the members of both, which must be different ones (Chan, Golub and LeVeque, 1983,
        doi:10.1080/00031305.1983.10483115).

        Raises
        ------
        InputError
            If the two have different truths.
        """
        if not np.array_equal(self.truth, other.truth, equal_nan=True):
            raise InputError("blocks of different truths cannot be merged")
        members = self.members + other.members
        share = other.members / members
        apart = other.mean_error - self.mean_error
        between = apart**2 * (self.members * share)

        def mean(one: np.ndarray, two: np.ndarray) -> np.ndarray:
            return one + share * (two - one)

        return BlockScores(
            members,
            self.truth,
            mean(self.mean_error, other.mean_error),
            self.squares + other.squares + between,
            mean(self.mean_absolute_error, other.mean_absolute_error),
            mean(self.independent, other.independent),
            mean(self.surplus, other.surplus),
        )

    @property
    def size(self) -> int:
        """M, as estimators ask for it."""
        return self.members

    @property
    def difference_sum(self) -> np.ndarray:
        """Estimate of T = sum_ij |x_i - x_j| over the whole ensemble, (*cells), float64.

        With n_k members and N_k admissible ordered pairs of group k, which lie D_k apart on
        average, P the sum over ordered pairs of partners, and I the spread of the stratified CRPS,

        T = M^2 I + M U,  M U = P - sum_k (n_k^2 - N_k) D_k.

        I does not depend on the number of members, and nor does U, a sum over members of what
        concerns each of them: both are `independent` and `surplus`, means over blocks.
        """
        return self.members**2 * self.independent + self.members * self.surplus

    def crps(self, estimator: Estimator) -> np.ndarray:
        """Estimate of the CRPS of the whole ensemble, (*cells), float64."""
        if estimator == STRATIFIED:
            return self.mean_absolute_error - self.independent / 2
        return kernel_score(self, estimator)

    def statistics(self, estimators: Sequence[Estimator] = (FAIR,)) -> dict[Statistic, np.ndarray]:
        """Values of all statistics that blocks allow, (*cells), float64.

        Those of mean and variance are exact; the CRPS, with these estimators, is estimated.
        """
        variance = self.squares / (self.members - 1)
        return {
            **{CRPS(estimator): self.crps(estimator) for estimator in estimators},
            **of_moments(self.mean_error, variance, self.truth, self.members),
        }

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        dims = [f"cell_{axis}" for axis in range(self.truth.ndim)]
        attributes = {"members": self.members, "source": SOURCE}
        dataset = xr.Dataset({name: (dims, values) for name, values in arrays.items()})
        save(dataset.assign_attrs(attributes), path)

    @classmethod
    def load(cls, path: Path) -> BlockScores:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none, or it holds something else.
        """
        found = load(path, "scores of blocks are", _ARRAYS)
        return cls(int(found.attrs["members"]), *(found[name].values for name in _ARRAYS))
