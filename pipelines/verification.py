"""What is scored against what: a forecast and its truth, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from data.channel import channel
from data.errors import InputError, StoreError
from data.grid import Grid
from data.source import Source, open_source

Paths = Path | str | Sequence[Path | str]
_SERIES = ("init_time", "number", "lead_time")
_TOLERANCE_DEGREES = 0.01


@dataclass(frozen=True)
class Block:
    """One channel of one init time at a few leads.

    Attributes
    ----------
    channel : str
    init : int
        Position of the init time.
    numbers, leads : numpy.ndarray
        Positions of the members that are finished, and of the leads.
    """

    channel: str
    init: int
    numbers: np.ndarray
    leads: np.ndarray


@dataclass(frozen=True)
class Truths:
    """Truth in one file or several, by channel and time."""

    sources: tuple[Source, ...]
    where: str

    @classmethod
    def open(cls, paths: Paths) -> Truths:
        """Open one path or several; only coordinates are read."""
        paths = listed(paths)
        return cls(tuple(open_source(path) for path in paths), ", ".join(map(str, paths)))

    def times(self, name: str) -> np.ndarray:
        """Valid times of a channel, datetime64[s], ascending.

        Raises
        ------
        InputError
            If no file has the channel in usable units.
        """
        holding = [source for source in self.sources if name in source.channels]
        for source in holding or self.sources:
            source.check_channels([name])
        return np.unique(np.concatenate([source.times for source in holding]))

    def read(self, name: str, times: np.ndarray) -> xr.DataArray:
        """A channel at these times, (time, *cells), in memory."""
        parts = []
        for source in self.sources:
            if name in source.channels:
                here = times[np.isin(times, source.times)]
                if here.size:
                    parts.append(_first_member(source.dataset([name], here)[name]))
        joined = xr.concat(parts, "time", join="override", coords="minimal", compat="override")
        return joined.sel(time=times.astype("datetime64[ns]")).load()

    def check(self, forecast: xr.Dataset, names: Sequence[str], where: str) -> None:
        """Raise InputError unless every init time of these channels is here, on the same grid."""
        inits = forecast.init_time.values.astype("datetime64[s]")
        for name in names:
            missing = inits[~np.isin(inits, self.times(name))]
            if missing.size:
                others = f" (and {missing.size - 1} more)" if missing.size > 1 else ""
                raise InputError(
                    f"{self.where}: {name} at {missing[0]}{others}, an init time of {where}, is "
                    "not in it"
                )
            _check_cells(forecast[name], self.cells(name), where, self.where)

    def cells(self, name: str) -> xr.DataArray:
        """One field of a channel, lazily, for its coordinates."""
        source = next(source for source in self.sources if name in source.channels)
        return _first_member(source.dataset([name], source.times[:1])[name]).isel(time=0)


def _first_member(array: xr.DataArray) -> xr.DataArray:
    """The array alone; of an ensemble of analyses the first member, which is its control."""
    array = array.reset_coords(drop=True)
    return array.isel(number=0, drop=True) if "number" in array.dims else array


@dataclass(frozen=True)
class Verification:
    """A forecast and its truth that fit each other.

    Attributes
    ----------
    forecast : xarray.Dataset
        (init_time, number, lead_time, *cells), lazy, with `completed(init_time, number)`.
    truth : Truths
        Where the truth is.
    channels : tuple of str
        What is scored.
    scored : dict of str to numpy.ndarray
        Of each channel, (init_time, lead_time) bool: where there is truth.
    where : str
        The forecast's file, for messages.
    notes : tuple of str
        What cannot be scored, one sentence each.
    """

    forecast: xr.Dataset
    truth: Truths
    channels: tuple[str, ...]
    scored: dict[str, np.ndarray]
    where: str
    notes: tuple[str, ...]

    def with_members(self, fewest: int) -> Verification:
        """Only the init times of which so many members are finished; the others are noted.

        Raises
        ------
        InputError
            If none is left.
        """
        enough = self.forecast.completed.values.sum(axis=1) >= fewest
        if enough.all():
            return self
        if not enough.any():
            raise InputError(f"{self.where}: no init time has {fewest} finished members")
        left = np.datetime_as_string(self.forecast.init_time.values[~enough], "h")
        return replace(
            self,
            forecast=self.forecast.isel(init_time=np.flatnonzero(enough)),
            scored={name: mask[enough] for name, mask in self.scored.items()},
            notes=(*self.notes, f"Left out with fewer than {fewest} members: {', '.join(left)}."),
        )

    @property
    def cell_dims(self) -> tuple[str, ...]:
        """The horizontal dimensions."""
        return cell_dims(self.forecast[self.channels[0]])

    def cells(self) -> xr.DataArray:
        """One field, lazily, for its coordinates."""
        first = self.forecast[self.channels[0]]
        return first.isel(dict.fromkeys(_SERIES, 0), drop=True)

    def grid(self) -> Grid | None:
        """The global grid; None on any other."""
        try:
            cells = self.cells()
            return Grid.from_coordinates(cells.latitude, cells.longitude, self.where)
        except (InputError, AttributeError):
            return None

    def blocks(self, memory: int) -> Iterator[Block]:
        """Everything that can be scored, in pieces of at most about `memory` bytes."""
        cells = int(np.prod([self.forecast.sizes[dim] for dim in self.cell_dims]))
        for name in self.channels:
            for init, completed in enumerate(self.forecast.completed.values):
                numbers = np.flatnonzero(completed)
                if not numbers.size:
                    continue
                leads = np.flatnonzero(self.scored[name][init])
                window = max(1, memory // (4 * cells * numbers.size))
                for start in range(0, leads.size, window):
                    yield Block(name, init, numbers, leads[start : start + window])

    def read(self, block: Block) -> tuple[xr.DataArray, xr.DataArray]:
        """Forecast, (number, lead_time, *cells), and truth, (lead_time, *cells), in memory."""
        piece = self.forecast[block.channel].isel(init_time=block.init, lead_time=block.leads)
        if block.numbers.size < piece.sizes["number"]:
            piece = piece.isel(number=block.numbers)
        piece = piece.drop_vars("valid_time", errors="ignore").load()
        return piece, self.truth_of(block.channel, block.init, block.leads)

    def truth_of(self, name: str, init: int, leads: np.ndarray) -> xr.DataArray:
        """Truth at the valid times of some leads, (lead_time, *cells), in memory."""
        valid = self.valid_times()[init, leads]
        truth = self.truth.read(name, valid)
        like = self.cells()
        truth = truth.transpose("time", *self.cell_dims).rename(time="lead_time")
        coordinates = {dim: like[dim] for dim in self.cell_dims}
        coordinates["lead_time"] = self.forecast.lead_time[leads]
        return truth.assign_coords(coordinates)

    def valid_times(self) -> np.ndarray:
        """(init_time, lead_time), datetime64[s]."""
        return valid_times(self.forecast)


def valid_times(forecast: xr.Dataset) -> np.ndarray:
    """Init times plus lead times, (init_time, lead_time), datetime64[s]."""
    inits, leads = forecast.init_time.values, forecast.lead_time.values
    return (inits[:, None] + leads[None, :]).astype("datetime64[s]")


def cell_dims(array: xr.DataArray) -> tuple[str, ...]:
    """The dimensions that are not init time, number or lead time."""
    return tuple(str(dim) for dim in array.dims if dim not in (*_SERIES, "time"))


def listed(paths: Paths) -> list[Path | str]:
    """One path or several as a list."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


def open_verification(
    forecast: Paths, truth: Paths, channels: Sequence[str] | None = None
) -> Verification:
    """Open a forecast and its truth, and check that they fit; no field is read.

    Parameters
    ----------
    forecast : path or sequence of paths
        A forecast store, or files of an ensemble in any layout that `data.source` knows.
    truth : path or sequence of paths
        Files that hold the truth at the valid times.
    channels : sequence of str, optional
        What to score; everything in the forecast by default.

    Raises
    ------
    InputError, StoreError
        If a file, channel, unit or grid does not fit, or no valid time has a truth.
    """
    paths = listed(forecast)
    where = ", ".join(map(str, paths))
    dataset = open_forecast(paths)
    found = tuple(
        str(name) for name in dataset.data_vars if set(_SERIES) <= set(dataset[name].dims)
    )
    names = tuple(channels or found)
    for name in names:
        if name not in found:
            raise InputError(f"{where}: channel {name!r} is missing, found {', '.join(found)}")
        _check_units(dataset[name], where)
    truths = Truths.open(truth)
    scored, notes = {}, list(_unfinished(dataset))
    for name in names:
        times = truths.times(name)
        _check_cells(dataset[name], truths.cells(name), where, truths.where)
        scored[name] = np.isin(valid_times(dataset), times)
        notes += _unscored(dataset, name, scored[name], truths.where)
    if not any(
        (mask & dataset.completed.values.any(axis=1)[:, None]).any() for mask in scored.values()
    ):
        raise InputError(_nothing(dataset, names[0], truths, where))
    return Verification(dataset, truths, names, scored, where, tuple(dict.fromkeys(notes)))


def open_forecast(paths: Sequence[Path | str]) -> xr.Dataset:
    """The forecast as (init_time, number, lead_time, *cells), lazy, with `completed`.

    Raises
    ------
    InputError, StoreError
        If it cannot be opened or does not say what was forecast when.
    """
    if len(paths) == 1 and _is_store(Path(paths[0])):
        try:
            # Our own store lists its channels in order; without a list any order may come.
            ordered = '"consolidated_metadata"' in (Path(paths[0]) / "zarr.json").read_text()
            store = xr.open_zarr(paths[0], consolidated=ordered, chunks=None, decode_timedelta=True)
            return store if ordered else store[sorted(store.data_vars)]
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{paths[0]}: cannot be opened: {error}") from error
    by_channel: dict[str, list[xr.DataArray]] = {}
    for path in paths:
        source = open_source(path)
        for name, array in source.dataset().items():
            by_channel.setdefault(str(name), []).append(_by_init_time(array, str(path)))
    arrays = {name: _joined(name, parts, paths) for name, parts in by_channel.items()}
    try:
        dataset = xr.merge([arrays], join="exact", compat="override")
    except ValueError as error:
        raise InputError(f"{', '.join(map(str, paths))}: channels do not fit: {error}") from error
    shape = dataset.sizes["init_time"], dataset.sizes["number"]
    return dataset.assign_coords(completed=(("init_time", "number"), np.ones(shape, bool)))


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
    return array.transpose(*_SERIES, ...)


def _joined(name: str, parts: list[xr.DataArray], paths: Sequence[Path | str]) -> xr.DataArray:
    """The parts of one channel, one after the other along init time or else lead time."""
    first = parts[0]
    if len(parts) == 1:
        return first
    dim = "lead_time" if all(p.init_time.equals(first.init_time) for p in parts) else "init_time"
    try:
        joined = xr.concat(parts, dim, join="exact", coords="minimal", compat="override")
    except ValueError as error:
        files = ", ".join(map(str, paths))
        raise InputError(f"{files}: parts of {name} do not fit together: {error}") from error
    joined = joined.sortby(dim)
    if not joined.indexes[dim].is_unique:
        raise InputError(f"{', '.join(map(str, paths))}: {name} is there twice for one {dim}")
    return joined


def _check_units(array: xr.DataArray, where: str) -> None:
    stated, expected = array.attrs.get("units"), channel(str(array.name)).units
    if stated != expected:
        raise InputError(f"{where}: {array.name} has units {stated!r}, expected {expected!r}")


def _check_cells(forecast: xr.DataArray, truth: xr.DataArray, where: str, truth_at: str) -> None:
    """Raise InputError unless both lie on the same horizontal grid."""
    dims = cell_dims(forecast)
    if set(dims) != set(cell_dims(truth)):
        found = ", ".join(cell_dims(truth))
        raise InputError(f"{truth_at}: {forecast.name} has dimensions {found}, {where} has {dims}")
    for dim in dims:
        ours, theirs = forecast[dim].values, truth[dim].values
        spacing = abs(float(ours[-1] - ours[0])) / max(1, ours.size - 1)
        near = ours.size == theirs.size and np.allclose(ours, theirs, rtol=0, atol=0.01 * spacing)
        if not near:
            raise InputError(
                f"{truth_at}: {forecast.name} lies on another grid: {dim} has {theirs.size} values "
                f"{theirs[0]:g} to {theirs[-1]:g}, {where} has {ours.size} values {ours[0]:g} to "
                f"{ours[-1]:g}"
            )


def _unfinished(dataset: xr.Dataset) -> Iterator[str]:
    completed = dataset.completed.values
    for time, row in zip(dataset.init_time.values, completed, strict=True):
        missing = dataset.number.values[~row]
        if missing.size:
            stamp = np.datetime_as_string(time, "h")
            named = ", ".join(map(str, missing[:5])) + (", ..." if missing.size > 5 else "")
            yield f"{stamp}: {missing.size} of {row.size} members not finished ({named})."


def _unscored(dataset: xr.Dataset, name: str, scored: np.ndarray, where: str) -> Iterator[str]:
    """Sentences on valid times without truth, the same for channels that lack the same."""
    missing = np.argwhere(~scored)
    if missing.size:
        times = np.unique(valid_times(dataset)[~scored])
        yield (
            f"{len(missing)} of {scored.size} forecasts (init time and lead) not scored: no truth "
            f"in {where} at {times.size} valid times from {times[0]} to {times[-1]}."
        )


def _nothing(dataset: xr.Dataset, name: str, truths: Truths, where: str) -> str:
    if not dataset.completed.values.any():
        return f"{where}: no member of any init time is finished, nothing can be scored"
    times, valid = truths.times(name), valid_times(dataset)
    return (
        f"{truths.where}: no valid time of {where} is in it, so no lead can be scored: forecasts "
        f"are valid {valid.min()} to {valid.max()}, truth is from {times[0]} to {times[-1]}"
    )
