"""The spherical harmonic transform pair of a grid, and angular power spectra."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from data.errors import InputError
from data.grid import Grid
from data.legendre import legendre_functions


def largest_truncation(grid: Grid) -> int:
    """The largest degree that the grid resolves in both directions.

    Below the Nyquist wavenumber of the longitudes, and below the number of latitudes (one less
    with poles, where all orders but zero vanish).
    """
    rows = grid.latitudes - (2 if grid.kind == "equiangular" else 1)
    return min(rows, (grid.longitudes - 1) // 2)


class Sphere(nn.Module):
    """Fields on a grid and their coefficients in orthonormal spherical harmonics.

    A field is ``f = sum_l [a_l0 Y_l0 + 2 Re sum_(m>0) a_lm Y_lm]`` over degrees l up to the
    truncation (triangular), with ``integral |Y_lm|^2 over the sphere = 1`` and the
    Condon-Shortley phase. Analysis is the area-weighted least-squares fit: on a Legendre-Gauss
    grid it is Gauss quadrature, and on every grid it returns the coefficients of a field that is
    resolved by the truncation. Everything runs in float32, whatever autocast says, and is
    differentiable.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    truncation : int, optional
        Highest degree l kept; by default the largest that the grid resolves.

    Raises
    ------
    InputError
        If the grid does not resolve the truncation.

    References
    ----------
    N. Sneeuw (1994), doi:10.1111/j.1365-246X.1994.tb03995.x, for the least-squares analysis.
    """

    def __init__(self, grid: Grid, truncation: int | None = None) -> None:
        super().__init__()
        limit = largest_truncation(grid)
        truncation = limit if truncation is None else int(truncation)
        if not 0 <= truncation <= limit:
            raise InputError(f"grid {grid} resolves truncations 0 to {limit}, not {truncation}")
        self.grid = grid
        self.truncation = truncation
        legendre = _legendre(grid, truncation)
        self.register_buffer("_synthesis", legendre.mT.contiguous().float(), persistent=False)
        self.register_buffer("_analysis", _fit(legendre, grid).float(), persistent=False)
        orders = torch.full((truncation + 1,), 2.0)
        orders[0] = 1.0
        self.register_buffer("_multiplicity", orders / (4 * np.pi), persistent=False)

    def analyse(self, fields: torch.Tensor) -> torch.Tensor:
        """Coefficients, (..., l, m), complex64, of fields, (..., latitude, longitude)."""
        with torch.autocast(fields.device.type, enabled=False):
            waves = torch.fft.rfft(fields.float(), dim=-1, norm="forward")
            waves = waves[..., : self.truncation + 1].transpose(-1, -2)
            return _contract("...mk,mlk->...lm", waves, self._analysis)

    def synthesise(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Fields, (..., latitude, longitude), float32, of coefficients, (..., l, m), complex.

        Entries with m > l and the imaginary parts at m = 0 are ignored.
        """
        with torch.autocast(coefficients.device.type, enabled=False):
            orders = coefficients.to(torch.complex64).transpose(-1, -2)
            waves = _contract("...ml,mkl->...km", orders, self._synthesis)
            return torch.fft.irfft(waves, n=self.grid.longitudes, dim=-1, norm="forward")

    def truncate(self, fields: torch.Tensor) -> torch.Tensor:
        """The fields, (..., latitude, longitude), without what lies beyond the truncation."""
        return self.synthesise(self.analyse(fields))

    def power(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Angular power spectrum, (..., l): its sum over l is the area mean of the square.

        ``(1 / 4 pi) sum_m (2 - delta_m0) |a_lm|^2``, in the squared unit of the fields.
        """
        return self.cross_power(coefficients, coefficients)

    def cross_power(self, coefficients: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Angular cross spectrum, (..., l): its sum over l is the area mean of the product."""
        products = coefficients.real * others.real + coefficients.imag * others.imag
        return products @ self._multiplicity

    def extra_repr(self) -> str:
        """What `repr` shows between the brackets."""
        return f"{self.grid}, truncation={self.truncation}"


def _contract(equation: str, values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The contraction of complex values with a real table."""
    real = torch.einsum(equation, values.real.contiguous(), table)
    imaginary = torch.einsum(equation, values.imag.contiguous(), table)
    return torch.complex(real.contiguous(), imaginary.contiguous())


def _legendre(grid: Grid, truncation: int) -> torch.Tensor:
    """Orthonormal associated Legendre functions, (m, l, latitude), float64."""
    sine = torch.from_numpy(np.sin(np.deg2rad(grid.latitude)))
    return legendre_functions(truncation + 1, sine)


def _fit(legendre: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The least-squares analysis of Fourier coefficients, (m, l, latitude), float64."""
    weights = torch.from_numpy(4 * np.pi * grid.latitude_weights)
    weighted = legendre * weights
    gram = weighted @ legendre.mT
    count = gram.shape[-1]
    unused = torch.ones(count, count).triu(1).T  # (m, l): degrees below their order
    return torch.linalg.solve(gram + torch.diag_embed(unused.to(gram)), weighted)
