"""A small forecast store with its truth, analyses and climatology."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from data.channel import channel
from data.climatology import climatology_from, write_climatology
from data.grid import Grid
from data.source import open_source

GRID = Grid("legendre-gauss", 8, 16)
CHANNELS = {"t850": (275.0, 6.0), "z500": (54_000.0, 600.0)}
TIMES = np.datetime64("2006-01-01", "ns") + np.arange(33) * np.timedelta64(12, "h")
LEADS = (np.arange(4) * np.timedelta64(24, "h")).astype("timedelta64[ns]")
MEMBERS = 9
CELLS = {
    "latitude": ("latitude", GRID.latitude, {"units": "degrees_north"}),
    "longitude": ("longitude", GRID.longitude, {"units": "degrees_east"}),
}


@dataclass(frozen=True)
class Verified:
    """A folder with `forecast.zarr`, `truth.zarr` and `climatology.zarr`; overconfident."""

    folder: Path

    @property
    def forecast(self) -> Path:
        """The forecast store: 6 init times, 9 members, 4 leads."""
        return self.folder / "forecast.zarr"

    @property
    def truth(self) -> Path:
        """Truth to half a day after the last valid time but one."""
        return self.folder / "truth.zarr"

    @property
    def climatology(self) -> Path:
        """Made from the truth."""
        return self.folder / "climatology.zarr"

    def changed(self, target: Path, **variables: xr.DataArray) -> Path:
        """A copy of the truth with some variables replaced."""
        dataset = xr.open_zarr(self.truth, consolidated=False).load().drop_encoding()
        dataset.assign(variables).to_zarr(target, zarr_format=3, consolidated=False)
        return target


def truth() -> xr.Dataset:
    """Noise with a memory, (time, latitude, longitude)."""
    rng = np.random.default_rng(1)
    dataset = xr.Dataset(coords={"time": TIMES, **CELLS})
    for name, (mean, std) in CHANNELS.items():
        fields = np.empty((TIMES.size, *GRID.shape))
        fields[0] = rng.standard_normal(GRID.shape)
        for step in range(1, TIMES.size):
            fields[step] = 0.8 * fields[step - 1] + 0.6 * rng.standard_normal(GRID.shape)
        values = (mean + std * fields).astype(np.float32)
        dataset[name] = (("time", "latitude", "longitude"), values, channel(name).attributes)
    return dataset


def forecast(observed: xr.Dataset) -> xr.Dataset:
    """Members around the truth with growing errors and too little spread; one is unfinished."""
    rng = np.random.default_rng(2)
    inits = TIMES[[0, 6, 12, 18, 24, 28]]
    completed = np.ones((inits.size, MEMBERS), bool)
    completed[4, 3] = False
    dataset = xr.Dataset(
        coords={
            "init_time": inits,
            "number": np.arange(MEMBERS),
            "lead_time": LEADS,
            **CELLS,
            "valid_time": (("init_time", "lead_time"), inits[:, None] + LEADS[None, :]),
            "checkpoint": ("number", np.arange(MEMBERS) % 2),
            "pair": ("number", np.full(MEMBERS, -1)),
            "completed": (("init_time", "number"), completed),
        }
    )
    shape = (inits.size, MEMBERS, LEADS.size, *GRID.shape)
    growth = 0.25 * np.arange(LEADS.size)[:, None, None]
    for name, (mean, std) in CHANNELS.items():
        reached = observed[name].reindex(time=dataset.valid_time.values.ravel()).values
        base = np.nan_to_num(reached.reshape(inits.size, 1, *shape[2:]), nan=mean)
        error = rng.standard_normal((inits.size, 1, *shape[2:]))
        values = base + std * growth * (error + 0.6 * rng.standard_normal(shape))
        values[~completed] = np.nan
        dims = ("init_time", "number", "lead_time", "latitude", "longitude")
        dataset[name] = (dims, values.astype(np.float32), channel(name).attributes)
    return dataset


@pytest.fixture(scope="session")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Verified:
    """Made once; tests do not write into it."""
    folder = tmp_path_factory.mktemp("verified")
    observed = truth()
    observed.to_zarr(folder / "truth.zarr", zarr_format=3, consolidated=False)
    forecast(observed).to_zarr(folder / "forecast.zarr", zarr_format=3, consolidated=False)
    climatology = climatology_from(open_source(folder / "truth.zarr"), tuple(CHANNELS))
    write_climatology(climatology, folder / "climatology.zarr")
    return Verified(folder)
