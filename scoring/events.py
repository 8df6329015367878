"""Probability forecasts of events, gathered by distinct probability.

Reliability, discrimination and value of probability forecasts are all functions of one table: how
often each probability was forecast, with and without the event. The table is a mean, so it merges
over dates and workers like every other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.statistic import Statistic
from scoring.thresholds import Reference, Thresholds, check_thresholds
from scoring.tile import Tile


@dataclass(frozen=True)
class JointDistribution(Statistic):
    """Joint distribution of forecast probability and event (Murphy and Winkler, 1987,
    doi:10.1175/1520-0493(1987)115<1330:AGFFFV>2.0.CO;2).

    The event is to exceed a threshold (to lie strictly above it), the forecast probability is
    k / M when k of the M members exceed it. One cell takes 2 (`steps` + 1) numbers for each
    threshold.

    Parameters
    ----------
    thresholds : Thresholds
        ``Constants((10.0, 20.0))`` or quantiles of a climatology.
    steps : int
        Probabilities are kept in steps of ``1 / steps``, the nearest one: exactly where `steps`
        is M or a multiple of it, so that ensembles of different size can be merged.

    Raises
    ------
    InputError
        If there is no step, or thresholds are bare numbers.
    """

    thresholds: Thresholds
    steps: int

    def __post_init__(self) -> None:
        check_thresholds(self.thresholds)
        if self.steps < 1:
            raise InputError(f"probabilities need at least one step, found {self.steps}")

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Of the thresholds; 0 and 1 for no event and event; forecast probabilities."""
        return {
            **self.thresholds.labels,
            "event": np.arange(2),
            "probability": np.arange(self.steps + 1) / self.steps,
        }

    @property
    def references(self) -> tuple[Reference, ...]:
        """Of the thresholds."""
        return self.thresholds.references

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, threshold, event, probability): 1 where the case belongs and 0 elsewhere."""
        cut = tile.cut(self.thresholds)
        cells, thresholds = np.indices(cut.values.shape, sparse=True)
        event = cut.truth_above.astype(int)
        exceeding = tile.size - cut.not_above.astype(np.int64)
        step = (2 * exceeding * self.steps + tile.size) // (2 * tile.size)
        table = np.zeros((*cut.values.shape, 2, self.steps + 1))
        table[cells, thresholds, event, step] = 1.0
        table[np.isnan(cut.values)] = np.nan  # a missing threshold: comparisons do not notice
        return table


def joint_distribution(
    probability: xr.DataArray, event: xr.DataArray, weights: xr.DataArray | None = None
) -> xr.DataArray:
    """Joint distribution of any probabilities and events, (event, probability), summing to 1.

    Parameters
    ----------
    probability : xarray.DataArray
        Forecast probabilities, 0 to 1, any dimensions; every distinct value is kept.
    event : xarray.DataArray
        bool, 0 or 1; broadcast against `probability`.
    weights : xarray.DataArray, optional
        Of the cases; equal by default. A case without probability or event is left out.

    Raises
    ------
    InputError
        If a probability lies outside 0 to 1.
    """
    weights = xr.ones_like(probability, float) if weights is None else weights
    arrays = xr.broadcast(probability, event.astype(float), weights)
    chance, outcome, weight = (array.values.ravel() for array in arrays)
    known = ~(np.isnan(chance) | np.isnan(outcome))
    chance, outcome, weight = chance[known], outcome[known], weight[known]
    if ((chance < 0) | (chance > 1)).any():
        raise InputError(f"probabilities reach from {chance.min():g} to {chance.max():g}")
    distinct, place = np.unique(chance, return_inverse=True)
    yes = np.bincount(place, weight * outcome, distinct.size)
    no = np.bincount(place, weight * (1 - outcome), distinct.size)
    table = np.stack([no, yes]) / weight.sum()
    return xr.DataArray(table, {"event": [0, 1], "probability": distinct}, ("event", "probability"))
