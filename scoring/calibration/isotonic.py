"""Isotonic regression."""

from __future__ import annotations

import numpy as np
from scipy import optimize

_ENTRIES = 2**17  # worked on at a time, so that they stay in cache


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
    step = min(max(1, _ENTRIES // count), max(1, len(series)))
    # Asked for once: pages of fresh memory take longer than the work on them.
    scratch = np.empty((count, step)), np.empty((count, step), bool)
    for rows in (slice(start, start + step) for start in range(0, len(series), step)):
        some = np.asarray(series[rows], float)
        weight = np.broadcast_to(weights if weights.ndim < 2 else weights[rows], some.shape)
        _put_pooled(result[rows], some, weight, *scratch)
    return fit


def _put_pooled(
    fit: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    columns: np.ndarray,
    marks: np.ndarray,
) -> None:
    """Fit of some series, into `fit`; the last two are memory to work in, (n, series)."""
    if weights.min() <= 0 or np.isnan(values.min()):
        fit[:] = _with_gaps(values, weights)
        return
    crossed = np.flatnonzero((values[:, 1:] < values[:, :-1]).any(axis=1))
    if crossed.size < len(values):
        fit[:] = values
        if not crossed.size:
            return
        values, weights = values[crossed], weights[crossed]
    held, low, high = _held(values, columns[:, : crossed.size], marks[:, : crossed.size])
    series, place = held
    pooled = _stairs(values[held], weights[held], series, low, high)
    if crossed.size == len(fit):
        fit[:] = values
    fit[crossed[series], place] = pooled


def _held(
    values: np.ndarray, columns: np.ndarray, marks: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Positions of entries that may change, series and place, and the ends of each series.

    What is above all before it and below all behind it stays as it is.
    """
    # Place by place for all series at a time, several times faster than along each of them.
    np.copyto(columns, values.T)
    high, low = columns[0].copy(), columns[-1].copy()
    either = np.empty(len(values), bool)
    for column, mark in zip(columns, marks, strict=True):
        np.maximum(high, column, out=high)
        np.less(column, high, out=mark)
    for column, mark in zip(columns[::-1], marks[::-1], strict=True):
        np.minimum(low, column, out=low)
        np.greater(column, low, out=either)
        mark |= either
    series, place = np.divmod(np.flatnonzero(marks.T), len(columns))
    return (series, place), low, high


def _with_gaps(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit of series of which some miss values, or entries have no weight."""
    used = weights > 0
    used &= (used.any(axis=1) & ~(used & np.isnan(values)).any(axis=1))[:, None]
    fit = np.full(values.shape, np.nan)
    if not used.any():
        return fit
    known = np.where(used, values, np.nan)
    ends = np.fmin.reduce(known, axis=1), np.fmax.reduce(known, axis=1)
    fit[used] = _stairs(values[used], weights[used], np.nonzero(used)[0], *ends)
    last = np.maximum.accumulate(np.where(used, np.arange(fit.shape[1]), -1), axis=1)
    last = np.where(last < 0, used.argmax(axis=1)[:, None], last)
    return np.take_along_axis(fit, last, axis=1)


def _stairs(
    values: np.ndarray, weights: np.ndarray, series: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Fit of entries of some series, (entry,), in one call: series stand one behind the other,
    each on a step of its own, so that none is pooled with the next.

    Parameters
    ----------
    values, weights, series : numpy.ndarray
        (entry,), in order.
    low, high : numpy.ndarray
        The ends of each series, (series,).
    """
    height = high - low
    height[~(height > 0)] = 1.0
    steps = (values - low[series]) / height[series] + 2.0 * series
    blocks = optimize.isotonic_regression(steps, weights=weights).blocks
    # Means of the values themselves, since on the stairs small differences are rounded.
    starts, sizes = blocks[:-1], np.diff(blocks)
    means = np.add.reduceat(weights * values, starts) / np.add.reduceat(weights, starts)
    return np.repeat(means, sizes)
