"""What single members do: the best one, the extreme ones, and how often the truth escapes all.

Each statistic comes with its null value: what it is on average when the truth is one more draw
from the distribution of the members.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, sqrt
from typing import ClassVar

import numpy as np
import xarray as xr
from scipy.special import ndtr

from data.errors import InputError
from scoring.statistic import Statistic
from scoring.thresholds import check_ensemble, matched
from scoring.tile import Tile


@dataclass(frozen=True)
class _OfSizes(Statistic):
    """What members drawn without replacement are expected to give, for each number of them."""

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        _check_sizes(self.sizes)

    @property
    def minimum_members(self) -> int:
        """The largest size."""
        return max(self.sizes)

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """The sizes."""
        return {"size": np.array(self.sizes)}


@dataclass(frozen=True)
class ExpectedOutlier(_OfSizes):
    """Probability that the truth lies outside all of m members drawn without replacement.

    With b members below the truth and a above it, [C(b, m) + C(a, m)] / C(M, m). On average
    2 / (m + 1) when calibrated and without ties: see `expected_outlier_rate`. Drawing with
    replacement, as a bootstrap does, gives too many outliers.

    Parameters
    ----------
    sizes : tuple of int
        Each m, from 1 to M.

    Raises
    ------
    InputError
        If there is no size, or one below 1.
    """

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, size)"""
        below, above = tile.origin.below[:, 0], tile.size - tile.origin.not_above[:, 0]
        chances = np.stack([_all_among(tile.size, size) for size in self.sizes], axis=-1)
        return chances[below] + chances[above]


@dataclass(frozen=True)
class BestMemberError(_OfSizes):
    """Expected error of the best of m members drawn without replacement, min |x_i - y|.

    With |d|_(1) <= ... <= |d|_(M), sum_i |d|_(i) C(M - i, m - 1) / C(M, m). Its null value is
    the standard deviation times `expected_best_member_error`, for a Gaussian.

    Parameters
    ----------
    sizes : tuple of int
        Each m, from 1 to M.

    Raises
    ------
    InputError
        If there is no size, or one below 1.
    """

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell, size)"""
        errors = np.sort(np.abs(tile.deviations), axis=1).astype(np.float64)
        # The i-th best is the best of those drawn when it is drawn and no better one is.
        chances = [np.diff(_all_among(tile.size, size))[::-1] for size in self.sizes]
        return errors @ np.stack(chances, axis=-1)


@dataclass(frozen=True)
class Gain(Statistic):
    """How far the extreme members reach: max(max - mean, mean - min) / s.

    In standard deviations of the ensemble, M - 1 in the denominator; 0 where all members are
    equal. Its null value is `expected_gain`, for a Gaussian.
    """

    minimum_members: ClassVar[int] = 2

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        ends = tile.deviations[:, [0, -1]].astype(np.float64) - tile.mean_error[:, None]
        reach, spread = np.abs(ends).max(axis=1), np.sqrt(tile.variance)
        return np.divide(reach, spread, out=np.zeros_like(reach), where=spread != 0)


def closest_member(
    forecast: xr.DataArray,
    truth: xr.DataArray,
    member_dim: str = "number",
    by: str | None = None,
) -> xr.DataArray:
    """1 for the member that lies closest to the truth and 0 for the others; ties share it.

    Its mean over cases is the probability that each member is the best one.

    Parameters
    ----------
    forecast : xarray.DataArray
        Any dimensions with `member_dim`.
    truth : xarray.DataArray
        Broadcast to the dimensions of `forecast` other than `member_dim`.
    member_dim : str
        Name of the dimension of members.
    by : str, optional
        Coordinate along `member_dim`, such as `checkpoint`: shares are added up by its values.

    Returns
    -------
    xarray.DataArray
        Dimensions of `forecast` less `member_dim`, then `member_dim` or `by`, float64; NaN where
        a member or the truth is missing or infinite. The coordinate `expected` holds the null
        value of each, 1 / M or the group's share of the members.

    Raises
    ------
    InputError
        If dimensions or coordinates do not fit.
    """
    if by is not None and (by not in forecast.coords or forecast[by].dims != (member_dim,)):
        raise InputError(f"the forecast has no coordinate {by!r} along {member_dim}")
    check_ensemble(forecast, truth, member_dim)
    cells = forecast.isel({member_dim: 0}, drop=True)
    members = forecast.transpose(..., member_dim)
    target = matched(truth, cells)
    with np.errstate(invalid="ignore"):
        distance = np.abs(members.values.astype(float) - target.values[..., None])
        distance[~np.isfinite(distance).all(axis=-1)] = np.nan
        closest = distance == distance.min(axis=-1, keepdims=True)
        share = closest / closest.sum(axis=-1, keepdims=True)  # what is missing is not the closest
    size, name = members.sizes[member_dim], by or member_dim
    if by is None:
        label = members[member_dim].values if member_dim in members.coords else np.arange(size)
        expected = np.full(size, 1 / size)
    else:
        label, group = np.unique(members[by].values, return_inverse=True)
        belongs = np.eye(label.size)[group]
        share, expected = share @ belongs, belongs.mean(axis=0)
    known = {dim: cells.coords[dim] for dim in cells.dims if dim in cells.coords}
    coordinates = {**known, name: label, "expected": (name, expected)}
    return xr.DataArray(share, coordinates, (*cells.dims, name), "closest")


def expected_outlier_rate(members: int) -> float:
    """2 / (M + 1): how often the truth lies outside all members when it is one more draw."""
    return 2 / (members + 1)


def expected_gain(members: int) -> float:
    """Mean of `Gain` over Gaussian ensembles, for any mean and variance: 2.50 for 50 members.

    Residuals from the mean are the members given that their mean is 0, so with z standard normal
    P(max |x - mean| <= t) = P(all |z_i| <= t) f(0 | all |z_i| <= t) / f(0), where f is the density
    of the sum: an integral over its characteristic function. The largest residual over s does not
    depend on s (Basu), so the mean of the ratio is the ratio of means.

    Parameters
    ----------
    members : int
        M, at least 2.

    Raises
    ------
    InputError
        If there are fewer than two members.
    """
    if members < 2:
        raise InputError(f"a gain needs at least 2 members, found {members}")
    if members == 2:
        return 1 / sqrt(2)
    reach = 8.0
    frequencies = 100 / members + 12 / sqrt(members)
    t, t_weight = _gauss(0.0, reach, 96)
    u, u_weight = _gauss(0.0, frequencies, 160 + 2000 // members)
    unit, unit_weight = _gauss(0.0, 1.0, 60 + int(frequencies * reach / 2))
    below = np.empty(t.size)
    for place, limit in enumerate(t):
        density = np.exp(-((unit * limit) ** 2) / 2) / sqrt(2 * np.pi)
        wave = 2 * limit * np.cos(np.outer(u, unit * limit)) @ (density * unit_weight)
        below[place] = u_weight @ wave**members * sqrt(2 * members / np.pi)
    largest = t_weight @ (1 - below)
    half = (members - 1) / 2
    mean_spread = sqrt(1 / half) * exp(lgamma(members / 2) - lgamma(half))
    return float(largest / mean_spread)


def expected_best_member_error(size: int) -> float:
    """E min_i |x_i - y| for m members and a truth that are standard normal: 1.128 for m = 1.

    The integral over y of the normal density times the integral over t of
    [1 - P(|x - y| <= t)]^m.

    Parameters
    ----------
    size : int
        m, at least 1.

    Raises
    ------
    InputError
        If the size is below 1.
    """
    _check_sizes((size,))
    y, log_t = np.linspace(-9, 9, 361), np.linspace(-36, 3, 1561)
    t = np.exp(log_t)
    inside = ndtr(y[:, None] + t) - ndtr(y[:, None] - t)
    missed = (1 - inside) ** size @ t * (log_t[1] - log_t[0])
    density = np.exp(-(y**2) / 2) / sqrt(2 * np.pi)
    return float(density @ missed * (y[1] - y[0]))


def _all_among(members: int, size: int) -> np.ndarray:
    """C(b, m) / C(M, m) for b = 0..M, (M + 1,): all of m members drawn are among b of them."""
    some = np.arange(members, 0, -1)
    factors = np.maximum(some - size, 0) / some
    return np.append(1.0, np.cumprod(factors))[::-1]


def _gauss(start: float, end: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return start + (nodes + 1) * (end - start) / 2, weights * (end - start) / 2


def _check_sizes(sizes: tuple[int, ...]) -> None:
    if not sizes or min(sizes) < 1:
        raise InputError(f"sizes of ensembles must be at least 1, found {sizes}")
