"""The problem of Held and Suarez (1994) as it is solved here: numbers and names, no solver.

A dry ideal gas on a rotating sphere with two mountains, relaxed towards a prescribed temperature
and slowed near the ground (doi:10.1175/1520-0477(1994)075<1825:APFTIO>2.0.CO;2):

    dv/dt = ... - k_v(sigma) v,    dT/dt = ... - k_T(lat, sigma) (T - T_eq(lat, p))
    T_eq = max(200 K, (315 K - 60 K sin2(lat) - 10 K log(p / p0) cos2(lat)) (p / p0)^kappa)
    k_T = k_a + (k_s - k_a) b cos4(lat),    k_v = k_f b,    b = max(0, (sigma - 0.7) / 0.3)

with k_f = 1/day, k_a = 1/(40 days), k_s = 1/(4 days), p0 = 1000 hPa, kappa = 2/7. There are no
seasons, no day and night, and no moisture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data.grid import Grid


@dataclass(frozen=True)
class Mountain:
    """A Gaussian mountain: ``height * exp(-(dlon / width)**2 - (dlat / depth)**2)``.

    Parameters
    ----------
    height : float
        Height of its top, m.
    longitude, latitude : float
        Place of its top, degrees.
    width, depth : float
        Distance at which the height has fallen to 1/e, in longitude and in latitude, degrees. A
        mountain of 10 degrees is resolved at T42 (1e-6 of it is cut off) and nearly so at T21.
    """

    height: float
    longitude: float
    latitude: float
    width: float = 15.0
    depth: float = 10.0

    def __call__(self, longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
        """Height at these longitudes and latitudes (degrees), m."""
        east = (longitude - self.longitude + 180.0) % 360.0 - 180.0
        north = latitude - self.latitude
        return self.height * np.exp(-((east / self.width) ** 2) - (north / self.depth) ** 2)


MOUNTAINS = (Mountain(3500.0, 90.0, 35.0), Mountain(2000.0, 250.0, 45.0))


@dataclass(frozen=True)
class Forcing:
    """Time scales of friction and heating, days; infinite ones turn them off.

    Parameters
    ----------
    friction_days : float
        1 / k_f: friction at the ground.
    aloft_days : float
        1 / k_a: relaxation of temperature in the free atmosphere.
    ground_days : float
        1 / k_s: the same at the ground at the equator.
    """

    friction_days: float = 1.0
    aloft_days: float = 40.0
    ground_days: float = 4.0


HELD_SUAREZ = Forcing()
UNFORCED = Forcing(math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Resolution:
    """How finely, and with how much diffusion, the equations are solved.

    Parameters
    ----------
    truncation : int
        Triangular truncation; the transform grid is the quadratic Gaussian one.
    layers : int
        Sigma layers of equal thickness.
    minutes : int
        Time step.
    diffusion_hours : float
        Time in which the shortest waves are damped to 1/e by horizontal diffusion.
    diffusion_order : int
        Power of the Laplacian in it.
    """

    truncation: int = 42
    layers: int = 8
    minutes: int = 30
    diffusion_hours: float = 6.0
    diffusion_order: int = 3

    @property
    def grid(self) -> Grid:
        """The Gaussian grid on which quadratic terms are free of aliasing."""
        latitudes = {21: 32, 31: 48, 42: 64, 85: 128}[self.truncation]
        return Grid("legendre-gauss", latitudes, 2 * latitudes)

    @property
    def channels(self) -> tuple[str, ...]:
        """The core's own fields: u_sigma1 ..., v_sigma1 ..., t_sigma1 ... from the top down, sp."""
        layers = range(1, self.layers + 1)
        return (*(f"{letter}_sigma{layer}" for letter in "uvt" for layer in layers), "sp")


T42 = Resolution()
T21 = Resolution(truncation=21, minutes=60, diffusion_hours=12.0)

OUTPUT_TRUNCATION = 21
OUTPUT_GRID = T21.grid
OUTPUT_CHANNELS = (
    "u250", "v250", "t250", "u500", "v500", "t500", "z500", "u850", "v850", "t850", "sp",
)  # fmt: skip
