"""Two factors for each angular degree: regression of the truth within the power that is allowed.

With b on the mean m and t on the members about it, calibrated members have at one degree the power

    P = b^2 |m|^2 + share leak t^2 V,

of their variance V, of which `share` is power about the mean and `leak` what the factors of
latitudes make of it. Regression gives b and t^2 V = e(b), the squared error of b m, and with it
the truth's power. Where that is not allowed, the mean is damped less or more, since a small change
of b costs an error of second order, but changes the power and so the room for spread at first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Wider than any ensemble needs. Where members do not differ at all, nothing draws them apart.
_STRETCH = (0.1, 3.0)
_SLOPE = (0.0, 2.0)
_COST = 0.02  # of the squared error, for making room for spread
_NOISE = 0.5  # of the members' power: where the truth has less, the rest is noise and goes
_WIDENING = (0.5, 2.0)
_HALVINGS = 30


@dataclass(frozen=True)
class Powers:
    """Mean powers of dates, (lead_time, degree), without what lasts from date to date.

    Attributes
    ----------
    truth, mean, cross : numpy.ndarray
        Power of truth and of the ensemble mean, and their cross power.
    variance : numpy.ndarray
        The members' variance, with M - 1.
    share : numpy.ndarray
        (M - 1) / M, (lead_time, 1).
    """

    truth: np.ndarray
    mean: np.ndarray
    cross: np.ndarray
    variance: np.ndarray
    share: np.ndarray

    def error(self, slope: np.ndarray) -> np.ndarray:
        """Squared error of b m."""
        return np.maximum(self.truth - 2 * slope * self.cross + slope**2 * self.mean, 0.0)


def factors(
    powers: Powers,
    change: float,
    widening: np.ndarray | float = 1.0,
    leak: np.ndarray | float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """b and t, (lead_time, degree).

    Parameters
    ----------
    powers : Powers
        Of past dates.
    change : float
        By how much of itself the members' power may change; may be infinite.
    widening : numpy.ndarray or float
        Members are to have `widening`^2 e(b) of variance, (lead_time, 1).
    leak : numpy.ndarray or float
        (lead_time, degree)
    """
    share, mean = powers.share * leak, powers.mean
    raw = mean + powers.share * powers.variance
    low, high = (1 - change) * raw, (1 + change) * raw
    part = share * widening**2

    def power(b: np.ndarray) -> np.ndarray:
        return b**2 * mean + part * powers.error(b)

    def slope_for(target: np.ndarray) -> np.ndarray:
        """Larger root of power(b) = target, a quadratic equation; where none, the least power."""
        square, linear = (1 + part) * mean, -2 * part * powers.cross
        rest = linear**2 - 4 * square * (part * powers.truth - target)
        return (np.sqrt(np.maximum(rest, 0.0)) - linear) / (2 * square)

    best = np.clip(powers.cross / mean, *_SLOPE)
    # Hardly bolder than the raw mean: what the truth has not at all goes.
    bolder = np.maximum(best, np.minimum(slope_for(low), 1 + change))
    cheap = best - np.sqrt(_COST * powers.error(best) / mean)
    damped = np.clip(np.maximum(slope_for(high), cheap), 0.0, best)
    b = np.where(power(best) < low, bolder, np.where(power(best) > high, damped, best))
    # Where the truth has far more power than is allowed, mean and members grow alike at most.
    b = np.where(power(b) > (1 + 1e-9) * high, np.minimum(b, np.sqrt(1 + change)), b)
    least, most = ((end - b**2 * mean) / share for end in (low, high))
    least = np.where(powers.truth > _NOISE * raw, least, 0.0)
    spread = np.clip(widening**2 * powers.error(b), np.maximum(least, 0.0), np.maximum(most, 0.0))
    return b, np.sqrt(spread / powers.variance).clip(*_STRETCH)


def widening_for(growth: np.ndarray, powers: Powers, change: float, leak: np.ndarray) -> np.ndarray:
    """The widening that makes the variance of all degrees grow to `growth`^2 of itself,
    (lead_time, 1): degrees that must not change leave it to the others.

    Parameters
    ----------
    growth : numpy.ndarray
        (lead_time, 1)
    powers, change, leak
        As in `factors`.
    """

    def variance(widening: np.ndarray | float) -> np.ndarray:
        _, t = factors(powers, change, widening, leak)
        return (leak * t**2 * powers.variance).sum(axis=1, keepdims=True)

    wanted = growth**2 * (leak * factors(powers, change)[1] ** 2 * powers.variance).sum(
        axis=1, keepdims=True
    )
    low, high = (np.full_like(wanted, end) for end in _WIDENING)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        short = variance(middle) < wanted
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return high
