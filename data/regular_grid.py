"""Regular latitude-longitude grids that need not be global, and the area of their cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.errors import InputError

_TOLERANCE_DEGREES = 0.01
_OF_SPACING = 0.01  # by how much coordinates of the same cells may differ


def same_coordinates(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two files name the same places along a dimension, to 1 % of their spacing."""
    if one.size != two.size:
        return False
    spacing = abs(float(one[-1] - one[0])) / max(1, one.size - 1)
    return np.allclose(one, two, rtol=0, atol=_OF_SPACING * spacing)


@dataclass(frozen=True, eq=False)
class RegularGrid:
    """Circles of latitude with the same evenly spaced longitudes on each, in the order of a file.

    Parameters
    ----------
    latitude : numpy.ndarray
        (latitude,), degrees north, ascending or descending.
    longitude : numpy.ndarray
        (longitude,), degrees east.
    where : str
        What to name in errors, usually the file.

    Raises
    ------
    InputError
        If latitudes are not in order, or beyond a pole.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    where: str

    def __post_init__(self) -> None:
        steps = np.diff(self.latitude)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise InputError(f"{self.where}: latitudes are neither ascending nor descending")
        if not (np.abs(self.latitude) <= 90 + _TOLERANCE_DEGREES).all():
            raise InputError(
                f"{self.where}: latitudes reach from {self.latitude.min():g} to "
                f"{self.latitude.max():g}, expected degrees within -90 to 90"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return self.latitude.size, self.longitude.size

    @cached_property
    def latitude_bounds(self) -> np.ndarray:
        """(latitude + 1,), degrees north: half way between latitudes, the ends half a step beyond
        the last ones, but never beyond a pole."""
        between = (self.latitude[1:] + self.latitude[:-1]) / 2
        if not between.size:
            return np.clip(self.latitude[0] + np.array([-0.5, 0.5]), -90.0, 90.0)
        first, last = 2 * self.latitude[[0, -1]] - between[[0, -1]]
        return np.clip(np.concatenate([[first], between, [last]]), -90.0, 90.0)

    @cached_property
    def area_weights(self) -> np.ndarray:
        """Areas of the cells, (latitude, longitude), float64, summing to 1."""
        rows = np.abs(np.diff(np.sin(np.deg2rad(self.latitude_bounds))))
        rows /= rows.sum() * self.longitude.size
        return np.broadcast_to(rows[:, None], self.shape).copy()

    @property
    def is_global(self) -> bool:
        """Whether its cells go all the way round and leave out no more than a circle at a pole."""
        bounds = self.latitude_bounds
        caps = 90 - np.abs(bounds[[0, -1]])
        ends = np.abs(np.diff(bounds))[[0, -1]]
        return self._goes_round and bool((caps <= ends).all() and bounds[0] * bounds[-1] < 0)

    @property
    def _goes_round(self) -> bool:
        """Whether no gap between longitudes is wider than the others."""
        east = np.sort(self.longitude % 360)
        gaps = np.diff(east, append=east[:1] + 360)
        return bool(gaps.max() < 1.5 * gaps.min())

    def __str__(self) -> str:
        rows, columns = self.shape
        return (
            f"{rows} x {columns}, latitudes {self.latitude[0]:g} to {self.latitude[-1]:g}, "
            f"longitudes {self.longitude[0]:g} to {self.longitude[-1]:g}"
        )
