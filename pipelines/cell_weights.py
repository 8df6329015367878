"""What each cell counts in each region: its area, or as much as any other, times a mask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from data.regular_grid import RegularGrid
from pipelines.masks import fitted
from scoring.regions import EVERYWHERE, Region, equal_weights, region_weights

_GLOBE = "globe"


def cell_weights(
    cells: xr.DataArray,
    grid: Grid | None,
    regions: Mapping[str, Region],
    mask: xr.DataArray | None,
    where: str,
) -> xr.DataArray:
    """Weights of cells in those regions that they reach, (region, *cells).

    The attribute `weights` says whether they are areas or equal, `notes` what there is to say of
    them. A grid that is not global has the region `all` in place of the globe.

    Parameters
    ----------
    cells : xarray.DataArray
        One field, for its coordinates.
    grid : Grid or None
        The global grid, if it is a known one: it has weights of its own.
    regions : mapping of str to Region
        Of the globe.
    mask : xarray.DataArray or None
        Weights beside the area's, not negative.
    where : str
        The forecast's file, for messages.

    Raises
    ------
    InputError
        If latitudes are none, no region is reached, or the mask does not fit.
    """
    kind, notes = "area", []
    if grid is not None:
        weights = region_weights(grid, regions)
    elif "latitude" in cells.dims and "latitude" in cells.coords:
        weights = _of_regular_grid(cells, regions, where)
        weights, notes = _reached(weights, "no cell of the grid lies in")
    else:
        weights, kind = equal_weights(xr.DataArray(np.zeros(cells.shape), dims=cells.dims)), "equal"
        notes.append(
            "All cells count alike: the grid has no dimension latitude, which would tell areas."
        )
    weights = weights.transpose("region", *cells.dims)
    if mask is not None:
        weights = weights * fitted(mask, cells).values
        weights, more = _reached(weights, "the mask leaves nothing of")
        notes += more
    coordinates = {dim: cells[dim] for dim in cells.dims if dim in cells.coords}
    return weights.assign_coords(coordinates).assign_attrs(weights=kind, notes=notes)


def _of_regular_grid(
    cells: xr.DataArray, regions: Mapping[str, Region], where: str
) -> xr.DataArray:
    """Areas in each region, 0 in those that are not reached, (region, latitude, *others)."""
    others = {dim: size for dim, size in cells.sizes.items() if dim != "latitude"}
    columns = int(np.prod(list(others.values()), initial=1))
    longitude = np.full(columns, np.nan)  # in no box
    if list(others) == ["longitude"] and "longitude" in cells.coords:
        longitude = cells.longitude.values.astype(float)
    grid = RegularGrid(cells.latitude.values.astype(float), longitude, where)
    masks = np.stack([region.mask(grid) for region in regions.values()])
    names = [EVERYWHERE if name == _GLOBE and not grid.is_global else name for name in regions]
    values = (masks * grid.area_weights).reshape(len(names), grid.shape[0], *others.values())
    return xr.DataArray(values, {"region": names}, ("region", "latitude", *others))


def _reached(weights: xr.DataArray, empty: str) -> tuple[xr.DataArray, list[str]]:
    """Those regions that have any weight, and a sentence on the others.

    Raises
    ------
    InputError
        If there is none; it says what is `empty`.
    """
    there = weights.any(weights.dims[1:]).values
    missing = ", ".join(weights.region.values[~there])
    if not there.any():
        raise InputError(f"{empty} {missing}")
    return weights.isel(region=there), [f"Left out: {empty} {missing}."] if missing else []
