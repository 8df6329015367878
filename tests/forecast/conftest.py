"""Small networks and archives, seeded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data.grid import Grid
from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from data.state import State
from forecast.architecture import SFNOConfig
from forecast.checkpoint import save_checkpoint
from forecast.dataset import Archive, Normalisation
from forecast.metadata import CheckpointMetadata
from forecast.neural import NeuralForecaster
from forecast.sfno import SFNO

CHANNELS = ("u500", "t850")
GRID = Grid("legendre-gauss", 12, 24)
TIMESTEP = np.timedelta64(6, "h")
TIME = np.datetime64("2001-01-01T00", "s")


def config(latent_lengths_km: tuple[float, ...] = ()) -> SFNOConfig:
    return SFNOConfig(
        channels=2,
        statics=1,
        grid=GRID,
        inner_grid=Grid("legendre-gauss", 8, 16),
        degrees=6,
        embed=8,
        blocks=2,
        scalars=4,
        gradients=2,
        hidden=8,
        latent_lengths_km=latent_lengths_km,
    )


def statics() -> torch.Tensor:
    return IsotropicNoise(GRID, GaussianCorrelation(3000.0)).draw(Key(5))


@pytest.fixture
def network() -> SFNO:
    return seeded_network(config())


@pytest.fixture
def stochastic_network() -> SFNO:
    return seeded_network(config((1000.0, 3000.0)))


def seeded_network(sizes: SFNOConfig) -> SFNO:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = SFNO(sizes, statics())
        for block in made.blocks:
            if block.norm.modulation is not None:
                torch.nn.init.normal_(block.norm.modulation.weight, std=0.3)
    return made


@pytest.fixture
def scales() -> Normalisation:
    return Normalisation(
        torch.tensor([10.0, 270.0]), torch.tensor([12.0, 15.0]), torch.tensor([2.0, 1.0])
    )


@pytest.fixture
def forecaster(network: SFNO, scales: Normalisation) -> NeuralForecaster:
    return NeuralForecaster(network, scales, CHANNELS, GRID, TIMESTEP)


@pytest.fixture
def stochastic(stochastic_network: SFNO, scales: Normalisation) -> NeuralForecaster:
    return NeuralForecaster(stochastic_network, scales, CHANNELS, GRID, TIMESTEP)


def state_of(numbers: tuple[int, ...], seed: int = 1) -> State:
    """A state whose member n depends on n and the seed only."""
    noise = IsotropicNoise(GRID, GaussianCorrelation(2000.0))
    fields = torch.stack([noise.draw(Key(seed) / number, 2) for number in numbers])
    mean, std = torch.tensor([10.0, 270.0]), torch.tensor([12.0, 15.0])
    fields = mean[:, None, None] + std[:, None, None] * fields
    return State(fields, CHANNELS, GRID, TIME, numbers)


@pytest.fixture
def archive() -> Archive:
    """Two segments of 40 fields that turn eastward, the last 4 of each for evaluation."""
    noise = IsotropicNoise(GRID, GaussianCorrelation(2000.0))
    turns = []
    for segment in range(2):
        first = noise.draw(Key(9) / segment, 2).numpy() * 5 + np.array([[[5.0]], [[280.0]]])
        turns += [np.roll(first, step, axis=-1) for step in range(40)]
    inside = np.arange(80) % 40
    return Archive(
        fields=np.array(turns, np.float32),
        statics=statics().numpy(),
        times=TIME + np.arange(80) * TIMESTEP,
        segments=np.arange(80) // 40,
        evaluation=inside >= 36,
        channels=CHANNELS,
        grid=GRID,
    )


def metadata_of(network: SFNO) -> CheckpointMetadata:
    return CheckpointMetadata(
        architecture=network.config,
        channels=CHANNELS,
        grid=GRID,
        timestep=TIMESTEP,
        mean=(10.0, 270.0),
        std=(12.0, 15.0),
        tendency_std=(2.0, 1.0),
        statics=("surface_geopotential",),
        rmse_48h=(3.0, 1.5),
        provenance={"data": "a test", "seed": 3},
    )


@pytest.fixture
def checkpoint(tmp_path, network):
    """Path of a checkpoint of `network`."""
    save_checkpoint(tmp_path / "checkpoint", network, statics(), metadata_of(network))
    return tmp_path / "checkpoint"
