"""Neural forecasters: a network with its scales, stepping states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data.errors import CheckpointError
from data.grid import Grid
from data.key import Key
from data.state import State
from forecast.compiled import compiled
from forecast.dataset import Normalisation
from forecast.latent import LatentNoise
from forecast.sfno import SFNO


@dataclass(frozen=True)
class NeuralForecaster:
    """A network and the scales that tie it to physical units.

    Attributes
    ----------
    network : SFNO
        Takes normalised fields, gives their change in one timestep in units of `tendency_std`.
    normalisation : Normalisation
    channels : tuple of str
    grid : Grid
    timestep : numpy.timedelta64
    micro_batch : int
        Members per pass through the network. With 1, the default and on a CPU core also the
        fastest, a member's forecast is the same, bit for bit, in a batch of any size, and C steps
        the network, with its weights at the first step, where that is possible (`compiled`).
    """

    network: SFNO
    normalisation: Normalisation
    channels: tuple[str, ...]
    grid: Grid
    timestep: np.timedelta64
    micro_batch: int = 1

    def __getstate__(self) -> dict[str, object]:
        """Without the step in C, which holds addresses: a copy prepares its own."""
        return {name: value for name, value in vars(self).items() if name != "_change"}

    @property
    def device(self) -> torch.device:
        """Where the network is; states may be anywhere, and stay there."""
        return self.normalisation.mean.device

    @cached_property
    def noise(self) -> LatentNoise | None:
        """The latent noise of a stochastic network; None for a deterministic one."""
        config = self.network.config
        return LatentNoise(config) if config.latents else None

    @cached_property
    def _change(self) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]:
        """What gives the change of normalised fields, as `SFNO.forward`."""
        return (compiled(self.network) if self.micro_batch == 1 else None) or self.network

    def step(self, state: State, key: Key) -> State:
        """The state one timestep later.

        The latent noise of member n is drawn at ``key / n / "latent"``; a deterministic network
        draws nothing.

        Raises
        ------
        CheckpointError
            If the state's channels or grid are not the network's.
        """
        self._check(state)
        fields = torch.empty_like(state.fields)
        with torch.inference_mode():
            for start in range(0, len(state.numbers), self.micro_batch):
                rows = slice(start, start + self.micro_batch)
                before = state.fields[rows].contiguous().to(self.device)
                noise = self.noise and self.noise.draw(key, state.numbers[rows]).to(self.device)
                tendency = self._change(self.normalisation.normalise(before), noise)
                fields[rows] = self.normalisation.advance(before, tendency)
        return state.next(fields, self.timestep)

    def _check(self, state: State) -> None:
        for what, expected, found in (
            ("channels", self.channels, state.channels),
            ("grid", self.grid, state.grid),
        ):
            if expected != found:
                raise CheckpointError(
                    f"state at {state.valid_time}: the checkpoint expects {what} "
                    f"{_text(expected)}, found {_text(found)}"
                )


def _text(value: tuple[str, ...] | Grid) -> str:
    return str(value) if isinstance(value, Grid) else ", ".join(value)
