"""Ensemble model output statistics: a distribution whose mean and variance follow the ensemble.

The mean is a + b m and the variance c^2 + d^2 s^2, of the ensemble's mean m and variance s^2; the
parameters make the mean CRPS of past cases least (Gneiting, Raftery, Westveld and Goldman, 2005,
doi:10.1175/MWR2904.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch
import xarray as xr

from data.errors import InputError, StoreError
from scoring.calibration.newton import minimise
from scoring.labels import load, save
from scoring.quantiles import check_levels

PARAMETERS = ("a", "b", "c", "d")
_FEWEST_CASES = 10
_DEEPEST = -6.0  # a mean so many deviations below zero leaves nothing above it


class Family(Protocol):
    """A family of distributions with a location and a scale."""

    name: ClassVar[str]

    def crps(
        self, truth: torch.Tensor, location: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """CRPS in closed form, elementwise."""
        ...

    def quantile(
        self, level: torch.Tensor, location: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """Inverse of the distribution function, elementwise."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution."""

    name: ClassVar[str] = "Gaussian"

    def crps(
        self, truth: torch.Tensor, location: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """s [z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)] with z = (y - m) / s."""
        z = (truth - location) / scale
        return scale * (z * (2 * _cumulative(z) - 1) + 2 * _density(z) - 1 / sqrt(pi))

    def quantile(
        self, level: torch.Tensor, location: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """m + s Phi^-1(p)"""
        return location + scale * torch.special.ndtri(level)


@dataclass(frozen=True)
class TruncatedGaussian:
    """The normal distribution cut off below zero, for wind speed (Thorarinsdottir and Gneiting,
    2010, doi:10.1111/j.1467-985X.2009.00616.x)."""

    name: ClassVar[str] = "Gaussian truncated at zero"

    def crps(
        self, truth: torch.Tensor, location: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """s / P^2 [z P (2 Phi(z) + P - 2) + 2 phi(z) P - Phi(sqrt(2) m / s) / sqrt(pi)], with
        P = Phi(m / s)."""
        ratio = (location / scale).clamp_min(_DEEPEST)
        z = (truth - location) / scale
        above = _cumulative(ratio)
        inside = z * above * (2 * _cumulative(z) + above - 2) + 2 * _density(z) * above
        return scale / above**2 * (inside - _cumulative(sqrt(2) * ratio) / sqrt(pi))

    def quantile(
        self, level: torch.Tensor, location: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """m - s Phi^-1((1 - p) P), P = Phi(m / s)"""
        above = _cumulative((location / scale).clamp_min(_DEEPEST))
        return (location - scale * torch.special.ndtri((1 - level) * above)).clamp_min(0.0)


GAUSSIAN = Gaussian()
TRUNCATED_GAUSSIAN = TruncatedGaussian()


@dataclass(frozen=True)
class Emos:
    """Fitted parameters.

    Attributes
    ----------
    parameters : xarray.DataArray
        (*groups, parameter): a and c in the unit of the forecast, b and d without.
    family : Family
        `GAUSSIAN` or `TRUNCATED_GAUSSIAN`.
    """

    parameters: xr.DataArray
    family: Family = GAUSSIAN

    @classmethod
    def fit(
        cls,
        forecast: xr.DataArray,
        truth: xr.DataArray,
        over: Sequence[str] = ("init_time",),
        family: Family = GAUSSIAN,
        member_dim: str = "number",
    ) -> Emos:
        """Fit on past ensembles and their truth.

        Parameters
        ----------
        forecast : xarray.DataArray
            Any dimensions with `member_dim`; missing members are left out.
        truth : xarray.DataArray
            The dimensions of `forecast` less `member_dim`; NaN where it is missing.
        over : sequence of str
            Dimensions pooled into one sample; the others are groups, fitted all at a time.
        family : Family
            `GAUSSIAN` (default) or `TRUNCATED_GAUSSIAN`.
        member_dim : str
            Name of the dimension of members.

        Raises
        ------
        InputError
            If a group has fewer than 10 cases.
        """
        mean, variance = _moments(forecast, member_dim)
        groups = tuple(dim for dim in truth.dims if dim not in over)
        columns = [
            array.transpose(*groups, *over).values.reshape(
                int(np.prod([truth.sizes[dim] for dim in groups])), -1
            )
            for array in xr.align(truth, mean, variance, join="exact")
        ]
        found = _fit(*(torch.from_numpy(column.astype(np.float64)) for column in columns), family)
        at = {dim: truth[dim] for dim in groups if dim in truth.coords}
        shape = tuple(truth.sizes[dim] for dim in groups)
        parameters = xr.DataArray(
            found.numpy().reshape(*shape, len(PARAMETERS)),
            at | {"parameter": list(PARAMETERS)},
            (*groups, "parameter"),
        )
        return cls(parameters, family)

    def location_and_scale(
        self, forecast: xr.DataArray, member_dim: str = "number"
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """a + b m and sqrt(c^2 + d^2 s^2), the dimensions of `forecast` less the members'."""
        mean, variance = _moments(forecast, member_dim)
        a, b, c, d = (self.parameters.sel(parameter=name, drop=True) for name in PARAMETERS)
        location = (a + b * mean).transpose(*mean.dims)
        return location, np.sqrt(c**2 + d**2 * variance).transpose(*mean.dims)

    def quantiles(
        self, forecast: xr.DataArray, levels: Sequence[float], member_dim: str = "number"
    ) -> xr.DataArray:
        """Quantiles of the fitted distribution; `quantile` takes the place of the members."""
        check_levels(levels)
        location, scale = (
            torch.from_numpy(array.values)
            for array in self.location_and_scale(forecast, member_dim)
        )
        axis = forecast.get_axis_num(member_dim)
        parts = [
            self.family.quantile(torch.tensor(level, dtype=torch.float64), location, scale)
            for level in levels
        ]
        dims = [dim if dim != member_dim else "quantile" for dim in forecast.dims]
        at = {dim: forecast[dim] for dim in forecast.dims if dim in forecast.coords}
        at.pop(member_dim, None)
        return xr.DataArray(
            torch.stack(parts, axis).numpy(), at | {"quantile": list(levels)}, dims,
            forecast.name, forecast.attrs,
        )  # fmt: skip

    def crps(
        self, forecast: xr.DataArray, truth: xr.DataArray, member_dim: str = "number"
    ) -> xr.DataArray:
        """CRPS of the fitted distribution, in closed form; the dimensions of `truth`."""
        location, scale = (
            torch.from_numpy(array.transpose(*truth.dims).values)
            for array in self.location_and_scale(forecast, member_dim)
        )
        observed = torch.from_numpy(truth.values.astype(np.float64))
        return truth.copy(data=self.family.crps(observed, location, scale).numpy())

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        dataset = self.parameters.rename("parameters").to_dataset()
        save(dataset.assign_attrs(family=self.family.name), path)

    @classmethod
    def load(cls, path: Path) -> Emos:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none.
        """
        families = {family.name: family for family in (GAUSSIAN, TRUNCATED_GAUSSIAN)}
        found = load(path, "EMOS parameters are", ["parameters"])
        name = found.attrs.get("family")
        if name not in families:
            raise StoreError(f"{path}: has the family {name!r}, expected one of {list(families)}")
        return cls(found["parameters"].rename(None), families[name])


def _fit(
    truth: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, family: Family
) -> torch.Tensor:
    """(group, parameter) from (group, case)."""
    known = torch.isfinite(truth) & torch.isfinite(mean) & torch.isfinite(variance)
    cases = known.sum(dim=1)
    if int(cases.min()) < _FEWEST_CASES:
        raise InputError(
            f"EMOS needs at least {_FEWEST_CASES} cases in every group, found {int(cases.min())}: "
            "add dates or pool more cells"
        )
    weight = known / cases[:, None]
    truth, mean, variance = (torch.where(known, part, 0.0) for part in (truth, mean, variance))
    centre, middle = ((weight * part).sum(1, keepdim=True) for part in (truth, mean))
    anomaly, departure = truth - centre, mean - middle
    # In units of the truth's spread all four parameters are of order one.
    unit = ((weight * anomaly**2).sum(1, keepdim=True)).sqrt().clamp_min(1e-12)
    slope = (weight * anomaly * departure).sum(1) / (weight * departure**2).sum(1).clamp_min(1e-24)
    rest = (weight * (anomaly - slope[:, None] * departure) ** 2).sum(1).sqrt() / unit[:, 0]
    spread = (weight * variance).sum(1).sqrt() / unit[:, 0]
    half = sqrt(0.5) * rest.clamp_min(1e-3)
    start = torch.stack([torch.zeros_like(slope), slope, half, half / spread.clamp_min(1e-6)], 1)
    lift = centre / unit if isinstance(family, TruncatedGaussian) else torch.zeros_like(centre)

    def objective(parameters, truth, departure, variance, weight, lift):
        a, b, c, d = parameters
        scale = (c**2 + d**2 * variance + 1e-12).sqrt()
        return (weight * family.crps(truth + lift, a + b * departure + lift, scale)).sum()

    data = (anomaly / unit, departure / unit, variance / unit**2, weight, lift)
    a, b, c, d = minimise(objective, start, data).unbind(1)
    offset = centre[:, 0] + a * unit[:, 0] - b * middle[:, 0]
    return torch.stack([offset, b, c.abs() * unit[:, 0], d.abs()], 1)


def _moments(forecast: xr.DataArray, member_dim: str) -> tuple[xr.DataArray, xr.DataArray]:
    wide = forecast.astype(np.float64)
    return wide.mean(member_dim), wide.var(member_dim, ddof=1)


def _cumulative(z: torch.Tensor) -> torch.Tensor:
    return torch.special.ndtr(z)


def _density(z: torch.Tensor) -> torch.Tensor:
    return torch.exp(-(z**2) / 2) / sqrt(2 * pi)
