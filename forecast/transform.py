"""Spherical harmonic transforms as dense real matrices, laid out for a network on one core.

Fields are ``(longitude, latitude, ...)`` and coefficients ``(order m, part, degree l, ...)`` with
part 0 the real and part 1 the imaginary one; whatever follows (batch, channel) stays innermost, so
that a transform is one matrix product along longitude and one batched product along latitude. The
harmonics are those of torch-harmonics (orthonormal, Condon-Shortley phase); only the order of
summation differs from its FFT-based transforms.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from data.grid import Grid
from data.legendre import legendre_functions, legendre_slopes
from data.sphere import Sphere


class Analysis(nn.Module):
    """Fields on a grid to their spherical harmonic coefficients.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    degrees : int
        Number of degrees kept, l = 0 ... degrees - 1 (triangular truncation).
    """

    def __init__(self, grid: Grid, degrees: int) -> None:
        super().__init__()
        waves = np.outer(np.arange(degrees), np.deg2rad(grid.longitude))
        fourier = np.stack([np.cos(waves), -np.sin(waves)], axis=1) / grid.longitudes
        self._register("fourier", torch.from_numpy(fourier).flatten(0, 1))
        weights = analysis_weights(grid, degrees)
        self._register("legendre", weights.repeat_interleave(2, dim=0))
        self.degrees = degrees

    def _register(self, name: str, matrix: torch.Tensor) -> None:
        self.register_buffer(name, matrix.float().contiguous(), persistent=False)

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """Coefficients, (m, part, l, ...), of fields, (longitude, latitude, ...)."""
        columns = fields.shape[2:]
        waves = self.fourier @ fields.reshape(fields.shape[0], -1)
        waves = waves.view(2 * self.degrees, fields.shape[1], -1)
        return torch.bmm(self.legendre, waves).view(self.degrees, 2, self.degrees, *columns)


class Synthesis(nn.Module):
    """Coefficients to fields, and for the last channels to the two components of their gradient.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    degrees : int
        Number of degrees, l = 0 ... degrees - 1.
    """

    def __init__(self, grid: Grid, degrees: int) -> None:
        super().__init__()
        self.shape = (grid.longitudes, grid.latitudes)
        self.degrees = degrees
        waves = np.outer(np.deg2rad(grid.longitude), np.arange(degrees))
        multiplicity = np.where(np.arange(degrees) == 0, 1.0, 2.0)
        fourier = np.stack([np.cos(waves), -np.sin(waves)], axis=2) * multiplicity[None, :, None]
        self._register("fourier", torch.from_numpy(fourier).flatten(1, 2))
        colatitude = torch.from_numpy(np.deg2rad(90.0 - grid.latitude))
        scalar = legendre_functions(degrees, colatitude.cos())
        vector = legendre_slopes(degrees, colatitude)
        self._register("scalar", scalar.mT.repeat_interleave(2, dim=0))
        self._register("southward", vector[0].mT.repeat_interleave(2, dim=0))
        signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)[None, :, None, None]
        self._register("eastward", (signs * vector[1].mT[:, None]).flatten(0, 1))

    def _register(self, name: str, matrix: torch.Tensor) -> None:
        self.register_buffer(name, matrix.float().contiguous(), persistent=False)

    def forward(self, coefficients: torch.Tensor, gradients: int = 0) -> torch.Tensor:
        """Fields, (longitude, latitude, ..., channel + gradients).

        Parameters
        ----------
        coefficients : torch.Tensor
            (m, part, l, ..., channel).
        gradients : int
            So many of the last channels are replaced by the southward components of their
            gradients on the unit sphere, followed by the eastward ones.
        """
        rows = (2 * self.degrees, self.degrees, -1)
        scalars = coefficients.shape[-1] - gradients
        batch = coefficients.shape[3:-1]
        parts = [torch.bmm(self.scalar, coefficients[..., :scalars].reshape(rows))]
        if gradients:
            slopes = coefficients[..., scalars:]
            parts.append(torch.bmm(self.southward, slopes.reshape(rows)))
            parts.append(torch.bmm(self.eastward, slopes.flip(1).reshape(rows)))
        waves = parts[0]
        if gradients:
            waves = torch.cat([p.view(*p.shape[:2], *batch, -1) for p in parts], dim=-1)
        fields = self.fourier @ waves.reshape(2 * self.degrees, -1)
        return fields.view(*self.shape, *batch, -1)


def analysis_weights(grid: Grid, degrees: int) -> torch.Tensor:
    """What takes Fourier coefficients on circles of latitude to degrees, (m, l, latitude)."""
    if grid.kind == "legendre-gauss":
        sine = torch.from_numpy(np.sin(np.deg2rad(grid.latitude)))
        weights = torch.from_numpy(4 * np.pi * grid.latitude_weights)
        return legendre_functions(degrees, sine) * weights
    # Elsewhere quadrature is not exact: take the least-squares fit, read off unit impulses.
    impulses = torch.zeros(grid.latitudes, *grid.shape)
    impulses[:, :, 0] = torch.eye(grid.latitudes)
    coefficients = Sphere(grid, degrees - 1).analyse(impulses)
    return grid.longitudes * coefficients.real.permute(2, 1, 0)
