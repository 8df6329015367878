"""Scores of an ensemble that is never all present: one block of members after the other.

Moments of the whole ensemble are exact: they merge. The mean absolute difference between members
does not, so the CRPS is the mean over blocks of the CRPS within each. An estimator that is fair to
the members, the stratified one where they depend on each other, has the same expectation for any
number of them, so this is unbiased, and with 128 members or more in a block the noise it adds is
small. That holds only if each block is a fair picture of the
ensemble: in the order of their checkpoints the first 128 members are one checkpoint, and where
checkpoints have offsets the CRPS is wrong by tenths. Blocks must therefore hold every checkpoint
in its share, unless the members are declared exchangeable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError, StoreError
from scoring.crps import CRPS, FAIR, STRATIFIED, Estimator
from scoring.labels import SOURCE
from scoring.moments import (
    AbsoluteError,
    EnsembleMean,
    ExpectedSquaredError,
    MeanError,
    SquaredError,
    UnbiasedSquaredError,
    Variance,
)
from scoring.statistic import PROPAGATE, Missing, Statistic, evaluate_arrays
from scoring.tile import Structure

FEWEST = 128
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
    crps : mapping of Estimator to numpy.ndarray
        (*cells), mean over blocks, weighted by their members, of the CRPS within a block.
    """

    members: int
    truth: np.ndarray
    mean_error: np.ndarray
    squares: np.ndarray
    crps: Mapping[Estimator, np.ndarray]

    @classmethod
    def of(
        cls,
        forecast: np.ndarray,
        truth: np.ndarray,
        structure: Structure,
        strata: Strata,
        estimators: Sequence[Estimator] = (FAIR,),
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
        estimators : sequence of Estimator
            Of the CRPS; only `FAIR` and `STRATIFIED` do not depend on the size of the block.
        missing : Missing
            Must be `PROPAGATE`: blocks have no counts by cell.
        threads : int
            Tiles worked on at a time.

        Raises
        ------
        InputError
            If the block is no fair picture of the ensemble, or an estimator depends on its size.
        """
        strata.check(structure.groups)
        if missing != PROPAGATE:
            raise InputError("blocks of members have no counts by cell: omit needs all members")
        for estimator in estimators:
            if estimator not in (FAIR, STRATIFIED):
                raise InputError(
                    f"the {estimator.name} CRPS of a block is not that of the ensemble; expected "
                    f"{FAIR.name} or {STRATIFIED.name}"
                )
        scores = {estimator: CRPS(estimator) for estimator in estimators}
        wanted = (MeanError(), Variance(), *scores.values())
        found = evaluate_arrays(wanted, forecast, truth, 0, structure, threads=threads)
        members = forecast.shape[0]
        crps = {estimator: found[score] for estimator, score in scores.items()}
        squares = found[Variance()] * (members - 1)
        return cls(members, np.asarray(truth), found[MeanError()], squares, crps)

    def __add__(self, other: BlockScores) -> BlockScores:
        """Of the members of both, which must be different ones (Chan, Golub and LeVeque, 1983,
        doi:10.1080/00031305.1983.10483115).

        Raises
        ------
        InputError
            If the two have different truths or estimators.
        """
        if self.crps.keys() != other.crps.keys() or not np.array_equal(
            self.truth, other.truth, equal_nan=True
        ):
            raise InputError("blocks of different truths or estimators cannot be merged")
        members = self.members + other.members
        share = other.members / members
        apart = other.mean_error - self.mean_error
        between = apart**2 * (self.members * share)
        crps = {
            name: values + share * (other.crps[name] - values) for name, values in self.crps.items()
        }
        return BlockScores(
            members,
            self.truth,
            self.mean_error + share * apart,
            self.squares + other.squares + between,
            crps,
        )

    def statistics(self) -> dict[Statistic, np.ndarray]:
        """Values of all statistics that blocks allow, (*cells), float64.

        Those of mean and variance are exact; the CRPS is estimated.
        """
        variance = self.squares / (self.members - 1)
        square = self.mean_error**2
        return {
            **{CRPS(estimator): values for estimator, values in self.crps.items()},
            EnsembleMean(): self.mean_error + self.truth,
            MeanError(): self.mean_error,
            AbsoluteError(): np.abs(self.mean_error),
            SquaredError(): square,
            Variance(): variance,
            ExpectedSquaredError(): (self.members + 1) / self.members * variance,
            UnbiasedSquaredError(): square - variance / self.members,
        }

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        arrays = {
            "truth": self.truth,
            "mean_error": self.mean_error,
            "squares": self.squares,
            **{CRPS(estimator).key: values for estimator, values in self.crps.items()},
        }
        dims = [f"cell_{axis}" for axis in range(self.truth.ndim)]
        attributes = {"members": self.members, "source": SOURCE}
        dataset = xr.Dataset({name: (dims, values) for name, values in arrays.items()})
        dataset.assign_attrs(attributes).to_zarr(path, zarr_format=3, consolidated=False, mode="w-")

    @classmethod
    def load(cls, path: Path) -> BlockScores:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none, or it holds something else.
        """
        try:
            with xr.open_zarr(path, consolidated=False) as dataset:
                stored = dataset.load()
                crps = {
                    estimator: stored[CRPS(estimator).key].values
                    for estimator in (FAIR, STRATIFIED)
                    if CRPS(estimator).key in stored
                }
                names = ("truth", "mean_error", "squares")
                return cls(
                    int(stored.attrs["members"]), *(stored[name].values for name in names), crps
                )
        except (FileNotFoundError, KeyError) as error:
            raise StoreError(f"{path}: no scores of blocks are there: {error}") from error
