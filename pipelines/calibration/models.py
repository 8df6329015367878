"""Several forecasts as one: a dataset whose members say by a coordinate which model they are of.

Models are the parts of one ensemble (checkpoints, perturbations), its earlier init times, or
forecasts in stores of their own. Where a store holds quantiles, its levels stand in the place of
members, with a coordinate `level`. Nothing is read but coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np
import xarray as xr

from data.errors import InputError
from pipelines.calibration.cases import quantile_values
from pipelines.calibration.given import (
    FILES,
    LEVEL,
    check_given_levels,
    given_quantiles,
    open_input,
    origin,
)
from pipelines.truths import SERIES, Paths, check_cells, listed


def by_coordinate(forecast: xr.Dataset, name: str, where: str) -> xr.Dataset:
    """An ensemble whose members are of the model that a coordinate along `number` names.

    Raises
    ------
    InputError
        If there is no such coordinate, or only one model.
    """
    along = [str(one) for one, at in forecast.coords.items() if at.dims == ("number",)]
    if name not in along:
        raise InputError(
            f"{where}: models {name!r} is no coordinate of its members, found {', '.join(along)}"
        )
    labels = forecast[name]
    meanings = str(labels.attrs.get("flag_meanings", "")).split()
    names = dict(zip(np.ravel(labels.attrs.get("flag_values", [])).tolist(), meanings, strict=True))
    found = [str(names.get(label, label)) for label in labels.values.tolist()]
    if len(set(found)) < 2:
        raise InputError(f"{where}: all members are of one {name}, {found[0]}: nothing to combine")
    return forecast.assign_coords(model=("number", found))


def by_lag(forecast: xr.Dataset, lags: Sequence[np.timedelta64]) -> xr.Dataset:
    """An ensemble and the members of its earlier init times for the same valid times."""
    inits, leads = forecast.init_time.values, forecast.lead_time.values
    parts = {}
    for lag in lags:
        earlier = _spread(forecast, inits - lag, leads + lag)
        name = f"lag {lag / np.timedelta64(1, 'h'):g} h"
        parts[name] = earlier.assign_coords(init_time=inits, lead_time=leads)
    return _beside(parts)


def open_models(
    forecasts: Mapping[str, Paths], channels: tuple[str, ...] | None = None
) -> xr.Dataset:
    """Models in stores or files of their own, at all init times and leads that any of them has.

    Parameters
    ----------
    forecasts : mapping of str to path or sequence of paths
        Of each model: a forecast store, a store of quantiles, or files of an ensemble.
    channels : tuple of str, optional
        Which; those of the first model by default.

    Raises
    ------
    InputError, StoreError
        If one cannot be opened, lacks a channel, or lies on another grid.
    """
    opened = {name: open_input(listed(paths)) for name, paths in forecasts.items()}
    first = next(iter(opened))
    names = list(channels or _channels(opened[first]))
    for model, dataset in opened.items():
        if missing := [name for name in names if name not in dataset]:
            raise InputError(f"model {model}: channel {missing[0]!r} is missing")
        for name in names:
            check_cells(opened[first][name], dataset[name], f"model {first}", f"model {model}")
    inits, leads = (
        reduce(np.union1d, (dataset[dim].values for dataset in opened.values()))
        for dim in ("init_time", "lead_time")
    )
    cells = {dim: opened[first][dim] for dim in opened[first].dims if dim in opened[first].coords}
    cells = {dim: at for dim, at in cells.items() if dim not in SERIES}
    return _beside({
        model: _spread(dataset[names], inits, leads).assign_coords(cells)
        for model, dataset in opened.items()
    })  # fmt: skip


def check_model_levels(forecast: xr.Dataset, levels: Sequence[float]) -> None:
    """Refuse models that are quantiles at other levels than are wanted.

    Raises
    ------
    InputError
        Naming the model and its levels.
    """
    if LEVEL not in forecast.coords:
        return
    for model in models_of(forecast):
        own = forecast.isel(number=np.flatnonzero(forecast["model"] == model))
        given = own[LEVEL].values
        if np.isfinite(given).any():
            check_given_levels(given[np.isfinite(given)], levels, origin(own))


def models_of(forecast: xr.Dataset) -> tuple[str, ...]:
    """The models in their order."""
    return tuple(dict.fromkeys(forecast["model"].values.tolist()))


def model_quantiles(
    members: xr.DataArray, levels: tuple[float, ...], models: Sequence[str]
) -> xr.DataArray:
    """Quantiles of each model, (model, quantile, lead_time, *cells), NaN where it has none.

    Parameters
    ----------
    members : xarray.DataArray
        (number, lead_time, *cells), with coordinates `model` and perhaps `level` along `number`.
    levels : tuple of float
        Which.
    models : sequence of str
        In this order; a model need not be there.

    Raises
    ------
    InputError
        If quantiles that were given cross.
    """
    of = members["model"].values
    like = members.isel(number=0, drop=True)
    found = np.full((len(models), len(levels), *like.shape), np.nan, np.float32)
    for place, model in enumerate(models):
        own = members.isel(number=np.flatnonzero(of == model))
        if not own.sizes["number"]:
            continue
        if LEVEL in own.coords and np.isfinite(own[LEVEL]).all():
            found[place] = given_quantiles(own, levels)
        else:
            known = np.isfinite(own.values).all(axis=0)
            found[place] = np.where(known, quantile_values(own.values, levels), np.nan)
    at = {name: like[name] for name in like.coords}
    at |= {"model": list(models), "quantile": np.array(levels)}
    return xr.DataArray(found, at, ("model", "quantile", *like.dims), like.name, like.attrs)


def _channels(forecast: xr.Dataset) -> tuple[str, ...]:
    return tuple(str(name) for name in forecast if set(SERIES) <= set(forecast[name].dims))


def _spread(forecast: xr.Dataset, inits: np.ndarray, leads: np.ndarray) -> xr.Dataset:
    """A forecast at other init times and leads, lazily; not finished where it has none."""
    extra = [
        name
        for name, at in forecast.coords.items()
        if name not in ("completed", "level") and at.dims not in [(dim,) for dim in forecast.dims]
    ]
    along = [n for n, at in forecast.coords.items() if at.dims == ("number",) and n != "level"]
    bare = forecast.drop_vars([*extra, *(name for name in along if name != "number")])
    lazy = bare.chunk({"init_time": 1})
    there = {"init_time": inits.astype("datetime64[ns]"), "lead_time": leads}
    return lazy.reindex(there, fill_value={"completed": False}).astype(np.float32)


def _beside(parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Members of all models, one model after the other."""
    labelled, files, first = [], {}, 0
    for name, part in parts.items():
        size = part.sizes["number"]
        levels = part[LEVEL].values if LEVEL in part.coords else np.full(size, np.nan)
        if LEVEL in part.coords:
            files[name] = origin(part)
        labelled.append(
            part.assign_coords(
                number=np.arange(first, first + size),
                model=("number", [name] * size),
                level=("number", levels),
            ).transpose(*SERIES, ...)
        )
        first += size
    joined = xr.concat(
        labelled, "number", data_vars="minimal", coords="minimal", compat="override",
        join="override", combine_attrs="override",
    )  # fmt: skip
    joined[LEVEL].attrs[FILES] = files
    completed = joined["completed"].transpose("init_time", "number").astype(bool).load()
    return joined.transpose(*SERIES, ...).assign_coords(completed=completed)
