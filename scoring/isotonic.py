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
    """Fit of some series; those that increase already stay as they are."""
    changed = ~(values[:, 1:] >= values[:, :-1]).all(axis=1) | (weights.min(axis=1) <= 0)
    if not changed.any():
        return values
    whole = changed.all()
    series, weight = (values, weights) if whole else (values[changed], weights[changed])
    fit = _joined(series, weight)
    if whole:
        return fit
    result = values.copy()
    result[changed] = fit
    return result


def _joined(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit of series; entries without weight are left out and filled afterwards."""
    used = weights > 0
    used &= (used.any(axis=1) & ~(used & np.isnan(values)).any(axis=1))[:, None]
    if used.all():
        return _stairs(values, values, weights).reshape(values.shape)
    fit = np.full(values.shape, np.nan)
    if not used.any():
        return fit
    fit[used] = _stairs(np.where(used, values, np.nan), values[used], weights[used], used)
    last = np.maximum.accumulate(np.where(used, np.arange(fit.shape[1]), -1), axis=1)
    last = np.where(last < 0, used.argmax(axis=1)[:, None], last)
    return np.take_along_axis(fit, last, axis=1)


def _stairs(
    series: np.ndarray, values: np.ndarray, weights: np.ndarray, used: np.ndarray | None = None
) -> np.ndarray:
    """Fit of the used entries, (entry,), in one call: series stand one behind the other, each on
    a step of its own, so that none is pooled with the next."""
    low = np.fmin.reduce(series, axis=1, keepdims=True)
    height = np.fmax.reduce(series, axis=1, keepdims=True) - low
    height[~(height > 0)] = 1.0
    steps = (series - low) / height + 2.0 * np.arange(len(series))[:, None]
    heights = steps.ravel() if used is None else steps[used]
    blocks = optimize.isotonic_regression(heights, weights=weights.ravel()).blocks
    # Means of the values themselves, since on the stairs small differences are rounded.
    starts, sizes = blocks[:-1], np.diff(blocks)
    total = np.add.reduceat(weights.ravel(), starts)
    means = np.add.reduceat((weights * values).ravel(), starts) / total
    return np.repeat(means, sizes)
