"""Columns of sigma layers, read at pressures: what lies between, above and below the layers.

Imported by the spectral core alone (JAX).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

LAPSE_RATE = 0.0065  # K m-1, below the lowermost layer


@dataclass(frozen=True)
class SigmaColumn:
    """Interpolates fields of one member from sigma layers to a pressure.

    Winds and temperature are linear in the logarithm of pressure between layer centres, and
    geopotential is the hydrostatic integral of that temperature, which at the centres is the
    core's own geopotential. Above the uppermost centre all is constant. Below the lowermost, and
    so below ground, winds are constant, temperature falls by 6.5 K per km of height, and
    geopotential follows it.

    Parameters
    ----------
    centers : numpy.ndarray
        (layer,), sigma of the layers' centres, from the top down.
    pressure : jax.Array
        (longitude, latitude), at the ground, Pa.
    ground : jax.Array
        (longitude, latitude), geopotential of the ground, m2 s-2.
    gas, gravity : float
        Gas constant of the air, J kg-1 K-1; acceleration of gravity, m s-2.
    """

    centers: np.ndarray
    pressure: jax.Array
    ground: jax.Array
    gas: float
    gravity: float

    def wind(self, layers: jax.Array, pressure: float) -> jax.Array:
        """A wind component (layer, longitude, latitude) at this pressure (Pa)."""
        return layers[0] + jnp.sum(jnp.diff(layers, axis=0) * self._share_above(pressure), axis=0)

    def temperature(self, layers: jax.Array, pressure: float) -> jax.Array:
        """Temperature at this pressure (Pa), (longitude, latitude), K."""
        return self.wind(layers, pressure) * jnp.exp(self._exponent * self._below(pressure))

    def geopotential(self, layers: jax.Array, pressure: float) -> jax.Array:
        """Geopotential at this pressure (Pa), from the layers' temperature; m2 s-2."""
        share_below = 1.0 - self._share_above(pressure)
        mean = layers[1:] - jnp.diff(layers, axis=0) * share_below / 2
        inside = jnp.sum(mean * share_below * self._intervals, axis=0)
        above = layers[0] * jnp.maximum(self._logarithms[0] - self._logarithm(pressure), 0.0)
        below = layers[-1] * jnp.expm1(self._exponent * self._below(pressure)) / self._exponent
        lowermost = self.ground - self.gas * layers[-1] * self._logarithms[-1]
        return lowermost + self.gas * (inside + above - below)

    @property
    def _exponent(self) -> float:
        return self.gas * LAPSE_RATE / self.gravity

    @property
    def _logarithms(self) -> np.ndarray:
        return np.log(self.centers)

    @property
    def _intervals(self) -> np.ndarray:
        return np.diff(self._logarithms)[:, None, None]

    def _logarithm(self, pressure: float) -> jax.Array:
        """log(sigma) of this pressure, (longitude, latitude)."""
        return jnp.log(pressure / self.pressure)

    def _share_above(self, pressure: float) -> jax.Array:
        """Share of every interval between centres that lies above this pressure."""
        upper = self._logarithms[:-1, None, None]
        return jnp.clip((self._logarithm(pressure) - upper) / self._intervals, 0.0, 1.0)

    def _below(self, pressure: float) -> jax.Array:
        """How far, in log(pressure), this pressure lies below the lowermost centre; 0 if above."""
        return jnp.maximum(self._logarithm(pressure) - self._logarithms[-1], 0.0)
