"""Where the truth falls among the members."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from scoring.statistic import Statistic
from scoring.tile import Tile


@dataclass(frozen=True)
class Rank(Statistic):
    """Mean rank of the truth among the members, 0 to M; ties count one half."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return (tile.origin.below[:, 0] + tile.origin.not_above[:, 0]) / 2


@dataclass(frozen=True)
class RankHistogram(Statistic):
    """Share of the truth's rank in each of `bins` bins of equal width; flat when calibrated.

    With t members equal to the truth and r below it, the truth's rank is spread evenly over
    the t + 1 ranks r..r+t of the M + 1, and these over the bins they overlap. With
    ``bins = M + 1`` this is the rank histogram (Hamill, 2001,
    doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2) with shared ties; any other number of
    bins is as flat for a calibrated ensemble, so ensembles of different size can be merged.

    Parameters
    ----------
    bins : int
        Number of bins.

    Raises
    ------
    InputError
        If there are none.
    """

    bins: int

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise InputError(f"a rank histogram needs at least one bin, found {self.bins}")

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Centres of the bins as a fraction of the ranks."""
        return {"bin": (np.arange(self.bins) + 0.5) / self.bins}

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, bin), summing to 1 over bins."""
        scale = self.bins / (tile.size + 1)
        low = tile.origin.below * scale
        high = (tile.origin.not_above + 1) * scale
        edges = np.clip(np.arange(self.bins + 1), low, high)
        return np.diff(edges, axis=1) / (high - low)


@dataclass(frozen=True)
class Outlier(Statistic):
    """1 where the truth lies outside all members; 2 / (M + 1) on average when calibrated."""

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        ends = tile.ordered(np.array([0, tile.size - 1]))
        return ((ends[:, 0] > 0) | (ends[:, 1] < 0)).astype(np.float64)
