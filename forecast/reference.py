"""Forecasters that any other must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.climatology import Climatology
from data.grid import Grid
from data.key import Key
from data.state import State


@dataclass(frozen=True)
class Persistence:
    """What is now will be.

    Attributes
    ----------
    channels : tuple of str
    grid : Grid
    timestep : numpy.timedelta64
    """

    channels: tuple[str, ...]
    grid: Grid
    timestep: np.timedelta64

    def step(self, state: State, key: Key) -> State:
        """The same fields one timestep later."""
        return state.next(state.fields.clone(), self.timestep)


@dataclass(frozen=True)
class ClimatologyForecaster:
    """The climatological mean at the time it is for, whatever the state.

    Attributes
    ----------
    climatology : Climatology
    channels : tuple of str
    timestep : numpy.timedelta64
    """

    climatology: Climatology
    channels: tuple[str, ...]
    timestep: np.timedelta64

    @property
    def grid(self) -> Grid:
        """The climatology's grid."""
        return self.climatology.grid

    def step(self, state: State, key: Key) -> State:
        """The mean state of the climate one timestep later, the same for every member."""
        later = state.valid_time + self.timestep
        mean = self.climatology.mean(later, self.channels).fields
        return state.next(mean.expand(state.fields.shape).clone(), self.timestep)
