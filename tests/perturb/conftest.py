"""A small world to perturb: a Gaussian grid, three channels, analyses and toy forecasters."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from data.grid import Grid
from data.key import Key
from data.state import State
from perturb.correlated import CorrelatedNoise

GRID = Grid("legendre-gauss", 16, 32)
CHANNELS = ("t850", "q850", "z500")
MEANS = torch.tensor([280.0, 0.004, 54_000.0])[:, None, None]
SCALES = torch.tensor([8.0, 0.002, 1_500.0])[:, None, None]
TIME = np.datetime64("2030-01-05T00:00:00")
TIMESTEP = np.timedelta64(6, "h")


def toy_analysis(time: np.datetime64) -> State:
    """Planetary waves that drift eastward, different in each channel."""
    hours = (time - TIME) / np.timedelta64(1, "h")
    latitude, longitude = np.deg2rad(GRID.latitude)[:, None], np.deg2rad(GRID.longitude)
    waves = [
        np.cos(latitude) * np.sin((n + 2) * longitude - 0.03 * hours + n) + np.sin(n * latitude)
        for n in range(len(CHANNELS))
    ]
    fields = MEANS + SCALES * torch.from_numpy(np.stack(waves)).float()
    return State(fields[None], CHANNELS, GRID, time)


def toy_ensemble(time: np.datetime64) -> State:
    """Six analyses whose mean is far from the control's."""
    control = toy_analysis(time)
    noise = (Key(77) / "analyses" / time).normal((6, *control.fields.shape[1:]))
    fields = control.fields + 5 * SCALES + 0.3 * SCALES * torch.from_numpy(noise)
    return control.with_members(fields, tuple(range(6)))


def meander(fields: torch.Tensor) -> torch.Tensor:
    """A nonlinear step of one member, (channel, latitude, longitude): drift, mix, steepen."""
    x = (fields - MEANS) / SCALES
    drifted = torch.roll(x, 1, dims=-1)
    neighbours = torch.roll(x, 1, dims=0) + torch.roll(x, -1, dims=0)
    mixed = drifted + 0.4 * torch.tanh(neighbours * drifted)
    return MEANS + SCALES * (1.1 * mixed + 0.1 * torch.sin(3 * x))


@dataclass(frozen=True)
class ToySource:
    """Analyses given by a function of time."""

    analysis: Callable[[np.datetime64], State]


@dataclass(frozen=True)
class Toy:
    """A forecaster that advances member by member, with latent noise if asked to."""

    advance: Callable[[torch.Tensor], torch.Tensor] = meander
    noise: float = 0.0
    channels: tuple[str, ...] = CHANNELS
    grid: Grid = GRID
    timestep: np.timedelta64 = TIMESTEP

    def step(self, state: State, key: Key) -> State:
        rows = []
        for fields, number in zip(state.fields, state.numbers, strict=True):
            latent = torch.from_numpy((key / number / "latent").normal(tuple(fields.shape)))
            rows.append(self.advance(fields) + self.noise * SCALES * latent)
        return state.next(torch.stack(rows), self.timestep)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Fields this small only wait for one another on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def grid():
    return GRID


@pytest.fixture(scope="session")
def time():
    return TIME


@pytest.fixture(scope="session")
def analyses():
    return ToySource(toy_analysis)


@pytest.fixture(scope="session")
def ensemble():
    return ToySource(toy_ensemble)


@pytest.fixture(scope="session")
def analysis():
    return toy_analysis(TIME)


@pytest.fixture(scope="session")
def source():
    return ToySource


@pytest.fixture(scope="session")
def amplitude():
    """Per channel; that of humidity is large enough to be clipped."""
    return np.array([0.5, 0.003, 90.0])


@pytest.fixture(scope="session")
def noise(amplitude):
    return CorrelatedNoise(dict(zip(CHANNELS, amplitude, strict=True)))


@pytest.fixture(scope="session")
def key():
    return Key(5) / TIME


@pytest.fixture(scope="session")
def toy():
    return Toy
