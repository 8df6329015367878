"""Training of weights: mini-batches, early stopping on later init times, and a last run on all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import astuple, dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from data.errors import InputError
from data.key import Key
from scoring.calibration.features import Feature, feature_table


@dataclass(frozen=True)
class Training:
    """How weights are trained.

    The last init times judge when to stop. Only cases whose truth was known at the first of them
    train meanwhile. Then all cases train afresh for the number of rounds that was best.

    Parameters
    ----------
    learning_rate : float
        Of Adam.
    weight_decay : float
        Pull towards equal weights, decoupled (AdamW).
    batch : int
        Cases per step.
    most_rounds : int
        Through all cases.
    patience : int
        Rounds without improvement before it stops.
    validation : float
        Share of init times that judge; 0 trains for `most_rounds`.
    """

    learning_rate: float = 0.01
    weight_decay: float = 0.0
    batch: int = 512
    most_rounds: int = 100
    patience: int = 10
    validation: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise InputError(f"share of validation must be in [0, 1), found {self.validation}")


DEFAULT_TRAINING = Training()


@dataclass(frozen=True)
class Cases:
    """Cases that have truth and a model, one behind the other.

    Attributes
    ----------
    quantiles : numpy.ndarray
        (case, model, level), NaN where a model has no forecast.
    features : numpy.ndarray
        (case, feature)
    truth, weights, init_time, known : numpy.ndarray
        (case,); `known` is the time from which truth is known.
    """

    quantiles: np.ndarray
    features: np.ndarray
    truth: np.ndarray
    weights: np.ndarray
    init_time: np.ndarray
    known: np.ndarray

    @classmethod
    def of(
        cls,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        weights: xr.DataArray | None,
        features: tuple[Feature, ...],
    ) -> Cases:
        """From labelled arrays; see `Aggregator.fit`."""
        last = quantiles.transpose(..., "model", "quantile")
        cells = last.isel(model=0, quantile=0, drop=True)
        if set(truth.dims) != set(cells.dims):
            raise InputError(f"truth needs the dimensions {cells.dims}, found {truth.dims}")
        try:
            cells, truth = xr.align(cells, truth, join="exact")
        except ValueError as error:
            raise InputError(f"forecasts and truth have different coordinates: {error}") from error

        def column(values: xr.DataArray) -> np.ndarray:
            return values.broadcast_like(cells).transpose(*cells.dims).values.ravel()

        flat, table = flattened(quantiles, features)
        lead = cells.coords.get("lead_time", np.timedelta64(0, "s"))
        weight = xr.ones_like(cells, float) if weights is None else weights
        columns = (flat, table, column(truth), column(weight))
        times = column(cells["init_time"]), column(cells["init_time"] + lead)
        present = np.isfinite(flat).any(axis=2)
        used = np.isfinite(columns[2]) & present.any(axis=1) & (columns[3] > 0)
        if not used.any():
            raise InputError("aggregation found no case that has both a forecast and truth")
        empty = ~present[used].any(axis=0)
        if empty.any():
            names = quantiles["model"].values[empty].tolist()
            raise InputError(f"models {names} have no case to be fitted on: leave them out")
        return cls(*(one[used] for one in (*columns, *times)))

    def take(self, which: np.ndarray) -> Cases:
        """Some of the cases."""
        return Cases(*(column[which] for column in astuple(self)))

    def split(self, share: float) -> tuple[Cases, Cases]:
        """Cases known at the first of the last init times, and cases of these.

        Raises
        ------
        InputError
            If none was known then.
        """
        times = np.unique(self.init_time)
        number = int(np.ceil(share * times.size))
        first = times[-number]
        early, late = (self.known <= first) & (self.init_time < first), self.init_time >= first
        if not early.any():
            raise InputError(
                f"no case was known at {np.datetime_as_string(first, 'h')}, the first of the "
                f"{number} init times (of {times.size}) that say when to stop: give more dates or "
                "a smaller share"
            )
        return self.take(early), self.take(late)


def flattened(
    quantiles: xr.DataArray, features: tuple[Feature, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles, (case, model, level), and features, (case, feature)."""
    last = quantiles.transpose(..., "model", "quantile")
    flat = last.values.reshape(-1, last.sizes["model"], last.sizes["quantile"])
    return flat, feature_table(features, last).reshape(len(flat), -1)


@dataclass(frozen=True)
class Batch:
    """What a loss is computed of, scaled.

    Attributes
    ----------
    inputs, present : torch.Tensor
        (case, model, level): quantiles, and 1 where there is one, else 0. Where there is none,
        `inputs` has the mean of the models there are.
    features : torch.Tensor
        (case, feature)
    truth, weights : torch.Tensor
        (case,)
    """

    inputs: Tensor
    present: Tensor
    features: Tensor
    truth: Tensor
    weights: Tensor

    def take(self, which: Tensor) -> Batch:
        """Some of the cases."""
        parts = self.inputs, self.present, self.features, self.truth, self.weights
        return Batch(*(part.index_select(0, which) for part in parts))


@dataclass(frozen=True)
class Trainer:
    """Trains copies of a network.

    Attributes
    ----------
    training : Training
        How.
    network : torch.nn.Module
        What it starts from; left as it is.
    loss : callable
        Of a network and a batch, with a gradient.
    judged : callable
        The same for the cases that say when to stop.
    key : Key
        Where the order of cases comes from.
    """

    training: Training
    network: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    judged: Callable[[nn.Module, Batch], Tensor]
    key: Key

    def best_round(self, early: Batch, late: Batch) -> int:
        """Rounds through early cases after which the late ones were forecast best."""
        best, found = np.inf, 0
        for number, network in enumerate(self._rounds(early)):
            with torch.no_grad():
                loss = float(self.judged(network, late))
            if loss < best:
                best, found = loss, number
            if number - found >= self.training.patience or number == self.training.most_rounds:
                break
        return found

    def trained(self, cases: Batch, rounds: int) -> nn.Module:
        """The network after so many rounds."""
        passes = self._rounds(cases)
        for _ in range(rounds):
            next(passes)
        return next(passes)

    def _rounds(self, cases: Batch) -> Iterator[nn.Module]:
        """The network after 0, 1, 2, ... rounds through the cases."""
        network = deepcopy(self.network)
        optimizer = torch.optim.AdamW(
            network.parameters(),
            self.training.learning_rate,
            weight_decay=self.training.weight_decay,
        )
        number = 0
        while True:
            yield network
            draw = (self.key / "order" / number).generator()
            order = torch.from_numpy(draw.permutation(len(cases.truth)))
            for some in order.split(self.training.batch):
                optimizer.zero_grad()
                self.loss(network, cases.take(some)).backward()
                optimizer.step()
            number += 1
