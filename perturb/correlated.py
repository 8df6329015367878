"""Isotropic noise on the analysis: the perturbation that knows nothing of the flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch

from data.grid import Grid
from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from data.state import State
from perturb.member import Member
from perturb.norm import check_amplitudes
from perturb.perturbation import Perturbation, once_per_draw


@dataclass(frozen=True)
class CorrelatedNoise(Perturbation):
    """Gaussian noise of a given standard deviation and correlation length, equal everywhere.

    Channels are independent of one another, and draw at ``member.draws_at(key) / channel``.

    Parameters
    ----------
    amplitudes : mapping from str to float
        Standard deviation by channel, units of the channel; channels without one stay as they
        are.
    correlation_length_km : float
        Length L of the correlation exp(-d^2 / 2 L^2).
    """

    amplitudes: Mapping[str, float]
    correlation_length_km: float = 500.0

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """Amplitude times noise, by channel; see `Perturbation.increments`.

        Raises
        ------
        ConfigurationError
            If a channel with an amplitude is not in the state, or an amplitude is negative.
        """
        check_amplitudes(self.amplitudes, state.channels, "correlated noise")
        noise = self._noise_on(state.grid)

        def draw(distinct: Sequence[Member]) -> torch.Tensor:
            dx = torch.zeros(len(distinct), *state.fields.shape[1:])
            for row, member in enumerate(distinct):
                for name, amplitude in self.amplitudes.items():
                    field = noise.draw(member.draws_at(key) / name)[0]
                    dx[row, state.channels.index(name)] = amplitude * field
            return dx.to(state.fields.device)

        return once_per_draw(members, draw)

    @cached_property
    def _noise_on(self) -> Callable[[Grid], IsotropicNoise]:
        """Noise of unit variance on a grid; the last grid's tables are kept."""
        spectrum = GaussianCorrelation(self.correlation_length_km)
        return lru_cache(maxsize=1)(partial(IsotropicNoise, spectrum=spectrum))
