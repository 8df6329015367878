"""The dry primitive equations with Held-Suarez forcing, on plain arrays.

The numbers come from the `dinosaur` spectral dynamical core (JAX), which the extra ``physics`` brings;
nothing else in the package imports JAX. The state of a core is one float32 array of spectral coefficients,
``(member, 3 * layers + 1, 2 * truncation + 1, truncation + 2)``: vorticity, divergence and temperature
variation of every layer from the top down, then the logarithm of surface pressure, in the core's own
non-dimensional units. It is linear in all that, so that differences and weighted sums of states are states.

References: I. M. Held and M. J. Suarez (1994), doi:10.1175/1520-0477(1994)075<1825:APFTIO>2.0.CO;2;
J. S. Whitaker and S. K. Kar (2013), doi:10.1175/MWR-D-13-00132.1 (the time scheme).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the core's own use of JAX, not ours to mend
        import jax
        import jax.numpy as jnp
        from dinosaur import (
            coordinate_systems,
            held_suarez,
            primitive_equations,
            scales,
            sigma_coordinates,
            spherical_harmonic,
            time_integration,
        )
except ImportError as error:
    raise ImportError(
        "the primitive equations need the extra 'physics': pip install 'myriadcast[physics]'"
    ) from error

UNITS = scales.units
REFERENCE_TEMPERATURE = 288.0  # K, isothermal: keeps the semi-implicit scheme stable
SEA_LEVEL_PRESSURE = 1e5  # Pa, of the resting atmosphere
LAPSE_RATE = 0.0065  # K m-1, below the lowest layer
TRUNCATION_OF_OUTPUT = 21
OUTPUT_FIELDS = (
    ("u", 250), ("v", 250), ("t", 250),
    ("u", 500), ("v", 500), ("t", 500), ("z", 500),
    ("u", 850), ("v", 850), ("t", 850),
)  # fmt: skip


@dataclass(frozen=True)
class Mountain:
    """A Gaussian mountain: ``height * exp(-(dlon / width)**2 - (dlat / depth)**2)``.

    Parameters: height in m; longitude and latitude of its top, width (in longitude) and depth (in latitude)
    in degrees.
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
class Resolution:
    """How finely, and with how much diffusion, the equations are solved.

    Parameters: triangular truncation (the transform grid is the quadratic Gaussian one), sigma layers of equal
    thickness, time step in minutes, e-folding time in hours and order (of the Laplacian) of the horizontal
    diffusion of the shortest waves.
    """

    truncation: int = 42
    layers: int = 8
    minutes: int = 30
    diffusion_hours: float = 6.0
    diffusion_order: int = 3

    @property
    def latitudes(self) -> int:
        """Number of Gaussian latitudes without aliasing of quadratic terms."""
        return {21: 32, 31: 48, 42: 64, 85: 128}[self.truncation]


T42 = Resolution()
T21 = Resolution(truncation=21, minutes=60, diffusion_hours=12.0)


class HeldSuarezCore:
    """Steps coefficients forward and turns them into fields; pure functions of its arguments.

    Parameters
    ----------
    resolution : Resolution
    mountains : tuple of Mountain
    """

    def __init__(
        self, resolution: Resolution = T42, mountains: tuple[Mountain, ...] = MOUNTAINS
    ) -> None:
        self.resolution = resolution
        self.mountains = mountains
        self.horizontal = _horizontal(resolution.truncation, resolution.latitudes)
        self.vertical = sigma_coordinates.SigmaCoordinates.equidistant(resolution.layers)
        self.coordinates = coordinate_systems.CoordinateSystem(self.horizontal, self.vertical)
        self.constants = primitive_equations.PrimitiveEquationsSpecs.from_si()
        self._orography = self._modal_orography()

    # Units ------------------------------------------------------------------------------------------

    @cached_property
    def scale(self) -> dict[str, float]:
        """SI value of one non-dimensional unit of wind, temperature, pressure, geopotential."""
        size = {"wind": "m/s", "temperature": "K", "pressure": "Pa", "geopotential": "m**2/s**2"}
        to_si = self.constants.dimensionalize
        return {name: float(to_si(1.0, UNITS(unit).units).magnitude) for name, unit in size.items()}

    def _modal_orography(self) -> jax.Array:
        """Height of the ground, spectral coefficients, non-dimensional."""
        longitude, sine = self.horizontal.nodal_mesh
        here = np.degrees(longitude), np.degrees(np.arcsin(sine))
        height = sum((mountain(*here) for mountain in self.mountains), np.zeros_like(sine))
        nodal = np.asarray(self.constants.nondimensionalize(height * UNITS.meter))
        modal = self.horizontal.to_modal(jnp.asarray(nodal, jnp.float32))
        return self.horizontal.clip_wavenumbers(modal)

    # Packing ----------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one member's coefficients."""
        return (3 * self.resolution.layers + 1, *self.horizontal.modal_shape)

    def _unpack(self, coefficients: jax.Array) -> primitive_equations.State:
        layers = self.resolution.layers
        return primitive_equations.State(
            vorticity=coefficients[:layers],
            divergence=coefficients[layers : 2 * layers],
            temperature_variation=coefficients[2 * layers : 3 * layers],
            log_surface_pressure=coefficients[3 * layers :],
        )

    def _pack(self, state: primitive_equations.State) -> jax.Array:
        return jnp.concatenate(
            [
                state.vorticity,
                state.divergence,
                state.temperature_variation,
                state.log_surface_pressure,
            ]
        )

    # Time -------------------------------------------------------------------------------------------

    @cached_property
    def _step(self):
        """One time step of one member's coefficients."""
        reference = np.full(self.resolution.layers, REFERENCE_TEMPERATURE / self.scale["temperature"])
        equations = primitive_equations.PrimitiveEquations(
            reference, self._orography, self.coordinates, self.constants
        )
        forcing = held_suarez.HeldSuarezForcing(self.coordinates, self.constants, reference)
        both = time_integration.compose_equations([equations, forcing])
        to_time = self.constants.nondimensionalize
        dt = to_time(self.resolution.minutes * UNITS.minute)
        diffusion = time_integration.horizontal_diffusion_step_filter(
            self.horizontal,
            dt=dt,
            tau=to_time(self.resolution.diffusion_hours * UNITS.hour),
            order=self.resolution.diffusion_order,
        )
        step = time_integration.step_with_filters(
            time_integration.imex_rk_sil3(both, dt), [diffusion]
        )
        return lambda coefficients: self._pack(step(self._unpack(coefficients)))

    @partial(jax.jit, static_argnums=(0, 2))
    def _advance(self, coefficients: jax.Array, steps: int) -> jax.Array:
        step = jax.vmap(self._step)
        return jax.lax.fori_loop(0, steps, lambda _, c: step(c), coefficients)

    def advance(self, coefficients: np.ndarray, hours: float = 6.0) -> jax.Array:
        """Coefficients ``(member, ...)`` this many hours later; a whole number of time steps."""
        steps, rest = divmod(round(hours * 60), self.resolution.minutes)
        if rest:
            raise ValueError(f"{hours} h is no multiple of {self.resolution.minutes} min")
        return self._advance(jnp.asarray(coefficients, jnp.float32), steps)
