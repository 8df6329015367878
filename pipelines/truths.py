"""Truth and analyses in one file or several, by channel and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from data.climatology import Climatology
from data.errors import InputError
from data.grid import Grid
from data.regular_grid import same_coordinates
from data.source import Source, open_source
from data.state import check_bounds

Paths = Path | str | Sequence[Path | str]
SERIES = ("init_time", "number", "lead_time")


@dataclass(frozen=True)
class Series:
    """One channel at some times: in memory where all of it is small, else read when asked for.

    Attributes
    ----------
    truths : Truths
        Where it is.
    name : str
        The channel.
    dims : tuple of str
        The horizontal dimensions, in order.
    times : numpy.ndarray
        (time,), datetime64[s], ascending.
    values : numpy.ndarray or None
        (time, *cells)
    """

    truths: Truths
    name: str
    dims: tuple[str, ...]
    times: np.ndarray
    values: np.ndarray | None

    def at(self, times: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        """At some of the times, (time, *cells)."""
        if self.values is None:
            found = self.truths.read(self.name, times).transpose("time", *self.dims).values
        else:
            found = self.values[np.searchsorted(self.times, times)]
        return found[:, rows]


@dataclass(frozen=True)
class Truths:
    """Truth in one file or several, by channel and time."""

    sources: tuple[Source, ...]
    where: str

    @classmethod
    def open(cls, paths: Paths) -> Truths:
        """Open one path or several; only coordinates are read."""
        paths = listed(paths)
        return cls(tuple(open_source(path) for path in paths), ", ".join(map(str, paths)))

    def times(self, name: str) -> np.ndarray:
        """Valid times of a channel, datetime64[s], ascending.

        Raises
        ------
        InputError
            If no file has the channel in usable units.
        """
        holding = [source for source in self.sources if name in source.channels]
        for source in holding or self.sources:
            source.check_channels([name])
        return np.unique(np.concatenate([source.times for source in holding]))

    def read(self, name: str, times: np.ndarray) -> xr.DataArray:
        """A channel at these times, (time, *cells), in memory."""
        parts = []
        for source in self.sources:
            if name in source.channels:
                here = times[np.isin(times, source.times)]
                if here.size:
                    parts.append(_first_member(source.dataset([name], here)[name]))
        joined = xr.concat(parts, "time", join="override", coords="minimal", compat="override")
        found = joined.sel(time=times.astype("datetime64[ns]")).load()
        check_bounds(found.values, name, f"{self.where}: {name}")
        return found

    def series(self, name: str, times: np.ndarray, dims: tuple[str, ...], memory: int) -> Series:
        """A channel at these times, ascending, in memory if it takes less than so many bytes."""
        small = times.size and 4 * times.size * self.cells(name).size <= memory
        values = self.read(name, times).transpose("time", *dims).values if small else None
        return Series(self, name, dims, times, values)

    def check(self, forecast: xr.Dataset, names: Sequence[str], where: str) -> None:
        """Raise InputError unless every init time of these channels is here, on the same grid."""
        inits = forecast.init_time.values.astype("datetime64[s]")
        for name in names:
            missing = inits[~np.isin(inits, self.times(name))]
            if missing.size:
                others = f" (and {missing.size - 1} more)" if missing.size > 1 else ""
                raise InputError(
                    f"{self.where}: {name} at {missing[0]}{others}, an init time of {where}, is "
                    "not in it"
                )
            check_cells(forecast[name], self.cells(name), where, self.where)

    def cells(self, name: str) -> xr.DataArray:
        """One field of a channel, lazily, for its coordinates."""
        source = next(source for source in self.sources if name in source.channels)
        return _first_member(source.dataset([name], source.times[:1])[name]).isel(time=0)


def _first_member(array: xr.DataArray) -> xr.DataArray:
    """The array alone; of an ensemble of analyses the first member, which is its control."""
    array = array.reset_coords(drop=True)
    return array.isel(number=0, drop=True) if "number" in array.dims else array


def cell_dims(array: xr.DataArray) -> tuple[str, ...]:
    """The dimensions that are not init time, number or lead time."""
    return tuple(str(dim) for dim in array.dims if dim not in (*SERIES, "time"))


def open_climatology(
    path: Path, channels: Sequence[str], grid: Grid | None, where: str
) -> Climatology:
    """The climatology, if it holds every channel on the grid of the forecast `where`.

    Raises
    ------
    InputError
        If it does not.
    """
    found = Climatology(path)
    missing = [name for name in channels if name not in found.channels]
    if missing:
        raise InputError(f"{path}: channel {missing[0]!r} is missing")
    if found.grid != grid:
        raise InputError(f"{path}: lies on the grid {found.grid}, {where} on {grid}")
    return found


def listed(paths: Paths) -> list[Path | str]:
    """One path or several as a list."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


def check_cells(forecast: xr.DataArray, truth: xr.DataArray, where: str, truth_at: str) -> None:
    """Raise InputError unless both lie on the same horizontal grid."""
    dims = cell_dims(forecast)
    if set(dims) != set(cell_dims(truth)):
        found = ", ".join(cell_dims(truth))
        raise InputError(f"{truth_at}: {forecast.name} has dimensions {found}, {where} has {dims}")
    for dim in dims:
        ours, theirs = forecast[dim].values, truth[dim].values
        if not same_coordinates(ours, theirs):
            raise InputError(
                f"{truth_at}: {forecast.name} lies on another grid: {dim} has {theirs.size} values "
                f"{theirs[0]:g} to {theirs[-1]:g}, {where} has {ours.size} values {ours[0]:g} to "
                f"{ours[-1]:g}"
            )
