"""Bred vectors: what a forecaster makes of random noise, the growing errors of the day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data.errors import ConfigurationError, RunError
from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from data.state import State
from forecast.forecaster import Forecaster
from perturb.analyses import Analyses
from perturb.member import Member
from perturb.norm import check_amplitudes, rescaled
from perturb.perturbation import Perturbation, once_per_draw


@dataclass(frozen=True, eq=False)
class BredVectors(Perturbation):
    """Differences between forecasts, scaled back and forecast again from earlier analyses.

    A draw starts as isotropic noise on one channel, n timesteps before the init time. Each cycle
    forecasts the analysis with and without it one timestep further and sets the norm of the
    difference, by channel and hemisphere, back to the amplitude (`perturb.norm.rescaled`). The
    last cycle ends at the init time. Every checkpoint breeds its own.

    Both forecasts of a cycle draw whatever noise the forecaster uses at the address of number 0,
    so that under a stochastic forecaster, too, they differ through the perturbation alone.

    Parameters
    ----------
    forecaster : Forecaster
        What breeds; its channels and grid are those of the analyses.
    analyses : Analyses
        Gives the analyses before the init time.
    amplitude : numpy.ndarray
        (channel,), units of the channel, in the order of ``forecaster.channels``. In the paper
        0.35 times the root mean square error of the 48 h forecast.
    cycles : int
        Number of cycles n.
    seed_channel : str
        Channel that the noise is put on.
    correlation_length_km : float
        Correlation length of the noise.

    Raises
    ------
    ConfigurationError
        If there is no cycle, the seed channel is not among the forecaster's, or the amplitudes do
        not fit its channels.

    References
    ----------
    A. Mahesh et al. (2025), Geosci. Model Dev. 18, 5575-5603, doi:10.5194/gmd-18-5575-2025;
    Z. Toth and E. Kalnay (1993), doi:10.1175/1520-0477(1993)074<2317:EFANTG>2.0.CO;2.
    """

    forecaster: Forecaster
    analyses: Analyses
    amplitude: np.ndarray
    cycles: int = 3
    seed_channel: str = "z500"
    correlation_length_km: float = 500.0

    def __post_init__(self) -> None:
        channels = self.forecaster.channels
        if self.cycles < 1:
            raise ConfigurationError(f"bred vectors need at least one cycle, not {self.cycles}")
        if self.seed_channel not in channels:
            raise ConfigurationError(
                f"bred vectors: seed_channel {self.seed_channel!r} is not among the forecaster's "
                f"channels ({', '.join(channels)}); name one of them"
            )
        if np.shape(self.amplitude) != (len(channels),):
            raise ConfigurationError(
                f"bred vectors: amplitudes of shape {np.shape(self.amplitude)} for the "
                f"{len(channels)} channels {', '.join(channels)}"
            )
        check_amplitudes(dict(zip(channels, self.amplitude, strict=True)), channels, "bred vectors")

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """Bred vectors that end at the time of `state`; see `Perturbation.increments`.

        Raises
        ------
        ConfigurationError
            If the members belong to several checkpoints, or the state's channels are not the
            forecaster's.
        RunError
            If a forecast is not finite.
        """
        checkpoints = {member.checkpoint for member in members}
        if len(checkpoints) > 1:
            raise ConfigurationError(
                f"bred vectors of one forecaster asked for members of checkpoints "
                f"{sorted(checkpoints)}; each checkpoint breeds its own"
            )
        if state.channels != self.forecaster.channels:
            raise ConfigurationError(
                f"bred vectors have the channels {', '.join(self.forecaster.channels)}, the "
                f"analysis at {state.valid_time} has {', '.join(state.channels)}"
            )
        noise = key / "perturbation" / checkpoints.pop() / "breeding"

        def draw(distinct: Sequence[Member]) -> torch.Tensor:
            seeds = self.seed([member.draws_at(key) for member in distinct])
            return self.breed(seeds.to(state.fields.device), state.valid_time, noise)

        return once_per_draw(members, draw)

    def seed(self, keys: Sequence[Key]) -> torch.Tensor:
        """Amplitude times isotropic noise on the seed channel, zero on the others.

        Parameters
        ----------
        keys : sequence of Key
            One for each perturbation.

        Returns
        -------
        torch.Tensor
            (member, channel, latitude, longitude), physical units.
        """
        channels, grid = self.forecaster.channels, self.forecaster.grid
        place = channels.index(self.seed_channel)
        dx = torch.zeros(len(keys), len(channels), *grid.shape)
        for row, key in enumerate(keys):  # one by one: no draw may see how many there are
            dx[row, place] = float(self.amplitude[place]) * self._noise.draw(key)[0]
        return dx

    def breed(self, dx: torch.Tensor, time: np.datetime64, key: Key) -> torch.Tensor:
        """What the perturbations have become after the cycles that end at `time`.

        ``dx <- M(x0 + dx) - M(x0)``, rescaled, with x0 the analyses n, ..., 1 timesteps before.

        Parameters
        ----------
        dx : torch.Tensor
            (member, channel, latitude, longitude), physical units: what the first cycle starts
            from.
        time : numpy.datetime64
            End of the last cycle.
        key : Key
            Where a stochastic forecaster draws, below ``key / cycles still to come / 0``.

        Raises
        ------
        RunError
            If a forecast is not finite.
        """
        amplitude = torch.as_tensor(self.amplitude, dtype=torch.float64)
        for remaining in reversed(range(self.cycles)):
            start = time - (remaining + 1) * self.forecaster.timestep
            grown = self._grown(dx, start, key / remaining)
            dx = rescaled(grown, self.forecaster.grid, amplitude)
        return dx

    def _grown(self, dx: torch.Tensor, start: np.datetime64, key: Key) -> torch.Tensor:
        """M(x0 + dx) - M(x0) with x0 the analysis at `start`, forecast once for all."""
        analysis = self.analyses.analysis(start).select(self.forecaster.channels)
        x0 = analysis.fields.to(dx.device)
        both = analysis.with_members(torch.cat([x0, x0 + dx]), (0,) * (1 + len(dx)))
        fields = self.forecaster.step(both, key).fields
        grown = fields[1:] - fields[:1]
        if not grown.isfinite().all():
            raise RunError(f"bred vectors: the forecast from {start} is not finite")
        return grown

    @cached_property
    def _noise(self) -> IsotropicNoise:
        correlation = GaussianCorrelation(self.correlation_length_km)
        return IsotropicNoise(self.forecaster.grid, correlation)
