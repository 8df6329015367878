"""The CRPS of Gaussian forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import properscoring
import xarray as xr

from data.errors import InputError
from scoring.statistic import Statistic
from scoring.tile import Tile


@dataclass(frozen=True)
class GaussianCRPS(Statistic):
    """CRPS of the Gaussian with the ensemble's mean and variance (M - 1 in the denominator).

    Beside the CRPS of the ensemble it tells whether its shape is worth anything. It is of the
    Gaussian as fitted to these members, with no correction for their number.
    """

    minimum_members: ClassVar[int] = 2

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        return _crps(tile.mean_error, np.sqrt(tile.variance), np.zeros(()))


def crps_gaussian(
    mean: xr.DataArray, standard_deviation: xr.DataArray, truth: xr.DataArray
) -> xr.DataArray:
    """CRPS of a Gaussian: s [z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)] with z = (y - mean) / s
    (Gneiting et al., 2005, doi:10.1175/MWR2904.1), by properscoring.

    A standard deviation of 0 is a deterministic forecast: its score is the absolute error.

    Parameters
    ----------
    mean, standard_deviation, truth : xarray.DataArray
        In the same unit; broadcast against each other.

    Raises
    ------
    InputError
        If a standard deviation is negative.
    """
    if (standard_deviation < 0).any():
        raise InputError(
            f"standard deviations must not be negative, found {float(standard_deviation.min()):g}"
        )
    return xr.apply_ufunc(_crps, mean, standard_deviation, truth).rename("crps_gaussian")


def _crps(mean: np.ndarray, spread: np.ndarray, truth: np.ndarray) -> np.ndarray:
    mean, spread, truth = np.broadcast_arrays(
        *(np.asarray(x, float) for x in (mean, spread, truth))
    )
    some = np.where(spread == 0, 1.0, spread)
    score = properscoring.crps_gaussian(truth, mean, some)
    return np.where(spread == 0, np.abs(truth - mean), score)
