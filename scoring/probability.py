"""Probabilities that thresholds are exceeded, and their Brier and ranked probability scores.

To exceed is to lie strictly above. A Brier score is the CRPS of the members' indicators, so it has
the same estimators: standard is (p - o)^2, fair is (p - o)^2 - p (1 - p) / (M - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scoring.crps import FAIR, Estimated, Estimator, kernel_score
from scoring.statistic import Statistic
from scoring.thresholds import Reference, Thresholds, check_thresholds
from scoring.tile import Structure, Tile


@dataclass(frozen=True)
class Exceedance(Statistic):
    """Share of members above each threshold, 0 to 1.

    Parameters
    ----------
    thresholds : Thresholds
        ``Constants((10.0, 20.0))`` or quantiles of a climatology.

    Raises
    ------
    InputError
        If they are neither.
    """

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

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        return _where_known(Indicators(tile, self.thresholds).probability, tile, self.thresholds)


@dataclass(frozen=True)
class BrierScore(Estimated):
    """Brier score of the event to exceed each threshold (Ferro, 2014, doi:10.1002/qj.2270).

    Parameters
    ----------
    thresholds : Thresholds
        ``Constants((10.0, 20.0))`` or quantiles of a climatology.
    estimator : Estimator
        `FAIR` (default), `STANDARD`, `STRATIFIED`, ...

    Raises
    ------
    InputError
        If thresholds are neither.
    """

    thresholds: Thresholds
    estimator: Estimator = FAIR

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

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, threshold)"""
        score = kernel_score(Indicators(tile, self.thresholds), self.estimator)
        return _where_known(score, tile, self.thresholds)


@dataclass(frozen=True)
class RankedProbabilityScore(Estimated):
    """Sum over the edges between categories of the Brier score of exceeding them (Epstein, 1969,
    doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2); not divided by their number.

    Parameters
    ----------
    edges : Thresholds
        One less than categories.
    estimator : Estimator
        `FAIR` (default), `STANDARD`, `STRATIFIED`, ...

    Raises
    ------
    InputError
        If edges are no thresholds.
    """

    edges: Thresholds
    estimator: Estimator = FAIR

    def __post_init__(self) -> None:
        check_thresholds(self.edges)

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the edges."""
        return self.edges.references

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return BrierScore(self.edges, self.estimator).of_tile(tile).sum(axis=1)


class Indicators:
    """Members and truth as 1 above each threshold and 0 elsewhere, a sample to score.

    Parameters
    ----------
    tile : Tile
        The members.
    thresholds : Thresholds
        To exceed.
    """

    def __init__(self, tile: Tile, thresholds: Thresholds) -> None:
        self._tile = tile
        self._cut = tile.cut(thresholds)

    @property
    def size(self) -> int:
        """Number of members."""
        return self._tile.size

    @property
    def structure(self) -> Structure:
        """Of the members."""
        return self._tile.structure

    @cached_property
    def probability(self) -> np.ndarray:
        """(cell, threshold)"""
        return 1 - self._cut.not_above / self.size

    @property
    def mean_absolute_error(self) -> np.ndarray:
        """(cell, threshold)"""
        return np.where(self._cut.truth_above, 1 - self.probability, self.probability)

    @property
    def difference_sum(self) -> np.ndarray:
        """(cell, threshold)"""
        return 2.0 * self._cut.not_above * (self.size - self._cut.not_above)

    @property
    def centred(self) -> np.ndarray:
        """(cell, threshold, member); of the indicators, not less the truth's."""
        values = self._cut.values.astype(self._tile.dtype)
        return (self._tile.centred[:, None] > values[..., None]).astype(np.float64)


def _where_known(values: np.ndarray, tile: Tile, thresholds: Thresholds) -> np.ndarray:
    """NaN where a threshold is missing: comparisons do not notice."""
    missing = np.isnan(tile.cut(thresholds).values)
    return np.where(missing, np.nan, values) if missing.any() else values
