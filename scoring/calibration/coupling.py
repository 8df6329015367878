"""Calibrated members: values from the calibrated distribution, dependence from the raw ensemble.

Quantiles calibrated cell by cell say nothing of how cells, leads and channels go together. Ensemble
copula coupling gives it back: the member that was r-th smallest before is r-th smallest after
(Schefzik, Thorarinsdottir and Gneiting, 2013, doi:10.1214/13-STS443).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.calibration.quantile_forecast import check_quantile_forecast
from scoring.quantiles import ensemble_quantiles


def member_levels(members: int) -> np.ndarray:
    """r / (M + 1) for r = 1..M: the equidistant levels of ECC-Q, (number,)."""
    return np.arange(1, members + 1) / (members + 1)


def couple(
    forecast: xr.DataArray, quantiles: xr.DataArray, member_dim: str = "number"
) -> xr.DataArray:
    """ECC-Q: M calibrated quantiles in the rank order of the M raw members.

    Parameters
    ----------
    forecast : xarray.DataArray
        Any dimensions with `member_dim`. Of equal members the one of the lower position is taken
        to be smaller.
    quantiles : xarray.DataArray
        The same with `quantile` in place of `member_dim`, at `member_levels` of as many members.

    Returns
    -------
    xarray.DataArray
        Dimensions, order, coordinates and type of `forecast`.

    Raises
    ------
    InputError
        If the levels are not those of as many members.
    """
    size = forecast.sizes[member_dim]
    levels = quantiles["quantile"].values
    if levels.shape != (size,) or not np.allclose(levels, member_levels(size), rtol=0, atol=1e-6):
        raise InputError(
            f"coupling {size} members needs quantiles at 1/{size + 1} to {size}/{size + 1}, found "
            f"{levels.size} levels from {levels.min():g} to {levels.max():g}"
        )
    raw = forecast.transpose(..., member_dim)
    values = quantiles.transpose(*raw.dims[:-1], "quantile").values
    ranks = _ranks(raw.values)
    coupled = np.take_along_axis(np.sort(values, axis=-1), ranks, axis=-1)
    return _as(forecast, raw, coupled)


def map_members(
    forecast: xr.DataArray, calibrated: xr.DataArray, member_dim: str = "number"
) -> xr.DataArray:
    """Members moved by as much as the quantiles at their rank were moved by calibration.

    The shift between the quantiles of the raw members and the calibrated ones is interpolated
    between levels to the levels of the ranks, r / (M + 1), and held beyond the outermost levels, so
    a few levels do for any number of members and the tails keep their shape. Ranks are kept.

    Parameters
    ----------
    forecast : xarray.DataArray
        Any dimensions with `member_dim`.
    calibrated : xarray.DataArray
        The same with `quantile` in place of `member_dim`; levels increasing. Cells where it is NaN
        become NaN.

    Returns
    -------
    xarray.DataArray
        Dimensions, order, coordinates and type of `forecast`.
    """
    check_quantile_forecast(calibrated)
    levels = calibrated["quantile"].values
    raw = forecast.transpose(..., member_dim)
    dims = (*raw.dims[:-1], "quantile")
    wanted = calibrated.transpose(*dims)
    before = ensemble_quantiles(forecast, tuple(levels.tolist()), member_dim).transpose(*dims)
    before, wanted = xr.align(before, wanted, join="exact", copy=False)
    shift = wanted.values - before.values
    place = np.interp(member_levels(raw.sizes[member_dim]), levels, np.arange(levels.size))
    lower = np.minimum(place.astype(int), max(levels.size - 2, 0))
    upper = np.minimum(lower + 1, levels.size - 1)
    part = place - lower
    moved = np.sort(raw.values, axis=-1) + (
        (1 - part) * shift[..., lower] + part * shift[..., upper]
    )
    # A shift that falls steeply with the level could let neighbours change places.
    moved.sort(axis=-1)
    return _as(forecast, raw, np.take_along_axis(moved, _ranks(raw.values), axis=-1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each member along the last axis, from 0."""
    order = np.argsort(values, axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(values.shape[-1]), axis=-1)
    return ranks


def _as(forecast: xr.DataArray, raw: xr.DataArray, values: np.ndarray) -> xr.DataArray:
    return raw.copy(data=values.astype(forecast.dtype)).transpose(*forecast.dims)
