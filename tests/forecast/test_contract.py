"""What holds for every forecaster."""

import numpy as np
import pytest
import torch
import xarray as xr

from data.climatology import Climatology
from data.errors import CheckpointError
from data.grid import Grid
from data.key import Key
from data.state import State
from forecast.forecaster import rollout
from forecast.reference import ClimatologyForecaster, Persistence
from tests.forecast.conftest import CHANNELS, GRID, TIMESTEP, state_of


@pytest.fixture
def climatology(tmp_path):
    mean = state_of((0,), seed=7).fields[0].numpy()
    place = ("latitude", "longitude")
    variables = {}
    for name, field in zip(CHANNELS, mean, strict=True):
        variables |= {f"{name}_mean": (place, field), f"{name}_std": (place, np.ones_like(field))}
        variables[name] = (("number", *place), field[None])
    coordinates = {"number": [1], "latitude": GRID.latitude, "longitude": GRID.longitude}
    dataset = xr.Dataset(variables, coordinates)
    dataset.to_netcdf(tmp_path / "climatology.nc")
    return Climatology(tmp_path / "climatology.nc")


@pytest.fixture(params=["deterministic", "stochastic", "persistence", "climatology"])
def any_forecaster(request, forecaster, stochastic, climatology):
    return {
        "deterministic": forecaster,
        "stochastic": stochastic,
        "persistence": Persistence(CHANNELS, GRID, TIMESTEP),
        "climatology": ClimatologyForecaster(climatology, CHANNELS, TIMESTEP),
    }[request.param]


def test_step_is_one_timestep_later_and_all_else_the_same(any_forecaster):
    state = state_of((4, 2))
    later = any_forecaster.step(state, Key(1))
    assert later.valid_time == state.valid_time + any_forecaster.timestep
    assert (later.channels, later.grid, later.numbers) == (CHANNELS, GRID, (4, 2))
    assert any_forecaster.channels == CHANNELS
    assert any_forecaster.grid == GRID
    assert torch.isfinite(later.fields).all()


def test_step_leaves_its_input_alone_and_repeats_itself(any_forecaster):
    state = state_of((4, 2))
    before = state.fields.clone()
    first, second = (any_forecaster.step(state, Key(1)).fields for _ in range(2))
    assert torch.equal(state.fields, before)
    assert torch.equal(first, second)
    first += 1
    assert torch.equal(state.fields, before)


@pytest.mark.parametrize("members", [(5,), (5, 1), (0, 5, 3), tuple(range(7))])
def test_member_does_not_depend_on_its_batch(any_forecaster, members):
    *_, alone = rollout(any_forecaster, state_of((5,)), 3, Key(1))
    *_, together = rollout(any_forecaster, state_of(members), 3, Key(1))
    assert torch.equal(together.fields[members.index(5)], alone.fields[0])


def test_rollout_is_split_anywhere(any_forecaster):
    states = list(rollout(any_forecaster, state_of((0, 1)), 3, Key(1)))
    again = any_forecaster.step(states[2], Key(1) / 3)
    assert torch.equal(again.fields, states[3].fields)


def test_stochastic_members_differ_by_number_and_key(stochastic):
    fields = state_of((0,)).fields.expand(2, -1, -1, -1).contiguous()
    state = state_of((0, 1)).with_members(fields, (0, 1))
    first = stochastic.step(state, Key(1)).fields
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(stochastic.step(state, Key(2)).fields, first)


def test_deterministic_network_ignores_the_key(forecaster):
    state = state_of((0,))
    assert torch.equal(forecaster.step(state, Key(1)).fields, forecaster.step(state, Key(2)).fields)


def test_other_channels_or_grid_are_refused(forecaster):
    state = state_of((0,))
    swapped = state.select(("t850", "u500"))
    with pytest.raises(CheckpointError, match=r"channels u500, t850, found t850, u500"):
        forecaster.step(swapped, Key(1))
    grid = Grid("equiangular", 12, 24)
    with pytest.raises(CheckpointError, match=r"legendre-gauss 12 x 24, found equiangular 12 x 24"):
        forecaster.step(State(state.fields, CHANNELS, grid, state.valid_time), Key(1))
