"""Isotonic regression."""

from __future__ import annotations

import numpy as np
from scipy import optimize

_ENTRIES = 2**15  # worked on at a time, so that they stay in cache


def isotonic_regression(
    values: np.ndarray, weights: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """The increasing values nearest to some values, in weighted least squares.

    Pools adjacent violators (Ayer et al., 1955, doi:10.1214/aoms/1177728423), for all series at a
    time.

    Parameters
    ----------
    values : numpy.ndarray
        (..., n)
    weights : numpy.ndarray
        (..., n) or of a shape that broadcasts to it, not negative. An entry of weight 0 has no
        say, even where its value is NaN, and takes the fit of its neighbour on the left, or of
        the first that has weight.
    out : numpy.ndarray, optional
        (..., n), contiguous, where to put the result; `values` itself is allowed.

    Returns
    -------
    numpy.ndarray
        (..., n), float64 unless `out` is given; NaN for series with a missing value, or without
        weight.
    """
    values = np.asarray(values)
    weights = np.asarray(weights, float)
    fit = np.empty(values.shape) if out is None else out
    count = values.shape[-1]
    series, result = values.reshape(-1, count), fit.reshape(-1, count)
    if weights.size != count:
        weights = np.broadcast_to(weights, values.shape).reshape(-1, count)
    step = max(1, _ENTRIES // count)
    for rows in (slice(start, start + step) for start in range(0, len(series), step)):
        some = np.asarray(series[rows], float)
        weight = np.broadcast_to(weights if weights.ndim < 2 else weights[rows], some.shape)
        result[rows] = _pooled(some, weight)
    return fit


def _pooled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit of some series."""
    if weights.min() <= 0 or np.isnan(values.min()):
        return _with_gaps(values, weights)
    crossed = (values[:, 1:] < values[:, :-1]).any(axis=1)
    if not crossed.any():
        return values
    some, weight = (values, weights) if crossed.all() else (values[crossed], weights[crossed])
    # What is above all before it and below all behind it stays as it is.
    before = np.maximum.accumulate(some, axis=1)
    behind = np.minimum.accumulate(some[:, ::-1], axis=1)[:, ::-1]
    held = (some < before) | (some > behind)
    pooled = some.copy()
    pooled[held] = _stairs(some, weight, held)
    fit = values.copy()
    fit[crossed] = pooled
    return fit


def _with_gaps(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit of series of which some miss values, or entries have no weight."""
    used = weights > 0
    used &= (used.any(axis=1) & ~(used & np.isnan(values)).any(axis=1))[:, None]
    fit = np.full(values.shape, np.nan)
    if not used.any():
        return fit
    fit[used] = _stairs(np.where(used, values, np.nan), weights, used)
    last = np.maximum.accumulate(np.where(used, np.arange(fit.shape[1]), -1), axis=1)
    last = np.where(last < 0, used.argmax(axis=1)[:, None], last)
    return np.take_along_axis(fit, last, axis=1)


def _stairs(values: np.ndarray, weights: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Fit of the used entries, (entry,), in one call: series stand one behind the other, each on
    a step of its own, so that none is pooled with the next."""
    low = np.fmin.reduce(values, axis=1, keepdims=True)
    height = np.fmax.reduce(values, axis=1, keepdims=True) - low
    height[~(height > 0)] = 1.0
    steps = (values - low) / height + 2.0 * np.arange(len(values))[:, None]
    value, weight = values[used], weights[used]
    blocks = optimize.isotonic_regression(steps[used], weights=weight).blocks
    # Means of the values themselves, since on the stairs small differences are rounded.
    starts, sizes = blocks[:-1], np.diff(blocks)
    means = np.add.reduceat(weight * value, starts) / np.add.reduceat(weight, starts)
    return np.repeat(means, sizes)
