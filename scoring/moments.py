"""Statistics of the ensemble mean, of the spread, and of anomalies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scoring.statistic import Statistic
from scoring.thresholds import Reference
from scoring.tile import Tile


@dataclass(frozen=True)
class EnsembleMean(Statistic):
    """Mean of the members, in the unit of the forecast."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return tile.mean_error + tile.truth


@dataclass(frozen=True)
class MeanError(Statistic):
    """Ensemble mean minus truth; its mean is the bias."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return tile.mean_error


@dataclass(frozen=True)
class AbsoluteError(Statistic):
    """|ensemble mean - truth|."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return np.abs(tile.mean_error)


@dataclass(frozen=True)
class SquaredError(Statistic):
    """(ensemble mean - truth)^2."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return tile.mean_error**2


@dataclass(frozen=True)
class Variance(Statistic):
    """s^2, with M - 1 in the denominator."""

    minimum_members: ClassVar[int] = 2

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return tile.variance


@dataclass(frozen=True)
class ExpectedSquaredError(Statistic):
    """(M + 1) / M s^2: what the squared error of the mean is on average when the truth is
    exchangeable with the members (Fortin et al., 2014, doi:10.1175/JHM-D-14-0008.1)."""

    minimum_members: ClassVar[int] = 2

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return (tile.size + 1) / tile.size * tile.variance


@dataclass(frozen=True)
class UnbiasedSquaredError(Statistic):
    """(ensemble mean - truth)^2 - s^2 / M: unbiased for the mean of an infinite ensemble."""

    minimum_members: ClassVar[int] = 2

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return tile.mean_error**2 - tile.variance / tile.size


def of_moments(
    error: np.ndarray, variance: np.ndarray, truth: np.ndarray, members: int
) -> dict[Statistic, np.ndarray]:
    """All statistics above, of an ensemble of which only its moments are known.

    Parameters
    ----------
    error, variance, truth : numpy.ndarray
        Ensemble mean minus truth, s^2, and the truth, (*cells) each.
    members : int
        M.
    """
    square = error**2
    return {
        EnsembleMean(): error + truth,
        MeanError(): error,
        AbsoluteError(): np.abs(error),
        SquaredError(): square,
        Variance(): variance,
        ExpectedSquaredError(): (members + 1) / members * variance,
        UnbiasedSquaredError(): square - variance / members,
    }


@dataclass(frozen=True)
class AnomalyProduct(Statistic):
    """Product of the anomalies of ensemble mean and truth.

    Give it anomalies: forecast and truth, both less the climatological mean.
    """

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return (tile.mean_error + tile.truth) * tile.truth


@dataclass(frozen=True)
class SquaredForecast(Statistic):
    """Square of the ensemble mean; of its anomaly when given anomalies."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return (tile.mean_error + tile.truth) ** 2


@dataclass(frozen=True)
class SquaredTruth(Statistic):
    """Square of the truth; of its anomaly when given anomalies."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return tile.truth.astype(np.float64) ** 2


@dataclass(frozen=True)
class OfAreaMean(Statistic):
    """A statistic of area means, told apart from the same statistic of cells.

    Parameters
    ----------
    statistic : Statistic
        What to take of the area means that it is given.
    """

    statistic: Statistic

    @property
    def minimum_members(self) -> int:
        """Of the statistic."""
        return self.statistic.minimum_members

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Of the statistic."""
        return self.statistic.labels

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the statistic."""
        return self.statistic.references

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, *labels)"""
        return self.statistic.of_tile(tile)
