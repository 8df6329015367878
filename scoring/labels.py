"""Text labels in stores of zarr v3."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from data.consolidated import consolidate
from data.errors import StoreError

PROGRAM = "myriadcast"
# The CF attribute `source` of every store, by which what we wrote is told from what others did.
SOURCE = f"{PROGRAM} {version(PROGRAM)}"


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
