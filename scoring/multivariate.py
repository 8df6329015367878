"""Scores of vectors: energy and variogram score over channels, cells, leads or any of them.

Both compare all members with each other. They go through the members (and the variogram score
through the variables) in blocks, so that beside the ensemble only a few megabytes are needed. They
are statistics in what matters to sums: identified by value, one number for each sample, the mean
of which is the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.crps import FAIR, Estimator, Stratified
from scoring.identity import key_of, make_floats
from scoring.thresholds import check_ensemble, matched

_BLOCK_VALUES = 2**20
# Squared distances from a product of matrices lose digits where members nearly coincide.
_NEAR = 1e-4


@dataclass(frozen=True)
class EnergyScore:
    """ES = mean_i |x_i - y| - c/2 mean_(i != j) |x_i - x_j| with vectors x, y (Gneiting and
    Raftery, 2007, doi:10.1198/016214506000001437).

    |.| is the Euclidean norm, ``sqrt(sum_k w_k d_k^2)`` with weights. Of a single variable it is
    the CRPS with the same estimator. Values are named by the `key`, followed by a digest of the
    weights unless all are 1.

    Parameters
    ----------
    over : tuple of str
        Dimensions that make up the vector.
    estimator : Estimator
        `FAIR` (default), `STANDARD`, ``AlmostFair(0.95)`` or ``SubEnsemble(10)``: fixes c.
    """

    over: tuple[str, ...] = ("channel",)
    estimator: Estimator = FAIR

    @property
    def key(self) -> str:
        """Name made of the class and of all its parameters, fit for a variable of a store."""
        return key_of(self)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """None."""
        return {}

    def __call__(
        self,
        forecast: xr.DataArray,
        truth: xr.DataArray,
        member_dim: str = "number",
        weights: xr.DataArray | None = None,
    ) -> xr.DataArray:
        """The score of each sample, float64; NaN where anything is missing or infinite.

        Parameters
        ----------
        forecast : xarray.DataArray
            Dimensions `member_dim`, those in `over`, and any others.
        truth : xarray.DataArray
            The same without `member_dim`.
        member_dim : str
            Name of the dimension of members.
        weights : xarray.DataArray, optional
            w, not negative, with dimensions in `over`: area weights, or 1 / variance to make
            channels of different units comparable. 1 by default.

        Raises
        ------
        InputError
            If dimensions, coordinates or units do not fit, there are too few members, or the
            estimator is for dependent members.
        """
        vectors = _Vectors.of(forecast, truth, self.over, member_dim, weights)
        share = _share(self.key, self.estimator, vectors.members)
        name = _named(self.key, vectors.weights)
        return vectors.scored(name, lambda tile: _energy(tile, share))


@dataclass(frozen=True)
class VariogramScore:
    """VS = sum_(a,b) w_a w_b (|y_a - y_b|^p - mean_i |x_ia - x_ib|^p)^2 over all ordered pairs of
    variables (Scheuerer and Hamill, 2015, doi:10.1175/MWR-D-14-00269.1).

    The standard estimator is that. The fair one takes off the variance of the mean over members,
    s^2 / M, and so is unbiased for an infinite ensemble; `SubEnsemble(m)` adds s^2 / m to it.
    Values are named as those of `EnergyScore` are.

    Parameters
    ----------
    over : tuple of str
        Dimensions whose elements are the variables.
    power : float
        p, above 0; 0.5 is usual.
    estimator : Estimator
        `FAIR` (default), `STANDARD`, ``AlmostFair(0.95)`` or ``SubEnsemble(10)``.

    Raises
    ------
    InputError
        If the power is not above 0.
    """

    over: tuple[str, ...] = ("channel",)
    power: float = 0.5
    estimator: Estimator = FAIR

    def __post_init__(self) -> None:
        make_floats(self, "power")
        if not self.power > 0:
            raise InputError(f"the power of a variogram must be above 0, found {self.power:g}")

    @property
    def key(self) -> str:
        """Name made of the class and of all its parameters, fit for a variable of a store."""
        return key_of(self)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """None."""
        return {}

    def __call__(
        self,
        forecast: xr.DataArray,
        truth: xr.DataArray,
        member_dim: str = "number",
        weights: xr.DataArray | None = None,
    ) -> xr.DataArray:
        """The score of each sample, float64; NaN where anything is missing or infinite.

        Parameters
        ----------
        forecast : xarray.DataArray
            Dimensions `member_dim`, those in `over`, and any others.
        truth : xarray.DataArray
            The same without `member_dim`.
        member_dim : str
            Name of the dimension of members.
        weights : xarray.DataArray, optional
            w, not negative, with dimensions in `over`; with weights that sum to 1 the score is a
            mean over pairs. 1 by default.

        Raises
        ------
        InputError
            If dimensions, coordinates or units do not fit, there are too few members, or the
            estimator is for dependent members.
        """
        vectors = _Vectors.of(forecast, truth, self.over, member_dim, weights)
        share = _share(self.key, self.estimator, vectors.members)
        # s^2 / M is in the square of the mean; an ensemble of m = 1 / (1 - c) would have s^2 / m.
        excess = 0.0 if vectors.members == 1 else (1 - share) - 1 / vectors.members
        name = _named(self.key, vectors.weights)
        return vectors.scored(name, lambda tile: _variogram(tile, self.power, excess))


@dataclass(frozen=True)
class _Pairs:
    """What an estimator of independent members reads of an ensemble."""

    size: int
    difference_sum: float


def _named(key: str, weights: np.ndarray) -> str:
    """What a score with these weights, (variable,), is called: they are a part of what it is."""
    return key if (weights == 1).all() else f"{key}_weights_{key_of(weights)}"


def _share(key: str, estimator: Estimator, members: int) -> float:
    """c: how much of the mean difference of two different members the estimator takes off."""
    if isinstance(estimator, Stratified):
        raise InputError(f"{key} needs an estimator of independent members, such as FAIR")
    if members < estimator.minimum_members:
        raise InputError(
            f"{key} needs at least {estimator.minimum_members} members, found {members}"
        )
    return float(estimator.spread(_Pairs(members, members * (members - 1))))


@dataclass(frozen=True)
class _Tile:
    """Some samples: members (sample, member, *variables), truth (sample, variable), weights."""

    source: np.ndarray
    truth: np.ndarray
    weights: np.ndarray

    @property
    def members(self) -> int:
        return self.source.shape[1]

    def block(self, members: slice) -> np.ndarray:
        """Some members, (sample, member, variable), float64."""
        part = self.source[:, members]
        return part.reshape(*part.shape[:2], -1).astype(np.float64)

    def blocks(self, size: int) -> list[slice]:
        """Slices of at most this many members."""
        size = max(1, size)
        return [slice(start, start + size) for start in range(0, self.members, size)]


@dataclass(frozen=True)
class _Vectors:
    """An ensemble of vectors, its truth and the weights of the variables."""

    forecast: xr.DataArray  # (*samples, member, *over), in this order
    truth: xr.DataArray  # (*samples, *over)
    weights: np.ndarray  # (variable,)
    samples: tuple[str, ...]

    @classmethod
    def of(
        cls,
        forecast: xr.DataArray,
        truth: xr.DataArray,
        over: tuple[str, ...],
        member_dim: str,
        weights: xr.DataArray | None,
    ) -> _Vectors:
        absent = [dim for dim in over if dim not in forecast.dims]
        if absent or not over:
            raise InputError(f"the forecast has no dimension {absent}: {forecast.dims}")
        check_ensemble(forecast, truth, member_dim)
        cells = forecast.isel({member_dim: 0}, drop=True)
        samples = tuple(str(dim) for dim in cells.dims if dim not in over)
        target = matched(truth, cells).transpose(*samples, *over)
        sizes = [cells.sizes[dim] for dim in over]
        if 0 in sizes:
            raise InputError(f"vectors need variables, found dimensions {over} of lengths {sizes}")
        own = cells.coords.to_dataset().drop_dims(samples, errors="ignore").coords
        ones = xr.DataArray(np.ones(sizes), own, over)
        spread = matched(ones if weights is None else weights, ones).values.astype(float).ravel()
        if not (spread >= 0).all():
            raise InputError("weights of variables must not be negative or missing")
        return cls(forecast.transpose(*samples, member_dim, *over), target, spread, samples)

    @property
    def members(self) -> int:
        """Number of members, M."""
        return self.forecast.shape[len(self.samples)]

    def scored(self, name: str, score: Callable[[_Tile], np.ndarray]) -> xr.DataArray:
        """The score of each sample."""
        cells = self.truth.isel(dict.fromkeys(self.truth.dims[len(self.samples) :], 0), drop=True)
        shape = cells.shape
        members, truth = self.forecast.values, self.truth.values
        values = np.empty(shape)
        # Samples along the longest dimension share a tile; the others are gone through.
        longest = int(np.argmax(shape)) if shape else 0
        step = max(1, _BLOCK_VALUES // (self.members * max(self.members, self.weights.size)))
        outer = [1 if place == longest else size for place, size in enumerate(shape)]
        for index in np.ndindex(*outer):
            for start in range(0, shape[longest] if shape else 1, step):
                where = tuple(
                    slice(start, start + step) if place == longest else slice(at, at + 1)
                    for place, at in enumerate(index)
                )
                target = truth[where].reshape(-1, self.weights.size).astype(np.float64)
                target[np.isinf(target)] = np.nan
                source = members[where]
                source = source.reshape(len(target), self.members, *source.shape[len(shape) + 1 :])
                with np.errstate(invalid="ignore"):  # what is infinite has no score
                    found = score(_Tile(source, target, self.weights))
                values[where] = found.reshape(values[where].shape)
        return xr.DataArray(values, cells.coords, cells.dims, name)


def _energy(tile: _Tile, share: float) -> np.ndarray:
    """(sample,)"""
    samples, variables = tile.truth.shape
    scale = np.sqrt(tile.weights)
    size = min(_BLOCK_VALUES // (samples * variables), isqrt(_BLOCK_VALUES // samples))
    parts = tile.blocks(size)
    # Distances between members centred on their mean keep their digits far from the truth.
    centre = sum(tile.block(part).sum(1) for part in parts)[:, None] / tile.members
    truth = (tile.truth[:, None] - centre) * scale
    error, difference = np.zeros(samples), np.zeros(samples)
    for number, part in enumerate(parts):
        left = (tile.block(part) - centre) * scale
        error += np.sqrt(np.square(left - truth).sum(-1)).sum(1)
        if not share:
            continue
        difference += _distances(left, left, same=True).sum((1, 2))
        for other in parts[:number]:
            right = (tile.block(other) - centre) * scale
            difference += 2 * _distances(left, right, same=False).sum((1, 2))
    pairs = tile.members * max(1, tile.members - 1)
    return error / tile.members - share * difference / pairs / 2


def _distances(left: np.ndarray, right: np.ndarray, same: bool) -> np.ndarray:
    """Euclidean distances, (sample, left member, right member), of (sample, member, variable)."""
    squares = np.vecdot(left, left)[:, :, None] + np.vecdot(right, right)[:, None]
    distance = squares - 2 * (left @ right.swapaxes(1, 2))
    near = distance < _NEAR * squares
    if same:
        diagonal = np.arange(left.shape[1])
        distance[:, diagonal, diagonal] -= distance[:, diagonal, diagonal]  # 0, or still missing
        near[:, diagonal, diagonal] = False
    places = np.argwhere(near)
    step = max(1, _BLOCK_VALUES // left.shape[2])
    for start in range(0, len(places), step):
        sample, first, second = places[start : start + step].T
        apart = left[sample, first] - right[sample, second]
        distance[sample, first, second] = np.vecdot(apart, apart)
    return np.sqrt(np.maximum(distance, 0))


def _variogram(tile: _Tile, power: float, excess: float) -> np.ndarray:
    """(sample,)"""
    samples, variables = tile.truth.shape
    side = max(1, min(variables, isqrt(_BLOCK_VALUES) // 16))
    starts = range(0, variables, side)
    score = np.zeros(samples)
    for first in starts:
        for second in (start for start in starts if start >= first):
            rows, columns = slice(first, first + side), slice(second, second + side)
            terms = _variogram_block(tile, rows, columns, power, excess)
            weights = np.outer(tile.weights[rows], tile.weights[columns])
            score += (1 if first == second else 2) * (terms * weights).sum((1, 2))
    return score


def _variogram_block(
    tile: _Tile, rows: slice, columns: slice, power: float, excess: float
) -> np.ndarray:
    """Terms of the variogram score for some pairs of variables, (sample, row, column)."""
    target = np.abs(tile.truth[:, rows, None] - tile.truth[:, None, columns]) ** power
    total, squares = np.zeros(target.shape), np.zeros(target.shape)
    for part in tile.blocks(_BLOCK_VALUES // max(target.size, tile.truth.size)):
        members = tile.block(part)
        apart = np.abs(members[:, :, rows, None] - members[:, :, None, columns])
        apart **= power
        apart -= target[:, None]
        total += apart.sum(1)
        squares += np.square(apart, out=apart).sum(1)
    mean = total / tile.members
    if not excess:
        return mean**2
    variance = (squares - total * mean) / (tile.members - 1)
    return mean**2 + excess * variance
