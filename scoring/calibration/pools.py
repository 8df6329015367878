"""Combinations of quantile forecasts that need no training, or only a choice.

All leave missing models out, case by case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from data.errors import InputError
from scoring.calibration.quantile_forecast import check_quantile_forecast
from scoring.quantiles import quantile_score

_REACH = 4.0  # standard normal score up to which a model's quantiles place the parts
_END = 37.0  # standard normal score of the ends of a distribution
_CELLS = 256  # parts a case's axis is cut into
_CHUNK = 1024  # cases worked on at a time
_LEAST = 1e-300  # probability of a part


class Combination(Protocol):
    """One quantile forecast from several."""

    name: ClassVar[str]

    def of(self, quantiles: xr.DataArray) -> xr.DataArray:
        """Dimensions of `quantiles` less `model`; NaN for cases without any model."""
        ...


@dataclass(frozen=True)
class Mean:
    """Mean of the models' quantiles, level by level (Vincentization)."""

    name: ClassVar[str] = "mean"

    def of(self, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Combination.of`."""
        return quantiles.mean("model", keep_attrs=True)


@dataclass(frozen=True)
class Median:
    """Median of the models' quantiles, level by level."""

    name: ClassVar[str] = "median"

    def of(self, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Combination.of`."""
        return TrimmedMean(0.5).of(quantiles)


@dataclass(frozen=True)
class TrimmedMean:
    """Mean of the models' quantiles, level by level, without the outermost.

    Parameters
    ----------
    share : float
        Of the models that are left out at either end, rounded down; at 0.5 it is the median.
    """

    share: float = 0.25
    name: ClassVar[str] = "trimmed mean"

    def of(self, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Combination.of`."""
        last = quantiles.transpose(..., "model")
        ordered = np.sort(last.values, axis=-1)
        count = np.isfinite(ordered).sum(axis=-1)
        cut = np.minimum((self.share * count).astype(int), np.maximum(count - 1, 0) // 2)
        rank = np.arange(ordered.shape[-1])
        kept = (rank >= cut[..., None]) & (rank < (count - cut)[..., None])
        total = np.where(kept, ordered, 0.0).sum(axis=-1)
        mean = np.where(count > 0, total / np.maximum(count - 2 * cut, 1), np.nan)
        result = last.isel(model=0, drop=True).copy(data=mean)
        return result.transpose(*(dim for dim in quantiles.dims if dim != "model"))


@dataclass(frozen=True)
class LinearPool:
    """Weighted mean of the models' distributions (Stone, 1961, doi:10.1214/aoms/1177704873).

    It is wider than the models are on average, the more the less they agree; means of quantiles
    are only as wide as the models.

    Parameters
    ----------
    weights : tuple of float, optional
        One for each model, not negative, as coarse weights of an `Aggregation`; equal by
        default. Where models are missing, those of the others are divided by their sum.
    """

    weights: tuple[float, ...] | None = None
    name: ClassVar[str] = "linear pool"

    @classmethod
    def weighted(cls, weights: xr.DataArray) -> LinearPool:
        """With the weights of an `Aggregation`, (model, quantile), averaged over levels."""
        return cls(tuple(weights.mean("quantile").clip(min=0.0).values.tolist()))

    def of(self, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Combination.of`; see `_pooled` for what lies between and beyond levels."""
        return _pooled(quantiles, self)

    def probability(self, parts: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """(case, part), of the models', (case, model, part), and their shares, (case, model)."""
        return np.einsum("cmg,cm->cg", parts, shares)


@dataclass(frozen=True)
class LogarithmicPool:
    """Geometric mean of the models' densities (Genest and Zidek, 1986,
    doi:10.1214/ss/1177013825): narrower than the linear pool.

    Parameters
    ----------
    weights : tuple of float, optional
        As those of `LinearPool`.
    """

    weights: tuple[float, ...] | None = None
    name: ClassVar[str] = "logarithmic pool"

    def of(self, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Combination.of`; see `_pooled` for what lies between and beyond levels."""
        return _pooled(quantiles, self)

    def probability(self, parts: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """(case, part), of the models', (case, model, part), and their shares, (case, model)."""
        mean = np.einsum("cmg,cm->cg", np.log(np.maximum(parts, _LEAST)), shares)
        return np.exp(mean - mean.max(axis=1, keepdims=True))


@dataclass(frozen=True)
class BestModel:
    """The model with the lowest score in the past, and the next best where it is missing.

    Parameters
    ----------
    ranking : tuple of str
        Models, the best first.
    """

    ranking: tuple[str, ...]
    name: ClassVar[str] = "best single model"

    @classmethod
    def fit(cls, quantiles: xr.DataArray, truth: xr.DataArray) -> BestModel:
        """Rank by the score on the cases of each model, as a share of the mean's on them.

        Raises
        ------
        InputError
            If no model has a case with truth.
        """
        check_quantile_forecast(quantiles, ("model",))
        score = quantile_score(quantiles, truth)
        over = [dim for dim in score.dims if dim != "model"]
        reference = quantile_score(Mean().of(quantiles), truth).where(score.notnull())
        relative = score.sum(over) / reference.sum(over)
        relative = relative.where(score.notnull().any(over))
        if not relative.notnull().any():
            raise InputError("no model has a case with truth to be ranked by")
        known = relative.dropna("model").sortby(lambda values: values)
        return cls(tuple(str(name) for name in known["model"].values))

    def of(self, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Combination.of`."""
        result = quantiles.sel(model=self.ranking[0], drop=True)
        for name in self.ranking[1:]:
            result = result.fillna(quantiles.sel(model=name, drop=True))
        return result.transpose(*(dim for dim in quantiles.dims if dim != "model"))


UNTRAINED: tuple[Combination, ...] = (
    Mean(),
    Median(),
    TrimmedMean(),
    LinearPool(),
    LogarithmicPool(),
)


def _pooled(quantiles: xr.DataArray, pool: LinearPool | LogarithmicPool) -> xr.DataArray:
    """Quantiles of a pool of distributions.

    Between levels and beyond them a model's quantile is linear in the standard normal score of
    the level, so a normal distribution is itself. Each case's axis is cut into 256 parts that
    follow the models' quantiles out to a score of 4, and the models' probabilities of each part
    are pooled.
    """
    check_quantile_forecast(quantiles, ("model",))
    models = quantiles.sizes["model"]
    if pool.weights is not None and len(pool.weights) != models:
        raise InputError(f"{len(pool.weights)} weights were given for {models} models")
    last = quantiles.transpose(..., "model", "quantile")
    flat = last.values.reshape(-1, last.sizes["model"], last.sizes["quantile"]).astype(float)
    levels = quantiles["quantile"].values
    parts = [
        _pooled_cases(flat[start : start + _CHUNK], levels, pool)
        for start in range(0, len(flat), _CHUNK)
    ]
    like = last.isel(model=0, drop=True)
    result = like.copy(data=np.concatenate(parts).reshape(like.shape))
    return result.transpose(*(dim for dim in quantiles.dims if dim != "model"))


def _pooled_cases(
    quantiles: np.ndarray, levels: np.ndarray, pool: LinearPool | LogarithmicPool
) -> np.ndarray:
    """(case, level) of (case, model, level)."""
    present = np.isfinite(quantiles).all(axis=2)
    if pool.weights is not None:
        present &= np.array(pool.weights) > 0
    result = np.full((len(quantiles), levels.size), np.nan)
    some = present.any(axis=1)
    quantiles, present = quantiles[some], present[some]
    score = ndtri(levels)
    knots, values = _extended(score, np.sort(quantiles, axis=2))
    edges = _edges(knots, values, max(_CELLS // quantiles.shape[1], levels.size))
    at = np.zeros((*present.shape, edges.shape[1]))
    for case, model in zip(*present.nonzero(), strict=True):
        at[case, model] = np.interp(edges[case], values[case, model], knots)
    shares = present * (1.0 if pool.weights is None else np.array(pool.weights))
    shares = shares / shares.sum(axis=1, keepdims=True)
    probability = pool.probability(_mass(at), shares)
    share = np.cumsum(probability, axis=1)
    share = np.concatenate([np.zeros((len(share), 1)), share / share[:, -1:]], axis=1)
    found = [np.interp(levels, row, edge) for row, edge in zip(share, edges, strict=True)]
    result[some] = np.array(found).reshape(-1, levels.size)
    return result


def _mass(score: np.ndarray) -> np.ndarray:
    """Probability between neighbouring normal scores, exact in both tails."""
    low, high = score[..., :-1], score[..., 1:]
    upper = low > 0
    return ndtr(np.where(upper, -low, high)) - ndtr(np.where(upper, -high, low))


def _extended(score: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores and values with the ends of the distributions, which follow the slope of
    the outermost two levels; values rise a little everywhere, so that they can be inverted."""
    knots = np.concatenate([[-_END], score, [_END]])
    if score.size == 1:
        return knots, np.repeat(values, 3, axis=2)
    slope = (values[..., [1, -1]] - values[..., [0, -2]]) / (score[[1, -1]] - score[[0, -2]])
    below = values[..., :1] - slope[..., :1] * (score[0] + _END)
    above = values[..., -1:] + slope[..., 1:] * (_END - score[-1])
    extended = np.concatenate([below, values, above], axis=2)
    reach = np.nanmax(values, axis=(1, 2)) - np.nanmin(values, axis=(1, 2))
    rise = 1e-6 * np.where(reach > 0, reach, 1.0)[:, None, None]
    return knots, extended + rise * (knots + _END) / _END


def _edges(knots: np.ndarray, values: np.ndarray, points: int) -> np.ndarray:
    """Ends of the parts of each case, (case, edge), ascending: evenly among the quantiles of all
    models at `points` scores."""
    fine = np.linspace(-_REACH, _REACH, points)
    place = np.clip(np.searchsorted(knots, fine, side="right") - 1, 0, knots.size - 2)
    share = (fine - knots[place]) / (knots[place + 1] - knots[place])
    dense = values[..., place] + share * (values[..., place + 1] - values[..., place])
    pooled = np.sort(dense.reshape(len(values), -1), axis=1)
    count = np.isfinite(pooled).sum(axis=1)
    wanted = np.linspace(0, 1, _CELLS + 1)
    rank = np.round(wanted * (count[:, None] - 1)).astype(int)
    return np.take_along_axis(pooled, rank, axis=1)
