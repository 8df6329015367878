"""Forecasts that are quantiles already: levels stand in the place of members, with a coordinate
`level` along `number`, whose attribute `files` says where each model is from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError
from pipelines.forecasts import open_forecast
from pipelines.labels import open_labelled

LEVEL = "level"
FILES = "files"
_ROUNDING = 1e-5


def open_input(paths: Sequence[Path | str]) -> xr.Dataset:
    """A forecast of members, or a store of quantiles such as calibration writes, lazily, as
    (init_time, number, lead_time, *cells) with `completed`.

    Raises
    ------
    InputError, StoreError
        If it cannot be opened.
    """
    if len(paths) != 1 or not (Path(paths[0]) / "quantile").is_dir():
        return open_forecast(paths)
    held = open_labelled(paths[0])
    levels = held["quantile"].values
    completed = np.ones((held.sizes["init_time"], levels.size), bool)
    return held.rename(quantile="number").assign_coords({
        "number": np.arange(levels.size),
        LEVEL: ("number", levels, {FILES: {"": str(paths[0])}}),
        "completed": (("init_time", "number"), completed),
    })  # fmt: skip


def with_members(forecast: xr.Dataset, method: str) -> xr.Dataset:
    """The forecast, if it has members.

    Raises
    ------
    InputError
        If it is of quantiles.
    """
    if LEVEL in forecast.coords:
        raise InputError(f"{method} needs members, found quantiles: conformal takes them")
    return forecast


def origin(quantiles: xr.DataArray | xr.Dataset) -> str:
    """What messages call quantiles: their files, and which model they are, if there are several."""
    files: dict[str, str] = quantiles[LEVEL].attrs[FILES]
    labels = quantiles["model"].values.tolist() if "model" in quantiles.coords else [""]
    models = list(dict.fromkeys(labels))
    named = ", ".join(dict.fromkeys(files[model] for model in models))
    return f"{named}: model {', '.join(models)}" if len(files) > 1 else named


def check_given_levels(given: np.ndarray, levels: Sequence[float], where: str) -> None:
    """Refuse quantiles at other levels than are wanted.

    Raises
    ------
    InputError
        Naming both.
    """
    missing = [level for level in levels if not np.isclose(given, level).any()]
    if missing:
        raise InputError(
            f"{where} has no quantile of level {missing[0]:g}, but those of "
            f"{', '.join(f'{level:g}' for level in given)}: name common `levels`"
        )


def given_quantiles(members: xr.DataArray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles at some of the levels, (quantile, ...), of (number, ...); NaN where a date has none
    of a level.

    Raises
    ------
    InputError
        If they cross.
    """
    apart = np.abs(members[LEVEL].values - np.array(levels)[:, None])
    values = members.values[apart.argmin(axis=1)].astype(np.float32)
    values[apart.min(axis=1) > _ROUNDING] = np.nan
    falls = np.diff(values, axis=0) < -_ROUNDING * np.abs(values[1:])
    if crossed := int(falls.any(axis=0).sum()):
        time = np.datetime_as_string(members["init_time"].values, "h")
        raise InputError(
            f"{origin(members)}: quantiles of {members.name} at {time} cross in {crossed} cases, "
            "expected values that do not decrease with their level"
        )
    return values


def check_whole(values: np.ndarray, members: xr.DataArray, levels: Sequence[float]) -> None:
    """Refuse cases that have some levels but not all.

    Parameters
    ----------
    values : numpy.ndarray
        (quantile, ...), of `members`.
    members : xarray.DataArray
        For messages.
    levels : sequence of float
        Of the quantiles.

    Raises
    ------
    InputError
        Naming a level that is missing.
    """
    missing = np.isnan(values)
    partly = missing.any(axis=0) & ~missing.all(axis=0)
    if partly.any():
        level = levels[int(missing[:, partly].any(axis=1).argmax())]
        time = np.datetime_as_string(members["init_time"].values, "h")
        raise InputError(
            f"{origin(members)}: {members.name} at {time} lacks the quantile of level {level:g} in "
            f"{int(partly.sum())} cases that have others, expected all or none"
        )
