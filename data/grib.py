"""Reading GRIB with cfgrib and ecCodes, which the extra ``grib`` brings.

ecCodes is not thread-safe as installed by pip: a lock serialises all reading within a process.
Convert to zarr before many workers read.
"""

from __future__ import annotations

import threading
from pathlib import Path

import cfgrib
import numpy as np
import xarray as xr
from cfgrib.dataset import OnDiskArray, compute_index_keys, open_fileindex, open_from_index
from cfgrib.messages import FileIndex, FileStream
from xarray.backends import BackendArray
from xarray.coders import CFDatetimeCoder, CFTimedeltaCoder
from xarray.core import indexing

from data.errors import InputError

_LOCK = threading.Lock()
_LEVEL_TYPES = (
    "isobaricInhPa", "isobaricInPa", "heightAboveGround", "surface", "meanSea",
    "entireAtmosphere", "atmosphere", "atmosphereSingleLayer",
)  # fmt: skip
_GROUP_KEYS = ("shortName", "typeOfLevel", "stepType")
_END = b"7777"


def open_grib(path: Path) -> list[xr.Dataset]:
    """One lazy dataset per variable and type of level with instantaneous values.

    Perturbed and control members of one ensemble are one variable along `number`. No index
    file is written.

    Raises
    ------
    InputError
        If the file is truncated or holds messages that do not form arrays.
    """
    _check_end(path)
    try:
        with _LOCK:
            index = _index(path)
            groups = sorted({tuple(_header(index, row)) for row, _ in index.iter_index()})
            return [
                _dataset(index.subindex(dict(zip(_GROUP_KEYS, group, strict=True))))
                for group in groups
                if group[1] in _LEVEL_TYPES and group[2] == "instant"
            ]
    except (EOFError, OSError, ValueError, cfgrib.DatasetBuildError) as error:
        raise InputError(f"{path}: cannot be read as GRIB ({error})") from error


def _check_end(path: Path) -> None:
    """Raise InputError unless the file ends with the end of a message, or padding after it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))
        tail = file.read().rstrip(b"\0 \n")
    if not tail.endswith(_END):
        raise InputError(f"{path}: GRIB file is truncated: it does not end with a whole message")


def _index(path: Path) -> FileIndex:
    keys = compute_index_keys(filter_by_keys=dict.fromkeys(_GROUP_KEYS))
    stream = FileStream(str(path), errors="raise")
    return open_fileindex(stream, indexpath="", index_keys=keys, ignore_keys=["dataType"])


def _header(index: FileIndex, row: tuple[str, ...]) -> list[str]:
    return [row[index.index_keys.index(key)] for key in _GROUP_KEYS]


def _dataset(index: FileIndex) -> xr.Dataset:
    """The dataset of one variable, its values on disk."""
    opened = open_from_index(index, errors="raise")
    variables = {}
    for name, variable in opened.variables.items():
        data = variable.data
        if isinstance(data, OnDiskArray):
            data = indexing.LazilyIndexedArray(_Messages(data))
        variables[name] = (variable.dimensions, data, dict(variable.attributes))
    return xr.decode_cf(
        xr.Dataset(variables),
        decode_times=CFDatetimeCoder(use_cftime=False),
        decode_timedelta=CFTimedeltaCoder(),
    )


class _Messages(BackendArray):
    """The values of many messages as one array that reads them when indexed."""

    def __init__(self, array: OnDiskArray) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        with _LOCK:
            return self.array[key]
