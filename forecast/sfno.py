"""The spherical Fourier neural operator, arranged for speed on one core.

After B. Bonev et al. (2023), doi:10.48550/arXiv.2306.03838, with two changes that paid here. A
filter's outputs are synthesised partly as fields, partly as the gradients of fields, which costs
nothing and gives the pointwise part the derivatives that advection is made of; filters can then
be real, one matrix per degree. And the pointwise part is a product of two linear maps, as advection
is, without a transcendental function.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from forecast.architecture import SFNOConfig
from forecast.transform import Analysis, Synthesis

_SHARPENING = 8.0  # degree above which the inputs' gradients are amplified, below it damped


class SphericalFilter(nn.Module):
    """Convolution with isotropic kernels: one real matrix per degree, shared by all orders."""

    def __init__(self, config: SFNOConfig) -> None:
        super().__init__()
        outputs = config.scalars + config.gradients
        weight = torch.randn(config.degrees, config.embed, outputs) * config.embed**-0.5
        self.weight = nn.Parameter(weight)

    def forward(self, coefficients: torch.Tensor) -> torch.Tensor:
        """(m, part, l, batch, embed) to (m, part, l, batch, scalars + gradients)."""
        orders, parts, degrees, batch, embed = coefficients.shape
        rows = coefficients.permute(2, 0, 1, 3, 4).reshape(degrees, -1, embed)
        filtered = torch.bmm(rows, self.weight).view(degrees, orders, parts, batch, -1)
        return filtered.permute(1, 2, 0, 3, 4)


class ConditionalNorm(nn.Module):
    """Layer norm over channels; latent noise fields, if any, modulate its scale and shift.

    The modulation starts at zero, so that a deterministic network that is given noise inputs is
    at first exactly what it was.
    """

    def __init__(self, config: SFNOConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed)
        self.modulation = None
        if config.latents:
            self.modulation = nn.Linear(config.latents, 2 * config.embed, bias=False)
            nn.init.zeros_(self.modulation.weight)

    def forward(self, fields: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """(longitude, latitude, batch, embed); `noise` likewise with one channel per latent."""
        fields = self.norm(fields)
        if self.modulation is None or noise is None:
            return fields
        scale, shift = self.modulation(noise).chunk(2, dim=-1)
        return (fields + shift).addcmul_(fields, scale)


class Block(nn.Module):
    """Norm, filter, pointwise product, skip."""

    def __init__(self, config: SFNOConfig, analysis: Analysis, synthesis: Synthesis) -> None:
        super().__init__()
        self._transforms = (analysis, synthesis)  # in a tuple: shared, and registered once
        self.gradients = config.gradients
        self.norm = ConditionalNorm(config)
        self.filter = SphericalFilter(config)
        spread = config.scalars + 2 * config.gradients
        self.local = nn.Linear(config.embed, 2 * config.hidden)
        self.remote = nn.Linear(spread, 2 * config.hidden, bias=False)
        self.out = nn.Linear(config.hidden, config.embed)
        with torch.no_grad():
            self.out.weight.mul_(0.5)

    def forward(self, fields: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """(longitude, latitude, batch, embed) to the same."""
        product = self._product(self.norm(fields, noise))
        # In place, here and below: to write to memory that is not in the cache takes longer than
        # the arithmetic, and no gradient needs what is written over.
        total = (fields + self.out.bias).flatten(0, -2)
        return total.addmm_(product, self.out.weight.t()).view_as(fields)

    def _product(self, here: torch.Tensor) -> torch.Tensor:
        """The product of two linear maps of the fields and what is around them, (row, hidden)."""
        analysis, synthesis = self._transforms
        around = synthesis(self.filter(analysis(here)), self.gradients)
        # Written flat so that bias and sum ride along in the matrix products.
        mixed = torch.addmm(self.local.bias, here.flatten(0, -2), self.local.weight.t())
        mixed.addmm_(around.flatten(0, -2), self.remote.weight.t())
        left, right = mixed.chunk(2, dim=-1)
        return left * right


class SFNO(nn.Module):
    """Normalised fields to their change in one timestep.

    Parameters
    ----------
    config : SFNOConfig
    statics : torch.Tensor
        (static, latitude, longitude), normalised, on the data's grid. Not among the weights.

    Notes
    -----
    The inputs of the pointwise encoder are the fields, the gradients of the fields with degree l
    amplified by ``sqrt(l (l + 1)) / 8`` (fronts stand out), statics with theirs likewise, and
    sine and cosine of once and twice the latitude. None of them but the statics breaks the
    equivariance under rotation in longitude.
    """

    def __init__(self, config: SFNOConfig, statics: torch.Tensor) -> None:
        super().__init__()
        self.config = config
        self.analyse_data = Analysis(config.grid, config.degrees)
        self.synthesise_data = Synthesis(config.grid, config.degrees)
        self.analyse = Analysis(config.inner_grid, config.degrees)
        self.synthesise = Synthesis(config.inner_grid, config.degrees)
        degree = torch.arange(config.degrees, dtype=torch.float32)
        sharpening = (degree * (degree + 1)).sqrt() / _SHARPENING
        self.register_buffer("_sharpening", sharpening[:, None, None], persistent=False)
        self.register_buffer("_fixed", self._fixed_inputs(statics), persistent=False)
        inputs = 3 * config.channels + self._fixed.shape[-1]
        self.encoder = nn.Linear(inputs, config.embed)
        self.blocks = nn.ModuleList(
            Block(config, self.analyse, self.synthesise) for _ in range(config.blocks)
        )
        self.decoder = nn.Linear(config.embed, config.channels)
        with torch.no_grad():
            self.decoder.weight.mul_(0.3)
            self.decoder.bias.zero_()

    def forward(self, fields: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Change in one timestep, in units of its standard deviation.

        Parameters
        ----------
        fields : torch.Tensor
            (batch, channel, latitude, longitude), normalised.
        noise : torch.Tensor, optional
            Coefficients of latent noise, (m, part, l, batch, latent). Without it the network is
            deterministic.
        """
        inner = self._with_gradients(self.analyse_data(fields.permute(3, 2, 0, 1)))
        fixed = self._fixed.expand(-1, -1, fields.shape[0], -1)
        inner = self.encoder(torch.cat([inner, fixed], dim=-1))
        noise = None if noise is None else self.synthesise(noise)
        for block in self.blocks:
            inner = block(inner, noise)
        change = self.synthesise_data(self.analyse(self.decoder(inner)))
        return change.permute(2, 3, 1, 0)

    def _with_gradients(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Fields and both components of their sharpened gradients on the inner grid."""
        both = torch.cat([coefficients, coefficients * self._sharpening], dim=-1)
        return self.synthesise(both, coefficients.shape[-1])

    def _fixed_inputs(self, statics: torch.Tensor) -> torch.Tensor:
        """(longitude, latitude, 1, input) on the inner grid."""
        grid = self.config.inner_grid
        latitude = torch.from_numpy(np.deg2rad(grid.latitude)).float()
        angles = torch.stack([latitude, 2 * latitude], dim=-1)
        position = torch.cat([angles.sin(), angles.cos()], dim=-1)
        position = position[None, :, None].expand(grid.longitudes, -1, -1, -1)
        if not len(statics):
            return position.contiguous()
        columns = statics.permute(2, 1, 0)[:, :, None]
        return torch.cat([self._with_gradients(self.analyse_data(columns)), position], dim=-1)
