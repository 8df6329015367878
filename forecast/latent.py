"""Latent noise: what makes two steps of a stochastic network differ."""

from __future__ import annotations

from functools import cached_property

import torch

from data.key import Key
from data.noise import GaussianCorrelation, IsotropicNoise
from forecast.architecture import SFNOConfig


class LatentNoise:
    """Independent isotropic fields of unit variance, a few for each correlation length.

    Parameters
    ----------
    config : SFNOConfig
        Names the grid, the number of degrees, the lengths (km) and the fields per length.
    """

    def __init__(self, config: SFNOConfig) -> None:
        self._config = config

    @cached_property
    def _sources(self) -> tuple[IsotropicNoise, ...]:
        config = self._config
        return tuple(
            IsotropicNoise(config.inner_grid, GaussianCorrelation(length), config.degrees - 1)
            for length in config.latent_lengths_km
        )

    def draw(self, key: Key, numbers: tuple[int, ...]) -> torch.Tensor:
        """Coefficients of each member's noise, (m, part, l, member, latent).

        Member n draws at ``key / n / "latent"``, whoever else is drawn.
        """
        return torch.stack([self._of(key / number / "latent") for number in numbers], dim=3)

    def _of(self, key: Key) -> torch.Tensor:
        """(m, part, l, latent)."""
        each = self._config.latents_per_length
        draws = [
            source.coefficients(key / index, each) for index, source in enumerate(self._sources)
        ]
        return torch.view_as_real(torch.cat(draws)).permute(2, 3, 1, 0).contiguous()
