"""Text labels in stores: zarr v3 has no stable string type, CF flags are the way round it."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import xarray as xr

from data.errors import StoreError

PROGRAM = "myriadcast"
# The CF attribute `source` of every store, by which what we wrote is told from what others did.
SOURCE = f"{PROGRAM} {version(PROGRAM)}"


def encode(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with every text coordinate as integers with CF `flag_values`/`flag_meanings`.

    Meanings are a list (CF writes them separated by blanks, which units contain).
    """
    coded = {}
    for name, coordinate in dataset.coords.items():
        if coordinate.dtype.kind not in "UOT":
            continue
        texts = [str(text) for text in np.atleast_1d(coordinate.values)]
        meanings = list(dict.fromkeys(texts))
        codes = np.array([meanings.index(text) for text in texts], np.int32)
        attributes = {
            **coordinate.attrs,
            "flag_values": list(range(len(meanings))),
            "flag_meanings": meanings,
        }
        coded[name] = (coordinate.dims, codes.reshape(coordinate.shape), attributes)
    return dataset.assign_coords(coded)


def decode(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with every flagged coordinate as text; the inverse of `encode`.

    Raises
    ------
    StoreError
        If a code has no meaning.
    """
    decoded = {}
    for name, coordinate in dataset.coords.items():
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
