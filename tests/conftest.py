"""A small world for the tests: analyses of smooth random fields, and tiny untrained networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from data.channel import channel
from data.grid import Grid
from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from forecast.architecture import SFNOConfig
from forecast.checkpoint import save_checkpoint
from forecast.metadata import CheckpointMetadata
from forecast.sfno import SFNO

GRID = Grid("legendre-gauss", 8, 16)
CHANNELS = ("u500", "z500", "t850")
MEAN = {"u500": 10.0, "z500": 54_000.0, "t850": 275.0}
STD = {"u500": 10.0, "z500": 1_000.0, "t850": 8.0}
FIRST = np.datetime64("2006-01-01", "s")
TIMESTEP = np.timedelta64(6, "h")


def analyses(times: int, seed: int) -> xr.Dataset:
    """Smooth random fields, 6-hourly from 2006-01-01, in the plain layout."""
    noise = IsotropicNoise(GRID, GaussianCorrelation(2_000.0))
    dataset = xr.Dataset(
        coords={
            "time": FIRST.astype("datetime64[ns]") + np.arange(times) * TIMESTEP,
            "latitude": ("latitude", GRID.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", GRID.longitude, {"units": "degrees_east"}),
        }
    )
    for name in CHANNELS:
        fields = MEAN[name] + STD[name] * noise.draw(Key(seed) / name, times).numpy()
        dataset[name] = (("time", "latitude", "longitude"), fields, channel(name).attributes)
    return dataset


def checkpoint(path: Path, seed: int, latent_lengths_km: tuple[float, ...] = ()) -> Path:
    """A tiny network with seeded weights, as a checkpoint."""
    config = SFNOConfig(
        channels=len(CHANNELS), statics=0, grid=GRID, inner_grid=GRID, degrees=6, embed=8,
        blocks=1, scalars=4, gradients=2, hidden=8, latent_lengths_km=latent_lengths_km,
    )  # fmt: skip
    statics = torch.zeros(0, *GRID.shape)
    network = SFNO(config, statics)
    generator = (Key(seed) / "weights").generator()
    with torch.no_grad():
        for weight in network.parameters():
            draw = generator.standard_normal(tuple(weight.shape)).astype(np.float32)
            weight.copy_(torch.from_numpy(draw) * 0.3)
    metadata = CheckpointMetadata(
        architecture=config, channels=CHANNELS, grid=GRID, timestep=TIMESTEP,
        mean=tuple(MEAN.values()), std=tuple(STD.values()),
        tendency_std=tuple(0.05 * value for value in STD.values()), statics=(),
        rmse_48h=tuple(0.1 * value for value in STD.values()), provenance={"seed": seed},
    )  # fmt: skip
    save_checkpoint(path, network, statics, metadata)
    return path


@dataclass(frozen=True)
class World:
    """A folder with analyses, truth, two checkpoints, a stochastic one, and an experiment."""

    folder: Path

    @property
    def runs(self) -> Path:
        """Where its runs go."""
        return self.folder / "runs"

    def experiment(self, name: str = "tiny", **changes: object) -> Path:
        """An experiment file: two checkpoints, bred pairs and control, two init times."""
        content = {
            "name": name,
            "seed": 7,
            "analyses": "analysis.zarr",
            "truth": "truth.zarr",
            "init_times": ["2006-01-02T00", "2006-01-02T12"],
            "lead_time": "24h",
            "members": 9,
            "forecaster": {"kind": "neural", "checkpoints": ["a", "b"]},
            "perturbations": [{"kind": "bred_vectors", "correlation_length_km": 2000}],
            "store": {"block": 2},
        } | changes
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The small world, made once; tests write only below its `runs`."""
    folder = tmp_path_factory.mktemp("world")
    analyses(20, 1).to_zarr(folder / "analysis.zarr", zarr_format=3, consolidated=False)
    analyses(20, 2).to_zarr(folder / "truth.zarr", zarr_format=3, consolidated=False)
    checkpoint(folder / "a", 1)
    checkpoint(folder / "b", 2)
    checkpoint(folder / "stochastic", 3, latent_lengths_km=(2_000.0,))
    return World(folder)
