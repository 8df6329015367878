"""Quantiles in order: projections for after and inside training, and a penalty for inside.

Which is safe when:

- `SORT` never worsens a score that weighs all levels alike (Chernozhukov, Fernandez-Val and
  Galichon, 2010, doi:10.3982/ECTA7880; Fakoor et al., 2023), and neither does `Isotonic()`.
- Where levels weigh differently, sorting can worsen the score; `Isotonic(weights)` with the
  weights of the score never does.
- Both give gradients and may be used in training. The penalty leaves quantiles free to cross a
  little, so it needs one of them afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data.errors import InputError
from scoring.calibration.isotonic import isotonic_regression


class Monotone(Protocol):
    """Makes quantiles increase with their level."""

    def of_array(self, quantiles: np.ndarray) -> np.ndarray:
        """In order, (..., level), of the same type; NaN where a level is missing."""
        ...

    def of_tensor(self, quantiles: Tensor) -> Tensor:
        """The same with a gradient, (..., level)."""
        ...


@dataclass(frozen=True)
class AsIs:
    """Leaves quantiles as they are."""

    def of_array(self, quantiles: np.ndarray) -> np.ndarray:
        """The same array."""
        return quantiles

    def of_tensor(self, quantiles: Tensor) -> Tensor:
        """The same tensor."""
        return quantiles


@dataclass(frozen=True)
class Sort:
    """Sorts the values (rearrangement)."""

    def of_array(self, quantiles: np.ndarray) -> np.ndarray:
        """(..., level)"""
        result = np.sort(quantiles, axis=-1)
        result[np.isnan(result[..., -1])] = np.nan
        return result

    def of_tensor(self, quantiles: Tensor) -> Tensor:
        """(..., level)"""
        return quantiles.sort(dim=-1).values


@dataclass(frozen=True)
class Isotonic:
    """The increasing values nearest in weighted least squares.

    Parameters
    ----------
    weights : tuple of float, optional
        Of the levels, positive; those of the score that is to be kept. Equal by default.
    """

    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not all(weight > 0 for weight in self.weights):
            raise InputError(f"weights of levels must be positive, found {self.weights}")

    def of_array(self, quantiles: np.ndarray) -> np.ndarray:
        """(..., level)"""
        weights = self._of(quantiles.shape[-1])
        return isotonic_regression(quantiles, weights, out=np.empty_like(quantiles))

    def of_tensor(self, quantiles: Tensor) -> Tensor:
        """(..., level); the gradient of a pool is the weighted mean of those of its values."""
        return _Projection.apply(quantiles, self._of(quantiles.shape[-1]))

    def _of(self, levels: int) -> np.ndarray:
        """One weight for each level."""
        weights = np.ones(levels) if self.weights is None else np.array(self.weights)
        if weights.size != levels:
            raise InputError(f"{weights.size} weights of levels were given for {levels} levels")
        return weights


AS_IS = AsIs()
SORT = Sort()
ISOTONIC = Isotonic()


class _Projection(torch.autograd.Function):
    """Isotonic regression whose derivative is known: averaging within each pool."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, values: Tensor, weights: np.ndarray):
        fit = torch.from_numpy(isotonic_regression(values.detach().cpu().numpy(), weights))
        fit = fit.to(values)
        context.save_for_backward(fit, torch.from_numpy(weights).to(values))
        return fit

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor):
        fit, weights = context.saved_tensors
        rises = (fit[..., 1:] > fit[..., :-1]).long()
        pool = torch.nn.functional.pad(rises.cumsum(-1), (1, 0))
        zeros = torch.zeros_like(fit)
        total = zeros.scatter_add(-1, pool, gradient)
        mass = zeros.scatter_add(-1, pool, weights.expand_as(fit))
        return weights * (total / mass.where(mass > 0, 1.0)).gather(-1, pool), None


class Margin(Protocol):
    """By how much the quantile of a higher level should be above that of a lower one."""

    def between(self, levels: Tensor, inputs: Tensor) -> Tensor:
        """Margin of each pair, (case or 1, lower, higher).

        Parameters
        ----------
        levels : torch.Tensor
            (level,)
        inputs : torch.Tensor
            The forecasts that are combined, (case, model, level), NaN where there is none.
        """
        ...


@dataclass(frozen=True)
class FixedMargin:
    """The same for all pairs, in the unit of the forecast."""

    size: float = 0.0

    def between(self, levels: Tensor, inputs: Tensor) -> Tensor:
        """(1, lower, higher)"""
        return torch.full((1, levels.numel(), levels.numel()), self.size)


@dataclass(frozen=True)
class LevelMargin:
    """Proportional to the difference of levels: `slope` is in the unit of the forecast."""

    slope: float = 1.0

    def between(self, levels: Tensor, inputs: Tensor) -> Tensor:
        """(1, lower, higher)"""
        return self.slope * (levels[None, :] - levels[:, None])[None]


@dataclass(frozen=True)
class AdaptiveMargin:
    """A share of what lies between the levels in the mean of the inputs, case by case."""

    share: float = 0.1

    def between(self, levels: Tensor, inputs: Tensor) -> Tensor:
        """(case, lower, higher)"""
        mean = inputs.nanmean(dim=1)
        return self.share * (mean[:, None, :] - mean[:, :, None])


@dataclass(frozen=True)
class Crossing:
    """Penalty for quantiles that cross, over all pairs of levels (Fakoor et al., 2023).

    Mean over cases of sum over p < p' of max(0, q_p - q_p' + margin).

    Parameters
    ----------
    factor : float
        Of the penalty, against the mean pinball loss.
    margin : Margin
        `FixedMargin` (0 by default), `LevelMargin` or `AdaptiveMargin`.
    """

    factor: float = 1.0
    margin: Margin = FixedMargin()

    def of(self, quantiles: Tensor, levels: Tensor, inputs: Tensor) -> Tensor:
        """The penalty, a scalar, of quantiles (case, level)."""
        excess = quantiles[:, :, None] - quantiles[:, None, :]
        excess = (excess + self.margin.between(levels, inputs)).clamp_min(0.0)
        return self.factor * excess.triu(1).sum(dim=(1, 2)).mean()


def in_order(quantiles: xr.DataArray, monotone: Monotone = ISOTONIC) -> xr.DataArray:
    """A labelled quantile forecast put in order; dimensions and attributes are kept."""
    last = quantiles.transpose(..., "quantile")
    ordered = last.copy(data=monotone.of_array(last.values))
    return ordered.transpose(*quantiles.dims)
