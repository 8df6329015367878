"""The dry primitive equations as a forecaster: the perfect-model physical reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from data.grid import Grid
from data.key import Key
from data.state import State
from forecast.held_suarez import (
    MOUNTAINS,
    OUTPUT_CHANNELS,
    OUTPUT_GRID,
    T42,
    Mountain,
    Resolution,
)

if TYPE_CHECKING:
    from forecast.spectral_core import SpectralCore


@lru_cache
def spectral_core(
    resolution: Resolution = T42, mountains: tuple[Mountain, ...] = MOUNTAINS
) -> SpectralCore:
    """The solver, built once per process.

    Raises
    ------
    MissingExtraError
        If the extra ``physics`` is not installed.
    """
    from forecast.spectral_core import SpectralCore

    return SpectralCore(resolution, mountains)


@dataclass(frozen=True)
class PrimitiveEquations:
    """Steps the core's own fields (sigma layers, Gaussian grid) 6 h further; deterministic.

    Every step goes from fields to coefficients and back, which costs rounding only as long as the
    fields are resolved: those of a nature run, or their differences scaled and added.

    Parameters
    ----------
    resolution : Resolution
    mountains : tuple of Mountain

    Raises
    ------
    MissingExtraError
        At the first step, if the extra ``physics`` is not installed.
    """

    resolution: Resolution = T42
    mountains: tuple[Mountain, ...] = MOUNTAINS

    @property
    def timestep(self) -> np.timedelta64:
        """Six hours."""
        return np.timedelta64(6, "h")

    @property
    def channels(self) -> tuple[str, ...]:
        """u_sigma1 ..., v_sigma1 ..., t_sigma1 ... from the top down, sp."""
        return self.resolution.channels

    @property
    def grid(self) -> Grid:
        """The Gaussian grid of the truncation: 64 x 128 at T42."""
        return self.resolution.grid

    @property
    def core(self) -> SpectralCore:
        """The solver on plain arrays."""
        return spectral_core(self.resolution, self.mountains)

    def step(self, state: State, key: Key) -> State:
        """The state one timestep later; `key` is not used."""
        later = self.core.native(self.core.advance(self._coefficients(state), hours=6))
        return state.next(torch.from_numpy(later.copy()), self.timestep)

    def pressure_levels(self, state: State) -> State:
        """The state on pressure levels, truncated to T21: what a nature run's store holds."""
        fields = self.core.pressure_levels(self._coefficients(state))
        tensor = torch.from_numpy(fields.copy())
        return replace(state, fields=tensor, channels=OUTPUT_CHANNELS, grid=OUTPUT_GRID)

    def _coefficients(self, state: State) -> np.ndarray:
        return self.core.coefficients(state.select(self.channels).fields.numpy())
