"""Where analyses and truth come from: files in any known layout, checked at the door."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import xarray as xr

from data.errors import InputError
from data.files import open_file
from data.grid import Grid
from data.layout import (
    Field,
    fields_in_time,
    find_fields,
    holds_channel,
    in_table_order,
    known_grid,
    series_by_init_time,
    to_house_layout,
)
from data.state import State, checked_fields, from_dataset

_CHUNK_BYTES = 2**24
# What our forecast stores say of members: coordinates of forecasts in files as well.
_OF_MEMBERS = ("checkpoint", "pair", "completed")


class Source(Protocol):
    """A series of analyses, of truth, or of an ensemble in time.

    Attributes
    ----------
    channels : tuple of str
        Names of the channels it offers.
    grid : Grid or None
        Their global grid; None on any other grid, which can be scored but not forecast from.
    times : numpy.ndarray
        Valid times, (time,), datetime64[s], ascending.
    """

    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def grid(self) -> Grid | None: ...
    @property
    def times(self) -> np.ndarray: ...

    def check_times(self, times: Iterable[np.datetime64]) -> None:
        """Raise InputError unless every time is here; reads nothing."""
        ...

    def check_channels(self, channels: Iterable[str]) -> None:
        """Raise InputError unless every channel is here in usable units; reads nothing."""
        ...

    def analysis(self, time: np.datetime64, channels: Sequence[str] | None = None) -> State:
        """The state at a time, with these channels (all by default), checked."""
        ...

    def values(self, time: np.datetime64, channels: Sequence[str]) -> np.ndarray:
        """The same as (number, channel, latitude, longitude), float32, without torch."""
        ...

    def dataset(
        self, channels: Sequence[str] | None = None, times: Sequence[np.datetime64] | None = None
    ) -> xr.Dataset:
        """Channels (all by default) at times (all by default), lazily, in the house's layout."""
        ...


def open_forecasts(path: str | Path) -> list[FileSource]:
    """The forecasts in a file of any layout, as one source in valid time for each init time.

    Each says how far ahead it is by a coordinate `lead_time`, and has what the file tells of
    members: `checkpoint`, `pair` and `completed`. Only coordinates and attributes are read.

    Raises
    ------
    InputError, MissingExtraError
        As `open_source`.
    """
    where = str(path)
    series: dict[int, list[xr.Dataset]] = {}
    unknown: list[str] = []
    for dataset in open_file(path):
        dataset = dataset.set_coords([name for name in _OF_MEMBERS if name in dataset])
        for place, one in enumerate(series_by_init_time(dataset)):
            found = to_house_layout(one, where, forecasts=True)
            series.setdefault(place, []).append(found)
            if place == 0:
                unknown += [n for n in fields_in_time(dataset) if not holds_channel(found, n)]
    sources = [_source_of(datasets, where) for datasets in series.values()]
    return [replace(source, unknown=tuple(unknown)) for source in sources]


def open_source(path: str | Path) -> Source:
    """The source in a zarr store, NetCDF or GRIB file, in any layout of `data.layout`.

    Only coordinates and attributes are read.

    Parameters
    ----------
    path : str or pathlib.Path
        File or folder; a string with ``://`` is the address of a zarr store.

    Raises
    ------
    InputError
        If it is missing, damaged, of no known format or layout, or its times are unusable.
    MissingExtraError
        If it is a GRIB file and the extra ``grib`` is not installed.
    """
    where = str(path)
    return _source_of([to_house_layout(dataset, where) for dataset in open_file(path)], where)


def _source_of(datasets: Sequence[xr.Dataset], where: str) -> FileSource:
    """The source of datasets in the house's layout; InputError if no channel is in them."""
    fields: dict[str, Field] = {}
    found: list[str] = []
    for dataset in datasets:
        fields |= find_fields(dataset, where)
        found += map(str, dataset.data_vars)
    if not fields:
        raise InputError(
            f"{where}: no known channel among its variables {', '.join(found) or '(none)'}; known "
            "are our own names (z500), WeatherBench's, GRIB short names and CF standard names "
            "with a pressure or height, on two horizontal dimensions"
        )
    return FileSource(where, in_table_order(fields))


@dataclass(frozen=True)
class FileSource:
    """A `Source` over an opened file.

    Parameters
    ----------
    where : str
        The file, as errors name it.
    fields : dict of str to Field
        Where each channel lies.
    unknown : tuple of str
        Of forecasts, fields in time that hold no known channel.
    """

    where: str
    fields: dict[str, Field]
    unknown: tuple[str, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels it offers."""
        return tuple(self.fields)

    @cached_property
    def grid(self) -> Grid | None:
        """The global grid of the channels; None on any other grid."""
        return known_grid(next(iter(self.fields.values())).array)

    @cached_property
    def times(self) -> np.ndarray:
        """Valid times, (time,), datetime64[s], ascending; those that every channel has."""
        times = [_times(field) for field in self.fields.values()]
        common = times[0]
        for others in times[1:]:
            common = common if np.array_equal(common, others) else np.intersect1d(common, others)
        return common

    def check_times(self, times: Iterable[np.datetime64]) -> None:
        """Raise InputError unless every time is here; reads nothing."""
        wanted = np.asarray(list(times), "datetime64[s]")
        missing = wanted[~np.isin(wanted, self.times)]
        if not missing.size:
            return
        if not self.times.size:
            raise InputError(f"{self.where}: its channels have no time in common")
        after = int(np.searchsorted(self.times, missing[0]))
        first = max(0, min(after - 1, self.times.size - 2))
        near = " and ".join(map(str, self.times[first : first + 2]))
        others = f" (and {missing.size - 1} more)" if missing.size > 1 else ""
        raise InputError(
            f"{self.where}: time {missing[0]}{others} is not in it; the nearest are {near}, of "
            f"{self.times.size} from {self.times[0]} to {self.times[-1]}"
        )

    def check_channels(self, channels: Iterable[str]) -> None:
        """Raise InputError unless every channel is here in usable units; reads nothing."""
        for name in channels:
            if name not in self.fields:
                near = get_close_matches(name, self.fields, n=1)
                hint = f", the nearest is {near[0]!r}" if near else ""
                raise InputError(
                    f"{self.where}: channel {name!r} is missing{hint}; it offers "
                    f"{', '.join(self.fields)}"
                )
            self.fields[name].conversion(self.where)

    def analysis(self, time: np.datetime64, channels: Sequence[str] | None = None) -> State:
        """The state at a time, with these channels (all by default), checked.

        An ensemble gives all its members, by their numbers in the file.

        Raises
        ------
        InputError
            If the time or a channel is missing, units do not convert, values cannot be read,
            are not finite or out of bounds, or the grid is no known global one.
        """
        channels = self.channels if channels is None else tuple(channels)
        return from_dataset(self._at(time, channels), channels, self.where)

    def values(self, time: np.datetime64, channels: Sequence[str]) -> np.ndarray:
        """The values of `analysis`, (number, channel, latitude, longitude), float32, checked.

        Nothing here imports torch. Raises as `analysis` does.
        """
        return checked_fields(self._at(time, tuple(channels)), tuple(channels), self.where)

    def _at(self, time: np.datetime64, channels: tuple[str, ...]) -> xr.Dataset:
        """Channels at a time, in memory, as `from_dataset` takes them."""
        self.check_channels(channels)
        self.check_times([time])
        if self.grid is None:
            self._explain_grid()
        variables = {}
        for array, fields in _by_array(self.fields[name] for name in channels):
            array = _at_time(array, time)
            values = self._read(_levels(array, fields), time)
            for index, field in enumerate(fields):
                one = values.isel(level=index) if "level" in values.dims else values
                converted = field.conversion(self.where)(one.values)
                variables[field.channel.name] = one.dims, converted
        coordinates = {"latitude": self.grid.latitude, "longitude": self.grid.longitude}
        coordinates |= {"valid_time": np.datetime64(time, "ns"), "number": self._numbers}
        return xr.Dataset({k: _with_number(*v) for k, v in variables.items()}, coordinates)

    def dataset(
        self, channels: Sequence[str] | None = None, times: Sequence[np.datetime64] | None = None
    ) -> xr.Dataset:
        """Channels (all by default) at times (all by default), lazily, in the house's layout.

        One float32 variable per channel, (time, [number,] latitude, longitude) or the file's
        two horizontal dimensions in place of the last; values are not checked.

        Raises
        ------
        InputError
            If a time or channel is missing or units do not convert.
        """
        channels = self.channels if channels is None else tuple(channels)
        times = self.times if times is None else np.asarray(list(times), "datetime64[s]")
        self.check_channels(channels)
        self.check_times(times)
        variables = {}
        for array, fields in _by_array(self.fields[name] for name in channels):
            lazy = _chunked(_at_times(array, times))
            for field in fields:
                one = lazy if field.level is None else lazy.isel(level=field.level, drop=True)
                variables[field.channel.name] = self._converted(one, field)
        return xr.Dataset(
            {name: variables[name] for name in channels}, attrs={"source": self.where}
        )

    @cached_property
    def _numbers(self) -> np.ndarray:
        """Numbers of the members of an ensemble, or 0."""
        array = next(iter(self.fields.values())).array
        return array.number.values if "number" in array.dims else np.zeros(1, int)

    def _explain_grid(self) -> None:
        """Raise InputError that says why this is no known global grid."""
        array = next(iter(self.fields.values())).array
        if not {"latitude", "longitude"} <= set(array.dims):
            raise InputError(
                f"{self.where}: dimensions {', '.join(map(str, array.dims))} are no "
                "latitude-longitude grid, which a forecast needs"
            )
        Grid.from_coordinates(array.latitude.values, array.longitude.values, self.where)

    def _read(self, array: xr.DataArray, time: np.datetime64) -> xr.DataArray:
        try:
            return array.compute()
        except Exception as error:  # whatever the decoder of a damaged file raises
            raise InputError(
                f"{self.where}: {array.name} at {np.datetime64(time, 's')} cannot be read; is the "
                f"file complete? ({type(error).__name__}: {error})"
            ) from error

    def _converted(self, array: xr.DataArray, field: Field) -> xr.DataArray:
        convert = field.conversion(self.where)
        keep = {"time", "number", "lead_time", *array.dims, "latitude", "longitude", *_OF_MEMBERS}
        array = array.drop_vars([name for name in array.coords if name not in keep])
        lazy = array.copy(data=array.data.map_blocks(convert, dtype=np.float32))
        lazy.attrs = field.channel.attributes
        return lazy.drop_encoding()


def _times(field: Field) -> np.ndarray:
    return np.atleast_1d(field.array.time.values).astype("datetime64[s]")


def _by_array(fields: Iterable[Field]) -> list[tuple[xr.DataArray, list[Field]]]:
    """Fields by the variable they lie in, so that each is read once."""
    groups: dict[int, tuple[xr.DataArray, list[Field]]] = {}
    for field in fields:
        groups.setdefault(id(field.array), (field.array, []))[1].append(field)
    return list(groups.values())


def _levels(array: xr.DataArray, fields: list[Field]) -> xr.DataArray:
    if "level" not in array.dims:
        return array
    return array.isel(level=[field.level for field in fields])


def _at_time(array: xr.DataArray, time: np.datetime64) -> xr.DataArray:
    if "time" not in array.dims:
        return array
    times = array.time.values.astype("datetime64[s]")
    return array.isel(time=int(np.searchsorted(times, np.datetime64(time, "s"))))


def _at_times(array: xr.DataArray, times: np.ndarray) -> xr.DataArray:
    """The array along these times; equal steps become a slice, which files read fast."""
    if "time" not in array.dims:
        return array.isel(time=0) if array.time.ndim else array
    index = np.searchsorted(array.time.values.astype("datetime64[s]"), times)
    steps = np.unique(np.diff(index))
    if steps.size == 1 and steps[0] > 0:
        return array.isel(time=slice(index[0], index[-1] + 1, steps[0]))
    return array.isel(time=index)


def _chunked(array: xr.DataArray) -> xr.DataArray:
    """The array as lazy chunks of about 16 MB along time, the first dimension."""
    if "time" not in array.dims:
        return array.chunk().expand_dims("time")
    stored = array.encoding.get("preferred_chunks", {}).get("time", 1)
    size = array.dtype.itemsize * stored * array.size // max(1, array.sizes["time"])
    return array.chunk(time=stored * max(1, _CHUNK_BYTES // max(1, size)))


def _with_number(dims: tuple[str, ...], values: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    return (dims, values) if "number" in dims else (("number", *dims), values[None])
