"""Forecasts from past truths alone: climatology, and persistence damped towards it.

They are references, and models among others for an aggregation. Only what was known at an init
time goes into its forecast.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.calibration.conformity import cases_needed
from scoring.calibration.quantile_forecast import check_quantile_forecast

_AT_ONCE = np.timedelta64(0, "s")


def climatology(
    truth: xr.DataArray, like: xr.DataArray, latency: np.timedelta64 = _AT_ONCE
) -> xr.DataArray:
    """Quantiles of the truths that were known at each init time, the same for all leads.

    Parameters
    ----------
    truth : xarray.DataArray
        `valid_time`, increasing, and dimensions of `like`; NaN where it is missing.
    like : xarray.DataArray
        A quantile forecast with `init_time` and `lead_time`, for whose cases and levels it is.
    latency : numpy.timedelta64
        From the valid time until its truth is known.

    Returns
    -------
    xarray.DataArray
        Dimensions of `like`, in the unit of `truth`; NaN where fewer truths were known than the
        outermost level needs: 19 for 5 %.

    Raises
    ------
    InputError
        If a dimension is missing, or valid times do not increase.
    """
    return _as(like, _Past.of(truth, like, latency).quantiles())


def damped_persistence(
    truth: xr.DataArray,
    like: xr.DataArray,
    decay: np.timedelta64,
    latency: np.timedelta64 = _AT_ONCE,
) -> xr.DataArray:
    """The last known departure from the climatology, damped with lead (Murphy, 1992,
    doi:10.1175/1520-0434(1992)007<0692:CPATLC>2.0.CO;2).

    With the climatology's quantiles c_p and middle level m, the last known truth x and r = exp(-t /
    decay), t being the time from that truth to the valid time, the quantile is
    m + r (x - m) + sqrt(1 - r^2) (c_p - m): that of an autoregressive process of first order.

    Parameters
    ----------
    truth, like, latency
        As those of `climatology`.
    decay : numpy.timedelta64
        Time in which a departure falls to 1 / e; positive.

    Returns
    -------
    xarray.DataArray
        As that of `climatology`.

    Raises
    ------
    InputError
        If a dimension is missing, valid times do not increase, or `decay` is not positive.
    """
    if not decay > np.timedelta64(0, "s"):
        raise InputError(f"decay of persistence must be positive, found {decay}")
    past = _Past.of(truth, like, latency)
    climate, (last, age) = past.quantiles(), past.last()
    middle = climate.isel(quantile=climate.sizes["quantile"] // 2, drop=True)
    share = np.exp(-(age + like["lead_time"].reset_coords(drop=True)) / decay)
    centre = middle + share * (last - middle)
    return _as(like, centre + np.sqrt(1 - share**2) * (climate - middle))


@dataclass(frozen=True)
class _Past:
    """What was known at each init time.

    Attributes
    ----------
    truth : xarray.DataArray
        (valid_time, *cells)
    init_time : xarray.DataArray
        (init_time,)
    levels : numpy.ndarray
        Of quantiles.
    known : numpy.ndarray
        How many valid times were, (init_time,).
    """

    truth: xr.DataArray
    init_time: xr.DataArray
    levels: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, truth: xr.DataArray, like: xr.DataArray, latency: np.timedelta64) -> _Past:
        check_quantile_forecast(like, ("init_time", "lead_time"))
        if "valid_time" not in truth.dims:
            raise InputError(f"past truth needs a dimension valid_time, found {truth.dims}")
        bare = truth.reset_coords(drop=True).transpose("valid_time", ...)
        valid = bare["valid_time"].values
        if not (np.diff(valid) > np.timedelta64(0, "s")).all():
            raise InputError("valid times of past truth must increase")
        bare = bare.reindex({dim: like[dim].values for dim in bare.dims[1:]})
        init_time = like["init_time"].reset_coords(drop=True)
        known = np.searchsorted(valid, init_time.values - latency, side="right")
        return cls(bare, init_time, like["quantile"].values, known)

    def quantiles(self) -> xr.DataArray:
        """(init_time, *cells, quantile)"""
        needed = cases_needed(float(np.minimum(self.levels, 1 - self.levels).min()))
        found = np.full((self.known.size, *self.truth.shape[1:], self.levels.size), np.nan)
        for place, known in enumerate(self.known):
            past = self.truth.values[:known]
            enough = np.isfinite(past).sum(axis=0) >= needed
            if enough.any():
                values = np.nanquantile(past[:, enough], self.levels, axis=0, method="weibull")
                found[place][enough] = values.T
        at = self._coordinates() | {"quantile": self.levels}
        return xr.DataArray(found, at, ("init_time", *self.truth.dims[1:], "quantile"))

    def last(self) -> tuple[xr.DataArray, xr.DataArray]:
        """The last truth and how long before the init time it was valid, (init_time, *cells)."""
        shape = (self.known.size, *self.truth.shape[1:])
        values, ages = np.full(shape, np.nan), np.full(shape, np.timedelta64("NaT"), "m8[ns]")
        for place, known in enumerate(self.known):
            past = self.truth.values[:known]
            for back in range(known):
                new = np.isfinite(past[known - 1 - back]) & np.isnat(ages[place])
                values[place][new] = past[known - 1 - back][new]
                valid = self.truth["valid_time"].values[known - 1 - back]
                ages[place][new] = self.init_time.values[place] - valid
                if not np.isnat(ages[place]).any():
                    break
        dims = ("init_time", *self.truth.dims[1:])
        arrays = [xr.DataArray(array, self._coordinates(), dims) for array in (values, ages)]
        return arrays[0], arrays[1]

    def _coordinates(self) -> dict[str, np.ndarray]:
        cells = {str(dim): self.truth[dim].values for dim in self.truth.dims[1:]}
        return {"init_time": self.init_time.values} | cells


def _as(like: xr.DataArray, quantiles: xr.DataArray) -> xr.DataArray:
    """With the dimensions and coordinates of another forecast."""
    bare = like.reset_coords(drop=True)
    return like.copy(data=quantiles.broadcast_like(bare).transpose(*like.dims).values)
