"""The state of the atmosphere in flight: everything needed to take the next step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from data.channel import channel
from data.errors import InputError
from data.grid import Grid

if TYPE_CHECKING:
    import torch

_DTYPE = "torch.float32"


@dataclass(frozen=True)
class State:
    """Fields of one or more members at one time, checked once when built.

    Attributes
    ----------
    fields : torch.Tensor
        (member, channel, latitude, longitude), float32, physical units of the channel table.
    channels : tuple of str
        Names along the channel axis.
    grid : Grid
        The grid of the last two axes.
    valid_time : numpy.datetime64
        Time at which the state holds.
    numbers : tuple of int
        Identity of each member along the first axis: draws are addressed by it.

    Raises
    ------
    InputError
        If the shape or type does not agree with channels, grid and numbers.
    """

    fields: torch.Tensor
    channels: tuple[str, ...]
    grid: Grid
    valid_time: np.datetime64
    numbers: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        expected = (len(self.numbers), len(self.channels), *self.grid.shape)
        if tuple(self.fields.shape) != expected or str(self.fields.dtype) != _DTYPE:
            raise InputError(
                f"state at {self.valid_time}: fields are {tuple(self.fields.shape)} "
                f"{self.fields.dtype}, expected {expected} {_DTYPE}"
            )

    def next(self, fields: torch.Tensor, timestep: np.timedelta64) -> State:
        """The state one timestep later with these fields."""
        return replace(self, fields=fields, valid_time=self.valid_time + timestep)

    def with_members(self, fields: torch.Tensor, numbers: tuple[int, ...]) -> State:
        """The same time and channels with other members."""
        return replace(self, fields=fields, numbers=tuple(numbers))

    def select(self, channels: tuple[str, ...]) -> State:
        """The state with these channels in this order.

        Raises
        ------
        InputError
            If a channel is missing.
        """
        if channels == self.channels:
            return self
        missing = [name for name in channels if name not in self.channels]
        if missing:
            raise InputError(
                f"state at {self.valid_time}: channel {missing[0]!r} is missing, "
                f"found {', '.join(self.channels)}"
            )
        index = [self.channels.index(name) for name in channels]
        return replace(self, fields=self.fields[:, index], channels=tuple(channels))


def to_dataset(state: State) -> xr.Dataset:
    """One float32 variable per channel, (number, latitude, longitude), with CF attributes."""
    fields = state.fields.detach().cpu().numpy()
    variables = {
        name: (("number", "latitude", "longitude"), fields[:, index], channel(name).attributes)
        for index, name in enumerate(state.channels)
    }
    coordinates = {
        "number": ("number", list(state.numbers), {"standard_name": "realization"}),
        "latitude": ("latitude", state.grid.latitude, {"units": "degrees_north"}),
        "longitude": ("longitude", state.grid.longitude, {"units": "degrees_east"}),
        "valid_time": ((), state.valid_time.astype("datetime64[ns]"), {"standard_name": "time"}),
    }
    return xr.Dataset(variables, coordinates)


def from_dataset(dataset: xr.Dataset, channels: tuple[str, ...], where: str) -> State:
    """The state in a dataset laid out as by `to_dataset` (a source brings others to that form).

    Parameters
    ----------
    dataset : xarray.Dataset
        One variable per channel, (latitude, longitude) or (number, latitude, longitude), and a
        scalar `valid_time`.
    channels : tuple of str
        Channels to take, in this order.
    where : str
        What to name in an error, usually the file.

    Raises
    ------
    InputError
        If a channel is missing, a value is not finite or outside the channel's bounds, or the
        grid is not a known one.
    """
    import torch  # half a gigabyte that reading and scoring files do without

    grid = Grid.from_coordinates(dataset.latitude.values, dataset.longitude.values, where)
    fields = torch.from_numpy(checked_fields(dataset, channels, where))
    numbers = tuple(map(int, dataset.number.values)) if "number" in dataset.dims else (0,)
    time = dataset.valid_time.values.astype("datetime64[s]")
    return State(fields, tuple(channels), grid, time, numbers)


def checked_fields(dataset: xr.Dataset, channels: tuple[str, ...], where: str) -> np.ndarray:
    """The fields of such a dataset, (number, channel, latitude, longitude), float32, checked.

    Parameters and errors are those of `from_dataset`, but for the grid, which is not looked at.
    """
    time = dataset.valid_time.values.astype("datetime64[s]")
    if "number" not in dataset.dims:
        dataset = dataset.expand_dims(number=[0])
    columns = [_checked(dataset, name, f"{where}: {name} at {time}") for name in channels]
    return np.stack(columns, axis=1)


def _checked(dataset: xr.Dataset, name: str, where: str) -> np.ndarray:
    """One channel's values, (number, latitude, longitude), float32, finite and within bounds."""
    if name not in dataset:
        raise InputError(f"{where}: missing, found {', '.join(map(str, dataset.data_vars))}")
    array = dataset[name].transpose("number", "latitude", "longitude")
    values = np.ascontiguousarray(array.values, dtype=np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0][1:])
        raise InputError(
            f"{where}: {int(bad.sum())} of {values.size} values are not finite, the first at "
            f"latitude index {place[0]}, longitude index {place[1]}"
        )
    check_bounds(values, name, where)
    return values


def check_bounds(values: np.ndarray, name: str, where: str) -> None:
    """Refuse values that leave the bounds of their channel; NaN are left out of it.

    Raises
    ------
    InputError
        With the values' own range.
    """
    kind = channel(name)
    low, high = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if low < kind.minimum or high > kind.maximum:
        raise InputError(
            f"{where}: values {low:g} to {high:g} leave the bounds {kind.minimum:g} to "
            f"{kind.maximum:g} {kind.units}; are the units right?"
        )
