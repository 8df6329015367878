"""Quantile forecasts and truth of tables, as models to be combined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from data.errors import InputError
from pipelines.calibration.given import FILES, LEVEL
from pipelines.quantile_table import quantiles_of_table, read_table, truth_of_table
from pipelines.truths import SERIES, Series
from pipelines.verification import Verification, valid_times

_UNNAMED = "value"  # the channel of a table without a column `channel`
_KEYS = ("model", "init_time", "lead_time")


def is_table(path: Path | str) -> bool:
    """Whether a path names a table."""
    return str(path).endswith((".parquet", ".csv", ".csv.gz"))


def open_model_tables(
    forecasts: Mapping[str, Sequence[Path]], cells: tuple[str, ...], channels: Sequence[str] | None
) -> xr.Dataset:
    """Models of tables, (init_time, number, lead_time, *cells), in memory: levels in the place of
    members, with coordinates `model` and `level` along `number`.

    Parameters
    ----------
    forecasts : mapping of str to sequence of pathlib.Path
        Tables of each model; where its name is empty, the column `model` says which, or else the
        name of the file.
    cells : tuple of str
        Columns that become horizontal dimensions.
    channels : sequence of str, optional
        Which of the column `channel`; all by default.

    Raises
    ------
    InputError
        If a column is missing or holds no numbers, a key is missing or comes twice, levels do not
        increase within (0, 1), or a table that is given one name is of several models.
    """
    parts, files = [], {}
    for name, paths in forecasts.items():
        for path in paths:
            table = read_table(path, cells)
            if name:
                _check_one_model(table, name, path)
            named = name or ("" if "model" in table.columns else Path(path).name.split(".")[0])
            parts.append(table.assign(model=named) if named else table)
            _check_columns(parts[-1], ("model", "init_time", "lead_time", *cells), path)
            for model in parts[-1]["model"].astype(str).unique():
                files[model] = f"{files[model]}, {path}" if model in files else str(path)
    table = pd.concat(parts, ignore_index=True)
    with _of(", ".join(str(path) for paths in forecasts.values() for path in paths)):
        found = {
            name: quantiles_of_table(part, [*_KEYS, *cells]) for name, part in _by_channel(table)
        }
    names = _chosen(found, channels, "the forecast tables")
    joined = xr.Dataset({name: found[name] for name in names})
    return _as_members(joined, cells, files)


@dataclass(frozen=True)
class TableTruths:
    """Truth of tables, by channel; as `pipelines.truths.Truths`.

    Attributes
    ----------
    arrays : dict of str to xarray.DataArray
        (valid_time, *cells)
    where : str
        The files, for messages.
    """

    arrays: dict[str, xr.DataArray]
    where: str

    @classmethod
    def open(cls, paths: Sequence[Path], cells: tuple[str, ...]) -> TableTruths:
        """From tables with columns `valid_time`, `value`, and those of the cells.

        Raises
        ------
        InputError
            If a column is missing or holds no finite numbers, or a key is missing or comes twice.
        """
        tables = [read_table(path, cells) for path in paths]
        for path, table in zip(paths, tables, strict=True):
            _check_columns(table, ("valid_time", "value", *cells), path)
        joined = pd.concat(tables, ignore_index=True)
        where = ", ".join(map(str, paths))
        with _of(where):
            found = {
                name: truth_of_table(part, ["valid_time", *cells])
                for name, part in _by_channel(joined)
            }
        return cls(found, where)

    def times(self, name: str) -> np.ndarray:
        """Valid times of a channel, datetime64[s], ascending."""
        _chosen(self.arrays, [name], self.where)
        known = self.arrays[name].dropna("valid_time", how="all")
        return known["valid_time"].values.astype("datetime64[s]")

    def series(self, name: str, times: np.ndarray, dims: tuple[str, ...], memory: int) -> Series:
        """A channel at these times, ascending."""
        found = self.arrays[name].transpose("valid_time", *dims)
        values = found.sel(valid_time=times.astype("datetime64[ns]")).values
        return Series(self, name, dims, times, values)

    def at_cells(self, forecast: xr.Dataset) -> TableTruths:
        """At the cells of a forecast; NaN where there is none.

        Raises
        ------
        InputError
            If they have no cell in common.
        """
        moved = {}
        for name, array in self.arrays.items():
            cells = {dim: forecast[dim].values for dim in array.dims if dim != "valid_time"}
            for dim, values in cells.items():
                if not np.isin(values, array[dim].values).any():
                    raise InputError(
                        f"{self.where}: has no {dim} of the forecasts; found "
                        f"{array[dim].values.tolist()[0]!r}, expected {values.tolist()[0]!r} and "
                        "the like"
                    )
            moved[name] = array.reindex(cells)
        return TableTruths(moved, self.where)


def verification_of_tables(
    forecast: xr.Dataset, truth: TableTruths, channels: Sequence[str] | None, where: str
) -> Verification:
    """A forecast, of a table or a store, and its truth.

    Raises
    ------
    InputError
        If a channel is missing, or no valid time has truth.
    """
    truth, scored = truth.at_cells(forecast), {}
    valid = valid_times(forecast)
    for name in _chosen(forecast, channels, where):
        times = truth.times(name)
        if not times.size:
            raise InputError(f"{truth.where}: has no truth of {name}: every value is missing")
        scored[name] = np.isin(valid, times)
        if not scored[name].any():
            raise InputError(
                f"{truth.where}: has no truth of {name} at a valid time of {where}: forecasts are "
                f"valid {valid.min()} to {valid.max()}, truth is from {times[0]} to {times[-1]}"
            )
    return Verification(forecast, truth, tuple(scored), scored, where, ())


def _as_members(quantiles: xr.Dataset, cells: tuple[str, ...], files: dict[str, str]) -> xr.Dataset:
    """(model, init_time, lead_time, *cells, quantile) as members; with the files of each model."""
    models, levels = quantiles["model"].values.astype(str), quantiles["quantile"].values
    size = (quantiles.sizes["init_time"], models.size * levels.size)
    forecast = xr.Dataset(
        coords={
            "init_time": quantiles["init_time"].values.astype("datetime64[ns]"),
            "lead_time": quantiles["lead_time"].values.astype("timedelta64[ns]"),
            "number": np.arange(size[1]),
            "model": ("number", np.repeat(models, levels.size)),
            LEVEL: ("number", np.tile(levels, models.size), {FILES: files}),
            **{cell: np.array(quantiles[cell].values.tolist()) for cell in cells},
        }
    )
    completed = np.zeros(size, bool)
    for name, array in quantiles.items():
        values = array.transpose("init_time", "model", "quantile", "lead_time", *cells).values
        values = values.reshape(*size, *values.shape[3:]).astype(np.float32)
        forecast[name] = ((*SERIES, *cells), values)
        completed |= np.isfinite(values).reshape(*size, -1).any(axis=2)
    return forecast.assign_coords(completed=(("init_time", "number"), completed))


@contextmanager
def _of(where: str) -> Iterator[None]:
    """Say of what files an error is."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _by_channel(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if "channel" not in table.columns:
        return [(_UNNAMED, table)]
    return [(str(name), part) for name, part in table.groupby("channel", observed=True)]


def _chosen(
    found: Mapping[str, object], channels: Sequence[str] | None, where: str
) -> Sequence[str]:
    for name in channels or ():
        if name not in found:
            raise InputError(
                f"{where}: channel {name!r} is missing, found {', '.join(map(str, found))}"
            )
    return [str(name) for name in channels or found]


def _check_one_model(table: pd.DataFrame, name: str, path: Path) -> None:
    found = table["model"].dropna().unique() if "model" in table.columns else ()
    if len(found) > 1:
        raise InputError(
            f"{path}: its column 'model' names {len(found)} models ({', '.join(map(str, found))}), "
            f"and --model gives it one name, {name}: give --forecast {path}, which takes the "
            "names of the column"
        )


def _check_columns(table: pd.DataFrame, needed: Sequence[str], path: Path) -> None:
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise InputError(
            f"{path}: has no column {missing[0]!r}, found {', '.join(map(str, table.columns))}; "
            "`cells` of the settings names the columns of places"
        )
