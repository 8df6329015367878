"""Scores of quantiles and of the intervals between them: quantile, interval and weighted interval
score, of ensembles and of quantile forecasts.

All are twice the pinball loss of quantiles in one form or another, in the unit of the forecast,
and tend to the CRPS as levels get dense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from scoring.identity import make_floats
from scoring.quantiles import (
    CENTRAL_INTERVALS,
    STANDARD_LEVELS,
    WEIBULL,
    Definition,
    Quantiles,
    check_levels,
    interval,
)
from scoring.statistic import Statistic
from scoring.tile import Tile


@dataclass(frozen=True)
class QuantileScore(Statistic):
    """2 x pinball loss of each quantile q of the ensemble: 2 (p - 1[y < q]) (y - q) at level p
    (Koenker and Bassett, 1978, doi:10.2307/1913643).

    Parameters
    ----------
    levels : tuple of float
        Increasing, within (0, 1).
    definition : Definition
        Of the quantiles: `WEIBULL` (default) or `LINEAR`.

    Raises
    ------
    InputError
        If levels do not increase within (0, 1).
    """

    levels: tuple[float, ...] = STANDARD_LEVELS
    definition: Definition = WEIBULL

    def __post_init__(self) -> None:
        make_floats(self, "levels")
        check_levels(self.levels)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The levels."""
        return {"quantile": np.array(self.levels)}

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, quantile)"""
        return _pinball(_errors(tile, self.levels, self.definition), np.array(self.levels))


@dataclass(frozen=True)
class IntervalScore(Statistic):
    """Score of the central interval [l, u] of each nominal coverage 1 - a, between quantiles:
    u - l + 2/a (l - y)_+ + 2/a (y - u)_+ (Gneiting and Raftery, 2007,
    doi:10.1198/016214506000001437).

    Parameters
    ----------
    levels : tuple of float
        Nominal coverage, increasing within (0, 1).
    definition : Definition
        Of the quantiles at a/2 and 1 - a/2.

    Raises
    ------
    InputError
        If levels do not increase within (0, 1).
    """

    levels: tuple[float, ...] = CENTRAL_INTERVALS
    definition: Definition = WEIBULL

    def __post_init__(self) -> None:
        make_floats(self, "levels")
        check_levels(self.levels)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The nominal coverage."""
        return {"level": np.array(self.levels)}

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, level)"""
        levels = np.array(self.levels)
        errors = _errors(tile, _ends(self.levels), self.definition)
        low, high = errors[:, : levels.size][:, ::-1], errors[:, -levels.size :]
        outside = np.maximum(-low, 0) + np.maximum(high, 0)
        return low - high + 2 / (1 - levels) * outside


@dataclass(frozen=True)
class WeightedIntervalScore(Statistic):
    """Weighted interval score of the median and K central intervals (Bracher et al., 2021,
    doi:10.1371/journal.pcbi.1008618), which is the mean of 2 x pinball loss over the 2K + 1
    quantiles: WIS = [|y - median| / 2 + sum_k a_k/2 IS_k] / (K + 1/2).

    Parameters
    ----------
    levels : tuple of float
        Nominal coverage of the intervals, increasing within (0, 1).
    definition : Definition
        Of the quantiles.

    Raises
    ------
    InputError
        If levels do not increase within (0, 1).
    """

    levels: tuple[float, ...] = CENTRAL_INTERVALS
    definition: Definition = WEIBULL

    def __post_init__(self) -> None:
        make_floats(self, "levels")
        check_levels(self.levels)

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        levels = _ends(self.levels)
        return _pinball(_errors(tile, levels, self.definition), np.array(levels)).mean(axis=1)


def quantile_scores(quantiles: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """2 x pinball loss of a quantile forecast at each of its levels.

    Parameters
    ----------
    quantiles : xarray.DataArray
        Any dimensions with `quantile`.
    truth : xarray.DataArray
        The same less `quantile`.

    Returns
    -------
    xarray.DataArray
        Dimensions of `quantiles`; NaN without truth.
    """
    error = truth - quantiles
    score = 2 * xr.where(error < 0, quantiles["quantile"] - 1, quantiles["quantile"]) * error
    return score.transpose(*quantiles.dims)


def interval_scores(
    quantiles: xr.DataArray, truth: xr.DataArray, levels: Sequence[float] = CENTRAL_INTERVALS
) -> xr.Dataset:
    """Interval score of a quantile forecast and what it is made of.

    Parameters
    ----------
    quantiles : xarray.DataArray
        Any dimensions with `quantile`.
    truth : xarray.DataArray
        The same less `quantile`.
    levels : sequence of float
        Nominal coverage of central intervals.

    Returns
    -------
    xarray.Dataset
        Dimensions of `truth` and `level`: `interval_score`, the sum of `dispersion` (the width),
        `overprediction` (truth below the interval) and `underprediction` (truth above it).

    Raises
    ------
    InputError
        If quantiles of an interval are not among the levels.
    """
    ends = [interval(quantiles, level) for level in levels]
    coverage = xr.DataArray(np.array(levels), dims="level", name="level")
    low, high = (xr.concat(side, coverage) for side in zip(*ends, strict=True))
    penalty = 2 / (1 - coverage)
    parts = {
        "dispersion": (high - low).where(truth.notnull()),
        "overprediction": penalty * np.maximum(low - truth, 0),
        "underprediction": penalty * np.maximum(truth - high, 0),
    }
    scores = xr.Dataset({"interval_score": sum(parts.values()), **parts})
    return scores.transpose(..., "level").assign_coords(level=coverage)


def weighted_interval_score(
    quantiles: xr.DataArray, truth: xr.DataArray, levels: Sequence[float] = CENTRAL_INTERVALS
) -> xr.Dataset:
    """Weighted interval score of a quantile forecast and what it is made of (Bracher et al.,
    2021, doi:10.1371/journal.pcbi.1008618).

    Parameters
    ----------
    quantiles : xarray.DataArray
        Any dimensions with `quantile`, the median among its levels.
    truth : xarray.DataArray
        The same less `quantile`.
    levels : sequence of float
        Nominal coverage of central intervals.

    Returns
    -------
    xarray.Dataset
        Dimensions of `truth`: `weighted_interval_score`, the sum of `dispersion`,
        `overprediction` and `underprediction`. The median's error belongs to one of the last two.

    Raises
    ------
    InputError
        If the median, or quantiles of an interval, are not among the levels.
    """
    median, _ = interval(quantiles, 0.0)
    scores = interval_scores(quantiles, truth, levels)
    half = (1 - scores["level"]) / 2
    weighted = (scores * half).sum("level", skipna=False)
    weighted["overprediction"] = weighted["overprediction"] + np.maximum(median - truth, 0) / 2
    weighted["underprediction"] = weighted["underprediction"] + np.maximum(truth - median, 0) / 2
    parts = weighted.drop_vars("interval_score") / (len(levels) + 0.5)
    return parts.assign(weighted_interval_score=sum(parts.data_vars.values()))


def _ends(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Levels of the quantiles at the ends of central intervals and of the median, increasing."""
    low = tuple((1 - level) / 2 for level in reversed(levels))
    return (*low, 0.5, *((1 + level) / 2 for level in levels))


def _errors(tile: Tile, levels: tuple[float, ...], definition: Definition) -> np.ndarray:
    """Truth minus quantiles, (cell, quantile)."""
    return tile.truth[:, None] - Quantiles(levels, definition).of_tile(tile)


def _pinball(error: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """2 x pinball loss of truth minus quantile, (..., quantile)."""
    return 2 * np.where(error < 0, levels - 1, levels) * error
