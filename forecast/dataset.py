"""What a forecaster is trained on: consecutive fields of one archive, and their statistics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from data.errors import InputError
from data.files import open_file
from data.grid import Grid
from data.source import open_source
from data.state import check_bounds

_ROWS_PER_READ = 400


@dataclass(frozen=True)
class Archive:
    """Fields of one archive in memory.

    Attributes
    ----------
    fields : numpy.ndarray
        (time, channel, latitude, longitude), float32, physical units of the channel table.
    statics : numpy.ndarray
        (static, latitude, longitude), float32.
    times : numpy.ndarray
        (time,), datetime64[s].
    segments : numpy.ndarray
        (time,), int; fields of two segments are never consecutive.
    evaluation : numpy.ndarray
        (time,), bool: stretches kept for evaluation, never trained on.
    channels : tuple of str
    grid : Grid
    """

    fields: np.ndarray
    statics: np.ndarray
    times: np.ndarray
    segments: np.ndarray
    evaluation: np.ndarray
    channels: tuple[str, ...]
    grid: Grid

    def starts(self, rows: np.ndarray, steps: int, timestep: np.timedelta64) -> np.ndarray:
        """Indices i such that rows i ... i + steps are all wanted, consecutive and in one segment.

        Parameters
        ----------
        rows : numpy.ndarray
            (time,), bool: the rows that may be used.
        steps : int
            Number of timesteps after the first row.
        timestep : numpy.timedelta64
            What lies between two consecutive rows.
        """
        linked = rows[1:] & rows[:-1] & (np.diff(self.segments) == 0)
        linked &= np.diff(self.times) == timestep
        count = len(rows) - steps
        if count <= 0:
            return np.empty(0, int)
        good = rows[:count].copy()
        for step in range(steps):
            good &= linked[step : step + count]
        return np.flatnonzero(good)

    def held_back(self, days: float) -> np.ndarray:
        """The last `days` of every segment's training stretch, (time,), bool."""
        chosen = np.zeros(len(self.times), bool)
        length = np.timedelta64(round(days * 86400), "s")
        for segment in np.unique(self.segments):
            rows = (self.segments == segment) & ~self.evaluation
            if rows.any():
                chosen |= rows & (self.times > self.times[rows].max() - length)
        return chosen


def read_archive(path: Path, channels: tuple[str, ...], statics: tuple[str, ...]) -> Archive:
    """The finished rows of an archive in any layout that `open_source` knows.

    Optional coordinates along `time`: `segment` (int) and `subset` (0 training, 1 evaluation).
    Rows with a value that is not finite (not written yet, or missing) are left out.

    Raises
    ------
    InputError
        If the archive, a channel or a static field is missing, values leave their channel's
        bounds, or no row is finite.
    """
    source = open_source(path)
    if source.grid is None:
        raise InputError(f"{path}: a network needs fields on a known global grid")
    dataset = source.dataset(channels)
    fields = np.empty((dataset.sizes["time"], len(channels), *source.grid.shape), np.float32)
    for index, name in enumerate(channels):
        _read_into(fields[:, index], dataset[name])
    complete = np.isfinite(fields.reshape(len(fields), -1).sum(axis=1))
    if not complete.any():
        raise InputError(f"{path}: no time has finite values in all of {', '.join(channels)}")
    rows = np.flatnonzero(complete)
    if not complete.all():
        fields = fields[rows]
    _check_bounds(fields, channels, path)
    extras = open_file(path)[0]
    return Archive(
        fields=fields,
        statics=_statics(extras, statics, source.grid, path),
        times=source.times[rows],
        segments=_coordinate(extras, "segment", len(complete))[rows],
        evaluation=_coordinate(extras, "subset", len(complete))[rows] != 0,
        channels=tuple(channels),
        grid=source.grid,
    )


def _statics(dataset: xr.Dataset, names: tuple[str, ...], grid: Grid, path: Path) -> np.ndarray:
    """Fixed fields, (static, latitude, longitude), float32."""
    fields = np.empty((len(names), *grid.shape), np.float32)
    for index, name in enumerate(names):
        if name not in dataset:
            found = ", ".join(map(str, dataset.data_vars))
            raise InputError(f"{path}: static field {name!r} is missing, found {found}")
        Grid.from_coordinates(dataset.latitude.values, dataset.longitude.values, str(path))
        fields[index] = dataset[name].transpose("latitude", "longitude").values
    return fields


def _read_into(target: np.ndarray, variable: xr.DataArray) -> None:
    variable = variable.transpose("time", "latitude", "longitude")
    for start in range(0, len(target), _ROWS_PER_READ):
        rows = slice(start, start + _ROWS_PER_READ)
        target[rows] = variable[rows].values


def _coordinate(dataset: xr.Dataset, name: str, length: int) -> np.ndarray:
    """An integer coordinate along time; zeros where there is none."""
    if name in dataset.variables and dataset[name].shape == (length,):
        return dataset[name].values.astype(int)
    return np.zeros(length, int)


def _check_bounds(fields: np.ndarray, channels: tuple[str, ...], path: Path) -> None:
    for index, name in enumerate(channels):
        check_bounds(fields[:, index], name, f"{path}: {name}")


@dataclass(frozen=True)
class Normalisation:
    """Per-channel scales of fields and of their change in one timestep.

    Attributes
    ----------
    mean, std : torch.Tensor
        (channel,), float32: area- and time-mean and standard deviation around it.
    tendency_std : torch.Tensor
        (channel,), float32: root-mean-square change over one timestep.
    """

    mean: torch.Tensor
    std: torch.Tensor
    tendency_std: torch.Tensor

    def normalise(self, fields: torch.Tensor) -> torch.Tensor:
        """(fields - mean) / std, (..., channel, latitude, longitude)."""
        return (fields - self.mean[:, None, None]) / self.std[:, None, None]

    def advance(self, fields: torch.Tensor, tendency: torch.Tensor) -> torch.Tensor:
        """Physical fields plus a network's output, which is in units of `tendency_std`."""
        return torch.addcmul(fields, tendency, self.tendency_std[:, None, None])


def normalisation(archive: Archive, rows: np.ndarray, timestep: np.timedelta64) -> Normalisation:
    """Area-weighted statistics of the chosen rows, (time,), bool; accumulated in float64.

    Raises
    ------
    InputError
        If no two chosen rows are consecutive, or a channel does not vary.
    """
    weights = archive.grid.area_weights
    starts = archive.starts(rows, 1, timestep)
    if not starts.size:
        raise InputError(f"no two training fields are {timestep} apart")
    columns = []
    for index, name in enumerate(archive.channels):
        values = archive.fields[:, index]
        chosen = values[rows]
        mean = _area_mean(chosen, weights)
        std = np.sqrt(_area_mean((chosen - np.float32(mean)) ** 2, weights))
        change = np.sqrt(_area_mean((values[starts + 1] - values[starts]) ** 2, weights))
        if not (std > 0 and change > 0):
            raise InputError(f"channel {name} does not vary in the training fields")
        columns.append((mean, std, change))
    mean, std, change = torch.tensor(columns, dtype=torch.float32).T.contiguous()
    return Normalisation(mean, std, change)


def _area_mean(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.einsum("tij,ij->t", values, weights, dtype=np.float64).mean())


def normalised_statics(archive: Archive) -> torch.Tensor:
    """Statics, (static, latitude, longitude), with zero mean and unit variance; 0 if flat."""
    weights = archive.grid.area_weights
    fields = archive.statics.astype(float)
    rounding = 1e-9 * np.abs(fields).max((-2, -1), keepdims=True, initial=0.0)
    fields = fields - (fields * weights).sum((-2, -1), keepdims=True)
    deviation = np.sqrt((fields**2 * weights).sum((-2, -1), keepdims=True))
    scaled = np.where(deviation > rounding, fields / np.maximum(deviation, 1e-300), 0.0)
    return torch.from_numpy(scaled).float()
