"""The stores of a nature run, laid out whole and then filled chunk by chunk.

| store | holds | times of each segment |
|---|---|---|
| ``truth.zarr`` | truth, output channels | all |
| ``analysis.zarr`` | analyses, output channels | evaluation without the twin's spin-up |
| ``native.zarr``, group ``truth`` | truth, the core's own channels | 00Z of the analysed days |
| ``native.zarr``, group ``analysis`` | analyses, the core's own channels | the same |

Dimensions are (time, latitude, longitude). Segments follow one another on one time axis, ten days
apart, so that no step of 6 h leads from one to the next. Along time: `segment`, and `subset`
(0 training, 1 evaluation). What is not written yet is NaN.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array
import numpy as np
import xarray as xr
import zarr

from data.channel import channel
from data.consolidated import consolidate
from data.errors import StoreError
from data.grid import Grid
from forecast.held_suarez import OUTPUT_CHANNELS, OUTPUT_GRID, Resolution

if TYPE_CHECKING:
    from forecast.spectral_core import SpectralCore

PER_DAY = 4
GAP_DAYS = 10
START = np.datetime64("2001-01-01", "s")
TRAINING, EVALUATION = 0, 1


@dataclass(frozen=True)
class NatureStores:
    """Where every chunk of a nature run goes.

    Parameters
    ----------
    directory : Path
    segments, chunks, chunk_days : int
        Segments, chunks in each, and days in a chunk.
    first_evaluated, first_analysed : int
        First chunk of each segment's evaluation stretch, and first with analyses.
    resolution : Resolution
        Resolution of the native fields.
    settings : dict
        Identity of the run, kept as an attribute of every store.
    """

    directory: Path
    segments: int
    chunks: int
    chunk_days: int
    first_evaluated: int
    first_analysed: int
    resolution: Resolution
    settings: dict[str, Any]

    @property
    def chunk(self) -> int:
        """Steps of 6 h in a chunk."""
        return self.chunk_days * PER_DAY

    def lay_out(self, core: SpectralCore) -> None:
        """Create the stores, filled with NaN, unless they are there already.

        Raises
        ------
        StoreError
            If the directory holds a nature run with other settings.
        """
        marker = self.directory / "settings.json"
        if marker.exists():
            if json.loads(marker.read_text()) != self.settings:
                raise StoreError(f"{marker}: {self.directory} is a nature run of other settings")
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.directory}: cannot be written: {error}") from None
        steps = self.chunks * self.chunk
        first = self.first_analysed * self.chunk
        ground = core.truncated_surface_geopotential
        self._create("truth.zarr", range(steps), OUTPUT_CHANNELS, OUTPUT_GRID, ground)
        self._create("analysis.zarr", range(first, steps), OUTPUT_CHANNELS, OUTPUT_GRID, ground)
        channels, grid = self.resolution.channels, self.resolution.grid
        for group in ("truth", "analysis"):
            days, ground = range(first, steps, PER_DAY), core.surface_geopotential
            self._create(f"native.zarr/{group}", days, channels, grid, ground)
        marker.write_text(json.dumps(self.settings, indent=1))

    def write_truth(self, segment: int, chunk: int, fields: np.ndarray) -> None:
        """Write a chunk of truth, (time, channel, latitude, longitude)."""
        start = (segment * self.chunks + chunk) * self.chunk
        self._write("truth.zarr", OUTPUT_CHANNELS, start, fields)

    def write_analysis(
        self,
        segment: int,
        chunk: int,
        analysis: np.ndarray,
        native_truth: np.ndarray,
        native_analysis: np.ndarray,
    ) -> None:
        """Write a chunk of analyses, (time, channel, latitude, longitude), and native fields."""
        index = segment * (self.chunks - self.first_analysed) + chunk - self.first_analysed
        self._write("analysis.zarr", OUTPUT_CHANNELS, index * self.chunk, analysis)
        for group, fields in (("truth", native_truth), ("analysis", native_analysis)):
            channels, day = self.resolution.channels, index * self.chunk_days
            self._write(f"native.zarr/{group}", channels, day, fields)

    def _write(self, name: str, channels: tuple[str, ...], start: int, fields: np.ndarray) -> None:
        group = zarr.open_group(self.directory / name, mode="r+", use_consolidated=False)
        for index, channel_name in enumerate(channels):
            group[channel_name][start : start + len(fields)] = fields[:, index]

    def _create(
        self,
        name: str,
        steps: range,
        channels: tuple[str, ...],
        grid: Grid,
        ground: np.ndarray,
    ) -> None:
        """Lay out one store with these steps (6 h from a segment's start) of every segment."""
        coordinates = self._coordinates(steps, grid)
        shape = (len(coordinates["time"][1]), *grid.shape)
        chunk = self.chunk // steps.step
        empty = dask.array.full(shape, np.nan, dtype=np.float32, chunks=(chunk, *grid.shape))
        dimensions = ("time", "latitude", "longitude")
        variables = {name: (dimensions, empty, _attributes(name)) for name in channels}
        about = {"units": "m2 s-2", "long_name": "Geopotential of the ground"}
        variables["surface_geopotential"] = (dimensions[1:], ground.astype(np.float32), about)
        encoding = {name: {"fill_value": np.nan} for name in channels}
        encoding["time"] = {"units": f"hours since {START}", "dtype": "int64"}
        attributes = {"Conventions": "CF-1.11", "settings": json.dumps(self.settings)}
        path, dataset = self.directory / name, xr.Dataset(variables, coordinates, attributes)
        dataset.to_zarr(
            path, mode="w", zarr_format=3, compute=False, consolidated=False, encoding=encoding
        )
        consolidate(path, (*dataset.coords, *dataset.data_vars))

    def _coordinates(self, steps: range, grid: Grid) -> dict[str, tuple]:
        days = np.arange(self.segments) * (self.chunks * self.chunk_days + GAP_DAYS)
        starts = START + days * np.timedelta64(1, "D")
        offsets = np.array(steps) * np.timedelta64(24 // PER_DAY, "h")
        time = (starts[:, None] + offsets).ravel().astype("datetime64[ns]")
        evaluated = np.array(steps) >= self.first_evaluated * self.chunk
        subset = np.where(evaluated, EVALUATION, TRAINING).astype(np.int32)
        flags = {"flag_values": [TRAINING, EVALUATION], "flag_meanings": "training evaluation"}
        segment = np.repeat(np.arange(self.segments, dtype=np.int32), len(steps))
        return {
            "time": ("time", time, {"standard_name": "time"}),
            "latitude": ("latitude", grid.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", grid.longitude, {"units": "degrees_east"}),
            "segment": ("time", segment, {"long_name": "Independent trajectory"}),
            "subset": ("time", np.tile(subset, self.segments), flags),
        }


def _attributes(name: str) -> dict[str, Any]:
    """CF attributes of an output or a native channel."""
    letter, _, layer = name.partition("_sigma")
    if not layer:
        return dict(channel(name).attributes)
    like = channel(f"{letter}500")
    long_name = f"{like.long_name.split(' at ')[0]} in sigma layer {layer} from the top"
    return {"standard_name": like.standard_name, "units": like.units, "long_name": long_name}
