"""The size of a perturbation, by channel and hemisphere, and how to set it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from data.errors import ConfigurationError
from data.grid import Grid

CAP_LATITUDE = 20.0  # degrees; poleward of it a hemisphere's norm is taken


def hemisphere_norms(dx: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Root mean square poleward of 20 degrees in each hemisphere, by member and channel.

    Area weights are normalised over the cap itself, so that a constant field has its own
    magnitude as its norm.

    Parameters
    ----------
    dx : torch.Tensor
        (member, channel, latitude, longitude).
    grid : Grid

    Returns
    -------
    torch.Tensor
        (member, channel, 2), south then north, float64, units of the channel.
    """
    weights = torch.stack([_cap_weights(grid, side) for side in (-1, 1)]).to(dx.device)
    # Member by member: the order in which a sum is taken must not depend on how many there are.
    rows = [(one.double().square().mean(-1)[:, None] * weights).sum(-1) for one in dx]
    return torch.stack(rows).sqrt()


def rescaled(dx: torch.Tensor, grid: Grid, amplitude: torch.Tensor) -> torch.Tensor:
    """The perturbation with its norm set to the amplitude, by member, channel and latitude.

    ``dx_c(lat) A_c / n_c(lat)`` where n_c is the norm of `hemisphere_norms` poleward of 20
    degrees and linear in latitude between the two caps (A. Mahesh et al., 2025, Geosci. Model
    Dev. 18, 5575-5603, doi:10.5194/gmd-18-5575-2025). A channel of zero norm stays zero.

    Parameters
    ----------
    dx : torch.Tensor
        (member, channel, latitude, longitude).
    grid : Grid
    amplitude : torch.Tensor
        (channel,), float64, units of the channel.
    """
    south, north = hemisphere_norms(dx, grid).unbind(-1)
    share = torch.from_numpy((grid.latitude + CAP_LATITUDE) / (2 * CAP_LATITUDE))
    share = share.clamp(0.0, 1.0).to(dx.device)
    norm = south[..., None] + (north - south)[..., None] * share
    factor = torch.where(norm > 0, amplitude.to(dx.device)[:, None] / norm, 0.0)
    return (dx.double() * factor[..., None]).float()


def check_amplitudes(amplitudes: Mapping[str, float], channels: tuple[str, ...], what: str) -> None:
    """Refuse an amplitude of an unknown channel, or one that is negative or not finite.

    Raises
    ------
    ConfigurationError
        Names `what` is being configured and the channel.
    """
    for name, amplitude in amplitudes.items():
        if name not in channels:
            raise ConfigurationError(
                f"{what}: amplitude for {name!r}, which is not among the channels "
                f"({', '.join(channels)})"
            )
        if not 0 <= amplitude < math.inf:
            raise ConfigurationError(
                f"{what}: amplitude {amplitude} for {name!r}, expected a finite number >= 0"
            )


def _cap_weights(grid: Grid, side: int) -> torch.Tensor:
    """Area weights of the cap on one side of the equator, (latitude,), summing to one."""
    weights = np.where(side * grid.latitude >= CAP_LATITUDE, grid.latitude_weights, 0.0)
    return torch.from_numpy(weights / weights.sum())
