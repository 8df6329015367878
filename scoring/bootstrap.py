"""The stationary bootstrap: draws of a series that keep what neighbours have in common."""

from __future__ import annotations

import numpy as np

_RUN = 5  # autocorrelations in a row that must be small; max(5, sqrt(log10 n)) in the paper


def automatic_block_length(values: np.ndarray) -> np.ndarray:
    """Mean block length of the stationary bootstrap that estimates the variance of a mean best.

    With autocovariances R(k), the window w(s) = min(1, 2 (1 - |s|)) and M twice the first lag from
    which five autocorrelations in a row are below 2 sqrt(log10(n) / n),
    b = (n G^2 / g^2)^(1/3), G = sum w(k/M) |k| R(k), g = sum w(k/M) R(k), |k| <= M, at most
    min(3 sqrt(n), n/3) (Politis and White 2004, doi:10.1081/ETC-120028836, corrected by Patton,
    Politis and White 2009, doi:10.1080/07474930802459016).

    Parameters
    ----------
    values : numpy.ndarray
        (time, series), in order, without NaN.

    Returns
    -------
    numpy.ndarray
        (series,), at least 1; 1 for a constant series.
    """
    n = len(values)
    longest = np.ceil(min(3 * np.sqrt(n), n / 3))
    last = min(int(np.ceil(np.sqrt(n))) + _RUN, n - 1)
    covariance = _autocovariances(values, last)
    band = 2 * np.sqrt(np.log10(n) / n) * covariance[0]
    small = np.abs(covariance[1:]) < band
    bandwidth = np.full(values.shape[1], last)
    for lag in range(last - _RUN + 1, 0, -1):
        bandwidth[small[lag - 1 : lag - 1 + _RUN].all(axis=0)] = min(2 * lag, last)
    lags = np.arange(1, last + 1)[:, None]
    window = 2 * np.clip(2 * (1 - lags / bandwidth), 0, 1) * covariance[1:]
    slope, total = (lags * window).sum(axis=0), covariance[0] + window.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        length = np.cbrt(n * (slope / total) ** 2)
    return np.clip(np.where(covariance[0] > 0, length, 1.0), 1.0, longest)


def lag_one_autocorrelation(values: np.ndarray) -> np.ndarray:
    """(series,) of (time, series); NaN for a constant series."""
    covariance = _autocovariances(values, 1)
    return covariance[1] / np.where(covariance[0] > 0, covariance[0], np.nan)


def stationary_positions(
    size: int, length: float, draws: int, generator: np.random.Generator
) -> np.ndarray:
    """Positions in a series of draws of it, (draw, time).

    Blocks start anywhere, run on past the end to the beginning, and have geometric lengths with
    mean `length` (Politis and Romano 1994, doi:10.1080/01621459.1994.10476870).
    """
    starts = generator.random((draws, size)) < 1 / length
    starts[:, 0] = True
    anywhere = generator.integers(0, size, (draws, size))
    time = np.arange(size)
    began = np.maximum.accumulate(np.where(starts, time, 0), axis=1)
    return (np.take_along_axis(anywhere, began, axis=1) + time - began) % size


def _autocovariances(values: np.ndarray, last: int) -> np.ndarray:
    """(lag, series), with 1/n at every lag."""
    n = len(values)
    centred = values - values.mean(axis=0)
    products = [np.einsum("ts,ts->s", centred[lag:], centred[: n - lag]) for lag in range(last + 1)]
    return np.stack(products) / n
