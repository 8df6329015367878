"""States: checked once, round trip through xarray, clear errors."""

import numpy as np
import pytest
import torch
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from data.state import State, from_dataset, to_dataset

GRID = Grid("legendre-gauss", 8, 16)
CHANNELS = ("u500", "t2m")
TIME = np.datetime64("2001-02-03T06", "s")


def state(numbers: tuple[int, ...] = (0, 4, 9)) -> State:
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(len(numbers), 2, *GRID.shape, generator=generator)
    fields[:, 1] = 280 + fields[:, 1]
    return State(fields, CHANNELS, GRID, TIME, numbers)


def test_dataset_and_back_is_the_same_state():
    again = from_dataset(to_dataset(state()), CHANNELS, "file")
    assert torch.equal(again.fields, state().fields)
    assert (again.channels, again.grid, again.numbers) == (CHANNELS, GRID, (0, 4, 9))
    assert again.valid_time == TIME


def test_dataset_carries_metadata():
    dataset = to_dataset(state())
    assert dataset.u500.attrs["units"] == "m s-1"
    assert dataset.u500.attrs["level"] == 500
    assert dataset.t2m.dims == ("number", "latitude", "longitude")
    assert dataset.valid_time.values == TIME


def test_dataset_without_members_is_one_member():
    dataset = to_dataset(state((5,))).isel(number=0, drop=True)
    found = from_dataset(dataset, ("t2m",), "file")
    assert found.numbers == (0,)
    assert torch.equal(found.fields, state((5,)).fields[:, 1:])


def test_dimensions_may_come_in_any_order():
    dataset = to_dataset(state()).transpose("longitude", "number", "latitude")
    assert torch.equal(from_dataset(dataset, CHANNELS, "file").fields, state().fields)


def test_select_reorders_channels():
    chosen = state().select(("t2m", "u500"))
    assert chosen.channels == ("t2m", "u500")
    assert torch.equal(chosen.fields, state().fields.flip(1))
    assert state().select(CHANNELS).channels == CHANNELS
    with pytest.raises(InputError, match="channel 'z500' is missing, found u500, t2m"):
        state().select(("z500",))


def test_next_moves_time_and_keeps_the_rest():
    later = state().next(2 * state().fields, np.timedelta64(6, "h"))
    assert later.valid_time == np.datetime64("2001-02-03T12")
    assert later.numbers == state().numbers
    assert torch.equal(later.fields, 2 * state().fields)


def test_members_can_be_replaced():
    one = state((0,))
    many = one.with_members(one.fields.expand(3, -1, -1, -1), (7, 8, 9))
    assert many.numbers == (7, 8, 9)
    assert many.valid_time == TIME


@pytest.mark.parametrize(
    "fields",
    [
        torch.zeros(2, 2, *GRID.shape),
        torch.zeros(3, 1, *GRID.shape),
        torch.zeros(3, 2, 16, 8),
        torch.zeros(3, 2, *GRID.shape, dtype=torch.float64),
    ],
    ids=["members", "channels", "grid", "type"],
)
def test_fields_that_do_not_fit_are_an_error(fields):
    with pytest.raises(InputError, match=r"state at 2001-02-03T06.* expected \(3, 2, 8, 16\)"):
        State(fields, CHANNELS, GRID, TIME, (0, 4, 9))


def spoiled(value: float) -> xr.Dataset:
    dataset = to_dataset(state())
    dataset.t2m.values[1, 2, 3] = value
    return dataset


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (spoiled(np.nan), "1 of 384 values are not finite, the first at latitude index 2, long"),
        (spoiled(-np.inf), "1 of 384 values are not finite"),
        (spoiled(10.0), "values 10 to 28.* leave the bounds 170 to 345 K"),
        (to_dataset(state()).drop_vars("t2m"), "missing, found u500"),
    ],
    ids=["NaN", "infinity", "bounds", "missing"],
)
def test_bad_values_name_file_channel_and_time(dataset, message):
    with pytest.raises(InputError, match=rf"a file: t2m at 2001-02-03T06:00:00: {message}"):
        from_dataset(dataset, CHANNELS, "a file")
