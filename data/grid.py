"""Global latitude-longitude grids and their quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.errors import InputError

KINDS = ("legendre-gauss", "equiangular", "equiangular-cells")
_TOLERANCE_DEGREES = 0.01


@dataclass(frozen=True)
class Grid:
    """A global grid, fixed by its kind and its two sizes.

    Latitudes run from north to south, longitudes eastward from 0.

    Parameters
    ----------
    kind : {"legendre-gauss", "equiangular", "equiangular-cells"}
        Gauss latitudes; equal spacing with both poles; equal spacing by cell centres (no poles).
    latitudes, longitudes : int
        Number of latitude circles and of points on each.
    """

    kind: str
    latitudes: int
    longitudes: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"grid kind {self.kind!r} is unknown, expected one of {KINDS}")
        if min(self.shape) < 2:
            raise InputError(f"grid of {self.latitudes} x {self.longitudes} points is none")

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return self.latitudes, self.longitudes

    @cached_property
    def latitude(self) -> np.ndarray:
        """Latitudes, (latitude,), degrees north, from north to south, float64."""
        return np.rad2deg(np.pi / 2 - self._colatitude)

    @cached_property
    def longitude(self) -> np.ndarray:
        """Longitudes, (longitude,), degrees east in [0, 360), float64."""
        return np.arange(self.longitudes) * (360.0 / self.longitudes)

    @cached_property
    def _colatitude(self) -> np.ndarray:
        n = self.latitudes
        if self.kind == "legendre-gauss":
            return np.arccos(np.polynomial.legendre.leggauss(n)[0][::-1])
        if self.kind == "equiangular":
            return np.linspace(0.0, np.pi, n)
        return (np.arange(n) + 0.5) * np.pi / n

    @cached_property
    def latitude_weights(self) -> np.ndarray:
        """Quadrature weights over latitude, (latitude,), float64, summing to 1.

        Exact for polynomials in sin(latitude) up to degree 2n-1 (Gauss), n-1 otherwise
        (Clenshaw-Curtis with the poles, Fejer's first rule without; Waldvogel, 2006,
        doi:10.1007/s10543-006-0045-4).
        """
        if self.kind == "legendre-gauss":
            return np.polynomial.legendre.leggauss(self.latitudes)[1][::-1] / 2
        n, theta = self.latitudes, self._colatitude
        degrees = np.arange(0, n, 2)
        # Interpolate in cosines of the colatitude and integrate each: int T_k = 2 / (1 - k^2).
        integrals = 2.0 / (1.0 - degrees.astype(float) ** 2)
        cosines = np.cos(np.outer(degrees, theta))
        if self.kind == "equiangular":
            ends = np.where((np.arange(n) == 0) | (np.arange(n) == n - 1), 0.5, 1.0)
            norms = np.where((degrees == 0) | (degrees == n - 1), 1.0, 2.0) / (n - 1)
            weights = ends * ((integrals * norms) @ cosines)
        else:
            norms = np.where(degrees == 0, 1.0, 2.0) / n
            weights = (integrals * norms) @ cosines
        return weights / 2

    @cached_property
    def area_weights(self) -> np.ndarray:
        """Quadrature weights, (latitude, longitude), float64, summing to 1 over the globe."""
        rows = self.latitude_weights[:, None] / self.longitudes
        return np.broadcast_to(rows, self.shape).copy()

    @classmethod
    def from_coordinates(cls, latitude: np.ndarray, longitude: np.ndarray, where: str) -> Grid:
        """The grid with these coordinates (north to south, eastward from 0).

        Parameters
        ----------
        latitude, longitude : numpy.ndarray
            1-D coordinates in degrees.
        where : str
            What to name in the error, usually the file.

        Raises
        ------
        InputError
            If no known grid has these coordinates within 0.01 degree.
        """
        latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
        if latitude.ndim != 1 or longitude.ndim != 1:
            raise InputError(f"{where}: latitude and longitude must be 1-D coordinates")
        for kind in KINDS if min(latitude.size, longitude.size) > 1 else ():
            grid = cls(kind, latitude.size, longitude.size)
            if _near(grid.latitude, latitude) and _near(grid.longitude, longitude):
                return grid
        raise InputError(
            f"{where}: latitudes {_span(latitude)} and longitudes {_span(longitude)} are no global "
            "Legendre-Gauss or equiangular grid from north to south and eastward from 0"
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.latitudes} x {self.longitudes}"


def _near(expected: np.ndarray, found: np.ndarray) -> bool:
    return bool(np.all(np.abs(expected - found) < _TOLERANCE_DEGREES))


def _span(values: np.ndarray) -> str:
    ends = f"{values[0]:g} to {values[-1]:g}" if values.size else "none"
    return f"({values.size}: {ends})"
