"""The solver of the dry primitive equations with Held-Suarez forcing, on plain arrays.

The numbers come from the `dinosaur` spectral dynamical core (JAX), which the extra ``physics``
brings; nothing else in the package imports JAX. The state of a core is one float32 array of real
spherical-harmonic coefficients, ``(member, 3 * layers + 1, order, degree)``: vorticity, divergence
and temperature variation of every layer from the top down, then the logarithm of surface pressure,
all non-dimensional. It is linear in all that: weighted sums of states are states.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property, lru_cache, partial

import numpy as np

from data.errors import MissingExtraError
from forecast.held_suarez import (
    HELD_SUAREZ,
    MOUNTAINS,
    OUTPUT_CHANNELS,
    OUTPUT_GRID,
    OUTPUT_TRUNCATION,
    T42,
    Forcing,
    Mountain,
    Resolution,
)

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how the dynamical core uses JAX is not ours to mend
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

        from forecast.sigma_column import SigmaColumn
except ImportError as error:
    raise MissingExtraError(
        "the primitive equations need the extra 'physics': "
        f"pip install 'myriadcast[physics]' ({error})"
    ) from error

UNITS = scales.units
REFERENCE_TEMPERATURE = 288.0  # K, isothermal: keeps the semi-implicit scheme stable
SEA_LEVEL_PRESSURE = 1e5  # Pa, of the atmosphere at rest


class SpectralCore:
    """Steps coefficients forward and turns them into fields; every method is a pure function.

    Parameters
    ----------
    resolution : Resolution
    mountains : tuple of Mountain
    forcing : Forcing
    """

    def __init__(
        self,
        resolution: Resolution = T42,
        mountains: tuple[Mountain, ...] = MOUNTAINS,
        forcing: Forcing = HELD_SUAREZ,
    ) -> None:
        self.resolution = resolution
        self.horizontal = _horizontal(resolution.truncation, resolution.grid.latitudes)
        self.vertical = sigma_coordinates.SigmaCoordinates.equidistant(resolution.layers)
        self.coordinates = coordinate_systems.CoordinateSystem(self.horizontal, self.vertical)
        self.constants = primitive_equations.PrimitiveEquationsSpecs.from_si()
        self._orography = self._modal_orography(mountains)
        height = self.horizontal.to_nodal(self._orography) * self.constants.g
        self._ground = height * self.scale["geopotential"]
        self._step = self._time_step(forcing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one member's coefficients."""
        return (3 * self.resolution.layers + 1, *self.horizontal.modal_shape)

    @cached_property
    def scale(self) -> dict[str, float]:
        """SI value of one non-dimensional unit of wind, temperature, geopotential and pressure.

        Pressure enters the equations by its gradient alone, so its unit is free: with sea level
        pressure as unit its logarithm is small, and float32 holds it to 0.01 Pa.
        """
        units = {"wind": "m/s", "temperature": "K", "geopotential": "m**2/s**2"}
        sizes = {name: self._to_si(1.0, unit) for name, unit in units.items()}
        return sizes | {"pressure": SEA_LEVEL_PRESSURE}

    def _to_si(self, value: float, unit: str) -> float:
        return float(self.constants.dimensionalize(value, UNITS(unit).units).magnitude)

    def _modal_orography(self, mountains: tuple[Mountain, ...]) -> jax.Array:
        """Height of the ground, spectral coefficients, non-dimensional."""
        longitude, sine = self.horizontal.nodal_mesh
        here = np.degrees(longitude), np.degrees(np.arcsin(sine))
        height = sum((mountain(*here) for mountain in mountains), np.zeros_like(sine))
        nodal = np.asarray(self.constants.nondimensionalize(height * UNITS.meter))
        modal = self.horizontal.to_modal(jnp.asarray(nodal, jnp.float32))
        return self.horizontal.clip_wavenumbers(modal)

    def _unpack(self, member: jax.Array) -> primitive_equations.State:
        layers = self.resolution.layers
        return primitive_equations.State(
            vorticity=member[:layers],
            divergence=member[layers : 2 * layers],
            temperature_variation=member[2 * layers : 3 * layers],
            log_surface_pressure=member[3 * layers :],
        )

    # Time

    def _time_step(self, forcing: Forcing) -> Callable[[jax.Array], jax.Array]:
        """The function that takes one member's coefficients one time step further.

        The scheme is SIL3 (Whitaker and Kar, 2013, doi:10.1175/MWR-D-13-00132.1), and a filter of
        horizontal diffusion after every step.
        """
        resolution, to_time = self.resolution, self.constants.nondimensionalize
        reference = np.full(resolution.layers, REFERENCE_TEMPERATURE / self.scale["temperature"])
        equations = primitive_equations.PrimitiveEquations(
            reference, self._orography, self.coordinates, self.constants
        )
        heating = held_suarez.HeldSuarezForcing(
            self.coordinates,
            self.constants,
            reference,
            p0=self.constants.dimensionalize(1.0, UNITS.pascal),  # its unit: see scale
            kf=1 / (forcing.friction_days * UNITS.day),
            ka=1 / (forcing.aloft_days * UNITS.day),
            ks=1 / (forcing.ground_days * UNITS.day),
        )
        dt = to_time(resolution.minutes * UNITS.minute)
        tau = to_time(resolution.diffusion_hours * UNITS.hour)
        step = time_integration.step_with_filters(
            time_integration.imex_rk_sil3(
                time_integration.compose_equations([equations, heating]), dt
            ),
            [
                time_integration.horizontal_diffusion_step_filter(
                    self.horizontal, dt=dt, tau=tau, order=resolution.diffusion_order
                )
            ],
        )
        return lambda member: _pack(step(self._unpack(member)))

    def advance(self, coefficients: np.ndarray, hours: float = 6.0) -> np.ndarray:
        """Coefficients ``(member, ...)`` this many hours later; a whole number of time steps.

        Members run one after the other. On few cores that is faster than one wide batch (a
        member's fields stay in cache), and no member depends on the others there.
        """
        steps, rest = divmod(round(hours * 60), self.resolution.minutes)
        if rest:
            raise ValueError(f"{hours} h is no multiple of {self.resolution.minutes} min")
        return _one_by_one(partial(self._advance, steps), coefficients)

    @partial(jax.jit, static_argnums=0)
    def _advance(self, steps: int, coefficients: jax.Array) -> jax.Array:
        def run(member: jax.Array) -> jax.Array:
            end = jax.lax.fori_loop(0, steps, lambda _, c: self._step(c), member)
            return self._with_mass_of(member, end)

        return jax.lax.map(run, coefficients)

    def _with_mass_of(self, before: jax.Array, after: jax.Array) -> jax.Array:
        """`after` with the mean surface pressure of `before`, by a uniform factor on pressure.

        The equations are solved for the logarithm of pressure, and that does not keep its mean.
        """
        mean = self._mean_excess(after)
        factor = jnp.log1p((self._mean_excess(before) - mean) / (1.0 + mean))
        return after.at[-1, 0, 0].add(factor * (4 * np.pi) ** 0.5)

    def _mean_excess(self, member: jax.Array) -> jax.Array:
        """Global mean surface pressure over its unit, less 1: small, so that float32 holds it."""
        excess = jnp.expm1(self.horizontal.to_nodal(member[-1:]))
        return self.horizontal.integrate(excess)[0] / (4 * np.pi)

    def rest(self, temperature_noise: np.ndarray) -> np.ndarray:
        """Coefficients of an isothermal atmosphere at rest, with noise on temperature.

        Parameters
        ----------
        temperature_noise : numpy.ndarray
            (member, layer, order, degree), spectral coefficients, K; those beyond the truncation
            are left out.
        """
        layers = self.resolution.layers
        coefficients = np.zeros((len(temperature_noise), *self.shape), np.float32)
        keep = self.horizontal.mask & (np.arange(self.shape[-1]) <= self.resolution.truncation)
        noise = np.asarray(temperature_noise) * keep / self.scale["temperature"]
        coefficients[:, 2 * layers : 3 * layers] = noise
        coefficients[:, -1] = -np.asarray(self._orography) / self._scale_height
        return coefficients

    @property
    def _scale_height(self) -> float:
        """R T / g at the reference temperature, non-dimensional."""
        temperature = REFERENCE_TEMPERATURE / self.scale["temperature"]
        return float(self.constants.R * temperature / self.constants.g)

    # Fields on the core's own grid

    def native(self, coefficients: np.ndarray) -> np.ndarray:
        """Fields on sigma layers and the core's grid.

        Returns
        -------
        numpy.ndarray
            (member, channel, latitude, longitude), float32, the channels of the resolution: winds
            (m s-1), temperature (K), surface pressure (Pa).
        """
        return _one_by_one(self._native, coefficients)

    @partial(jax.jit, static_argnums=0)
    def _native(self, coefficients: jax.Array) -> jax.Array:
        def fields(member: jax.Array) -> jax.Array:
            *layers, pressure = self._nodal(member)
            return jnp.concatenate([*layers, pressure[None]])

        return _to_rows(jax.lax.map(fields, coefficients))

    def _nodal(self, member: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """u, v, t (layer, longitude, latitude) and surface pressure (longitude, latitude), SI."""
        state, scale = self._unpack(member), self.scale
        u, v = spherical_harmonic.vor_div_to_uv_nodal(
            self.horizontal, state.vorticity, state.divergence, clip=False
        )
        variation = self.horizontal.to_nodal(state.temperature_variation) * scale["temperature"]
        pressure = jnp.exp(self.horizontal.to_nodal(state.log_surface_pressure)[0])
        return (
            u * scale["wind"],
            v * scale["wind"],
            variation + REFERENCE_TEMPERATURE,
            pressure * scale["pressure"],
        )

    def coefficients(self, native: np.ndarray) -> np.ndarray:
        """Inverse of `native`, exact for fields that the truncation resolves."""
        return _one_by_one(self._coefficients, native)

    @partial(jax.jit, static_argnums=0)
    def _coefficients(self, native: jax.Array) -> jax.Array:
        layers, scale = self.resolution.layers, self.scale

        def modal(member: jax.Array) -> jax.Array:
            wind = member[: 2 * layers] / scale["wind"]
            rotation = spherical_harmonic.uv_nodal_to_vor_div_modal(
                self.horizontal, wind[:layers], wind[layers:]
            )
            variation = (member[2 * layers : -1] - REFERENCE_TEMPERATURE) / scale["temperature"]
            log_pressure = jnp.log(member[-1:] / scale["pressure"])
            scalars = self.horizontal.to_modal(jnp.concatenate([variation, log_pressure]))
            return jnp.concatenate([*rotation, scalars])

        return jax.lax.map(modal, _to_columns(native))

    @property
    def surface_geopotential(self) -> np.ndarray:
        """Geopotential of the ground on the core's grid, (latitude, longitude), m2 s-2."""
        return np.asarray(_to_rows(self._ground))

    # Fields on pressure levels

    def pressure_levels(self, coefficients: np.ndarray) -> np.ndarray:
        """Fields on pressure levels, truncated to T21, on the output grid.

        Returns
        -------
        numpy.ndarray
            (member, 11, 32, 64), float32: the output channels; m s-1, K, m2 s-2, Pa.
        """
        return _one_by_one(self._pressure_levels, coefficients)

    @partial(jax.jit, static_argnums=0)
    def _pressure_levels(self, coefficients: jax.Array) -> jax.Array:
        return _to_rows(jax.lax.map(self._on_levels, coefficients))

    def _on_levels(self, member: jax.Array) -> jax.Array:
        u, v, t, pressure = self._nodal(member)
        column = SigmaColumn(self.vertical.centers, pressure, self._ground, *self._gas_and_gravity)
        read = {
            "u": partial(column.wind, u),
            "v": partial(column.wind, v),
            "t": partial(column.temperature, t),
            "z": partial(column.geopotential, t),
        }
        levels = [read[name[0]](100.0 * int(name[1:])) for name in OUTPUT_CHANNELS if name != "sp"]
        return self._truncated(jnp.stack([*levels, pressure]))

    @cached_property
    def _gas_and_gravity(self) -> tuple[float, float]:
        """Gas constant of the air, J kg-1 K-1, and gravity, m s-2."""
        gas = self._to_si(self.constants.R, "J/kg/K")
        return gas, self._to_si(self.constants.g, "m/s**2")

    def _truncated(self, nodal: jax.Array) -> jax.Array:
        """Fields (..., longitude, latitude) with degrees up to T21, on the output grid."""
        keep = OUTPUT_TRUNCATION
        modal = self.horizontal.to_modal(nodal)[..., : 2 * keep + 1, : keep + 1]
        padded = jnp.pad(modal, [(0, 0)] * (modal.ndim - 1) + [(0, 1)])
        return _horizontal(keep, OUTPUT_GRID.latitudes).to_nodal(padded)

    @property
    def truncated_surface_geopotential(self) -> np.ndarray:
        """Geopotential of the ground, truncated to T21, on the output grid, m2 s-2."""
        return np.asarray(_to_rows(self._truncated(self._ground)))

    def refined(self, coefficients: np.ndarray, coarse: SpectralCore) -> np.ndarray:
        """A coarser core's coefficients on this one: the waves it adds start empty.

        Surface pressure is fitted to the finer orography, hydrostatically.
        """
        order, degree = coarse.shape[1], coarse.shape[2] - 1
        refined = np.zeros((len(coefficients), *self.shape), np.float32)
        refined[..., :order, :degree] = np.asarray(coefficients)[..., :degree]
        higher = np.array(self._orography)
        higher[:order, :degree] -= np.asarray(coarse._orography)[:, :degree]
        refined[:, -1] -= higher / self._scale_height
        return refined


@lru_cache
def _horizontal(truncation: int, latitudes: int) -> spherical_harmonic.Grid:
    return spherical_harmonic.Grid.construct(truncation, latitudes // 2)


def _one_by_one(function: Callable[[jax.Array], jax.Array], members: np.ndarray) -> np.ndarray:
    """The function of each member alone, (1, ...), joined: compiled once for any number of them."""
    arrays = np.asarray(members, np.float32)
    parts = [np.asarray(function(arrays[index : index + 1])) for index in range(len(arrays))]
    return np.concatenate(parts)


def _pack(state: primitive_equations.State) -> jax.Array:
    flow = [state.vorticity, state.divergence, state.temperature_variation]
    return jnp.concatenate([*flow, state.log_surface_pressure])


def _to_rows(fields: jax.Array) -> jax.Array:
    """(..., longitude, latitude northward) to (..., latitude southward, longitude)."""
    return jnp.swapaxes(fields, -1, -2)[..., ::-1, :]


def _to_columns(fields: jax.Array) -> jax.Array:
    """Inverse of `_to_rows`."""
    return jnp.swapaxes(fields[..., ::-1, :], -1, -2)
