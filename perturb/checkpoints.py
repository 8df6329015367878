"""Several checkpoints in one ensemble: each with its perturbation, or mixed along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.errors import CheckpointError, ConfigurationError
from data.grid import Grid
from data.key import Key
from data.state import State
from forecast.forecaster import Forecaster
from perturb.member import Member, group_by_checkpoint
from perturb.perturbation import Perturbation


@dataclass(frozen=True)
class PerCheckpoint(Perturbation):
    """Perturbs each member as its own checkpoint does.

    Parameters
    ----------
    parts : mapping from int to Perturbation
        The perturbation of each checkpoint, by its index.
    """

    parts: Mapping[int, Perturbation]

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """Increments from the part of each member's checkpoint; see `Perturbation.increments`.

        Raises
        ------
        ConfigurationError
            If a checkpoint has no part.
        """
        dx = state.fields.new_empty((len(members), *state.fields.shape[1:]))
        for checkpoint, group in group_by_checkpoint(members).items():
            if checkpoint not in self.parts:
                raise ConfigurationError(f"checkpoint {checkpoint} has no perturbation of its own")
            rows = [row for row, member in enumerate(members) if member.checkpoint == checkpoint]
            dx[rows] = self.parts[checkpoint].increments(state, key, group)
        return dx


@dataclass(frozen=True)
class MixedCheckpoints:
    """A forecaster that takes each member's step with a checkpoint drawn for it.

    The draw is made at ``key / number / "checkpoint"``: uniform, new at every step, the same
    wherever the member runs.

    Parameters
    ----------
    forecasters : tuple of Forecaster
        The checkpoints, of one grid, timestep and list of channels.

    Raises
    ------
    CheckpointError
        If there is none, or they do not agree.
    """

    forecasters: tuple[Forecaster, ...]

    def __post_init__(self) -> None:
        kinds = {(one.channels, one.grid, one.timestep) for one in self.forecasters}
        if len(kinds) != 1:
            raise CheckpointError(
                f"mixed checkpoints must share channels, grid and timestep, found {len(kinds)} "
                f"different sets among {len(self.forecasters)} checkpoints"
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of the checkpoints."""
        return self.forecasters[0].channels

    @property
    def grid(self) -> Grid:
        """Grid of the checkpoints."""
        return self.forecasters[0].grid

    @property
    def timestep(self) -> np.timedelta64:
        """Timestep of the checkpoints."""
        return self.forecasters[0].timestep

    def step(self, state: State, key: Key) -> State:
        """The state one timestep later, every member by the checkpoint drawn for it."""
        drawn = np.array([self.choice(key, number) for number in state.numbers])
        fields = torch.empty_like(state.fields)
        for index in np.unique(drawn):
            rows = np.flatnonzero(drawn == index).tolist()
            numbers = tuple(state.numbers[row] for row in rows)
            part = state.with_members(state.fields[rows], numbers)
            fields[rows] = self.forecasters[index].step(part, key).fields
        return state.next(fields, self.timestep)

    def choice(self, key: Key, number: int) -> int:
        """Index of the checkpoint that takes the step drawn at `key` for this member."""
        generator = (key / number / "checkpoint").generator()
        return int(generator.integers(len(self.forecasters)))
