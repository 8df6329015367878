"""What local weights may depend on: properties of a case known when its forecast is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from data.errors import InputError


class Feature(Protocol):
    """One or more numbers for each case."""

    def of(self, quantiles: xr.DataArray) -> list[xr.DataArray]:
        """Numbers whose dimensions are among those of `quantiles` less `model` and `quantile`.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Any dimensions with `model` and `quantile`.

        Raises
        ------
        InputError
            If it needs a coordinate that is not there.
        """
        ...


@dataclass(frozen=True)
class Coordinate:
    """A coordinate as a number: times and leads in days."""

    name: str

    def of(self, quantiles: xr.DataArray) -> list[xr.DataArray]:
        """One number."""
        values = _coordinate(quantiles, self.name)
        if values.dtype.kind in "mM":
            return [values.copy(data=_days(values.values))]
        if values.dtype.kind not in "iufb":
            raise InputError(f"coordinate {self.name} has no numbers; Category takes its labels")
        return [values.astype(float)]


@dataclass(frozen=True)
class Category:
    """One number for each label of a coordinate, 1 where the case has it."""

    name: str
    labels: tuple[str | int | float, ...]

    def of(self, quantiles: xr.DataArray) -> list[xr.DataArray]:
        """As many numbers as labels."""
        values = _coordinate(quantiles, self.name)
        return [(values == label).astype(float) for label in self.labels]


@dataclass(frozen=True)
class Season:
    """Sine and cosine of the time of year, of `init_time` by default."""

    name: str = "init_time"

    def of(self, quantiles: xr.DataArray) -> list[xr.DataArray]:
        """Two numbers."""
        time = _coordinate(quantiles, self.name)
        angle = 2 * np.pi * (time.copy(data=_days(time.values)) / 365.2425)
        return [np.sin(angle), np.cos(angle)]


@dataclass(frozen=True)
class Latitude:
    """Sine and absolute sine of latitude."""

    name: str = "latitude"

    def of(self, quantiles: xr.DataArray) -> list[xr.DataArray]:
        """Two numbers."""
        sine = np.sin(np.deg2rad(_coordinate(quantiles, self.name).astype(float)))
        return [sine, np.abs(sine)]


@dataclass(frozen=True)
class Centre:
    """Mean of the models' middle level, as asinh(value / unit).

    Parameters
    ----------
    unit : float
        Below it the feature is proportional to the value, above it to the logarithm.
    """

    unit: float = 1.0

    def of(self, quantiles: xr.DataArray) -> list[xr.DataArray]:
        """One number."""
        return [np.arcsinh(_middle(quantiles).mean("model") / self.unit)]


@dataclass(frozen=True)
class Spread:
    """Mean width of the models between their outermost levels, and standard deviation of their
    middle levels, as asinh(value / unit).

    Parameters
    ----------
    unit : float
        As that of `Centre`.
    """

    unit: float = 1.0

    def of(self, quantiles: xr.DataArray) -> list[xr.DataArray]:
        """Two numbers."""
        width = quantiles.isel(quantile=-1, drop=True) - quantiles.isel(quantile=0, drop=True)
        numbers = width.mean("model"), _middle(quantiles).std("model")
        return [np.arcsinh(number / self.unit) for number in numbers]


def feature_table(features: tuple[Feature, ...], quantiles: xr.DataArray) -> np.ndarray:
    """All features of all cases, (*cases, feature), cases in the order of the dimensions of
    `quantiles` less `model` and `quantile`; float32."""
    cases = quantiles.isel(model=0, quantile=0, drop=True)
    columns = [
        number.reset_coords(drop=True).broadcast_like(cases).transpose(*cases.dims).values
        for feature in features
        for number in feature.of(quantiles)
    ]
    if not columns:
        return np.zeros((*cases.shape, 0), np.float32)
    return np.stack(columns, axis=-1).astype(np.float32)


def _coordinate(quantiles: xr.DataArray, name: str) -> xr.DataArray:
    if name not in quantiles.coords:
        raise InputError(f"feature {name!r} is not among the coordinates: {list(quantiles.coords)}")
    coordinate = quantiles.coords[name].reset_coords(drop=True)
    surplus = {"model", "quantile"} & set(coordinate.dims)
    if surplus:
        raise InputError(f"coordinate {name} depends on {sorted(surplus)}, not only on the case")
    return coordinate


def _middle(quantiles: xr.DataArray) -> xr.DataArray:
    return quantiles.isel(quantile=quantiles.sizes["quantile"] // 2, drop=True)


def _days(values: np.ndarray) -> np.ndarray:
    unit = "timedelta64" if values.dtype.kind == "m" else "datetime64"
    seconds = values.astype(f"{unit}[s]").astype(np.int64)
    return np.where(np.isnat(values), np.nan, seconds / 86400)
