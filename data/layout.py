"""Recognising channels in an opened file, whatever its layout, and bringing it to the house's.

Four ways of naming are known, the first that fits wins: our own channel names (``z500``), the
names of WeatherBench 2 and ARCO (``geopotential`` with a level), short names of GRIB and common
archives (``u10``, ``gh``, ``prmsl``), and CF standard names with a pressure or a height. All
selections stay lazy: nothing but coordinates is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.channel import LEVEL_LETTERS, SURFACE_NAMES, Channel, channel
from data.errors import InputError
from data.grid import Grid
from data.units import Conversion, conversion

_DIMENSION_NAMES = {
    "time": ("time", "valid_time"),
    "number": ("number", "realization", "member", "ensemble", "ensemble_member", "ens"),
    "level": ("level", "isobaricInhPa", "isobaricInPa", "pressure_level", "plev", "pressure"),
    "latitude": ("latitude", "lat", "nav_lat"),
    "longitude": ("longitude", "lon", "nav_lon"),
}
_STANDARD_NAMES = {
    "latitude": "latitude",
    "longitude": "longitude",
    "realization": "number",
    "air_pressure": "level",
}
_LEAD_NAMES = ("lead_time", "forecast_period", "step", "step_hours")
_INIT_NAMES = ("init_time", "forecast_reference_time", "time")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # by the first letter of the unit
_HEIGHT_NAMES = ("height", "heightAboveGround", "height_above_ground")
_LEADING = ("time", "number", "level")
_HORIZONTAL = ("latitude", "longitude")
_SHORT_ON_LEVELS = {
    "u": "u", "v": "v", "t": "t", "z": "z", "q": "q", "w": "w", "gh": "z",
    "geopotential_height": "z", "ua": "u", "va": "v", "ta": "t", "zg": "z", "hus": "q", "wap": "w",
}  # fmt: skip
_SHORT_AT_SURFACE = {
    "u10": "u10m", "v10": "v10m", "10u": "u10m", "10v": "v10m", "uas": "u10m", "vas": "v10m",
    "ws10": "ws10m", "si10": "ws10m", "10si": "ws10m", "sfcWind": "ws10m", "2t": "t2m",
    "tas": "t2m", "2d": "d2m", "prmsl": "msl", "psl": "msl", "ps": "sp", "pwat": "tcwv",
}  # fmt: skip
_CF_ON_LEVELS = {channel(f"{x}500").standard_name: x for x in LEVEL_LETTERS} | {
    "geopotential_height": "z",
    "omega": "w",
}
_CF_AT_HEIGHT = {
    "eastward_wind": ("u10m", 10.0),
    "northward_wind": ("v10m", 10.0),
    "wind_speed": ("ws10m", 10.0),
    "air_temperature": ("t2m", 2.0),
    "dew_point_temperature": ("d2m", 2.0),
}
_CF_AT_SURFACE = {
    channel(name).standard_name: name for name in ("msl", "sp", "sst", "tcwv")
} | {"air_pressure_at_sea_level": "msl"}  # fmt: skip
_WEATHERBENCH_ON_LEVELS = {channel(f"{x}500").weatherbench_name: x for x in LEVEL_LETTERS}
_WEATHERBENCH_AT_SURFACE = {channel(name).weatherbench_name: name for name in SURFACE_NAMES}


@dataclass(frozen=True)
class Field:
    """Where one channel lies in an opened file.

    Attributes
    ----------
    channel : Channel
        What it is.
    array : xarray.DataArray
        The file's variable, lazy: a subset of (time, number, level) and two horizontal
        dimensions, north to south and eastward from 0 on a global grid.
    level : int or None
        Index along `level`.
    units : str or None
        Units the file states.
    rank : int
        How directly the file names it; the lowest is taken.
    """

    channel: Channel
    array: xr.DataArray
    level: int | None
    units: str | None
    rank: int

    def conversion(self, where: str) -> Conversion:
        """How to convert the file's values into the channel's units.

        Raises
        ------
        InputError
            If no exact conversion is known.
        """
        found = conversion(self.units, self.channel.units)
        if found is None:
            raise InputError(
                f"{where}: {self.array.name} has units {self.units!r}, channel "
                f"{self.channel.name} needs {self.channel.units!r} or units that convert to it"
            )
        return found


def find_fields(dataset: xr.Dataset, where: str) -> dict[str, Field]:
    """Every channel of the channel table in a dataset brought to the house's layout.

    Raises
    ------
    InputError
        If two variables name the same channel equally well.
    """
    fields: dict[str, Field] = {}
    for name in dataset.data_vars:
        array = _field_array(dataset, str(name))
        if array is None:
            continue
        for found in _recognised(str(name), array):
            known = fields.get(found.channel.name)
            if known and known.rank == found.rank:
                raise InputError(
                    f"{where}: both {known.array.name!r} and {name!r} hold {found.channel.name}"
                )
            if not known or found.rank < known.rank:
                fields[found.channel.name] = found
    return fields


def fields_in_time(dataset: xr.Dataset) -> list[str]:
    """Variables of a file as it is that are fields by time, lead or member, channels or not.

    Bounds and grid mappings are none.
    """
    said = [variable.encoding | variable.attrs for variable in dataset.variables.values()]
    named = [str(one.get(key, "")) for one in said for key in ("bounds", "grid_mapping")]
    aside = set(" ".join(named).split())
    series = {"time", "number", *_LEAD_NAMES, *_INIT_NAMES}
    found = []
    for name, array in _renamed(dataset).data_vars.items():
        cells = set(array.dims) - series - {"level"}
        numbers = np.issubdtype(array.dtype, np.number) and series & set(array.dims)
        if numbers and (len(cells) > 1 or cells & set(_HORIZONTAL)) and name not in aside:
            found.append(str(name))
    return found


def holds_channel(dataset: xr.Dataset, name: str) -> bool:
    """Whether a variable of a dataset brought to the house's layout holds a known channel."""
    array = _field_array(dataset, name)
    return array is not None and next(_recognised(name, array), None) is not None


def in_table_order(fields: dict[str, Field]) -> dict[str, Field]:
    """The fields from the top level down, the surface last: files list them in any order."""

    def order(name: str) -> tuple[int, int]:
        level = fields[name].channel.level
        if level is None:
            return 10_000, SURFACE_NAMES.index(name)
        return level, LEVEL_LETTERS.index(name[0])

    return {name: fields[name] for name in sorted(fields, key=order)}


def _field_array(dataset: xr.Dataset, name: str) -> xr.DataArray | None:
    """The variable if it is a field in time: two horizontal dimensions; else None."""
    array = dataset[name]
    single = [d for d in array.dims if array.sizes[d] == 1 and d not in _DIMENSION_NAMES]
    array = array.squeeze(single)
    horizontal = [d for d in array.dims if d not in _LEADING]
    static = dataset.sizes.get("time", 1) > 1 and "time" not in array.dims
    if len(horizontal) != 2 or static or not np.issubdtype(array.dtype, np.number):
        return None
    if {"latitude", "longitude"} <= set(horizontal):
        horizontal = ["latitude", "longitude"]
    return array.transpose(*(d for d in _LEADING if d in array.dims), *horizontal)


def _recognised(name: str, array: xr.DataArray) -> Iterator[Field]:
    """The channels a variable holds: one at the surface or at one level, or one per level."""
    units = array.attrs.get("units")
    for rank, (letter, surface) in enumerate(_readings(name, array)):
        if letter and "level" in array.coords:
            for index, level in enumerate(np.atleast_1d(array.level.values)):
                if level == int(level) and level >= 1:
                    place = index if "level" in array.dims else None
                    yield Field(channel(f"{letter}{int(level)}"), array, place, units, rank)
            return
        if surface and "level" not in array.dims:
            yield Field(channel(surface), array, None, units, rank)
            return


def _readings(name: str, array: xr.DataArray) -> Iterator[tuple[str | None, str | None]]:
    """Per way of naming: the letter of a variable on levels, and the name of a surface channel."""
    yield None, _own_name(name, array)
    yield _WEATHERBENCH_ON_LEVELS.get(name), _WEATHERBENCH_AT_SURFACE.get(name)
    yield _SHORT_ON_LEVELS.get(name), _SHORT_AT_SURFACE.get(name)
    standard_name = str(array.attrs.get("standard_name", ""))
    at_height, height = _CF_AT_HEIGHT.get(standard_name, (None, 0.0))
    if at_height and not _near_height(array, height):
        at_height = None
    yield _CF_ON_LEVELS.get(standard_name), at_height or _CF_AT_SURFACE.get(standard_name)


def _own_name(name: str, array: xr.DataArray) -> str | None:
    """The name itself if it is a channel's; ``u10`` is one only with its level as attribute."""
    if name in SURFACE_NAMES:
        return name
    match = re.fullmatch(rf"[{''.join(LEVEL_LETTERS)}](\d{{1,4}})", name)
    if not match or not 1 <= int(match[1]) <= 1100:
        return None
    stated = array.attrs.get("level")
    return name if stated == int(match[1]) or name not in _SHORT_AT_SURFACE else None


def _near_height(array: xr.DataArray, height: float) -> bool:
    """Whether a variable states this height in m (screen level is 1.25 to 2 m, by service)."""
    stated = [float(array[name]) for name in _HEIGHT_NAMES if _is_scalar(array, name)]
    return any(abs(value - height) <= 0.1 * height + 0.6 for value in stated)


def _is_scalar(array: xr.DataArray, name: str) -> bool:
    return name in array.coords and array[name].ndim == 0


def to_house_layout(dataset: xr.Dataset, where: str, forecasts: bool = False) -> xr.Dataset:
    """The dataset with the house's dimensions: ascending valid times, north to south, from 0 E.

    Where both analyses and forecasts are in it, only the analyses stay, unless `forecasts` are
    wanted; a coordinate `lead_time` along `time` says how far ahead forecasts are.

    Raises
    ------
    InputError
        If times are missing, undecodable, unsorted or duplicated.
    """
    dataset = _renamed(dataset)
    if "time" not in dataset.coords:
        found = ", ".join(map(str, dataset.coords)) or "none"
        raise InputError(f"{where}: has no time coordinate, found {found}")
    dataset = _with_lead_time(_reference_plus_step(dataset, where))
    dataset = oriented(dataset if forecasts else _analyses_only(dataset))
    _check_times(np.atleast_1d(dataset.time.values), where)
    if "number" in dataset.dims and "number" not in dataset.coords:
        dataset = dataset.assign_coords(number=np.arange(dataset.sizes["number"]))
    if "level" in dataset.coords and _in_pascal(dataset.level):
        dataset = dataset.assign_coords(level=dataset.level / 100.0)
    return dataset


def series_by_init_time(dataset: xr.Dataset) -> list[xr.Dataset]:
    """Forecasts by init time and lead as one series in valid time for each init time.

    The init time is a dimension or a scalar; a dataset without a dimension of leads is a series
    already.
    """
    leads = [name for name in (*_LEAD_NAMES, "step") if name in dataset.dims]
    inits = [name for name in _INIT_NAMES if name in dataset.coords]
    if not leads or not inits:
        return [dataset]
    lead, init = leads[0], inits[0]
    ahead = _timedeltas(dataset[lead])
    several = init in dataset.dims
    found = []
    for place in range(dataset.sizes[init] if several else 1):
        one = dataset.isel({init: place}) if several else dataset
        times = one[init].values + ahead
        one = one.drop_vars([init, lead, "valid_time"], errors="ignore").rename({lead: "time"})
        found.append(one.assign_coords(time=times, lead_time=("time", ahead)))
    return found


def _timedeltas(lead: xr.DataArray) -> np.ndarray:
    """Leads as timedelta64[ns]; numbers without units are hours."""
    values = lead.values
    if not np.issubdtype(values.dtype, np.timedelta64):
        seconds = _SECONDS.get(str(lead.attrs.get("units", "h"))[:1], 3600)
        values = (values * seconds).astype("timedelta64[s]")
    return values.astype("timedelta64[ns]")


def _renamed(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with the house's names of dimensions and coordinates."""
    if {"time", "step"} <= set(dataset.coords):
        dataset = dataset.drop_vars("valid_time", errors="ignore")
    names: dict[str, str] = {}
    for target, candidates in _DIMENSION_NAMES.items():
        found = [name for name in candidates if name in dataset.coords or name in dataset.dims]
        if found and found[0] != target:
            names[found[0]] = target
    taken = set(names.values()) | set(dataset.coords)
    for name, coordinate in dataset.coords.items():
        target = _STANDARD_NAMES.get(str(coordinate.attrs.get("standard_name")))
        if target and target not in taken and name not in names and coordinate.ndim < 2:
            names[str(name)] = target
            taken.add(target)
    return dataset.rename(names)


def _in_pascal(level: xr.DataArray) -> bool:
    stated = conversion(level.attrs.get("units", "hPa"), "Pa")
    return stated == Conversion() or (stated is None and float(level.max()) > 2_000)


def _with_lead_time(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with the coordinate `lead_time`, timedelta, where the file tells it.

    Numbers without units are hours.
    """
    names = [name for name in _LEAD_NAMES if name in dataset.coords]
    names = [name for name in names if dataset[name].dims in ((), ("time",))]
    if not names:
        return dataset
    lead = dataset[names[0]]
    return dataset.drop_vars(names).assign_coords(lead_time=(lead.dims, _timedeltas(lead)))


def _check_times(times: np.ndarray, where: str) -> None:
    """Raise InputError unless there are times, each after the one before."""
    if not np.issubdtype(times.dtype, np.datetime64):
        raise InputError(f"{where}: times are {times.dtype}, expected dates of the real calendar")
    if not times.size or np.isnat(times).any():
        raise InputError(f"{where}: times are missing")
    back = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if back.size:
        first, second = times[back[0] : back[0] + 2].astype("datetime64[s]")
        raise InputError(
            f"{where}: times are unsorted or duplicated: {first} is followed by {second}"
        )


def _reference_plus_step(dataset: xr.Dataset, where: str) -> xr.Dataset:
    """GRIB's pair of reference time and step turned into valid time and lead time."""
    if "step" not in dataset.coords or not np.issubdtype(dataset.step.dtype, np.timedelta64):
        return dataset
    if "step" in dataset.dims and (dataset.step.values == np.timedelta64(0)).any():
        dataset = dataset.sel(step=np.timedelta64(0, "ns"))
    step = dataset.step
    if step.ndim and dataset.time.ndim:
        raise InputError(
            f"{where}: holds {step.size} forecast steps from {dataset.time.size} reference times "
            "and no analyses, expected one series in time"
        )
    valid = dataset.time.values + step.values
    if step.ndim:
        dataset = dataset.drop_vars(["time", "step"]).rename(step="time")
        return dataset.assign_coords(time=valid, lead_time=("time", step.values))
    attributes = dataset.time.attrs
    dataset = dataset.assign_coords(time=(dataset.time.dims, valid, attributes))
    return dataset.drop_vars("step").assign_coords(lead_time=step.values)


def _analyses_only(dataset: xr.Dataset) -> xr.Dataset:
    """Without the forecasts, if there are analyses beside them."""
    if "lead_time" not in dataset.coords or dataset.lead_time.ndim == 0:
        return dataset
    analyses = dataset.lead_time.values == np.timedelta64(0)
    return dataset.isel(time=np.flatnonzero(analyses)) if analyses.any() else dataset


def oriented(dataset: xr.Dataset) -> xr.Dataset:
    """North to south; eastward from 0 if the circle is full; the grid's own exact coordinates."""
    if any(dataset.coords[x].ndim != 1 for x in _HORIZONTAL if x in dataset.coords):
        return dataset
    if not set(_HORIZONTAL) <= set(dataset.coords):
        return dataset
    if dataset.latitude.size > 1 and dataset.latitude.values[0] < dataset.latitude.values[-1]:
        dataset = dataset.isel(latitude=slice(None, None, -1))
    east = np.round(dataset.longitude.values.astype(float), 6) % 360
    order = np.argsort(east, kind="stable")
    gaps = np.diff(east[order], append=east[order][:1] + 360)
    if gaps.max() < 1.5 * gaps.min():  # the full circle
        dataset = dataset.assign_coords(longitude=east)
        if (np.diff(order) != 1).any():
            dataset = dataset.isel(longitude=order)
    grid = known_grid(dataset)
    if grid is None:
        return dataset
    north = {"units": "degrees_north", "standard_name": "latitude"}
    east_of = {"units": "degrees_east", "standard_name": "longitude"}
    return dataset.assign_coords(
        latitude=("latitude", grid.latitude, north),
        longitude=("longitude", grid.longitude, east_of),
    )


def known_grid(dataset: xr.Dataset) -> Grid | None:
    """The global grid of an oriented dataset; None if it is none of the known ones."""
    try:
        return Grid.from_coordinates(dataset.latitude.values, dataset.longitude.values, "")
    except (InputError, AttributeError):
        return None
