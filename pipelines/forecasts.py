"""Ensemble forecasts in a store of ours or in any files, as one lazy dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError, StoreError
from data.layout import oriented
from data.source import FileSource, open_forecasts
from pipelines.labels import open_labelled
from pipelines.statistics_store import open_as_forecast, statistics_paths
from pipelines.truths import SERIES

UNKNOWN = "unknown"
"""The attribute that names fields in time of a file that hold no known channel."""


def open_forecast(paths: Sequence[Path | str]) -> xr.Dataset:
    """The forecast as (init_time, number, lead_time, *cells), lazy, with `completed`.

    What the attribute `UNKNOWN` names is in the files and not in it.

    Of statistics kept in flight the fields are not there, and read as NaN.

    Raises
    ------
    InputError, StoreError
        If it cannot be opened, does not say what was forecast when, has an init time, member or
        lead twice, or is of quantiles.
    """
    for path in paths:
        _check_members(Path(path))
    if len(paths) == 1 and statistics_paths(Path(paths[0])):
        return _checked(open_as_forecast(Path(paths[0])), str(paths[0]))
    if paths and all(_is_store(Path(path)) for path in paths):
        stores = [_open_store(path) for path in paths]
        if len(stores) == 1:
            return stores[0]
        if all(set(store.data_vars) == set(stores[0].data_vars) for store in stores):
            return _one_after_the_other(stores, paths)
    by_channel: dict[str, list[xr.DataArray]] = {}
    finished: list[xr.DataArray] = []
    unknown: dict[str, None] = {}
    for path in paths:
        for source in _sources(path):
            unknown |= dict.fromkeys(source.unknown)
            for name, array in source.dataset().items():
                series = _by_init_time(array, str(path))
                if "completed" in series.coords:
                    finished.append(_finished(series))
                    series = series.drop_vars("completed")
                by_channel.setdefault(str(name), []).append(series)
    arrays = {name: _joined(name, parts, paths) for name, parts in by_channel.items()}
    try:
        dataset = xr.merge([arrays], join="exact", compat="override")
    except ValueError as error:
        raise InputError(f"{', '.join(map(str, paths))}: channels do not fit: {error}") from error
    dataset = _checked(_with_completed(dataset), ", ".join(map(str, paths)))
    return _without_unfinished(dataset, finished).assign_attrs({UNKNOWN: list(unknown)})


def _check_members(path: Path) -> None:
    """Refuse a store of quantiles, of which only calibration knows what to make."""
    if not (path / "quantile").is_dir():
        return
    with open_labelled(path) as held:
        raise InputError(
            f"{path}: is a store of {_levels_of(held)}; "
            "`myriad calibrate judge EXPERIMENT --calibrated PATH` judges it beside the raw members"
            ", and `myriad calibrate fit --method aggregation` several, each --model NAME=PATH"
        )


def _sources(path: Path | str) -> list[FileSource]:
    """The series of a file; of one that has none because it is of quantiles, that is said."""
    try:
        return open_forecasts(path)
    except InputError:
        if (levels := _levels_in(Path(path))) is None:
            raise
        raise InputError(
            f"{path}: is a file of {levels}; `myriad calibrate` takes quantiles as a zarr store, "
            "(init_time, quantile, lead_time, ...), which xarray's `to_zarr` makes of it, or as a "
            "table"
        ) from None


def _levels_in(path: Path) -> str | None:
    """What quantiles a NetCDF file holds; None if none."""
    if path.suffix not in (".nc", ".nc4"):
        return None
    try:
        with xr.open_dataset(path, decode_times=False) as held:
            return _levels_of(held) if "quantile" in held.coords else None
    except (OSError, ValueError):
        return None


def _levels_of(held: xr.Dataset) -> str:
    levels = held["quantile"].values
    return (
        f"quantiles ({', '.join(map(str, held.data_vars))} at {levels.size} levels, "
        f"{levels.min():g} to {levels.max():g}), expected members"
    )


def _checked(dataset: xr.Dataset, where: str) -> xr.Dataset:
    """The dataset; InputError unless its init times and leads ascend and no member is twice."""
    for dim in SERIES:
        index = dataset.indexes[dim]
        twice = index[index.duplicated()]
        if twice.size:
            raise InputError(f"{where}: {dim} {twice[0]} is there twice")
        if dim != "number" and not index.is_monotonic_increasing:
            at = int(np.flatnonzero(index[1:] < index[:-1])[0])
            raise InputError(
                f"{where}: {dim} is unsorted: {index[at]} is followed by {index[at + 1]}"
            )
    return dataset


def _finished(series: xr.DataArray) -> xr.DataArray:
    """Whose forecasts are finished at all leads, as the file says, (init_time, number) bool."""
    found = series.completed.reset_coords(drop=True).astype(bool).load()
    found = found.all([dim for dim in found.dims if dim == "lead_time"])
    lacking = [dim for dim in ("init_time", "number") if dim not in found.dims]
    return found.expand_dims({dim: series[dim].values for dim in lacking})


def _without_unfinished(dataset: xr.Dataset, finished: Sequence[xr.DataArray]) -> xr.Dataset:
    """With those members finished that are so in all channels and files."""
    completed = dataset.completed.reset_coords(drop=True)
    for part in finished:
        completed = completed & part.reindex_like(completed, fill_value=True)
    return dataset.assign_coords(completed=completed.transpose("init_time", "number"))


def _with_completed(dataset: xr.Dataset) -> xr.Dataset:
    """With all members finished, where nothing is said of that."""
    if "completed" in dataset.coords:
        return dataset
    shape = dataset.sizes["init_time"], dataset.sizes["number"]
    return dataset.assign_coords(completed=(("init_time", "number"), np.ones(shape, bool)))


def _open_store(path: Path | str) -> xr.Dataset:
    try:
        # Our own store lists its channels in order; without a list any order may come.
        ordered = '"consolidated_metadata"' in (Path(path) / "zarr.json").read_text()
        store = xr.open_zarr(path, consolidated=ordered, chunks=None, decode_timedelta=True)
        store = _with_completed(store if ordered else store[sorted(store.data_vars)])
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: cannot be opened: {error}") from error
    return _as_files_are(_checked(store, str(path)))


def _as_files_are(store: xr.Dataset) -> xr.Dataset:
    """North to south and eastward from 0, as files and truth are read; most stores are so."""
    found = oriented(store)
    same = all(store.indexes[dim].equals(found.indexes[dim]) for dim in store.indexes)
    return store if same else found


def _one_after_the_other(stores: Sequence[xr.Dataset], paths: Sequence[Path | str]) -> xr.Dataset:
    """Stores of different init times or else leads, lazily, with the attributes of the first."""
    where, first = ", ".join(map(str, paths)), stores[0].init_time
    dim = "lead_time" if all(store.init_time.equals(first) for store in stores) else "init_time"
    lazy = [store.chunk({"init_time": 1}) for store in stores]
    try:
        joined = xr.concat(
            lazy, dim, data_vars="minimal", coords="minimal", compat="override",
            join="exact", combine_attrs="override",
        ).sortby(dim)  # fmt: skip
    except ValueError as error:
        raise InputError(f"{where}: do not fit together: {error}") from error
    twice = joined.indexes[dim][joined.indexes[dim].duplicated()]
    if twice.size:
        raise InputError(f"{where}: {dim} {twice[0]} is in two of them")
    return joined.assign_coords(completed=joined.completed.load())


def _is_store(path: Path) -> bool:
    """Whether a folder is laid out as a forecast store."""
    return all((path / name).is_dir() for name in ("init_time", "number", "lead_time"))


def _by_init_time(array: xr.DataArray, where: str) -> xr.DataArray:
    """One series in time as (init_time, number, lead_time, *cells); one date or one lead."""
    if "lead_time" not in array.coords:
        raise InputError(f"{where}: {array.name} does not say how far ahead it was forecast")
    if "number" not in array.dims:
        array = array.expand_dims(number=[0])
    leads = np.broadcast_to(array.lead_time.values, array.sizes["time"])
    inits = array.time.values - leads
    array = array.drop_vars("lead_time")
    if np.unique(inits).size == 1:
        array = array.assign_coords(time=leads).rename(time="lead_time")
        array = array.expand_dims(init_time=inits[:1])
    elif np.unique(leads).size == 1:
        array = array.assign_coords(time=inits).rename(time="init_time")
        array = array.expand_dims(lead_time=leads[:1])
    else:
        raise InputError(f"{where}: {array.name} mixes init times and leads, expected one of them")
    return array.transpose(*SERIES, ...)


def _joined(name: str, parts: list[xr.DataArray], paths: Sequence[Path | str]) -> xr.DataArray:
    """The parts of one channel, one after the other along init time or else lead time."""
    first = parts[0]
    if len(parts) == 1:
        return first
    dim = "lead_time" if all(p.init_time.equals(first.init_time) for p in parts) else "init_time"
    files = ", ".join(map(str, paths))
    for kept in ("checkpoint", "pair"):
        held = [part[kept].variable for part in parts if kept in part.coords]
        if not all(one.equals(held[0]) for one in held):
            raise InputError(f"{files}: {kept} of {name} is not the same in all of them")
    try:
        joined = xr.concat(parts, dim, join="exact", coords="minimal", compat="override")
    except ValueError as error:
        raise InputError(f"{files}: parts of {name} do not fit together: {error}") from error
    joined = joined.sortby(dim)
    twice = joined.indexes[dim][joined.indexes[dim].duplicated()]
    if twice.size:
        raise InputError(f"{files}: {name} is there twice for {dim} {twice[0]}")
    return joined
