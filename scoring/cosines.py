"""The error of a mean, from the lowest cosines of a series whose neighbours are alike.

The mean is the frequency 0 of a series; what it varies by is told by the frequencies just above.
How many of them tell it depends on how alike neighbours are: the longer a series remembers, the
sooner its spectrum falls off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scoring.bootstrap import lag_one_autocorrelation

_STRONGEST = 0.99
_LOWEST = 0.6


@dataclass(frozen=True)
class Weights:
    """How much each of the lowest cosines counts in the variance of a mean.

    Attributes
    ----------
    values : numpy.ndarray
        (cosine, series), 0 where a cosine does not count.
    """

    values: np.ndarray

    @property
    def degrees(self) -> np.ndarray:
        """(series,), how many cosines count."""
        return (self.values > 0).sum(axis=0)

    @classmethod
    def equal(cls, number: int, series: int) -> Weights:
        """Of cosines that vary as the mean does."""
        return cls(np.full((number, series), 1 / number))

    @classmethod
    def adapted(cls, values: np.ndarray) -> Weights:
        """Of cosines that vary as in a first-order autoregression like the series.

        Its autocorrelation is `persistence` and one standard deviation, since too little does
        more harm than too much. Each coefficient's square is divided by its `relative_variance`,
        and only the lowest cosines count, down to a relative variance of 0.6, so that not more
        than this hangs on the autoregression. At most `most` count, at least 1.

        Parameters
        ----------
        values : numpy.ndarray
            (time, series), at least 4 times.
        """
        size = len(values)
        relative = relative_variance(persistence(values, deviations=1), size, most(size))
        counts = relative >= _LOWEST  # it falls from cosine to cosine
        counts[0] = True
        return cls._of(counts, relative)

    def among(self, autocorrelation: np.ndarray, size: int) -> Weights:
        """Of the same cosines in autoregressions of another autocorrelation, (series,)."""
        return self._of(self.values > 0, relative_variance(autocorrelation, size, len(self.values)))

    @classmethod
    def _of(cls, counts: np.ndarray, relative: np.ndarray) -> Weights:
        return cls(counts / (relative * counts.sum(axis=0)))


def most(size: int) -> int:
    """Cosines for independent values: 0.4 T^(2/3), rounded down (Lazarus, Lewis, Stock and Watson
    2018, doi:10.1080/07350015.2018.1506926)."""
    # 1e-9: 0.4 * 125^(2/3) is 10, but a little less in floating point.
    return int(0.4 * size ** (2 / 3) + 1e-9)


def cosines(size: int, number: int) -> np.ndarray:
    """The lowest cosines, of unit sum of squares, (time, cosine)."""
    time = np.arange(size)[:, None] + 0.5
    return np.sqrt(2 / size) * np.cos(np.pi * time * np.arange(1, number + 1) / size)


def persistence(values: np.ndarray, deviations: float = 0.0) -> np.ndarray:
    """Autocorrelation of neighbours, (series,), from 0 to 0.99; 0 for a constant series.

    The sample's own, r, is too small by (1 + 4 rho) / T (Kendall 1954, Biometrika 41, 403-404),
    hence (T r + 1) / (T - 4); its standard deviation is sqrt((1 - rho^2) / T) (Bartlett 1946,
    Supplement to the Journal of the Royal Statistical Society 8, 27-41).

    Parameters
    ----------
    values : numpy.ndarray
        (time, series), in order, without NaN.
    deviations : float
        Standard deviations to add.
    """
    size = len(values)
    estimate = np.nan_to_num((size * lag_one_autocorrelation(values) + 1) / max(size - 4, 1))
    deviation = np.sqrt(np.maximum(1 - estimate**2, 0) / size)
    return np.clip(estimate + deviations * deviation, 0.0, _STRONGEST)


def mean_variance(autocorrelation: np.ndarray, size: int) -> np.ndarray:
    """T times the variance of the mean of T values of a first-order autoregression of variance 1:
    (1 + rho) / (1 - rho) - 2 rho (1 - rho^T) / (T (1 - rho)^2)."""
    rho = autocorrelation
    return (1 + rho) / (1 - rho) - 2 * rho * (1 - rho**size) / (size * (1 - rho) ** 2)


def effective_dates(values: np.ndarray) -> np.ndarray:
    """How many independent times would tell the mean as well.

    As if the series were first-order autoregressions with the autocorrelation that `persistence`
    estimates. With less than 3 next to nothing can be found, and tests begin to find too much.

    Parameters
    ----------
    values : numpy.ndarray
        (time, series), in order, without NaN.

    Returns
    -------
    numpy.ndarray
        (series,), at most as many as there are.
    """
    return len(values) / mean_variance(persistence(values), len(values))


def relative_variance(autocorrelation: np.ndarray, size: int, number: int) -> np.ndarray:
    """Variance of cosine coefficients of a first-order autoregression, beside that of T^(1/2)
    times its mean, (cosine, series).

    With w = pi j / T and d = 1 - 2 rho cos w + rho^2 the coefficient has the variance
    (1 - rho^2) / d - 2 rho (1 - rho)^2 (1 + cos w) (1 - (-1)^j rho^T) / (T d^2), the sum of
    rho^|s - t| times both cosines.

    Parameters
    ----------
    autocorrelation : numpy.ndarray
        rho, (series,), below 1.
    size : int
        T.
    number : int
        The cosines j = 1 ... number.
    """
    rho, j = autocorrelation, np.arange(1, number + 1)[:, None]
    cosine = np.cos(np.pi * j / size)
    d = 1 - 2 * rho * cosine + rho**2
    ends = (1 - rho) ** 2 * (1 + cosine) * (1 - (-1.0) ** j * rho**size) / size
    return ((1 - rho**2) / d - 2 * rho * ends / d**2) / mean_variance(rho, size)


def standard_error(centred: np.ndarray, basis: np.ndarray, weights: Weights) -> np.ndarray:
    """Of the mean of a series, (series,), with cosines (time, cosine); or of the means of draws
    of it, (draw, series), with their `drawn` cosines (cosine, draw, time).

    Parameters
    ----------
    centred : numpy.ndarray
        (time, series), less their means.
    basis : numpy.ndarray
        As many cosines as weights.
    weights : Weights
        Of these series.
    """
    if basis.ndim == 2:
        return np.sqrt((weights.values * (basis.T @ centred) ** 2).sum(axis=0) / len(centred))
    total = 0.0
    for cosine, weight in zip(basis, weights.values, strict=True):  # all at once is a large array
        total = total + weight * (cosine @ centred) ** 2
    return np.sqrt(total / len(centred))
