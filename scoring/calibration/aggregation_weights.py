"""Weights of models and levels: what an aggregation trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from data.key import Key
from scoring.calibration.features import Feature

_OTHER_LEVELS = 0.01  # of the weight at the start, in all


class Resolution(Protocol):
    """What has a weight of its own."""

    def start(self, models: int, levels: int) -> Tensor:
        """Equal weights, (input, output); of either, 1 stands for all levels."""
        ...

    def inputs(self, quantiles: Tensor) -> Tensor:
        """(case, model, level) as (case, input, output), output may be 1."""
        ...


@dataclass(frozen=True)
class Coarse:
    """One weight per model."""

    def start(self, models: int, levels: int) -> Tensor:
        """(model, 1)"""
        return torch.full((models, 1), 1 / models)

    def inputs(self, quantiles: Tensor) -> Tensor:
        """(case, model, level)"""
        return quantiles


@dataclass(frozen=True)
class Medium:
    """One weight per model and level."""

    def start(self, models: int, levels: int) -> Tensor:
        """(model, level)"""
        return torch.full((models, levels), 1 / models)

    def inputs(self, quantiles: Tensor) -> Tensor:
        """(case, model, level)"""
        return quantiles


@dataclass(frozen=True)
class Fine:
    """For each level one weight per model and level of the inputs."""

    def start(self, models: int, levels: int) -> Tensor:
        """(model x level, level); nearly all weight on the level itself."""
        other = _OTHER_LEVELS / max(1, levels - 1)
        share = torch.full((levels, levels), other)
        share.fill_diagonal_(1.0 - other * (levels - 1))
        return (share / models).repeat(models, 1)

    def inputs(self, quantiles: Tensor) -> Tensor:
        """(case, model x level, 1)"""
        return quantiles.flatten(1)[..., None]


class Constraint(Protocol):
    """What weights must obey, and from where values are counted."""

    origin: float

    def start(self, weights: Tensor) -> Tensor:
        """Parameters that give these weights."""
        ...

    def combine(self, parameters: Tensor, inputs: Tensor, present: Tensor) -> Tensor:
        """Combination of inputs, (case, level).

        Parameters
        ----------
        parameters : torch.Tensor
            (case or 1, input, output)
        inputs : torch.Tensor
            (case, input, level or 1); where there is none, the mean of the models there are.
        present : torch.Tensor
            1 where there is one, else 0, of the shape of `inputs`.
        """
        ...

    def weights(self, parameters: Tensor) -> Tensor:
        """Weights where every model is present, of the shape of `parameters`."""
        ...


@dataclass(frozen=True)
class Convex:
    """Not negative, of sum 1 (softmax). Where models are missing, the weights of the others are
    divided by their sum.

    Parameters
    ----------
    origin : float
        From which values are counted; it matters for rounding alone.
    """

    origin: float = 0.0

    def start(self, weights: Tensor) -> Tensor:
        """Logarithms."""
        return weights.log()

    def combine(self, parameters: Tensor, inputs: Tensor, present: Tensor) -> Tensor:
        """(case, level)"""
        mass = (parameters - parameters.amax(dim=1, keepdim=True).detach()).exp()
        return _product(mass, inputs * present) / _product(mass, present)

    def weights(self, parameters: Tensor) -> Tensor:
        """Softmax over inputs."""
        return parameters.softmax(dim=1)


@dataclass(frozen=True)
class Unconstrained:
    """Any weights: they can take out a bias or widen what is too narrow. A missing model counts
    as the mean of those that are there.

    Parameters
    ----------
    origin : float
        From which values are counted that are multiplied, in the unit of the forecast: 0 for
        counts or wind, a usual value for temperatures.
    """

    origin: float = 0.0

    def start(self, weights: Tensor) -> Tensor:
        """The weights."""
        return weights

    def combine(self, parameters: Tensor, inputs: Tensor, present: Tensor) -> Tensor:
        """(case, level)"""
        return _product(parameters, inputs)

    def weights(self, parameters: Tensor) -> Tensor:
        """The parameters."""
        return parameters


CONVEX = Convex()
UNCONSTRAINED = Unconstrained()


def _product(weights: Tensor, inputs: Tensor) -> Tensor:
    """Sum over inputs, (case, output)."""
    if inputs.shape[-1] > 1 or weights.shape[-1] == 1:
        return (weights * inputs).sum(dim=1)
    if weights.shape[0] == 1:
        return inputs[..., 0] @ weights[0]
    return torch.bmm(inputs.transpose(1, 2), weights)[:, 0]


class Locality(Protocol):
    """Whether weights depend on the case."""

    features: tuple[Feature, ...]

    def network(self, start: Tensor, features: int, key: Key) -> nn.Module:
        """Gives parameters, (case or 1, input, output), from features, (case, feature)."""
        ...


@dataclass(frozen=True)
class Global:
    """The same weights for all cases."""

    features: tuple[Feature, ...] = ()

    def network(self, start: Tensor, features: int, key: Key) -> nn.Module:
        """Of one parameter for each weight."""
        return _GlobalWeights(start)


@dataclass(frozen=True)
class Local:
    """Weights that a small network makes of features of the case.

    Parameters
    ----------
    features : tuple of Feature
        What it sees (see `scoring.calibration.features`).
    hidden : int
        Width of its two hidden layers.
    """

    features: tuple[Feature, ...]
    hidden: int = 32

    def network(self, start: Tensor, features: int, key: Key) -> nn.Module:
        """Gives the start for all cases before it is trained."""
        return _LocalWeights(start, features, self.hidden, key)


class _GlobalWeights(nn.Module):
    """Parameters without a network."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.departure = nn.Parameter(torch.zeros_like(start))

    def forward(self, features: Tensor) -> Tensor:
        """(1, input, output)"""
        return (self.start + self.departure)[None]


class _LocalWeights(nn.Module):
    """Two hidden layers; the last layer starts at 0, so that all cases start alike."""

    def __init__(self, start: Tensor, features: int, hidden: int, key: Key) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.departure = nn.Parameter(torch.zeros_like(start))
        self.first = nn.Parameter(_drawn(key / "first", features, hidden))
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.second = nn.Parameter(_drawn(key / "second", hidden, hidden))
        self.second_bias = nn.Parameter(torch.zeros(hidden))
        self.last = nn.Parameter(torch.zeros(hidden, start.numel()))

    def forward(self, features: Tensor) -> Tensor:
        """(case, input, output)"""
        hidden = nn.functional.silu(features @ self.first + self.first_bias)
        hidden = nn.functional.silu(hidden @ self.second + self.second_bias)
        change = (hidden @ self.last).unflatten(1, tuple(self.start.shape))
        return self.start + self.departure + change


def _drawn(key: Key, inputs: int, outputs: int) -> Tensor:
    """Normal weights of variance 1 / inputs."""
    return torch.from_numpy(key.normal((inputs, outputs)) / np.float32(np.sqrt(max(1, inputs))))
