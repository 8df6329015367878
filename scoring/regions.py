"""Regions and seasons: weights with a `region` or a `season` label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from data.regular_grid import RegularGrid
from scoring.identity import key_of, make_floats

EVERYWHERE = "all"

SEASONS: Mapping[str, tuple[int, ...]] = {
    "DJF": (12, 1, 2),
    "MAM": (3, 4, 5),
    "JJA": (6, 7, 8),
    "SON": (9, 10, 11),
}


class Region(Protocol):
    """Part of the globe, on a grid of all of it or of part of it."""

    def mask(self, grid: Grid | RegularGrid) -> np.ndarray:
        """Share of each cell that belongs to it, (latitude, longitude), 0 to 1."""
        ...


def _check_order(south: float, north: float) -> None:
    if not south <= north:
        raise InputError(f"a region reaches from south to north, found {south:g} to {north:g}")


@dataclass(frozen=True)
class Band:
    """Latitudes from `south` to `north`, degrees north, ends included.

    Raises
    ------
    InputError
        If `south` lies north of `north`.
    """

    south: float
    north: float

    def __post_init__(self) -> None:
        make_floats(self, "south", "north")
        _check_order(self.south, self.north)

    def mask(self, grid: Grid | RegularGrid) -> np.ndarray:
        """(latitude, longitude) bool."""
        rows = (grid.latitude >= self.south) & (grid.latitude <= self.north)
        return np.broadcast_to(rows[:, None], grid.shape)


@dataclass(frozen=True)
class Box:
    """Latitudes from `south` to `north` and longitudes eastward from `west` to `east`, degrees.

    Ends are included. Longitudes may be counted from -180 or from 0 and may cross the Greenwich
    meridian or the date line: ``west=170, east=-170`` is 20 degrees wide, ``west=-180, east=180``
    goes all the way round.

    Raises
    ------
    InputError
        If `south` lies north of `north`.
    """

    south: float
    north: float
    west: float
    east: float

    def __post_init__(self) -> None:
        make_floats(self, "south", "north", "west", "east")
        _check_order(self.south, self.north)

    def mask(self, grid: Grid | RegularGrid) -> np.ndarray:
        """(latitude, longitude) bool."""
        width = self.east - self.west
        width = width % 360 if abs(width) < 360 else 360
        return Band(self.south, self.north).mask(grid) & (
            (grid.longitude - self.west) % 360 <= width
        )


@dataclass(frozen=True, eq=False)
class Mask:
    """Any part of one grid, such as its land.

    Parameters
    ----------
    values : numpy.ndarray
        (latitude, longitude), bool, or shares of the cells from 0 to 1.

    Raises
    ------
    InputError
        If a value lies outside 0 to 1 or is missing.
    """

    values: np.ndarray

    def __post_init__(self) -> None:
        inside = (np.asarray(self.values) >= 0) & (np.asarray(self.values) <= 1)
        if not inside.all():
            raise InputError("a mask must lie within 0 to 1 and have no missing values")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((np.asarray(self.values, float) + 0.0).tobytes())  # -0.0 equals 0.0

    def mask(self, grid: Grid | RegularGrid) -> np.ndarray:
        """(latitude, longitude)

        Raises
        ------
        InputError
            If the mask is of another shape than the grid.
        """
        if np.shape(self.values) != grid.shape:
            raise InputError(
                f"a mask of shape {np.shape(self.values)} does not fit the grid {grid}"
            )
        return np.asarray(self.values)


# The tropics stop short of 20 degrees so that no circle belongs to two regions.
REGIONS: Mapping[str, Region] = {
    "globe": Band(-90.0, 90.0),
    "northern_extratropics": Band(20.0, 90.0),
    "tropics": Band(float(np.nextafter(-20.0, 0.0)), float(np.nextafter(20.0, 0.0))),
    "southern_extratropics": Band(-90.0, -20.0),
}


def region_weights(grid: Grid, regions: Mapping[str, Region] = REGIONS) -> xr.DataArray:
    """Area weights within each region, (region, latitude, longitude); the globe's sum to 1.

    The coordinate `definition` says what each region is, so that sums of two that share a name do
    not mix.

    Raises
    ------
    InputError
        If a region holds no point of the grid.
    """
    masks = {name: region.mask(grid) for name, region in regions.items()}
    for name, mask in masks.items():
        if not mask.any():
            raise InputError(f"region {name!r} holds no point of the grid {grid}")
    return xr.DataArray(
        np.stack(list(masks.values())) * grid.area_weights,
        {
            "region": list(regions),
            "definition": ("region", [key_of(region) for region in regions.values()]),
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
        ("region", "latitude", "longitude"),
    )


def equal_weights(cells: xr.DataArray) -> xr.DataArray:
    """Equal weights summing to 1 for grids without latitudes, (region, *dims of `cells`)."""
    weights = xr.full_like(cells, 1.0 / cells.size, dtype=float)
    return weights.expand_dims(region=[EVERYWHERE])


def season_weights(
    valid_time: xr.DataArray, seasons: Mapping[str, tuple[int, ...]] = SEASONS
) -> xr.DataArray:
    """1 where a valid time falls into a season and 0 elsewhere, (season, *dims of `valid_time`).

    Times the weights of regions they give sums by season and region:
    ``Sums.of(values, region_weights(grid) * season_weights(forecast.valid_time), over)``.

    Parameters
    ----------
    valid_time : xarray.DataArray
        datetime64, any dimensions, as (init_time, lead_time).
    seasons : mapping of str to tuple of int
        Months, 1 to 12, of each season; they may overlap.

    Raises
    ------
    InputError
        If `valid_time` holds no times.
    """
    if valid_time.dtype.kind != "M":
        raise InputError(f"seasons need times, found valid_time of type {valid_time.dtype}")
    month = valid_time.dt.month
    weights = [month.isin(months).astype(float) for months in seasons.values()]
    stacked = np.stack([weight.values for weight in weights])
    known = {dim: valid_time.coords[dim] for dim in valid_time.dims if dim in valid_time.coords}
    return xr.DataArray(
        stacked, {"season": list(seasons)} | known, ("season", *valid_time.dims), "weight"
    )
