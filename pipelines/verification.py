"""What is scored against what: a forecast and its truth, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from data.channel import channel, is_channel
from data.errors import InputError
from data.grid import Grid
from data.state import check_bounds
from pipelines.cell_weights import cell_weights
from pipelines.forecasts import UNKNOWN, open_forecast
from pipelines.truths import SERIES, Paths, Series, Truths, cell_dims, check_cells, listed
from scoring.regions import REGIONS, Region
from scoring.tile import Structure


@dataclass(frozen=True)
class VerificationSettings:
    """What to read of a forecast, and how much of it at a time.

    Attributes
    ----------
    channels : tuple of str
        What to look at; everything in the forecast if empty.
    memory : int
        Bytes of forecast in memory at a time, about.
    """

    channels: tuple[str, ...] = ()
    memory: int = 2**28


@dataclass(frozen=True)
class Block:
    """One channel of one init time at a few leads, on the globe or on some of its rows.

    Attributes
    ----------
    channel : str
    init : int
        Position of the init time.
    numbers, leads : numpy.ndarray
        Positions of the members that are finished, and of the leads.
    rows : slice
        Positions along the first horizontal dimension.
    """

    channel: str
    init: int
    numbers: np.ndarray
    leads: np.ndarray
    rows: slice


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
        note = f"Left out with fewer than {fewest} members: {', '.join(left)}."
        return replace(self.at_init_times(np.flatnonzero(enough)), notes=(*self.notes, note))

    def at_init_times(self, positions: np.ndarray) -> Verification:
        """Only some init times."""
        return replace(
            self,
            forecast=self.forecast.isel(init_time=positions),
            scored={name: mask[positions] for name, mask in self.scored.items()},
        )

    @property
    def cell_dims(self) -> tuple[str, ...]:
        """The horizontal dimensions."""
        return cell_dims(self.forecast[self.channels[0]])

    def cells(self) -> xr.DataArray:
        """One field, lazily, for its coordinates."""
        first = self.forecast[self.channels[0]]
        return first.isel(dict.fromkeys(SERIES, 0), drop=True)

    def grid(self) -> Grid | None:
        """The global grid; None on any other."""
        try:
            cells = self.cells()
            return Grid.from_coordinates(cells.latitude, cells.longitude, self.where)
        except (InputError, AttributeError):
            return None

    def weights(
        self, regions: Mapping[str, Region] = REGIONS, mask: xr.DataArray | None = None
    ) -> xr.DataArray:
        """What each cell counts in each region, as `cell_weights` has it, (region, *cells).

        Parameters
        ----------
        regions : mapping of str to Region
            Of the globe.
        mask : xarray.DataArray, optional
            Weights beside the area's, on the same cells, not negative.

        Raises
        ------
        InputError
            If latitudes are none, no region is reached, or the mask does not fit.
        """
        return cell_weights(self.cells(), self.grid(), regions, mask, self.where)

    def structure(self, numbers: np.ndarray) -> Structure:
        """Which of these members depend on each other, as `checkpoint` and `pair` say."""
        found = Structure.independent(self.forecast.sizes["number"])
        columns = [
            self.forecast[name].values if name in self.forecast.coords else default
            for name, default in (("checkpoint", found.groups), ("pair", found.pairs))
        ]
        return Structure(*(column[numbers] for column in columns))

    def blocks(
        self, name: str, memory: int, present: int | None = None, beside: int = 1
    ) -> Iterator[Block]:
        """All of a channel that can be scored, in pieces of at most about `memory` bytes.

        A piece names all members: it takes fewer leads, and where one lead is too much, fewer
        rows.

        Parameters
        ----------
        name : str
            The channel.
        memory : int
            Bytes of a piece.
        present : int, optional
            Members in memory at a time; all by default.
        beside : int
            Count at least so many members, for what is read beside them.
        """
        rows, *others = self.cells().shape
        row = 4 * int(np.prod(others, initial=1))
        chunks = self._chunks(name)
        for init, completed in enumerate(self.forecast.completed.values):
            numbers, leads = np.flatnonzero(completed), np.flatnonzero(self.scored[name][init])
            if not numbers.size or not leads.size:
                continue
            here = min(numbers.size, present or numbers.size)
            affordable = memory // (row * max(here, beside))
            window = _whole(affordable // rows, chunks.get("lead_time", 1))
            height = rows
            if affordable < rows:
                height = _whole(affordable, chunks.get(self.cell_dims[0], 1))
            for start in range(0, leads.size, window):
                for top in range(0, rows, height):
                    some = slice(top, min(top + height, rows))
                    yield Block(name, init, numbers, leads[start : start + window], some)

    def fields(self, name: str, memory: int) -> Iterator[Block]:
        """All of a channel that can be scored, whole fields of all members, as many leads at a
        time as fit in about `memory` bytes, at least one."""
        cells = self.cells()
        whole = slice(0, cells.shape[0])
        chunk = self._chunks(name).get("lead_time", 1)
        for init, completed in enumerate(self.forecast.completed.values):
            numbers, leads = np.flatnonzero(completed), np.flatnonzero(self.scored[name][init])
            if numbers.size > 1:
                window = _whole(memory // (4 * cells.size * numbers.size), chunk)
                for start in range(0, leads.size, window):
                    yield Block(name, init, numbers, leads[start : start + window], whole)

    def members(self, block: Block) -> np.ndarray:
        """The block's members, (number, lead_time, *cells), in memory."""
        variable = self.forecast[block.channel].variable
        rows = block.rows.stop - block.rows.start
        shape = (block.numbers.size, block.leads.size, rows, *self.cells().shape[1:])
        members = np.empty(shape, variable.dtype)
        leads, within = _span(block.leads)
        there = variable.isel({"init_time": block.init, self.cell_dims[0]: block.rows})
        first = 0
        for run in _runs(block.numbers):
            numbers, among = _span(run)
            part = there.isel(number=numbers, lead_time=leads).values
            members[first : first + run.size] = part[among][:, within]
            first += run.size
        return members

    def _chunks(self, name: str) -> Mapping[str, int]:
        """How long the pieces are in which a channel lies in its file; empty if unknown."""
        return self.forecast[name].encoding.get("preferred_chunks", {})

    def check_bounds(self) -> None:
        """Refuse a channel of which a first field leaves its bounds, as one in other units than it
        says; later ones may, of a forecast that diverges.

        Raises
        ------
        InputError
            With the values' range.
        """
        whole = slice(0, self.cells().shape[0])
        for name in self.channels:
            for init in np.flatnonzero(self.scored[name].any(axis=1))[:1]:
                numbers = np.flatnonzero(self.forecast.completed.values[init])[:1]
                leads = np.flatnonzero(self.scored[name][init])[:1]
                if numbers.size:
                    field = self.members(Block(name, int(init), numbers, leads, whole))
                    check_bounds(field, name, f"{self.where}: {name}")

    def truths(self, name: str, memory: int) -> Series:
        """The truth of a channel at every valid time that it has."""
        wanted = self.valid_times()[self.scored[name]]
        return self.truth.series(name, np.unique(wanted), self.cell_dims, memory)

    def valid_times(self) -> np.ndarray:
        """(init_time, lead_time), datetime64[s]."""
        return valid_times(self.forecast)


def _whole(affordable: int, chunk: int) -> int:
    """As many as are affordable, in whole chunks if there is room for one; at least 1."""
    return max(1, affordable // chunk * chunk or affordable)


def _runs(positions: np.ndarray) -> list[np.ndarray]:
    """Positions cut where reading all that lies between would be half in vain."""
    if positions[-1] - positions[0] < 2 * positions.size:
        return [positions]
    return np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)


def _span(positions: np.ndarray) -> tuple[slice, slice | np.ndarray]:
    """The slice from the first position to the last, and where in it the positions are.

    Slices read a store several times faster than lists of positions.
    """
    span = slice(int(positions[0]), int(positions[-1]) + 1)
    gapless = positions.size == span.stop - span.start
    return span, slice(None) if gapless else positions - span.start


def valid_times(forecast: xr.Dataset) -> np.ndarray:
    """Init times plus lead times, (init_time, lead_time), datetime64[s]."""
    inits, leads = forecast.init_time.values, forecast.lead_time.values
    return (inits[:, None] + leads[None, :]).astype("datetime64[s]")


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
    return verify(open_forecast(paths), Truths.open(truth), channels, ", ".join(map(str, paths)))


def verify(
    dataset: xr.Dataset, truths: Truths, channels: Sequence[str] | None, where: str
) -> Verification:
    """A forecast and its truth, opened already and checked as in `open_verification`."""
    found = tuple(str(name) for name in dataset.data_vars if set(SERIES) <= set(dataset[name].dims))
    if not channels:
        _check_all_are_forecasts(dataset, found, where)
    names = tuple(channels or found)
    for name in names:
        if name not in found:
            raise InputError(f"{where}: channel {name!r} is missing, found {', '.join(found)}")
        _check_units(dataset[name], where)
    scored, notes = {}, list(_unfinished(dataset))
    for name in names:
        times = truths.times(name)
        check_cells(dataset[name], truths.cells(name), where, truths.where)
        scored[name] = np.isin(valid_times(dataset), times)
        notes += _unscored(dataset, name, scored[name], truths.where)
    finished = dataset.completed.values.any(axis=1)[:, None]
    for name in names:
        if not (scored[name] & finished).any():
            raise InputError(_nothing(dataset, name, truths, where))
    return Verification(dataset, truths, names, scored, where, tuple(dict.fromkeys(notes)))


def _check_all_are_forecasts(dataset: xr.Dataset, found: Sequence[str], where: str) -> None:
    """Raise InputError if a field in time would be left out in silence."""
    unknown = [*dataset.attrs.get(UNKNOWN, ()), *(n for n in found if not is_channel(n))]
    if unknown:
        raise InputError(
            f"{where}: {unknown[0]} cannot be scored, it is no known channel; name the channels to "
            "score, or leave it out"
        )
    for name, array in dataset.data_vars.items():
        lacking = [dim for dim in SERIES if dim not in array.dims]
        if name not in found and len(lacking) < len(SERIES) and cell_dims(array):
            raise InputError(
                f"{where}: {name} cannot be scored without the dimension {lacking[0]}, found "
                f"{', '.join(map(str, array.dims))}; name the channels to score, or leave it out"
            )
    if not found:
        raise InputError(f"{where}: no variable has the dimensions {', '.join(SERIES)}")


def _check_units(array: xr.DataArray, where: str) -> None:
    stated, expected = array.attrs.get("units"), channel(str(array.name)).units
    if stated != expected:
        raise InputError(f"{where}: {array.name} has units {stated!r}, expected {expected!r}")


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
        f"of {name} are valid {valid.min()} to {valid.max()}, truth is from {times[0]} to "
        f"{times[-1]}"
    )
