"""What the atmosphere does at a place without knowing the day: mean, spread and an ensemble."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import xarray as xr
from zarr.codecs import BloscCodec

from data.channel import channel
from data.consolidated import consolidate
from data.errors import InputError, StoreError
from data.files import open_file
from data.grid import Grid
from data.packing import round_to_quantum
from data.source import Source
from data.state import State

_BAND_BYTES = 2**28
_DAYS_IN_YEAR = 365.2425
_CYCLE = ("dayofyear", "hour")
_AXES = ("latitude", "longitude")
_COARSENING = 8  # of the members' quantum against the channel's: 1/8 K, 1/8 m/s


@dataclass(frozen=True)
class Seasons:
    """A climatology for each of several days of the year and hours of the day.

    Attributes
    ----------
    days : tuple of int
        Days of the year, each the centre of a window.
    half_width : float
        Days to either side, over the turn of the year, that count for one.
    hours : tuple of int
        Hours UTC; a sample counts for the nearest.
    """

    days: tuple[int, ...] = tuple(range(15, 365, 30))
    half_width: float = 30.0
    hours: tuple[int, ...] = (0, 6, 12, 18)

    def samples(self, times: np.ndarray, day: int, hour: int) -> np.ndarray:
        """Whether each time counts for this day of the year and hour, (time,), bool."""
        days, hours = _calendar(times)
        return (_around(days - day, _DAYS_IN_YEAR) <= self.half_width) & (
            _nearest(hours, self.hours, 24.0) == self.hours.index(hour)
        )


def climatology_from(
    source: Source,
    channels: Sequence[str],
    times: Sequence[np.datetime64] | None = None,
    members: int = 50,
    seasons: Seasons | None = None,
) -> xr.Dataset:
    """Mean, standard deviation and equally probable members of each channel over times.

    Member i of m is the quantile at probability (i - 1/2) / m, computed exactly from all times
    at each grid point (Hazen's positions: with m times they are the sorted values). Memory
    stays below about 1 GB: bands of latitude are read one after the other.

    Parameters
    ----------
    source : Source
        Truth, or analyses, on a latitude-longitude grid.
    channels : sequence of str
        Channels to take.
    times : sequence of numpy.datetime64, optional
        Times to take; all by default.
    members : int
        Size of the ensemble.
    seasons : Seasons, optional
        Without it all times count alike: right where there are no seasons or too few years.

    Returns
    -------
    xarray.Dataset
        Per channel ``<name>(number, latitude, longitude)``, ``<name>_mean`` and ``<name>_std``
        (both (latitude, longitude), std over times), float32; with leading dimensions
        (dayofyear, hour) if there are seasons.

    Raises
    ------
    InputError
        If a channel or time is missing, the grid is unknown, a value is not finite, or a
        season has no sample.
    """
    if source.grid is None:
        raise InputError("a climatology needs analyses on a known global grid")
    dataset = source.dataset(tuple(channels), times)
    selections = _selections(dataset.time.values, seasons)
    probability = (np.arange(members) + 0.5) / members
    variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict]] = {}
    for name in channels:
        statistics = [_statistics(dataset[name], chosen, probability) for chosen in selections]
        for suffix, *values in zip(("_mean", "_std", ""), *statistics, strict=True):
            dims, array = _over_seasons(np.stack(values), seasons)
            variables[name + suffix] = dims, array, channel(name).attributes
    coordinates = _coordinates(source.grid, probability, seasons)
    return xr.Dataset(variables, coordinates, {"samples": int(dataset.sizes["time"])})


def write_climatology(climatology: xr.Dataset, path: Path) -> None:
    """Write a climatology as a zarr v3 store, rounded so that it is small.

    Mean and standard deviation are rounded to the channel's quantum, members to eight times it.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    rounded = climatology.copy()
    for name, variable in climatology.data_vars.items():
        known = channel(str(name).removesuffix("_mean").removesuffix("_std"))
        quantum = known.quantum * (_COARSENING if "number" in variable.dims else 1)
        rounded[name] = variable.copy(data=round_to_quantum(variable.values, quantum))
        rounded[name].attrs["quantum"] = quantum
    codec = BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle")
    encoding = {name: {"compressors": (codec,)} for name in rounded.data_vars}
    try:
        rounded.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        consolidate(Path(path), (*rounded.coords, *rounded.data_vars))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class Climatology:
    """A climatology in a file, as `write_climatology` leaves it.

    Parameters
    ----------
    path : str or pathlib.Path
        The zarr store (a NetCDF file of the same variables does too).
    """

    path: str | Path

    @cached_property
    def dataset(self) -> xr.Dataset:
        """All of it, lazily.

        Raises
        ------
        InputError
            If it is missing, damaged, or no climatology.
        """
        dataset = open_file(self.path)[0]
        names = [str(name) for name in dataset.data_vars if f"{name}_mean" in dataset]
        if not names or any(f"{name}_std" not in dataset for name in names):
            found = ", ".join(map(str, dataset.data_vars)) or "no variables"
            raise InputError(
                f"{self.path}: is no climatology, expected z500, z500_mean and z500_std or the "
                f"like, found {found}"
            )
        return dataset

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels it knows, in alphabetical order."""
        names = map(str, self.dataset.data_vars)
        return tuple(sorted(name for name in names if f"{name}_mean" in self.dataset))

    @cached_property
    def grid(self) -> Grid:
        """Its grid."""
        dataset = self.dataset
        return Grid.from_coordinates(dataset.latitude, dataset.longitude, str(self.path))

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits made of all its values, the same however they are stored; reads
        the whole file once."""
        found = blake2b(digest_size=8)
        suffixes = ("", "_mean", "_std")
        names = [name + suffix for name in self.channels for suffix in suffixes]
        for name in (*filter(self.dataset.dims.__contains__, _CYCLE), *_AXES, *names):
            variable = self.dataset[name]
            found.update(f"{name}{variable.dims}{variable.shape}".encode())
            for place in _whole_days(variable):
                found.update(np.ascontiguousarray(variable.isel(place).values, "<f8").data)
        return found.hexdigest()

    def mean(self, time: np.datetime64, channels: Sequence[str]) -> State:
        """The mean at a time, one member."""
        return self._state(time, channels, "_mean")

    def std(self, time: np.datetime64, channels: Sequence[str]) -> State:
        """The standard deviation over the sample at a time, one member."""
        return self._state(time, channels, "_std")

    def members(self, time: np.datetime64, channels: Sequence[str]) -> State:
        """The ensemble of equally probable values at a time; numbers start at 1."""
        return self._state(time, channels, "")

    def at(self, times: Sequence[np.datetime64], channels: Sequence[str]) -> xr.Dataset:
        """Members, mean and standard deviation of channels along `time`, in memory.

        Variables as in `climatology_from`, with `time` in front instead of any seasons.
        """
        self._check(channels)
        names = [name + suffix for name in channels for suffix in ("", "_mean", "_std")]
        stamps = xr.DataArray(np.asarray(list(times), "datetime64[ns]"), dims="time", name="time")
        if not self._seasonal:
            return self.dataset[names].load().expand_dims(time=stamps)
        chosen = [self.dataset[names].isel(self._season(time)) for time in times]
        chosen = [one.drop_vars(("dayofyear", "hour")) for one in chosen]
        return xr.concat(chosen, stamps, join="exact", coords="minimal", compat="override").load()

    @property
    def _seasonal(self) -> bool:
        return "dayofyear" in self.dataset.dims

    def _season(self, time: np.datetime64) -> dict[str, int]:
        """Index of the season that a time belongs to."""
        if not self._seasonal:
            return {}
        day, hour = _calendar(np.asarray([time]))
        days, hours = self.dataset.dayofyear.values, self.dataset.hour.values
        return {
            "dayofyear": int(_nearest(day, days, _DAYS_IN_YEAR)[0]),
            "hour": int(_nearest(hour, hours, 24.0)[0]),
        }

    def _check(self, channels: Sequence[str]) -> None:
        missing = [name for name in channels if name not in self.channels]
        if missing:
            raise InputError(
                f"{self.path}: channel {missing[0]!r} is missing, it knows "
                f"{', '.join(self.channels)}"
            )

    def _state(self, time: np.datetime64, channels: Sequence[str], suffix: str) -> State:
        import torch  # heavy, and scoring needs no state

        self._check(channels)
        season = self._season(time)
        fields = [self.dataset[name + suffix].isel(season).values for name in channels]
        stacked = np.stack(fields, axis=-3).astype(np.float32, copy=False)
        stacked = stacked if suffix == "" else stacked[None]
        numbers = tuple(range(1, len(stacked) + 1)) if suffix == "" else (0,)
        time = np.datetime64(time, "s")
        return State(torch.from_numpy(stacked), tuple(channels), self.grid, time, numbers)


def _whole_days(variable: xr.DataArray) -> list[dict[str, int]]:
    """Parts of a variable that fit into memory."""
    days = variable.sizes.get("dayofyear")
    return [{}] if days is None else [{"dayofyear": day} for day in range(days)]


def _selections(times: np.ndarray, seasons: Seasons | None) -> list[np.ndarray]:
    """Which samples count, (time,), bool, for each season; all if there are none."""
    if seasons is None:
        return [np.ones(times.size, bool)]
    selections = []
    for day in seasons.days:
        for hour in seasons.hours:
            selections.append(seasons.samples(times, day, hour))
            if not selections[-1].any():
                raise InputError(
                    f"climatology: no sample within {seasons.half_width:g} days of day {day} of "
                    f"the year at {hour:02d} UTC"
                )
    return selections


def _statistics(
    array: xr.DataArray, chosen: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, std, (latitude, longitude), and quantiles, (number, latitude, longitude), float32."""
    parts = [
        (
            band.mean(axis=0, dtype=np.float64),
            band.std(axis=0, dtype=np.float64),
            np.quantile(band, probability, axis=0, method="hazen"),
        )
        for band in _bands(array, chosen)
    ]
    mean, std, quantiles = zip(*parts, strict=True)
    joined = np.concatenate(mean), np.concatenate(std), np.concatenate(quantiles, axis=1)
    return tuple(part.astype(np.float32) for part in joined)


def _bands(array: xr.DataArray, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """The chosen samples of one band of latitudes after the other, (time, latitude, longitude)."""
    if array.ndim != 3:
        raise InputError(f"climatology: {array.name} has dimensions {array.dims}, expected 3")
    array = array.isel(time=np.flatnonzero(chosen))
    rows = max(1, _BAND_BYTES // (4 * array.sizes["time"] * array.sizes["longitude"]))
    for start in range(0, array.sizes["latitude"], rows):
        band = array.isel(latitude=slice(start, start + rows)).values
        if not np.isfinite(band).all():
            when = array.time.values[~np.isfinite(band).all(axis=(1, 2))][0]
            raise InputError(
                f"climatology: {array.name} at {when} holds values that are not finite"
            )
        yield band


def _over_seasons(
    values: np.ndarray, seasons: Seasons | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Dimensions and values of a variable, from (season, [number,] latitude, longitude)."""
    dims = ("number", "latitude", "longitude")[-(values.ndim - 1) :]
    if seasons is None:
        return dims, values[0]
    cycle = len(seasons.days), len(seasons.hours)
    return ("dayofyear", "hour", *dims), values.reshape(*cycle, *values.shape[1:])


def _coordinates(grid: Grid, probability: np.ndarray, seasons: Seasons | None) -> dict[str, object]:
    coordinates = {
        "number": np.arange(1, probability.size + 1),
        "probability": ("number", probability),
        "latitude": ("latitude", grid.latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"units": "degrees_east"}),
    }
    cycle = {} if seasons is None else {"dayofyear": [*seasons.days], "hour": [*seasons.hours]}
    return coordinates | cycle


def _calendar(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Days since 1 January, from 1, and hours since midnight, each (time,), float64."""
    times = times.astype("datetime64[s]")
    year, day = times.astype("datetime64[Y]"), times.astype("datetime64[D]")
    return (
        (day - year.astype("datetime64[D]")) / np.timedelta64(1, "D") + 1.0,
        (times - day) / np.timedelta64(1, "h"),
    )


def _around(difference: np.ndarray, period: float) -> np.ndarray:
    """Distance on a circle of this circumference."""
    return np.abs((difference + period / 2) % period - period / 2)


def _nearest(values: np.ndarray, targets: Sequence[float], period: float) -> np.ndarray:
    """Index of the nearest target on a circle, one per value."""
    return np.argmin(_around(values[:, None] - np.asarray(targets, float), period), axis=1)
