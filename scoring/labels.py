"""Labels in stores of zarr v3: as text, and of axes that share a name but not their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data.consolidated import consolidate
from data.errors import StoreError

PROGRAM = "myriadcast"
# The CF attribute `source` of every store, by which what we wrote is told from what others did.
SOURCE = f"{PROGRAM} {version(PROGRAM)}"
# The attribute of an axis that `apart` has renamed: its own name.
_AXIS = "axis_name"


def encode(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with every text coordinate as strings of any length, which zarr v3 can store;
    those of one length, which numpy makes, it cannot."""
    texts = {
        name: coordinate.copy(data=np.array(coordinate.values.tolist(), object))
        for name, coordinate in dataset.coords.items()
        if coordinate.dtype.kind in "UOT"
    }
    return dataset.assign_coords(texts)


def save(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset to a new zarr v3 store, which ``xarray.open_zarr(path)`` opens as it is."""
    encode(dataset).to_zarr(path, zarr_format=3, consolidated=False, mode="w-")
    consolidate(path, (*dataset.coords, *dataset.data_vars))


def load(path: Path, what: str, needed: Sequence[str] = ()) -> xr.Dataset:
    """A dataset that `save` wrote, in memory and with its labels as text.

    Parameters
    ----------
    path : pathlib.Path
        Of the store.
    what : str
        What is expected there, as an error says it.
    needed : sequence of str
        Variables that it must have.

    Raises
    ------
    StoreError
        If there is none, or it lacks one of them.
    """
    try:
        with xr.open_zarr(path, consolidated=False, decode_timedelta=True) as dataset:
            if missing := [name for name in needed if name not in dataset]:
                raise StoreError(f"{path}: no {what} there: it has no {missing[0]!r}")
            return decode(dataset).load()
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no {what} there: {error}") from error


def decode(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with every text coordinate, or one of CF flags, as text of numpy; the inverse of
    `encode`.

    Raises
    ------
    StoreError
        If a code has no meaning.
    """
    decoded = {}
    for name, coordinate in dataset.coords.items():
        if coordinate.dtype.kind in "OT":
            decoded[name] = coordinate.copy(data=np.array(coordinate.values.tolist(), str))
        if "flag_meanings" not in coordinate.attrs:
            continue
        attributes = dict(coordinate.attrs)
        meanings = attributes.pop("flag_meanings")
        meanings = meanings.split() if isinstance(meanings, str) else list(meanings)
        values = attributes.pop("flag_values", list(range(len(meanings))))
        texts = dict(zip(np.atleast_1d(values).tolist(), meanings, strict=True))
        codes = coordinate.values
        unknown = set(codes.ravel().tolist()) - set(texts)
        if unknown:
            raise StoreError(f"coordinate {name!r}: code {unknown.pop()} is not among {texts}")
        words = np.array([texts[code] for code in codes.ravel().tolist()], dtype=str)
        decoded[name] = (coordinate.dims, words.reshape(codes.shape), attributes)
    return dataset.assign_coords(decoded)


def apart(
    arrays: Mapping[str, xr.DataArray], joined: Callable[[str, Sequence[pd.Index]], bool]
) -> dict[str, xr.DataArray]:
    """The arrays as variables of one dataset, in which none has labels of another.

    An axis of the same name but with other labels is called `name_2`, `name_3`, ..., and has its
    own name as an attribute.

    Parameters
    ----------
    arrays : mapping of str to xarray.DataArray
        By name; the first array with an axis keeps the plain name of it.
    joined : callable
        Whether an axis, by its name and all the sets of labels that it has, is to be left alone.
    """
    known: dict[str, list[pd.Index]] = {}
    for array in arrays.values():
        for dim, index in array.indexes.items():
            different = known.setdefault(str(dim), [])
            if not any(_alike(index, other) for other in different):
                different.append(index)
    own = {dim: found for dim, found in known.items() if not joined(dim, found)}
    return {name: _with_own_axes(array, own) for name, array in arrays.items()}


def plain(array: xr.DataArray) -> xr.DataArray:
    """One of the variables with the plain names of its axes; the inverse of `apart`."""
    names = {
        str(name): str(axis.attrs[_AXIS])
        for name, axis in array.coords.items()
        if _AXIS in axis.attrs
    }
    array = array.rename(names)
    for name in names.values():
        del array.coords[name].attrs[_AXIS]
    return array


def _alike(one: pd.Index, two: pd.Index) -> bool:
    return one.dtype == two.dtype and one.equals(two)


def _with_own_axes(array: xr.DataArray, known: Mapping[str, Sequence[pd.Index]]) -> xr.DataArray:
    names = {}
    for dim, different in known.items():
        if dim in array.indexes:
            place = [_alike(array.indexes[dim], index) for index in different].index(True)
            names |= {dim: f"{dim}_{place + 1}"} if place else {}
    array = array.rename(names)
    for dim, name in names.items():
        array.coords[name].attrs[_AXIS] = dim
    return array
