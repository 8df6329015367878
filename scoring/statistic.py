"""Statistics of samples, and their evaluation in one pass over the ensemble.

A statistic maps an ensemble and its truth to one value (or a few labelled ones) per cell. It is
identified by value: its class and all its parameters make its `key`, so two settings never share
a result. Statistics that are evaluated together share the sort.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.identity import key_of
from scoring.pieces import PIECE_BYTES, pieces
from scoring.thresholds import Reference, check_ensemble, matched
from scoring.tile import Structure, Tile, TooFewMembersError, three_axes, tiles

_Place = tuple[slice, ...]


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
        structure: Structure | None = None,
        references: Mapping[str, xr.DataArray] | None = None,
    ) -> xr.DataArray:
        """The statistic of each sample; dimensions of `forecast` less `member_dim`, plus labels.

        All arguments as in `evaluate`.
        """
        found = evaluate(
            (self,), forecast, truth, member_dim, structure=structure, references=references
        )
        return found[self.key]


class Missing(Protocol):
    """What to do with cells in which members or truth are missing."""

    def of_tile(self, statistic: Statistic, tile: Tile) -> np.ndarray:
        """The statistic's values, (cell, *labels), NaN where they cannot be had."""
        ...


@dataclass(frozen=True)
class Propagate:
    """A cell with any missing member, or without truth, has no value; infinite is missing."""

    def of_tile(self, statistic: Statistic, tile: Tile) -> np.ndarray:
        """The statistic's values, NaN in such cells."""
        values = statistic.of_tile(tile)
        if tile.missing.any():
            values = values.copy()
            values[tile.missing] = np.nan
        return values


@dataclass(frozen=True)
class Omit:
    """Missing members are left out; every term uses the true count of each cell. Infinite ones
    are missing."""

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
    structure: Structure | None = None,
    missing: Missing = PROPAGATE,
    threads: int = 1,
    references: Mapping[str, xr.DataArray] | None = None,
) -> xr.Dataset:
    """All statistics of each sample, from one sort.

    A forecast in Dask chunks of any shape or in an opened store is read in pieces.

    Parameters
    ----------
    statistics : sequence of Statistic
        What to evaluate.
    forecast : xarray.DataArray
        `member_dim` and any other dimensions.
    truth : xarray.DataArray
        Broadcast to the other dimensions; coordinates that both have must be equal.
    member_dim : str
        Name of the dimension of members.
    structure : Structure, optional
        Which members depend on each other; by default as the coordinates `checkpoint` and `pair`
        of `member_dim` say. ``Structure.independent(M)`` declares that none does.
    missing : Missing
        `PROPAGATE` (default) or `OMIT`.
    threads : int
        Tiles worked on at a time.
    references : mapping of str to xarray.DataArray, optional
        Climatologies that statistics name: dimensions of `truth` and `quantile`.

    Returns
    -------
    xarray.Dataset
        One variable per statistic, named by its `key`, float64, and the attribute `missing`.

    Raises
    ------
    InputError
        If dimensions or units do not fit, or references, members or threads are too few.
    """
    _check_threads(threads)
    _check_asked(statistics, missing)
    check_ensemble(forecast, truth, member_dim)
    axis = forecast.get_axis_num(member_dim)
    cells = forecast.isel({member_dim: 0}, drop=True)
    target = matched(truth, cells).values
    fields = _fields(statistics, references or {}, cells)
    structure = structure or _structure(forecast, member_dim)
    _check_labels(statistics)

    def of_piece(members: np.ndarray, here: _Place) -> dict[Statistic, np.ndarray]:
        beside = {reference: field[here] for reference, field in fields.items()}
        how = axis, structure, missing, threads, beside
        return evaluate_arrays(statistics, members, target[here], *how)

    return _labelled(_assembled(forecast, member_dim, of_piece), cells, missing)


def _fields(
    statistics: Sequence[Statistic], given: Mapping[str, xr.DataArray], cells: xr.DataArray
) -> dict[Reference, np.ndarray]:
    """The references that statistics need, (*cells, level)."""
    needed = {reference for statistic in statistics for reference in statistic.references}
    return {reference: reference.field(given, cells) for reference in needed}


def _assembled(
    forecast: xr.DataArray,
    member_dim: str,
    of_piece: Callable[[np.ndarray, _Place], Mapping[Statistic, np.ndarray]],
) -> dict[Statistic, np.ndarray]:
    """The values of all cells, (*cells, *labels), evaluated in pieces that fit into memory."""
    sizes = {str(dim): size for dim, size in forecast.sizes.items() if dim != member_dim}
    arrays: dict[Statistic, np.ndarray] = {}
    for place in pieces(forecast, member_dim, PIECE_BYTES):
        here = tuple(place[dim] for dim in sizes)
        for statistic, found in of_piece(forecast.isel(place).values, here).items():
            shape = (*sizes.values(), *found.shape[len(here) :])
            arrays.setdefault(statistic, np.empty(shape))[here] = found
    return arrays


def _labelled(
    arrays: Mapping[Statistic, np.ndarray], cells: xr.DataArray, missing: Missing
) -> xr.Dataset:
    """Values of each statistic as variables on the cells, with its own labels."""
    variables = {}
    coordinates: dict[Hashable, object] = dict(cells.coords)
    for statistic, values in arrays.items():
        labels = statistic.labels
        variables[statistic.key] = xr.Variable((*cells.dims, *labels), values)
        coordinates |= {name: (name, axis) for name, axis in labels.items()}
    return xr.Dataset(variables, coordinates, {"missing": key_of(missing)})


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
        What to do with cells in which something is missing.
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
        If shapes do not fit, a reference is not there, or there are too few members or threads.
    """
    _check_threads(threads)
    forecast, truth = np.asarray(forecast), np.asarray(truth)
    members, references = forecast.shape[axis], references or {}
    cells = tuple(np.delete(forecast.shape, axis % forecast.ndim))
    structure = fitting(structure, members, truth.shape, cells)
    check_needs(statistics, members, references)
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
    cut = partial(tiles, blocks, target, structure, shares=threads, references=beside)
    _fill(results, cut, missing, threads)
    return {key: values.reshape(cells + values.shape[1:]) for key, values in results.items()}


def _check_asked(statistics: object, missing: object) -> None:
    """Refuse what is easily written instead: one statistic, and the name of a policy."""
    if isinstance(statistics, Statistic):
        raise InputError(f"`statistics` is a sequence such as ({type(statistics).__name__}(),)")
    if not isinstance(missing, Propagate | Omit):
        raise InputError(f"`missing` is PROPAGATE or OMIT of scoring.statistic, found {missing!r}")


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise InputError(f"threads must be at least 1, found {threads}")


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


def fitting(
    structure: Structure | None, members: int, truth: tuple[int, ...], cells: tuple[int, ...]
) -> Structure:
    """The structure of the members, independent by default; refused if it is of others, or if the
    truth is of other cells.

    Raises
    ------
    InputError
        Naming the shapes.
    """
    if truth != cells:
        raise InputError(f"truth has shape {truth}, the forecast's cells have {cells}")
    structure = structure or Structure.independent(members)
    for name, found in (("groups", structure.groups), ("pairs", structure.pairs)):
        if np.shape(found) != (members,):
            raise InputError(f"{name} have shape {np.shape(found)}, expected ({members},)")
    return structure


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
    alone = Structure.independent(forecast.sizes[member_dim])
    return Structure(
        _of_members(forecast, member_dim, "checkpoint", alone.groups),
        _of_members(forecast, member_dim, "pair", alone.pairs),
    )


def _of_members(
    forecast: xr.DataArray, member_dim: str, name: str, default: np.ndarray
) -> np.ndarray:
    """A coordinate of the members; the default where there is none, or it is the same of all."""
    if name not in forecast.coords or member_dim not in forecast[name].dims:
        return default
    if forecast[name].ndim > 1:
        raise InputError(
            f"coordinate {name!r} has dimensions {forecast[name].dims}, expected {member_dim!r} "
            "alone: evaluate the parts one by one, or say with `structure` what holds for all"
        )
    return forecast[name].values
