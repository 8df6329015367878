"""Thresholds that scores compare members and truth with: constants, or fields of a climatology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from data.errors import InputError
from data.units import same_units
from scoring.identity import make_floats
from scoring.sorting import subtract
from scoring.tile import Tile

SAME_LEVEL = 1e-7  # levels of a stored climatology may be float32


@dataclass(frozen=True)
class Reference:
    """Quantiles of a climatology at each cell.

    The name is what identifies the field: give another climatology another name. The field itself
    is an argument of `evaluate`, ``references={name: field}``, with a `quantile` dimension that
    has these levels, to 1e-7. It is compared in the precision of the members.

    Parameters
    ----------
    name : str
        Of the climatology.
    levels : tuple of float
        Increasing, within [0, 1]; 0 and 1 are the least and the greatest value.

    Raises
    ------
    InputError
        If levels are not so.
    """

    name: str
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        make_floats(self, "levels")
        levels = np.asarray(self.levels)
        inside = levels.size > 0 and (levels >= 0).all() and (levels <= 1).all()
        if not inside or not (np.diff(levels) > 0).all():
            raise InputError(
                f"levels of climatology {self.name!r} must increase within [0, 1], found "
                f"{self.levels}"
            )

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The levels."""
        return {"climate_quantile": np.array(self.levels)}

    @property
    def references(self) -> tuple[Reference, ...]:
        """Itself."""
        return (self,)

    def deviations(self, tile: Tile) -> np.ndarray:
        """Quantile minus truth, (cell, level), in the precision of the members."""
        return _less_truth(tile.references[self], tile)

    def truth_above(self, tile: Tile) -> np.ndarray:
        """Whether the truth lies above each quantile, (cell, level)."""
        return _above(tile.references[self], tile)

    def field(self, fields: Mapping[str, xr.DataArray], cells: xr.DataArray) -> np.ndarray:
        """The quantiles at some cells, (*cells, level).

        Raises
        ------
        InputError
            If there is no such field, it lacks a level, or its coordinates do not fit.
        """
        if self.name not in fields:
            raise InputError(f"no reference {self.name!r} was given, found {sorted(fields)}")
        given = fields[self.name]
        if "quantile" not in given.dims:
            raise InputError(f"reference {self.name!r} has no dimension quantile: {given.dims}")
        levels = np.array(self.levels)
        apart = np.abs(given["quantile"].values - levels[:, None])
        there = (apart <= SAME_LEVEL).any(axis=1)
        if not there.all():
            missing = levels[~there].tolist()
            raise InputError(f"reference {self.name!r} has no quantiles at {missing}")
        chosen = given.isel(quantile=apart.argmin(axis=1)).drop_vars("quantile")
        return matched(chosen, cells, f"reference {self.name!r}", ("quantile",)).values


@dataclass(frozen=True)
class Constants:
    """The same thresholds everywhere.

    Parameters
    ----------
    values : tuple of float
        Finite, in the unit of the forecast; compared in the precision of the members.

    Raises
    ------
    InputError
        If there is none, or one that is not finite.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        make_floats(self, "values")
        values = np.asarray(self.values)
        if values.size == 0 or values.ndim == 0 or not np.isfinite(values).all():
            raise InputError(f"thresholds must be finite numbers, a tuple, found {self.values}")

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The values."""
        return {"threshold": np.array(self.values)}

    @property
    def references(self) -> tuple[Reference, ...]:
        """None."""
        return ()

    def deviations(self, tile: Tile) -> np.ndarray:
        """Threshold minus truth, (cell, threshold), in the precision of the members."""
        return _less_truth(np.array(self.values), tile)

    def truth_above(self, tile: Tile) -> np.ndarray:
        """Whether the truth lies above each value, (cell, threshold)."""
        return _above(np.array(self.values), tile)


class Thresholds(Protocol):
    """Thresholds with a label each: `Constants` or `Reference`."""

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Name and values of their axis."""
        ...

    @property
    def references(self) -> tuple[Reference, ...]:
        """Fields that they need."""
        ...

    def deviations(self, tile: Tile) -> np.ndarray:
        """Threshold minus truth, (cell, threshold), in the precision of the members."""
        ...

    def truth_above(self, tile: Tile) -> np.ndarray:
        """Whether the truth lies above, (cell, threshold)."""
        ...


def check_thresholds(thresholds: object) -> None:
    """Refuse bare numbers, which are easily written instead.

    Raises
    ------
    InputError
        Naming what was found.
    """
    if not isinstance(thresholds, Constants | Reference):
        raise InputError(
            "thresholds are Constants((10.0, 20.0)) or a Reference of scoring.thresholds, found "
            f"{thresholds!r}"
        )


def check_reference(reference: object) -> None:
    """Refuse the name of a climatology alone.

    Raises
    ------
    InputError
        Naming what was found.
    """
    if not isinstance(reference, Reference):
        raise InputError(
            'a climatology is a Reference("climate", levels) of scoring.thresholds, found '
            f"{reference!r}"
        )


def _less_truth(values: np.ndarray, tile: Tile) -> np.ndarray:
    """Values less the truth as members are: rounded to the precision of the members before and
    after, so that a value equal to a member stays equal.

    Parameters
    ----------
    values : numpy.ndarray
        (cell, n) or (n,)
    tile : Tile
        With the truth.

    Returns
    -------
    numpy.ndarray
        (cell, n), in the precision of the members.
    """
    less = np.empty((tile.truth.size, values.shape[-1]), tile.dtype)
    subtract(values.astype(tile.dtype, copy=False), tile.truth[:, None], less)
    return less


def _above(values: np.ndarray, tile: Tile) -> np.ndarray:
    """Whether the truth lies above values, in its own precision and in that of the members: what
    equals a threshold in either is not above it. A truth of 0.7 in float64 equals 0.7, and one that
    was float32 before equals it as a member does. (cell, n), False where either is missing.
    """
    truth = tile.truth[:, None]
    above = truth > values.astype(truth.dtype, copy=False)
    if truth.dtype != tile.dtype:
        above &= truth.astype(tile.dtype) > values.astype(tile.dtype, copy=False)
    return above


def check_ensemble(forecast: xr.DataArray, truth: xr.DataArray, member_dim: str) -> None:
    """Refuse a forecast without members, and units that are stated and differ.

    Raises
    ------
    InputError
        Naming the dimensions, or both units.
    """
    for name, array in (("forecast", forecast), ("truth", truth)):
        if not isinstance(array, xr.DataArray):
            raise InputError(
                f"the {name} is a {type(array).__name__}, expected an xarray.DataArray; "
                "`scoring.statistic.evaluate_arrays` takes arrays of NumPy"
            )
    check_members(forecast, member_dim)
    stated = [str(array.attrs.get("units", "")) for array in (forecast, truth)]
    if all(stated) and not same_units(*stated):
        raise InputError(f"the forecast has units {stated[0]!r}, the truth {stated[1]!r}")


def check_members(forecast: xr.DataArray, member_dim: str) -> None:
    """Refuse a forecast without members.

    Raises
    ------
    InputError
        Naming the dimensions.
    """
    if member_dim not in forecast.dims:
        raise InputError(
            f"the forecast has no dimension {member_dim!r} of members, found "
            f"{', '.join(map(str, forecast.dims)) or 'none'}: say with `member_dim` which one it "
            f"is; a single forecast is scored as `forecast.expand_dims({member_dim!r})`"
        )
    if not forecast.sizes[member_dim]:
        raise InputError(f"the forecast has no members: its dimension {member_dim!r} has length 0")


def matched(
    array: xr.DataArray,
    cells: xr.DataArray,
    name: str = "truth",
    own: tuple[str, ...] = (),
) -> xr.DataArray:
    """`array` broadcast and transposed to the dimensions of `cells`, followed by its `own`.

    Raises
    ------
    InputError
        If it has other dimensions or coordinates.
    """
    surplus = [dim for dim in array.dims if dim not in (*cells.dims, *own)]
    if surplus:
        raise InputError(f"{name} has dimensions {surplus} that the forecast has not: {cells.dims}")
    try:
        cells, array = xr.align(cells, array, join="exact", exclude=own)
    except ValueError as error:
        raise InputError(f"forecast and {name} have different coordinates: {error}") from error
    return array.broadcast_like(cells, exclude=own).transpose(*cells.dims, *own)
