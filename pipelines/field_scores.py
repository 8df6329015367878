"""Scores of whole fields as sums: energy score of regions, angular spectra of the globe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import xarray as xr

from data.grid import Grid
from scoring.multivariate import EnergyScore
from scoring.score import Summed

FieldSums = Mapping[Summed, tuple[np.ndarray, np.ndarray]]


class FieldPass(Protocol):
    """Evaluates the fields of one channel, init time and lead."""

    def __call__(self, members: np.ndarray, truth: np.ndarray, shares: np.ndarray) -> FieldSums:
        """Totals, (region, 1, *labels), and their weights, (region, 1).

        Parameters
        ----------
        members : numpy.ndarray
            (number, *cells)
        truth : numpy.ndarray
            (*cells)
        shares : numpy.ndarray
            (region, *cells), of the area of each region.
        """
        ...


def energy_of_regions(members: np.ndarray, truth: np.ndarray, shares: np.ndarray) -> FieldSums:
    """Energy score of the cells of each region as one vector, weighted by area; see `FieldPass`."""
    score = EnergyScore(("cell",))
    forecast = xr.DataArray(members.reshape(len(members), -1), dims=("number", "cell"))
    observed = xr.DataArray(truth.ravel(), dims="cell")
    values = []
    for share in shares.reshape(len(shares), -1):
        inside = np.flatnonzero(share)
        weights = xr.DataArray(share[inside], dims="cell")
        chosen = forecast.isel(cell=inside), observed.isel(cell=inside)
        values.append(float(score(*chosen, weights=weights)))
    return {score: (np.array(values)[:, None], np.ones((len(values), 1)))}


def spectra_of_globe(grid: Grid, truncation: int) -> FieldPass:
    """Angular power spectra, which only regions have that are the whole globe, area by area."""
    from data.sphere import Sphere  # needs torch
    from scoring.spectra import PARTS, Spectrum, angular_spectra

    sphere = Sphere(grid, truncation)
    dims = ("latitude", "longitude")

    def of_fields(members: np.ndarray, truth: np.ndarray, shares: np.ndarray) -> FieldSums:
        forecast = xr.DataArray(members, dims=("number", *dims))
        found = angular_spectra(forecast, xr.DataArray(truth, dims=dims), sphere)
        same = np.isclose(shares, grid.area_weights, rtol=1e-6, atol=0)
        whole = same.all(axis=(1, 2))[:, None]
        return {
            one: (np.where(whole[..., None], found[one.key].values, 0.0), whole.astype(float))
            for one in (Spectrum(part, truncation) for part in PARTS)
        }

    return of_fields
