"""What every forecaster is: something that takes a state one timestep further."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from data.grid import Grid
from data.key import Key
from data.state import State


class Forecaster(Protocol):
    """Takes a state one timestep further; pure.

    Attributes
    ----------
    channels : tuple of str
        Channels of the states it takes and gives.
    grid : Grid
        Their grid.
    timestep : numpy.timedelta64
        Length of one step.
    """

    @property
    def channels(self) -> tuple[str, ...]: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def timestep(self) -> np.timedelta64: ...

    def step(self, state: State, key: Key) -> State:
        """The state one timestep later.

        A member's result depends on its own fields and on draws at ``key / number / purpose``,
        never on the other members of the batch. A deterministic forecaster ignores `key`.
        """
        ...


def rollout(forecaster: Forecaster, state: State, steps: int, key: Key) -> Iterator[State]:
    """Yield the initial state and then `steps` later ones, a timestep apart.

    Step k draws at ``key / k``; nothing is kept but the present state.
    """
    yield state
    for step in range(1, steps + 1):
        state = forecaster.step(state, key / step)
        yield state
