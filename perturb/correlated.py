"""Isotropic noise on the analysis: the perturbation that knows nothing of the flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from data.state import State
from perturb.member import Member
from perturb.norm import check_amplitude
from perturb.perturbation import Perturbation, once_per_draw


@dataclass(frozen=True, eq=False)
class CorrelatedNoise(Perturbation):
    """Gaussian noise of a given standard deviation and correlation length, equal everywhere.

    Channels are independent of one another, and draw at ``member.draws_at(key) / channel``.

    Parameters
    ----------
    amplitude : numpy.ndarray
        (channel,), standard deviation in units of the channel, in the order of the analysis's
        channels; zero leaves a channel alone.
    correlation_length_km : float
        Length L of the correlation exp(-d^2 / 2 L^2).
    """

    amplitude: np.ndarray
    correlation_length_km: float = 500.0

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """Amplitude times noise, by channel; see `Perturbation.increments`.

        Raises
        ------
        ConfigurationError
            If the amplitudes do not fit the state's channels.
        """
        check_amplitude(self.amplitude, state.channels, "correlated noise")
        noise = IsotropicNoise(state.grid, GaussianCorrelation(self.correlation_length_km))
        parts = list(enumerate(zip(state.channels, self.amplitude, strict=True)))

        def draw(distinct: Sequence[Member]) -> torch.Tensor:
            dx = torch.zeros(len(distinct), *state.fields.shape[1:])
            for row, member in enumerate(distinct):
                for place, (name, amplitude) in parts:
                    if amplitude > 0:
                        field = noise.draw(member.draws_at(key) / name)[0]
                        dx[row, place] = float(amplitude) * field
            return dx.to(state.fields.device)

        return once_per_draw(members, draw)
