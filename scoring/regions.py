"""Regions: weights with a `region` label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.errors import InputError
from data.grid import Grid

EVERYWHERE = "all"


@dataclass(frozen=True)
class Band:
    """Latitudes from `south` to `north`, degrees north, ends included."""

    south: float
    north: float

    def holds(self, latitude: np.ndarray) -> np.ndarray:
        """(latitude,) bool."""
        return (latitude >= self.south) & (latitude <= self.north)


# The tropics stop short of 20 degrees so that no circle belongs to two regions.
REGIONS: Mapping[str, Band] = {
    "globe": Band(-90.0, 90.0),
    "northern_extratropics": Band(20.0, 90.0),
    "tropics": Band(float(np.nextafter(-20.0, 0.0)), float(np.nextafter(20.0, 0.0))),
    "southern_extratropics": Band(-90.0, -20.0),
}


def region_weights(grid: Grid, regions: Mapping[str, Band] = REGIONS) -> xr.DataArray:
    """Area weights within each region, (region, latitude, longitude); the globe's sum to 1.

    Raises
    ------
    InputError
        If a region holds no point of the grid.
    """
    weights = grid.area_weights
    masks = np.stack([band.holds(grid.latitude) for band in regions.values()])
    for name, mask in zip(regions, masks, strict=True):
        if not mask.any():
            raise InputError(f"region {name!r} holds no latitude of the grid {grid}")
    return xr.DataArray(
        masks[:, :, None] * weights,
        {"region": list(regions), "latitude": grid.latitude, "longitude": grid.longitude},
        ("region", "latitude", "longitude"),
    )


def equal_weights(cells: xr.DataArray) -> xr.DataArray:
    """Equal weights summing to 1 for grids without latitudes, (region, *dims of `cells`)."""
    weights = xr.full_like(cells, 1.0 / cells.size, dtype=float)
    return weights.expand_dims(region=[EVERYWHERE])
