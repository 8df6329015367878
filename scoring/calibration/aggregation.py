"""One quantile forecast from several, with trained weights.

p models x m levels go in, m levels come out (Fakoor, Kim, Mueller, Smola and Tibshirani, 2023,
Journal of Machine Learning Research 24(162), 1-45). Weights are coarse, medium or fine, global or
local, convex or unconstrained, and are trained on the mean pinball loss.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import xarray as xr
from torch import Tensor, nn

from data.errors import InputError, StoreError
from data.key import Key
from scoring.calibration.aggregation_training import (
    DEFAULT_TRAINING,
    Batch,
    Cases,
    Trainer,
    Training,
    flattened,
)
from scoring.calibration.aggregation_weights import (
    CONVEX,
    Constraint,
    Fine,
    Global,
    Locality,
    Resolution,
)
from scoring.calibration.monotone import AS_IS, ISOTONIC, Crossing, Monotone
from scoring.calibration.quantile_forecast import check_quantile_forecast

_CHUNK = 4096  # cases combined at a time
_IDENTITY = "aggregation"
_NO_DELAY = np.timedelta64(0, "s")


@dataclass(frozen=True)
class Aggregator:
    """A recipe of an aggregation.

    Parameters
    ----------
    resolution : Resolution
        `Coarse()`, `Medium()` or `Fine()` (default).
    locality : Locality
        `Global()` (default) or `Local(features)`.
    constraint : Constraint
        `CONVEX` (default) or `UNCONSTRAINED`.
    crossing : Crossing, optional
        Penalty in training.
    inside, after : Monotone
        What puts quantiles in order in training (nothing by default) and in the result
        (`ISOTONIC`).
    training : Training
        How it is trained.
    """

    resolution: Resolution = Fine()  # noqa: RUF009
    locality: Locality = Global()  # noqa: RUF009
    constraint: Constraint = CONVEX
    crossing: Crossing | None = None
    inside: Monotone = AS_IS
    after: Monotone = ISOTONIC
    training: Training = DEFAULT_TRAINING

    def fit(
        self,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        key: Key,
        weights: xr.DataArray | None = None,
    ) -> Aggregation:
        """Train on past forecasts and their truth.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Any dimensions with `model`, `quantile` and `init_time`; NaN where a model has no
            forecast. With a coordinate `lead_time` too, truth is known at init time plus lead.
        truth : xarray.DataArray
            The same less `model` and `quantile`; cases without truth are left out.
        key : Key
            Where the order of cases and the network's first weights come from.
        weights : xarray.DataArray, optional
            Of cases, for example area; dimensions among those of `truth`. Equal by default.

        Raises
        ------
        InputError
            If dimensions do not fit, a model has no case, or none is left.
        """
        check_quantile_forecast(quantiles, ("model", "init_time"))
        cases = Cases.of(quantiles, truth, weights, self.locality.features)
        blank = Aggregation._blank(self, quantiles, cases, key)
        trainer = Trainer(
            self.training, blank.network, blank._training_loss, blank._judging_loss, key
        )
        rounds = self.training.most_rounds
        if self.training.validation > 0:
            early, late = cases.split(self.training.validation)
            rounds = trainer.best_round(blank._batch(early), blank._batch(late))
        network = trainer.trained(blank._batch(cases), rounds)
        return replace(blank, network=network, rounds=rounds)


@dataclass(frozen=True)
class Aggregation:
    """Trained weights.

    Attributes
    ----------
    recipe : Aggregator
        What was trained.
    models, levels : numpy.ndarray
        In the order of the weights.
    network : torch.nn.Module
        Gives the weights' parameters.
    scaling : dict of str to torch.Tensor
        `feature_mean`, `feature_scale`, (feature,); `scale` of values, ().
    rounds : int
        Through the cases, until it stopped.
    """

    recipe: Aggregator
    models: np.ndarray
    levels: np.ndarray
    network: nn.Module
    scaling: dict[str, Tensor]
    rounds: int = 0

    @classmethod
    def _blank(
        cls, recipe: Aggregator, quantiles: xr.DataArray, cases: Cases, key: Key
    ) -> Aggregation:
        """Equal weights, scaled for these cases."""
        features = cases.features
        known = np.isfinite(features)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, features, 0.0).sum(axis=0) / count
        square = np.where(known, (features - mean) ** 2, 0.0).sum(axis=0) / count
        scale = float(np.abs(cases.truth - cases.truth.mean()).mean())
        scaling = {
            "feature_mean": _tensor(mean),
            "feature_scale": _tensor(np.where(square > 0, np.sqrt(square), 1.0)),
            "scale": _tensor(scale if scale > 0 else 1.0),
        }
        models, levels = quantiles["model"].values, quantiles["quantile"].values
        network = _network(recipe, models.size, levels.size, features.shape[1], key)
        return cls(recipe, models, levels, network, scaling)

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """The combined forecast: dimensions of `quantiles` less `model`; NaN for cases without
        any model.

        Raises
        ------
        InputError
            If models or levels are not those fitted, in this order.
        """
        self._check(quantiles)
        with torch.no_grad():
            parts = [self._combined(self.network, batch) for batch in self._batches(quantiles)]
        last = quantiles.transpose("model", ..., "quantile").isel(model=0, drop=True)
        values = torch.cat(parts).double().numpy() * self.scaling["scale"].item()
        values = (values + self.recipe.constraint.origin).reshape(last.shape)
        combined = last.copy(data=self.recipe.after.of_array(values))
        dims = [dim for dim in quantiles.dims if dim != "model"]
        return combined.transpose(*dims).assign_attrs(quantiles.attrs)

    def weights(self, quantiles: xr.DataArray) -> xr.DataArray:
        """Mean weights over cases, were all models present: (model, quantile) or, if they are
        fine, (model, input_quantile, quantile); coarse ones are the same for all levels."""
        self._check(quantiles)
        total, count = torch.zeros(()), 0
        with torch.no_grad():
            for batch in self._batches(quantiles):
                weights = self.recipe.constraint.weights(self.network(batch.features))
                total = total + weights.mean(dim=0) * len(batch.features)
                count += len(batch.features)
        mean = (total / count).numpy()
        coordinates = {"model": self.models, "quantile": self.levels}
        if mean.shape[0] == self.models.size:
            mean = np.broadcast_to(mean, (self.models.size, self.levels.size))
            return xr.DataArray(mean, coordinates, ("model", "quantile"))
        shape = (self.models.size, self.levels.size, self.levels.size)
        coordinates["input_quantile"] = self.levels
        return xr.DataArray(
            mean.reshape(shape), coordinates, ("model", "input_quantile", "quantile")
        )

    def _combined(self, network: nn.Module, batch: Batch) -> Tensor:
        """Combination in scaled units, (case, level)."""
        resolution = self.recipe.resolution
        inputs, present = resolution.inputs(batch.inputs), resolution.inputs(batch.present)
        return self.recipe.constraint.combine(network(batch.features), inputs, present)

    def _training_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Mean pinball loss over cases and levels, and the penalty."""
        combined = self._combined(network, batch)
        loss = self._pinball(self.recipe.inside.of_tensor(combined), batch)
        if self.recipe.crossing is None:
            return loss
        inputs = torch.where(batch.present > 0, batch.inputs, torch.nan)
        return loss + self.recipe.crossing.of(combined, _tensor(self.levels), inputs)

    def _judging_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Mean pinball loss of what would be issued."""
        return self._pinball(self.recipe.after.of_tensor(self._combined(network, batch)), batch)

    def _pinball(self, quantiles: Tensor, batch: Batch) -> Tensor:
        levels = _tensor(self.levels)
        error = batch.truth[:, None] - quantiles
        loss = torch.maximum(levels * error, (levels - 1) * error)
        return (batch.weights[:, None] * loss).mean()

    def _batch(self, cases: Cases) -> Batch:
        """Scaled cases."""
        origin, scale = self.recipe.constraint.origin, self.scaling["scale"]
        quantiles = _tensor(cases.quantiles - origin) / scale
        present = torch.isfinite(quantiles)
        inputs = torch.where(present, quantiles, quantiles.nanmean(dim=1, keepdim=True))
        features = _tensor(cases.features) - self.scaling["feature_mean"]
        features = (features / self.scaling["feature_scale"]).nan_to_num(0.0)
        truth = _tensor(cases.truth - origin) / scale
        weights = _tensor(cases.weights / cases.weights.mean())
        return Batch(inputs, present.float(), features, truth, weights)

    def save(self, path: Path) -> None:
        """Write weights and scaling to a safetensors file."""
        tensors = {f"network.{name}": t for name, t in self.network.state_dict().items()}
        tensors |= {f"scaling.{name}": tensor for name, tensor in self.scaling.items()}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        identity = {
            "recipe": repr(self.recipe),
            "models": self.models.tolist(),
            "levels": self.levels.tolist(),
            "rounds": self.rounds,
        }
        # Under one name: several are written in an order that changes from file to file.
        safetensors.torch.save_file(tensors, path, {_IDENTITY: json.dumps(identity)})

    @classmethod
    def load(cls, path: Path, recipe: Aggregator) -> Aggregation:
        """Read what `save` wrote.

        Parameters
        ----------
        path : pathlib.Path
            The file.
        recipe : Aggregator
            What was trained.

        Raises
        ------
        StoreError
            If there is none, or it is of another recipe.
        """
        try:
            with safetensors.safe_open(path, "pt") as file:
                identity = json.loads(file.metadata()[_IDENTITY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, KeyError, TypeError, safetensors.SafetensorError) as error:
            raise StoreError(f"{path}: no aggregation is there: {error}") from error
        if identity["recipe"] != repr(recipe):
            raise StoreError(f"{path}: has recipe {identity['recipe']}, expected {recipe!r}")
        scaling = {n.removeprefix("scaling."): t for n, t in tensors.items() if "scaling." in n}
        models, levels = (np.array(identity[name]) for name in ("models", "levels"))
        sizes = models.size, levels.size, scaling["feature_mean"].numel()
        network = _network(recipe, *sizes, Key(0))
        state = {n.removeprefix("network."): t for n, t in tensors.items() if "network." in n}
        network.load_state_dict(state)
        return cls(recipe, models, levels, network, scaling, identity["rounds"])

    def _check(self, quantiles: xr.DataArray) -> None:
        check_quantile_forecast(quantiles, ("model",))
        for name, fitted in (("model", self.models), ("quantile", self.levels)):
            if not np.array_equal(quantiles[name].values, fitted):
                raise InputError(
                    f"aggregation was fitted for the {name}s {fitted.tolist()}, "
                    f"found {quantiles[name].values.tolist()}"
                )

    def _batches(self, quantiles: xr.DataArray) -> Iterator[Batch]:
        """All cases in order, without truth."""
        columns = flattened(quantiles, self.recipe.locality.features)
        for start in range(0, len(columns[0]), _CHUNK):
            some, features = (column[start : start + _CHUNK] for column in columns)
            unknown, times = np.full(len(some), np.nan), np.full(len(some), "NaT", "M8[s]")
            cases = Cases(some, features, unknown, np.ones(len(some)), times, times)
            yield self._batch(cases)


def known_at(
    truth: xr.DataArray, date: np.datetime64, delay: np.timedelta64 = _NO_DELAY
) -> xr.DataArray:
    """Truth as it was known at a date: NaN where init time, lead time and delay end later.

    Parameters
    ----------
    truth : xarray.DataArray
        With coordinates `init_time` and `lead_time`.
    date : numpy.datetime64
        When a forecast is made.
    delay : numpy.timedelta64
        From the valid time until its truth is published.
    """
    return truth.where(truth["init_time"] + truth["lead_time"] + delay <= date)


def _network(recipe: Aggregator, models: int, levels: int, features: int, key: Key) -> nn.Module:
    start = recipe.resolution.start(models, levels)
    return recipe.locality.network(recipe.constraint.start(start), features, key / "network")


def _tensor(values: object) -> Tensor:
    return torch.as_tensor(np.asarray(values, np.float32))
