"""A store of two dozen forecasts with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from data.channel import channel
from data.grid import Grid
from data.sphere import Sphere
from pipelines.calibration.store import fill_members
from pipelines.forecasts import open_forecast
from pipelines.layout import Layout

GRID = Grid("legendre-gauss", 8, 16)
SPHERE = Sphere(GRID)
INITS = np.datetime64("2006-01-01", "s") + np.arange(24) * np.timedelta64(1, "D")
LEADS = (np.arange(1, 4) * np.timedelta64(24, "h")).astype("timedelta64[ns]")
MEMBERS = 8
MEAN, STD = {"t850": 275.0, "ws10m": 4.0}, {"t850": 6.0, "ws10m": 2.0}
MEMBER_COORDINATES = ("number", "checkpoint", "pair")


@dataclass(frozen=True)
class World:
    """A folder with `forecast.zarr`, a store of this program, and `truth.zarr`; overconfident."""

    folder: Path

    @property
    def forecast(self) -> Path:
        """24 init times, 8 members, 3 leads, t850 and ws10m; one member is not finished."""
        return self.folder / "forecast.zarr"

    @property
    def truth(self) -> Path:
        """At all valid times."""
        return self.folder / "truth.zarr"

    def cut(self, folder: Path, dates: int) -> World:
        """The first dates alone, and truth to the last of them."""
        with open_forecast([self.forecast]) as forecast:
            write_store(folder / "forecast.zarr", forecast.isel(init_time=slice(dates)).load())
        truth = xr.open_zarr(self.truth, consolidated=False).load().drop_encoding()
        known = truth.sel(time=slice(None, INITS[dates - 1]))
        known.to_zarr(folder / "truth.zarr", zarr_format=3, consolidated=False)
        return World(folder)


def write_store(path: Path, forecast: xr.Dataset) -> None:
    names = tuple(map(str, forecast.data_vars))
    along = xr.Dataset(coords={name: forecast[name].variable for name in MEMBER_COORDINATES})
    layout = Layout(
        names,
        GRID,
        tuple(forecast.init_time.values.astype("datetime64[s]")),
        forecast.lead_time.values,
        along.drop_encoding(),
        4,
        False,
        {"title": "test", "source": "myriadcast test", "fingerprint": "abc"},
    )
    fields = (
        np.stack([forecast[name].values[init] for name in names], 1)
        for init in range(forecast.sizes["init_time"])
    )
    fill_members(path, layout, forecast.completed.values, fields)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once; tests do not write into it."""
    folder = tmp_path_factory.mktemp("calibration")
    rng = np.random.default_rng(1)
    times = INITS[0] + np.arange(INITS.size + 4) * np.timedelta64(1, "D")
    cells = {"latitude": GRID.latitude, "longitude": GRID.longitude}
    truth = xr.Dataset(coords={"time": times.astype("datetime64[ns]"), **cells})
    completed = np.ones((INITS.size, MEMBERS), bool)
    completed[20, 5] = False
    forecast = xr.Dataset(coords={
        "init_time": INITS.astype("datetime64[ns]"),
        "number": ("number", np.arange(MEMBERS, dtype=np.int32)),
        "lead_time": LEADS,
        **cells,
        "checkpoint": ("number", np.arange(MEMBERS, dtype=np.int32) // 4),
        "pair": ("number", np.full(MEMBERS, -1, np.int32)),
        "completed": (("init_time", "number"), completed),
    })  # fmt: skip
    growth = 0.3 * np.arange(1, 4)[:, None, None]
    for name in MEAN:
        observed = MEAN[name] + STD[name] * smooth(rng, times.size)
        observed = np.maximum(observed, 0.0).astype(np.float32)
        truth[name] = (("time", "latitude", "longitude"), observed, channel(name).attributes)
        values = np.empty((INITS.size, MEMBERS, 3, *GRID.shape), np.float32)
        for init in range(INITS.size):
            noise = smooth(rng, 3) + 0.5 * smooth(rng, MEMBERS, 3)
            values[init] = observed[init + 1 : init + 4] + STD[name] * growth * (noise + 0.3)
        values = np.maximum(values, 0.0)
        values[~completed] = np.nan
        dims = ("init_time", "number", "lead_time", "latitude", "longitude")
        forecast[name] = (dims, values, channel(name).attributes)
    truth.to_zarr(folder / "truth.zarr", zarr_format=3, consolidated=False)
    write_store(folder / "forecast.zarr", forecast)
    return World(folder)


def smooth(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Noise that the grid resolves, variance about 1, (*shape, latitude, longitude)."""
    white = torch.from_numpy(rng.standard_normal((*shape, *GRID.shape)).astype(np.float32))
    fields = SPHERE.truncate(white).numpy()
    return fields / fields.std()
