"""Members calibrated degree by degree: the spread becomes right at every scale, the spectrum stays.

At angular degree l the coefficients of member i become

    x_i -> c + b_l (m - c) + t_l (x_i - m) + s,

with the ensemble's mean m, the mean c of past ensemble means, and a share s of their mean error.
b_l is the slope of the regression of the truth on m, and t_l^2 the variance of the truth about
c + b_l (m - c) over the variance of the members about m. This is member-by-member calibration (Van
Schaeybroeck and Vannitsem, 2015, doi:10.1002/qj.2397) by least squares, with one pair of parameters
for each degree instead of one for all.

One pair for all scales moves power between them: where large scales are predictable and small ones
are not, a mean that is damped and members that are drawn apart lose power at the one end and gain
it at the other. The regression of each degree splits the variance of the truth, so members have the
truth's power at every degree, whatever was lost or gained before (for many members).
Then a factor of each latitude on the members about their mean puts the spread where the errors are,
and one more widening makes spread and coverage right, within the power that is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from data.errors import InputError
from data.sphere import Sphere
from scoring.calibration.degree_factors import factors, widening_for
from scoring.calibration.degree_moments import (
    Moments,
    SpreadMoments,
    ZonalMoments,
    analysed,
    cross_power,
)
from scoring.labels import load, save

_FIELD = ("latitude", "longitude")
_STATE = ("factors", "fields", "zonal")
_FEWEST_DATES = 10


@dataclass(frozen=True)
class DegreeByDegree:
    """Fitted parameters.

    Attributes
    ----------
    factors : xarray.DataArray
        b and t, (lead_time, parameter, degree), without unit.
    fields : xarray.DataArray
        `centre` c and `shift` s, (lead_time, field, latitude, longitude), in the unit of the
        forecast.
    zonal : xarray.DataArray
        Last factor of the members about their mean, (lead_time, latitude), without unit.
    sphere : Sphere
        Grid and truncation; what the truncation does not resolve stays as it was.
    """

    factors: xr.DataArray
    fields: xr.DataArray
    zonal: xr.DataArray
    sphere: Sphere

    @classmethod
    def from_moments(
        cls,
        moments: Moments,
        lead_time: xr.DataArray,
        sphere: Sphere,
        power_change: float = 0.025,
    ) -> DegreeByDegree:
        """Parameters from sums over past dates.

        Parameters
        ----------
        moments : Moments
            Of at least 10 dates of each lead.
        lead_time : xarray.DataArray
            (lead_time,)
        sphere : Sphere
            Grid and truncation.
        power_change : float
            By how much of itself the members' power may change at any degree; infinity gives them
            the truth's. Where the truth has less power than that allows, the mean is damped
            less; where it has more, the mean is damped more to make room for the spread. Power of
            which the truth has not half goes all the same.

        Raises
        ------
        InputError
            If a lead has fewer than 10 dates.
        """
        _check_dates(moments.dates, lead_time)
        count = moments.dates[:, None]
        truth, mean = (
            torch.from_numpy(part.sum(axis=0) / count[..., None])
            for part in (moments.truth, moments.mean)
        )
        slope, stretch = factors(moments.powers(sphere), power_change)
        lasting = _lasting(moments, sphere)
        with torch.no_grad():
            centre = torch.from_numpy(moments.about) + sphere.synthesise(mean)
            shift = sphere.synthesise((truth - mean) * torch.from_numpy(lasting)[:, None, None])
        leads = {"lead_time": lead_time.values}
        both = xr.DataArray(
            np.stack([slope, stretch], axis=1),
            leads | {"parameter": ["b", "t"], "degree": np.arange(slope.shape[1])},
            ("lead_time", "parameter", "degree"),
        )
        fields = xr.DataArray(
            np.stack([centre.numpy(), shift.numpy()], axis=1),
            leads | {"field": ["centre", "shift"]},
            ("lead_time", "field", *_FIELD),
        )
        zonal = xr.ones_like(fields.isel(field=0, longitude=0, drop=True))
        return cls(both, fields, zonal, sphere)

    def with_zonal(self, moments: ZonalMoments) -> DegreeByDegree:
        """The same with the spread of each latitude in proportion to its errors.

        Parameters
        ----------
        moments : ZonalMoments
            Of past forecasts that `self` has calibrated.
        """
        weights = self.sphere.grid.latitude_weights
        return replace(self, zonal=self.zonal * moments.stretch(weights))

    def with_spread(
        self,
        moments: Moments,
        zonal: ZonalMoments,
        spread: SpreadMoments,
        power_change: float = 0.025,
    ) -> DegreeByDegree:
        """The same with the spread that the members lack yet, and the power of each degree
        within what is allowed after the factors of latitudes too.

        Parameters
        ----------
        moments : Moments
            Those of `from_moments`.
        zonal : ZonalMoments
            Those of `with_zonal`, which leaves the area mean of the variance as it is.
        spread : SpreadMoments
            Of past forecasts that `self` has calibrated.
        power_change : float
            That of `from_moments`.
        """
        powers, t = moments.powers(self.sphere), self.factors.sel(parameter="t").values
        before = t**2 * spread.raw
        leak = np.divide(spread.calibrated, before, out=np.ones_like(before), where=before > 0)
        growth = spread.growth(zonal.growth(self.sphere.grid.latitude_weights))
        widening = widening_for(growth, powers, power_change, leak)
        both = factors(powers, power_change, widening, leak)
        return replace(self, factors=self.factors.copy(data=np.stack(both, axis=1)))

    def apply(self, forecast: xr.DataArray, member_dim: str = "number") -> xr.DataArray:
        """The calibrated members; dimensions, order, coordinates and type of `forecast`.

        Parameters
        ----------
        forecast : xarray.DataArray
            `member_dim`, `lead_time` (of which all were fitted), `latitude`, `longitude`, in any
            order, finite.

        Raises
        ------
        InputError
            If the grid or a lead is another one.
        """
        members = forecast.transpose(member_dim, "lead_time", *_FIELD)
        here = self.at(forecast["lead_time"].values)
        t, zonal = here._factor("t"), here.zonal.values[..., None]
        middle = members.values.mean(axis=0, dtype=np.float64)
        moved = here.mean(middle)
        calibrated = np.empty(members.shape, forecast.dtype)
        with torch.no_grad():
            for number, member in enumerate(members.values):
                apart = member - middle
                drawn = self.sphere.synthesise((t - 1) * analysed(apart, self.sphere))
                calibrated[number] = moved + zonal * (apart + drawn.numpy())
        return members.copy(data=calibrated).transpose(*forecast.dims)

    def mean(self, middle: np.ndarray) -> np.ndarray:
        """The calibrated mean of a raw mean, both (lead_time, latitude, longitude), all leads.

        Raises
        ------
        InputError
            If the grid is another one.
        """
        if middle.shape[1:] != self.sphere.grid.shape:
            raise InputError(f"fields of {middle.shape[1:]} points do not fit {self.sphere.grid}")
        centre, shift = (self.fields.sel(field=name).values for name in ("centre", "shift"))
        with torch.no_grad():
            damped = (self._factor("b") - 1) * analysed(middle - centre, self.sphere)
            return middle + shift + self.sphere.synthesise(damped).numpy()

    def _factor(self, name: str) -> torch.Tensor:
        """(lead_time, degree, 1)"""
        values = self.factors.sel(parameter=name).values.astype(np.float32)
        return torch.from_numpy(values)[..., None]

    def at(self, lead_times: np.ndarray) -> DegreeByDegree:
        """The parameters of some leads.

        Raises
        ------
        InputError
            If one of them was not fitted.
        """
        if missing := set(lead_times.tolist()) - set(self.factors["lead_time"].values.tolist()):
            hours = np.timedelta64(min(missing), "ns") / np.timedelta64(1, "h")
            raise InputError(f"calibration was not fitted for the lead time {hours:g} h")
        return replace(
            self,
            factors=self.factors.sel(lead_time=lead_times),
            fields=self.fields.sel(lead_time=lead_times),
            zonal=self.zonal.sel(lead_time=lead_times),
        )

    @property
    def state(self) -> xr.Dataset:
        """All parameters."""
        return xr.Dataset(dict(zip(_STATE, (self.factors, self.fields, self.zonal), strict=True)))

    @classmethod
    def from_state(cls, state: xr.Dataset, sphere: Sphere) -> DegreeByDegree:
        """From all parameters."""
        return cls(*(state[name].rename(None) for name in _STATE), sphere)

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        save(self.state, path)

    @classmethod
    def load(cls, path: Path, sphere: Sphere) -> DegreeByDegree:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none.
        """
        return cls.from_state(load(path, "parameters by degree are", _STATE), sphere)


def _check_dates(dates: np.ndarray, lead_time: xr.DataArray) -> None:
    fewest = int(dates.min())
    if fewest < _FEWEST_DATES:
        lead = lead_time.values[int(dates.argmin())] / np.timedelta64(1, "h")
        raise InputError(
            f"calibrating degree by degree needs at least {_FEWEST_DATES} dates, found "
            f"{fewest} at lead {lead:g} h"
        )


def _lasting(moments: Moments, sphere: Sphere) -> np.ndarray:
    """Which share of the mean error is taken to last, (lead_time,).

    The reliability 2 r / (1 + r) of the mean, from the correlation r of the two halves of the dates
    (Spearman, 1910; Brown, 1910), squared: halves agree a little by chance, and what they agree on
    by chance would only be added to the error of new dates.
    """
    # Dates are split evenly, so the sums of the halves can be compared as they are.
    first, second = moments.truth - moments.mean
    product = cross_power(first, second, sphere).sum(axis=1)
    size = sum(cross_power(half, half, sphere).sum(axis=1) for half in (first, second)) / 2
    r = np.clip(product / np.maximum(size, 1e-300), 0.0, 1.0)
    return (2 * r / (1 + r)) ** 2
