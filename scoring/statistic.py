"""Statistics of samples, and their evaluation in one pass over the ensemble.

A statistic maps an ensemble and its truth to one value (or a few labelled ones) per cell. It is
identified by value: its class and all its parameters make its `key`, so two settings never share
a result. Statistics that are evaluated together share the sort.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass
from hashlib import blake2b
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.pieces import PIECE_BYTES, pieces
from scoring.thresholds import Reference, matched
from scoring.tile import Structure, Tile, TooFewMembersError, three_axes, tiles

_LONGEST_KEY = 80


@dataclass(frozen=True)
class Statistic(ABC):
    """One number, or a few labelled ones, for each cell of an ensemble and its truth."""

    minimum_members: ClassVar[int] = 1

    @property
    def key(self) -> str:
        """Name made of the class and of all its parameters, fit for a variable of a store."""
        return key_of(self)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Names and coordinates of the axes that follow the cell's; none by default."""
        return {}

    @property
    def references(self) -> tuple[Reference, ...]:
        """Fields that it compares with, to be given to `evaluate`; none by default."""
        return ()

    @abstractmethod
    def of_tile(self, tile: Tile) -> np.ndarray:
        """Values, (cell, *labels), float64. A cell with a missing member may hold anything."""

    def __call__(
        self,
        forecast: xr.DataArray,
        truth: xr.DataArray,
        member_dim: str = "number",
        references: Mapping[str, xr.DataArray] | None = None,
    ) -> xr.DataArray:
        """The statistic of each sample; dimensions of `forecast` less `member_dim`, plus labels.

        A forecast without `member_dim` is an ensemble of one.
        """
        return evaluate((self,), forecast, truth, member_dim, references=references)[self.key]


class Missing(Protocol):
    """What to do with cells in which members or truth are missing."""

    def of_tile(self, statistic: Statistic, tile: Tile) -> np.ndarray:
        """The statistic's values, (cell, *labels), NaN where they cannot be had."""
        ...


@dataclass(frozen=True)
class Propagate:
    """A cell with any missing member, or without truth, has no value."""

    def of_tile(self, statistic: Statistic, tile: Tile) -> np.ndarray:
        """The statistic's values, NaN in such cells."""
        values = statistic.of_tile(tile)
        missing = np.isnan(tile.deviations[:, -1])
        if missing.any():
            values = values.copy()
            values[missing] = np.nan
        return values


@dataclass(frozen=True)
class Omit:
    """Missing members are left out; every term uses the true count of each cell."""

    def of_tile(self, statistic: Statistic, tile: Tile) -> np.ndarray:
        """The statistic of the members there are; NaN with fewer than it needs, or no truth."""
        shape = [axis.size for axis in statistic.labels.values()]
        values = np.full((tile.truth.size, *shape), np.nan)
        for cells, part in tile.parts:
            if part.size < statistic.minimum_members:
                continue
            try:
                values[cells] = statistic.of_tile(part)
            except TooFewMembersError:
                if part.size == tile.size:  # not for want of those left out
                    raise
        return values


PROPAGATE = Propagate()
OMIT = Omit()


def evaluate(
    statistics: Sequence[Statistic],
    forecast: xr.DataArray,
    truth: xr.DataArray,
    member_dim: str = "number",
    missing: Missing = PROPAGATE,
    threads: int = 1,
    references: Mapping[str, xr.DataArray] | None = None,
    memory: int = PIECE_BYTES,
) -> xr.Dataset:
    """All statistics of each sample, from one sort.

    A forecast that is not in memory, in Dask chunks of any shape or in an opened store, is read in
    pieces with all members of some cells.

    Parameters
    ----------
    statistics : sequence of Statistic
        What to evaluate.
    forecast : xarray.DataArray
        Any dimensions; without `member_dim` it is an ensemble of one. Coordinates `checkpoint`
        and `pair` along `member_dim` tell which members depend on each other.
    truth : xarray.DataArray
        Broadcast to the dimensions of `forecast` other than `member_dim`; coordinates that both
        have must be equal.
    member_dim : str
        Name of the dimension of members.
    missing : Missing
        `PROPAGATE` (default) or `OMIT`.
    threads : int
        Tiles worked on at a time.
    references : mapping of str to xarray.DataArray, optional
        Climatologies that statistics name: dimensions of `truth` and `quantile`.
    memory : int
        Bytes of a piece of the forecast, at most.

    Returns
    -------
    xarray.Dataset
        One variable per statistic, named by its `key`, float64.

    Raises
    ------
    InputError
        If dimensions, coordinates or labels do not fit, a reference is not there, or there are
        too few members.
    """
    if member_dim not in forecast.dims:
        forecast = forecast.expand_dims(member_dim)
    axis = forecast.get_axis_num(member_dim)
    cells = forecast.isel({member_dim: 0}, drop=True)
    target = matched(truth, cells).values
    needed = {reference for statistic in statistics for reference in statistic.references}
    fields = {reference: reference.field(references or {}, cells) for reference in needed}
    _check_labels(statistics)
    structure = _structure(forecast, member_dim)
    arrays: dict[Statistic, np.ndarray] = {}
    for place in pieces(forecast, member_dim, memory):
        here = tuple(place[dim] for dim in cells.dims)
        beside = {reference: field[here] for reference, field in fields.items()}
        members = forecast.isel(place).values
        part = evaluate_arrays(
            statistics, members, target[here], axis, structure, missing, threads, beside
        )
        _put(part, here, arrays, cells.shape)
    return _labelled(arrays, cells)


def _put(
    part: Mapping[Statistic, np.ndarray],
    here: tuple[slice, ...],
    arrays: dict[Statistic, np.ndarray],
    shape: tuple[int, ...],
) -> None:
    """Put the values of some cells into those of all."""
    for statistic, found in part.items():
        labels = found.shape[len(here) :]
        arrays.setdefault(statistic, np.empty(shape + labels))[here] = found


def _labelled(arrays: Mapping[Statistic, np.ndarray], cells: xr.DataArray) -> xr.Dataset:
    """Values of each statistic as variables on the cells, with its own labels."""
    variables = {}
    coordinates: dict[Hashable, object] = dict(cells.coords)
    for statistic, values in arrays.items():
        labels = statistic.labels
        variables[statistic.key] = xr.Variable((*cells.dims, *labels), values)
        coordinates |= {name: (name, axis) for name, axis in labels.items()}
    return xr.Dataset(variables, coordinates)


def evaluate_arrays(
    statistics: Sequence[Statistic],
    forecast: np.ndarray,
    truth: np.ndarray,
    axis: int = 0,
    structure: Structure | None = None,
    missing: Missing = PROPAGATE,
    threads: int = 1,
    references: Mapping[Reference, np.ndarray] | None = None,
) -> dict[Statistic, np.ndarray]:
    """All statistics of plain arrays, from one sort.

    Parameters
    ----------
    statistics : sequence of Statistic
        What to evaluate.
    forecast : numpy.ndarray
        Members along `axis`.
    truth : numpy.ndarray
        The shape of `forecast` without `axis`.
    axis : int
        Axis of members.
    structure : Structure, optional
        Which members depend on each other; independent by default.
    missing : Missing
        `PROPAGATE` (default) or `OMIT`.
    threads : int
        Tiles worked on at a time.
    references : mapping of Reference to numpy.ndarray, optional
        Fields that statistics name, (*cells, level).

    Returns
    -------
    dict of Statistic to numpy.ndarray
        (*cells, *labels), float64.

    Raises
    ------
    InputError
        If shapes do not fit, a reference is not there, or there are too few members.
    """
    forecast, truth = np.asarray(forecast), np.asarray(truth)
    members = forecast.shape[axis]
    cells = tuple(np.delete(forecast.shape, axis % forecast.ndim))
    if truth.shape != cells:
        raise InputError(f"truth has shape {truth.shape}, the forecast's cells have {cells}")
    references = references or {}
    check_needs(statistics, members, references)
    structure = structure or Structure.independent(members)
    blocks = three_axes(forecast, axis)
    target = truth.reshape(blocks.shape[0], blocks.shape[2])
    beside = {
        reference: np.reshape(values, (target.size, len(reference.levels)))
        for reference, values in references.items()
    }
    results = {
        statistic: np.empty((target.size, *(axis.size for axis in statistic.labels.values())))
        for statistic in statistics
    }

    def cut(share: int) -> Iterator[tuple[slice, Tile]]:
        return tiles(blocks, target, structure, share, threads, references=beside)

    _fill(results, cut, missing, threads)
    return {key: values.reshape(cells + values.shape[1:]) for key, values in results.items()}


def _fill(
    results: Mapping[Statistic, np.ndarray],
    cut: Callable[[int], Iterator[tuple[slice, Tile]]],
    missing: Missing,
    threads: int,
) -> None:
    """Evaluate all tiles, a share of them in each thread."""

    def work(share: int) -> None:
        for place, tile in cut(share):
            for statistic, values in results.items():
                values[place] = missing.of_tile(statistic, tile)
            tile.forget()

    if threads == 1:
        work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))


def check_needs(
    statistics: Sequence[Statistic], members: int, references: Mapping[Reference, object]
) -> None:
    """Refuse too few members, and references that are not there.

    Raises
    ------
    InputError
        Naming the statistic.
    """
    for statistic in statistics:
        if members < statistic.minimum_members:
            raise InputError(
                f"{statistic.key} needs at least {statistic.minimum_members} members, "
                f"found {members}"
            )
        for reference in statistic.references:
            if reference not in references:
                found = sorted({known.name for known in references})
                raise InputError(
                    f"{statistic.key} needs the reference {reference.name!r} with levels "
                    f"{reference.levels}, found {found}"
                )


def _check_labels(statistics: Sequence[Statistic]) -> None:
    """Variables of one dataset share their axes."""
    known: dict[str, tuple[Statistic, np.ndarray]] = {}
    for statistic in statistics:
        for name, axis in statistic.labels.items():
            other, values = known.setdefault(name, (statistic, axis))
            if not np.array_equal(axis, values):
                raise InputError(
                    f"{other.key} and {statistic.key} have different values of {name}: evaluate "
                    "them apart"
                )


def _structure(forecast: xr.DataArray, member_dim: str) -> Structure:
    """What the coordinates `checkpoint` and `pair` say; independent members without them."""
    structure = Structure.independent(forecast.sizes[member_dim])
    coordinates = forecast.coords
    groups = coordinates["checkpoint"].values if "checkpoint" in coordinates else structure.groups
    pairs = coordinates["pair"].values if "pair" in coordinates else structure.pairs
    if groups.shape != structure.groups.shape or pairs.shape != structure.pairs.shape:
        return structure
    return Structure(groups, pairs)


def key_of(parameters: object) -> str:
    """Name made of the class of a dataclass and of all its fields, fit for a variable of a store.

    Names beyond 80 characters end in a digest of what they stand for.
    """
    words = _words(parameters)
    if len(words) <= _LONGEST_KEY:
        return words
    digest = blake2b(words.encode(), digest_size=4).hexdigest()
    return f"{_snake(type(parameters).__name__)}_{digest}"


def _words(value: object) -> str:
    """A readable name of a parameter, different for different values."""
    if is_dataclass(value):
        words = [_snake(type(value).__name__)]
        for field in fields(value):
            parameter = getattr(value, field.name)
            named = [] if is_dataclass(parameter) else [field.name]
            words += [*named, _words(parameter)]
        return "_".join(words)
    if isinstance(value, tuple):
        return "_".join(_words(item) for item in value)
    return f"{value!r}".strip("'")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
