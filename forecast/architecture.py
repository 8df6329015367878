"""Sizes of the network, which a checkpoint says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from data.grid import Grid


@dataclass(frozen=True)
class SFNOConfig:
    """Sizes of the network.

    Attributes
    ----------
    channels, statics : int
        Number of forecast fields and of fixed input fields.
    grid : Grid
        Grid of the data.
    inner_grid : Grid
        Legendre-Gauss grid inside; it may be coarser than the data's, as long as it resolves
        the degrees.
    degrees : int
        Number of spherical harmonic degrees, l = 0 ... degrees - 1.
    embed, blocks : int
        Width and depth.
    scalars, gradients : int
        How many outputs of a filter are synthesised as fields and as gradients (two components).
    hidden : int
        Width of the product in the pointwise part.
    latent_lengths_km : tuple of float
        Correlation lengths of the latent noise; none in a deterministic network.
    latents_per_length : int
        Noise fields of each length.
    """

    channels: int
    statics: int
    grid: Grid
    inner_grid: Grid
    degrees: int
    embed: int = 64
    blocks: int = 4
    scalars: int = 32
    gradients: int = 16
    hidden: int = 64
    latent_lengths_km: tuple[float, ...] = ()
    latents_per_length: int = 2

    @property
    def latents(self) -> int:
        """Number of latent noise fields."""
        return len(self.latent_lengths_km) * self.latents_per_length
