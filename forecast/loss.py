"""Training losses, in units of each channel's change over one timestep.

Every loss takes ``forecast`` and ``truth`` as scaled departures from the climatological mean,
``(departure) / tendency_std``, (member, case, channel, latitude, longitude) and
(case, channel, latitude, longitude), and returns one number: the area- and channel-mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from data.grid import Grid
from data.sphere import Sphere, largest_truncation


class Loss(Protocol):
    """How far forecasts are from the truth, as one differentiable number >= 0."""

    def __call__(self, forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor: ...


class SquaredError:
    """Area mean of the squared error, averaged over members, cases and channels.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    """

    def __init__(self, grid: Grid) -> None:
        self._weights = torch.from_numpy(grid.area_weights).float()

    def __call__(self, forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return ((forecast - truth).square() * self._weights).sum((-2, -1)).mean()


class AmplitudePreservingError:
    """Squared error that does not reward smoothing.

    The squared error of degree l is an amplitude and a phase part,
    ``(sqrt(P_f) - sqrt(P_t))^2 + 2 sqrt(P_f P_t) (1 - coherence)``; a forecast that damps what it
    cannot place lowers the second part. Replacing ``sqrt(P_f P_t)`` by ``max(P_f, P_t)`` takes
    that reward away, so that the best forecast keeps the amplitude of the truth.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    truncation : int, optional
        Highest degree compared; by default the largest that the grid resolves.

    References
    ----------
    C. Subich et al. (2025), doi:10.48550/arXiv.2501.19374.
    """

    def __init__(self, grid: Grid, truncation: int | None = None) -> None:
        limit = largest_truncation(grid)
        self._sphere = Sphere(grid, limit if truncation is None else truncation)

    def __call__(self, forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        sphere = self._sphere
        forecast, truth = sphere.analyse(forecast), sphere.analyse(truth)
        tiny = 1e-12
        power_f, power_t = sphere.power(forecast) + tiny, sphere.power(truth) + tiny
        product = (power_f * power_t).sqrt()
        coherence = sphere.cross_power(forecast, truth) / product
        amplitude = power_f + power_t - 2 * product
        phase = 2 * torch.maximum(power_f, power_t) * (1 - coherence)
        return (amplitude + phase).sum(-1).mean()


class VarianceError:
    """Squared difference of the eddy variances of forecasts and truth, relative to the truth's.

    It holds a whole batch to the variance that its truth has, so that long rollouts neither lose
    nor gain any; of where and in which case things are it says nothing. Eddies are departures
    from the zonal mean: they are what a forecaster damps first, and in the variance of a whole
    field the zonal means hide them.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    """

    def __init__(self, grid: Grid) -> None:
        self._weights = torch.from_numpy(grid.area_weights).float()

    def __call__(self, forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return (self._variance(forecast) / self._variance(truth) - 1).square().mean()

    def _variance(self, fields: torch.Tensor) -> torch.Tensor:
        """(channel,)"""
        eddies = (fields - fields.mean(-1, keepdim=True)).flatten(0, -4)
        return (eddies.square() * self._weights).sum((-2, -1)).mean(0)


class AlmostFairCRPS:
    """Almost-fair continuous ranked probability score of M >= 2 members, point by point.

    With ``e = (1 - alpha) / M``, in the form whose every term is >= 0:
    ``1 / (2 M (M - 1)) sum_(j != k) (|x_j - y| + |x_k - y| - (1 - e) |x_j - x_k|)``.

    Parameters
    ----------
    grid : Grid
        Grid of the fields.
    alpha : float
        1 is fair (degenerate: one member may go anywhere), 0 the standard CRPS.

    References
    ----------
    S. Lang et al. (2024), doi:10.48550/arXiv.2412.15832.
    """

    def __init__(self, grid: Grid, alpha: float = 0.95) -> None:
        self._weights = torch.from_numpy(grid.area_weights).float()
        self.alpha = alpha

    def terms(self, forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Summands of the pairs j < k, (pair, case, channel, latitude, longitude), all >= 0."""
        members = len(forecast)
        if members < 2:
            raise ValueError(f"almost-fair CRPS needs 2 or more members, got {members}")
        first, second = torch.triu_indices(members, members, 1)
        error = (forecast - truth).abs()
        spread = (forecast[first] - forecast[second]).abs()
        return error[first] + error[second] - (1 - (1 - self.alpha) / members) * spread

    def __call__(self, forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        members = len(forecast)
        total = self.terms(forecast, truth).sum(0) / (members * (members - 1))
        return (total * self._weights).sum((-2, -1)).mean()


@dataclass(frozen=True)
class Sum:
    """A weighted sum of losses."""

    terms: tuple[tuple[float, Loss], ...]

    def __call__(self, forecast: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return sum(weight * loss(forecast, truth) for weight, loss in self.terms)
