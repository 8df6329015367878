"""Reference forecasters: what a forecast must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.climatology import Climatology
from data.grid import Grid
from data.key import Key
from data.state import State


@dataclass(frozen=True)
class Persistence:
    """Nothing changes: every member stays as it began."""

    channels: tuple[str, ...]
    grid: Grid
    timestep: np.timedelta64

    def step(self, state: State, key: Key) -> State:
        """The same fields one timestep later."""
        return state.next(state.fields, self.timestep)


@dataclass(frozen=True)
class ClimatologyForecaster:
    """The climatological mean of the time that is forecast, whatever the analysis.

    Parameters
    ----------
    climatology : Climatology
        Where the means come from.
    channels : tuple of str
        Channels to forecast.
    timestep : numpy.timedelta64
        Length of one step.
    """

    climatology: Climatology
    channels: tuple[str, ...]
    timestep: np.timedelta64

    @property
    def grid(self) -> Grid:
        """Grid of the climatology."""
        return self.climatology.grid

    def step(self, state: State, key: Key) -> State:
        """The climatological mean one timestep later, for every member."""
        mean = self.climatology.mean(state.valid_time + self.timestep, self.channels)
        fields = mean.fields.expand_as(state.fields).clone()
        return state.next(fields, self.timestep)
