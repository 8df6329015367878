"""Isotropic Gaussian random fields on the sphere, still or evolving in time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from data.errors import InputError
from data.grid import Grid
from data.key import Key
from data.sphere import Sphere, largest_truncation

EARTH_RADIUS_KM = 6371.0


class Spectrum(Protocol):
    """How the variance of an isotropic field is spread over degrees."""

    def variance(self, degrees: np.ndarray) -> np.ndarray:
        """Variance of one coefficient of each degree, (l,), up to a common factor."""
        ...


@dataclass(frozen=True)
class GaussianCorrelation:
    """Correlation ``exp(-d^2 / 2 L^2)`` at distance d: the spectrum of diffusion on the sphere.

    ``s_l^2 = exp(-kT l (l + 1))`` with ``kT = (L / R)^2 / 2``.

    Parameters
    ----------
    length_km : float
        Correlation length L, km.

    References
    ----------
    A. Weaver and P. Courtier (2001), doi:10.1002/qj.49712757518.
    """

    length_km: float

    def variance(self, degrees: np.ndarray) -> np.ndarray:
        """Variance of one coefficient of each degree, (l,), up to a common factor."""
        diffusion = (self.length_km / EARTH_RADIUS_KM) ** 2 / 2
        lowest = degrees * (degrees + 1.0) - degrees.min() * (degrees.min() + 1.0)
        return np.exp(-diffusion * lowest)


@dataclass(frozen=True)
class White:
    """Equal power in every degree, split evenly over its 2 l + 1 orders."""

    def variance(self, degrees: np.ndarray) -> np.ndarray:
        """Variance of one coefficient of each degree, (l,), up to a common factor."""
        return 1.0 / (2.0 * degrees + 1.0)


@dataclass(frozen=True)
class Matern:
    """The Matern spectrum ``s_l^2 = (l (l + 1) + tau^2)^-alpha``.

    Parameters
    ----------
    tau : float
        Degree below which the spectrum is flat: about R / correlation length.
    alpha : float
        Slope: above 1 the variance converges, above 2 the field is differentiable.

    References
    ----------
    F. Lindgren, H. Rue and J. Lindstrom (2011), doi:10.1111/j.1467-9868.2011.00777.x.
    """

    tau: float
    alpha: float

    def variance(self, degrees: np.ndarray) -> np.ndarray:
        """Variance of one coefficient of each degree, (l,), up to a common factor."""
        return (degrees * (degrees + 1.0) + self.tau**2) ** -self.alpha


@dataclass(frozen=True)
class IsotropicNoise:
    """Gaussian fields of zero mean and unit variance at every point, without a global mean.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    spectrum : Spectrum
        How variance is spread over degrees 1 and up.
    truncation : int, optional
        Highest degree; by default the largest that the grid resolves.

    Raises
    ------
    InputError
        If the grid does not resolve the truncation, or it holds no degree above 0.
    """

    grid: Grid
    spectrum: Spectrum
    truncation: int | None = None

    def __post_init__(self) -> None:
        if self.sphere.truncation < 1:
            raise InputError(f"noise on {self.grid} needs a truncation of at least 1")

    @cached_property
    def sphere(self) -> Sphere:
        """The transform pair of the fields."""
        limit = largest_truncation(self.grid)
        return Sphere(self.grid, limit if self.truncation is None else self.truncation)

    @cached_property
    def _amplitudes(self) -> torch.Tensor:
        """Standard deviations of the real and imaginary parts, (l, m, 2), float32.

        An order m > 0 shares its variance between two parts; m = 0 has the real part only.
        """
        degrees = np.arange(1, self.sphere.truncation + 1)
        variance = self.spectrum.variance(degrees)
        variance = variance / (variance * (2 * degrees + 1)).sum() * 4 * np.pi
        rows = torch.from_numpy(np.sqrt(np.concatenate([[0.0], variance]) / 2))
        parts = rows[:, None, None].repeat(1, len(rows), 2)
        parts[:, 0] *= torch.tensor([2**0.5, 0.0])
        return (parts * torch.ones(parts.shape[:2]).tril()[..., None]).float()

    def coefficients(self, key: Key, count: int = 1) -> torch.Tensor:
        """Independent draws of spherical harmonic coefficients, (count, l, m), complex64."""
        draws = torch.from_numpy(key.normal((count, *self._amplitudes.shape)))
        return torch.view_as_complex(draws * self._amplitudes)

    def draw(self, key: Key, count: int = 1) -> torch.Tensor:
        """Independent fields, (count, latitude, longitude), float32, unit variance.

        The first n of them do not depend on `count`.
        """
        return self.sphere.synthesise(self.coefficients(key, count))


@dataclass(frozen=True)
class EvolvingNoise:
    """Isotropic noise that remembers itself over time: a first-order autoregression.

    The state is a tensor of coefficients, (field, l, m), complex64, that the caller keeps. It
    starts from the stationary distribution, and every field evolves on its own: time is the
    only axis that the autoregression runs along. ``a(t + dt) = phi a(t) + sqrt(1 - phi^2) xi``
    with ``phi = exp(-dt / tau)`` and xi a fresh draw.

    Parameters
    ----------
    noise : IsotropicNoise
        Its distribution at any time.
    correlation_time, timestep : numpy.timedelta64
        Decorrelation time tau and the step dt.
    """

    noise: IsotropicNoise
    correlation_time: np.timedelta64
    timestep: np.timedelta64

    @property
    def memory(self) -> float:
        """Correlation phi of a field with itself one step later."""
        return float(np.exp(-(self.timestep / self.correlation_time)))

    def start(self, key: Key, count: int = 1) -> torch.Tensor:
        """A state of `count` independent fields."""
        return self.noise.coefficients(key, count)

    def advance(self, state: torch.Tensor, key: Key) -> torch.Tensor:
        """The state one step later; each step needs a key of its own."""
        fresh = self.noise.coefficients(key, state.shape[0])
        return self.memory * state + (1 - self.memory**2) ** 0.5 * fresh

    def fields(self, state: torch.Tensor) -> torch.Tensor:
        """Fields of a state, (field, latitude, longitude), float32, unit variance."""
        return self.noise.sphere.synthesise(state)
