"""Hersbach's decomposition of the CRPS into reliability and potential CRPS.

H. Hersbach (2000), doi:10.1175/1520-0434(2000)015<0559:DOTCRP>2.0.CO;2. Between members i and
i + 1 the forecast distribution is p_i = i / M. Averaged over cases, the part of that interval below
the truth is alpha_i and the part above is beta_i, so that

CRPS (standard) = sum_i alpha_i p_i^2 + beta_i (1 - p_i)^2 = reliability + potential CRPS,

and resolution is the uncertainty, the CRPS of the truths' own climatology, less the potential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.score import Score
from scoring.statistic import Statistic
from scoring.tile import Tile

_PARTS = ("below", "above", "outlier")


@dataclass(frozen=True)
class MemberIntervals(Statistic):
    """Length of the intervals between members below and above the truth.

    One cell takes 3 (M + 1) numbers: sum over cells soon.

    Parameters
    ----------
    members : int
        M. With missing members omitted, a cell that has fewer has no value.

    Raises
    ------
    InputError
        If there are none.
    """

    members: int

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InputError(f"intervals lie between members, of which {self.members} were given")

    @property
    def minimum_members(self) -> int:
        """M."""
        return self.members

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Members below the interval, 0 to M; `below` is alpha, `above` is beta, `outlier` is 1
        in the first or last interval when the truth lies there."""
        return {"interval": np.arange(self.members + 1), "part": np.array(_PARTS)}

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, interval, part)"""
        if tile.size != self.members:
            raise InputError(f"{self.key} is for {self.members} members, found {tile.size}")
        deviations = tile.deviations.astype(np.float64)
        low, high = np.minimum(deviations, 0), np.maximum(deviations, 0)
        values = np.zeros((len(deviations), self.members + 1, len(_PARTS)))
        values[:, 1:-1, 0], values[:, -1, 0] = np.diff(low, axis=1), -low[:, -1]
        values[:, 1:-1, 1], values[:, 0, 1] = np.diff(high, axis=1), high[:, 0]
        values[:, 0, 2], values[:, -1, 2] = deviations[:, 0] > 0, deviations[:, -1] < 0
        return values


def reliability(intervals: xr.DataArray) -> xr.DataArray:
    """sum_i g_i (o_i - p_i)^2 of mean `MemberIntervals`; 0 is perfect."""
    length, frequency, probability = _consistency(intervals)
    return (length * (frequency - probability) ** 2).sum("interval", skipna=False)


def potential(intervals: xr.DataArray) -> xr.DataArray:
    """sum_i g_i o_i (1 - o_i) of mean `MemberIntervals`: the CRPS with perfect reliability."""
    length, frequency, _ = _consistency(intervals)
    return (length * frequency * (1 - frequency)).sum("interval", skipna=False)


def crps_reliability(members: int) -> Score:
    """Hersbach's reliability of ensembles of this size."""
    return Score("crps_reliability", "Hersbach", (MemberIntervals(members),), reliability)


def crps_potential(members: int) -> Score:
    """Hersbach's potential CRPS of ensembles of this size."""
    return Score("crps_potential", "Hersbach", (MemberIntervals(members),), potential)


def uncertainty(truth: xr.DataArray, weights: xr.DataArray, over: Sequence[str]) -> xr.DataArray:
    """CRPS of the climatology of the truths themselves, half their mean absolute difference.

    Resolution is this less the potential CRPS.

    Parameters
    ----------
    truth : xarray.DataArray
        Any dimensions, none missing.
    weights : xarray.DataArray
        Not negative, broadcast against `truth`.
    over : sequence of str
        Dimensions of the sample.
    """
    truth, weights = xr.broadcast(truth, weights)
    values, weight = (
        array.stack(_case=list(over)).transpose(..., "_case") for array in (truth, weights)
    )
    order = np.argsort(values.values, axis=-1)
    ascending = np.take_along_axis(values.values.astype(np.float64), order, axis=-1)
    share = np.take_along_axis(weight.values, order, axis=-1)
    share = share / share.sum(axis=-1, keepdims=True)
    below = np.cumsum(share, axis=-1)[..., :-1]
    half = (below * (1 - below) * np.diff(ascending, axis=-1)).sum(axis=-1)
    return values.isel(_case=0, drop=True).copy(data=half)


def _consistency(intervals: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Mean length g_i, observed frequency o_i of a truth below, and probability p_i."""
    below, above = (intervals.sel(part=part, drop=True) for part in ("below", "above"))
    outlier = intervals.sel(part="outlier", drop=True)
    length = below + above
    frequency = above / length.where(length > 0, 1)
    first = intervals["interval"] == 0
    last = intervals["interval"] == intervals.sizes["interval"] - 1
    rate = outlier.where(outlier > 0, 1)
    length = length.where(~(first | last), length / rate)
    frequency = frequency.where(~first, outlier).where(~last, 1 - outlier)
    return length, frequency, intervals["interval"] / (intervals.sizes["interval"] - 1)
