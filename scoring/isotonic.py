"""Isotonic regression."""

from __future__ import annotations

import numpy as np


def isotonic_regression(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The increasing values nearest to some values, in weighted least squares.

    Pools adjacent violators (Ayer et al., 1955, doi:10.1214/aoms/1177728423), for all series at a
    time.

    Parameters
    ----------
    values : numpy.ndarray
        (..., n)
    weights : numpy.ndarray
        (..., n), not negative. An entry of weight 0 has no say, even where its value is NaN, and
        takes the fit of its neighbour on the left, or of the first that has weight.

    Returns
    -------
    numpy.ndarray
        (..., n), float64; NaN for series with a missing value, or without weight.
    """
    weights = np.broadcast_to(np.asarray(weights, float), np.shape(values))
    count = weights.shape[-1]
    mass = weights.reshape(-1, count)
    product = np.where(weights > 0, weights * np.asarray(values, float), 0.0).reshape(-1, count)
    # A stack of blocks for each series, the last one on top.
    total, weight = np.zeros_like(product), np.zeros_like(product)
    size, top = np.zeros(product.shape, int), np.full(len(product), -1)
    every = np.arange(len(product))
    for entry in range(count):
        top += 1
        total[every, top], weight[every, top] = product[:, entry], mass[:, entry]
        size[every, top] = 1
        active = every[top > 0]
        while active.size:
            last, before = (active, top[active]), (active, top[active] - 1)
            violated = total[before] * weight[last] >= total[last] * weight[before]
            active = active[violated]
            last, before = (active, top[active]), (active, top[active] - 1)
            for stack in (total, weight, size):
                stack[before] += stack[last]
            top[active] -= 1
            active = active[top[active] > 0]
    used = np.arange(count) <= top[:, None]
    means = np.full(total.shape, np.nan)
    np.divide(total, weight, out=means, where=used & (weight > 0))
    fit = np.repeat(means[used], size[used]).reshape(product.shape)
    fit[np.isnan(product).any(axis=-1)] = np.nan
    return fit.reshape(weights.shape)
