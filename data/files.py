"""Opening files by what they contain: zarr, NetCDF, GRIB."""

from __future__ import annotations

from pathlib import Path

import xarray as xr
from xarray.coders import CFDatetimeCoder, CFTimedeltaCoder

from data.errors import InputError, MissingExtraError
from data.netcdf3 import expected_size

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")


def open_file(path: str | Path) -> list[xr.Dataset]:
    """The datasets in a file, lazily: one for zarr and NetCDF, one per variable for GRIB.

    Parameters
    ----------
    path : str or pathlib.Path
        File or folder; a string with ``://`` is the address of a zarr store.

    Raises
    ------
    InputError
        If it is missing, damaged, or of no known format.
    MissingExtraError
        If it is a GRIB file and the extra ``grib`` is not installed.
    """
    if "://" in str(path):
        return [_open(str(path), engine="zarr")]
    path = Path(path)
    try:
        there, marks = path.exists(), [mark for mark in _ZARR_MARKS if (path / mark).exists()]
    except OSError as error:  # no permission, or no possible name
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not there:
        raise InputError(f"{path}: does not exist")
    if path.is_dir():
        if not marks:
            raise InputError(f"{path}: is a folder, but no zarr store ({', '.join(_ZARR_MARKS)})")
        consolidated = (path / ".zmetadata").exists()
        return [_open(str(path), engine="zarr", consolidated=consolidated)]
    start = _start(path)
    if start[:3] == b"CDF":
        _check_length(path)
    if start[:3] == b"CDF" or start[:4] == b"\x89HDF":
        return [_open(str(path), engine="netcdf4")]
    if b"GRIB" in start:
        return _open_grib(path)
    raise InputError(f"{path}: is no zarr store, NetCDF or GRIB file ({path.stat().st_size} bytes)")


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _check_length(path: Path) -> None:
    """Raise InputError if a classic NetCDF file is shorter than its header says."""
    try:
        expected = expected_size(path)
    except (EOFError, KeyError, IndexError) as error:
        raise InputError(f"{path}: NetCDF header is damaged or truncated ({error})") from error
    found = path.stat().st_size
    if found < expected:
        raise InputError(f"{path}: NetCDF file is truncated: {found} of {expected} bytes")


def _open(path: str, engine: str, consolidated: bool | None = None) -> xr.Dataset:
    backend = {"consolidated": consolidated} if engine == "zarr" else {}
    try:
        return xr.open_dataset(
            path,
            engine=engine,
            chunks=None,
            decode_times=CFDatetimeCoder(use_cftime=False),
            decode_timedelta=CFTimedeltaCoder(),
            backend_kwargs=backend,
        )
    except Exception as error:  # whatever the decoder of a damaged file raises
        raise InputError(
            f"{path}: cannot be opened; is it complete? ({type(error).__name__}: {error})"
        ) from error


def _open_grib(path: Path) -> list[xr.Dataset]:
    try:
        from data.grib import open_grib
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: reading GRIB needs the extra 'grib': pip install 'myriadcast[grib]'"
        ) from error
    return open_grib(path)
