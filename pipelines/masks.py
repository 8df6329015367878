"""Masks: weights of cells beside their area, such as the share of land."""

from __future__ import annotations

import numpy as np
import xarray as xr

from data.errors import InputError
from data.files import open_file
from data.layout import oriented

_NAMES = {"lat": "latitude", "lon": "longitude"}


def open_mask(address: str) -> xr.DataArray:
    """The variable of a file, ``FILE:VARIABLE``, in memory; dimensions of length 1 are dropped.

    As of forecasts and truth, circles of latitude are turned from north to south and longitudes
    eastward from 0.

    Raises
    ------
    InputError
        If the file or the variable is missing.
    """
    path, _, name = address.rpartition(":")
    if not path or not name:
        raise InputError(f"mask {address!r}: expected FILE:VARIABLE")
    for dataset in open_file(path):
        if name in dataset.data_vars:
            array = dataset[name].squeeze(drop=True).load()
            names = {old: new for old, new in _NAMES.items() if old in array.dims}
            return oriented(array.rename(names).to_dataset(name=name))[name]
        found = ", ".join(map(str, dataset.data_vars))
    raise InputError(f"{path}: variable {name!r} is missing, found {found}")


def fitted(mask: xr.DataArray, cells: xr.DataArray) -> xr.DataArray:
    """The mask with the dimensions and in the order of `cells`.

    Raises
    ------
    InputError
        If it lies on other cells, is negative or missing somewhere, or 0 everywhere.
    """
    if set(mask.dims) != set(cells.dims):
        raise InputError(f"the mask has dimensions {mask.dims}, expected {cells.dims}")
    mask = mask.transpose(*cells.dims)
    for dim in cells.dims:
        known = dim in mask.coords and dim in cells.coords
        if mask.sizes[dim] != cells.sizes[dim] or (
            known and not np.allclose(mask[dim].values, cells[dim].values, rtol=0, atol=0.01)
        ):
            raise InputError(f"the mask lies on other cells: its {dim} is not the forecast's")
    values = mask.values.astype(float)
    if not (values >= 0).all() or not values.any():
        raise InputError("a mask must not be negative or missing anywhere, nor 0 everywhere")
    return mask.copy(data=values)
