"""Associated Legendre functions and their slopes, orthonormal on the sphere."""

from __future__ import annotations

import math

import torch


def legendre_functions(count: int, sine: torch.Tensor) -> torch.Tensor:
    """Latitude part of the spherical harmonics, with the Condon-Shortley phase.

    ``P_lm`` such that ``P_lm(sin(latitude)) exp(i m longitude)`` is orthonormal: the integral of
    its squared modulus over the sphere is 1.

    Parameters
    ----------
    count : int
        Degrees l and orders m from 0 to count - 1.
    sine : torch.Tensor
        (latitude,), float64, sine of the latitude.

    Returns
    -------
    torch.Tensor
        (m, l, latitude), float64; 0 where m > l.

    References
    ----------
    N. Schaeffer (2013), doi:10.1002/ggge.20071, for the recurrence.
    """
    return _with_phase(_positive(count, sine))


def legendre_slopes(count: int, colatitude: torch.Tensor) -> torch.Tensor:
    """What the gradient of a spherical harmonic is made of.

    The first is the derivative of `legendre_functions` by the colatitude, the second m times the
    function over the sine of the colatitude. Both are sums of neighbours in m and l, so that
    nothing is divided by zero at a pole.

    Parameters
    ----------
    count : int
        Degrees l and orders m from 0 to count - 1.
    colatitude : torch.Tensor
        (latitude,), float64, radians from the north pole.

    Returns
    -------
    torch.Tensor
        (southward and eastward, m, l, latitude), float64.
    """
    values = _positive(count + 1, torch.cos(colatitude))
    degree = torch.arange(count, dtype=torch.float64)
    order = degree[:, None]
    lower, upper = torch.cat([values[:1], values[:-2]]), values[1:]
    inside = ((order >= 1) & (order <= degree))[..., None] * 0.5

    def root(square: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(square.clamp(min=0.0))[..., None]

    south = root((degree + order) * (degree - order + 1)) * lower[:, :-1]
    south = south - root((degree - order) * (degree + order + 1)) * upper[:, :-1]
    southward = inside * south
    southward[0] = -root(degree * (degree + 1)) * values[1, :-1]
    east = root((degree - order + 1) * (degree - order + 2)) * lower[:, 1:]
    east = east + root((degree + order + 1) * (degree + order + 2)) * upper[:, 1:]
    eastward = inside * root((2 * degree + 1) / (2 * degree + 3)) * east
    return torch.stack([_with_phase(southward), _with_phase(eastward)])


def _positive(count: int, sine: torch.Tensor) -> torch.Tensor:
    """Legendre functions without the phase: each degree n from the two below it."""
    values = torch.zeros(count, count, len(sine), dtype=torch.float64)
    values[0, 0] = 1 / math.sqrt(4 * math.pi)
    for n in range(1, count):
        seed = values[n - 1, n - 1]
        values[n - 1, n] = math.sqrt(2 * n + 1) * sine * seed
        values[n, n] = torch.sqrt((2 * n + 1) * (1 + sine) * (1 - sine) / 2 / n) * seed
        m = torch.arange(n - 1, dtype=torch.float64)[:, None]
        of_last = torch.sqrt((2 * n - 1) / (n - m) * (2 * n + 1) / (n + m))
        ratio = (n + m - 1) / (n - m) * (2 * n + 1) / (2 * n - 3) * (n - m - 1) / (n + m)
        before = torch.sqrt(ratio) * values[: n - 1, n - 2]
        values[: n - 1, n] = of_last * sine * values[: n - 1, n - 1] - before
    return values


def _with_phase(values: torch.Tensor) -> torch.Tensor:
    """The same with the sign of odd orders turned over."""
    values[1::2] *= -1
    return values
