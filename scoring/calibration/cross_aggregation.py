"""Several forecasts into one that holds what it promises, from the same dates: trained weights
and CV+.

Weights are trained once without each block of dates, each case is scored by those that did not
see it, and a new case is forecast by all of them, moved by these scores; see
`scoring.calibration.cross_conformal` for what is then promised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import xarray as xr

from data.errors import InputError, StoreError
from data.key import Key
from scoring.calibration.aggregation import Aggregation, Aggregator
from scoring.calibration.conformity import ONE_SIDED, Conformity
from scoring.calibration.cross_conformal import CrossConformal
from scoring.calibration.pools import LinearPool
from scoring.calibration.quantile_forecast import check_quantile_forecast, known_models
from scoring.dates import folds

_LEAD = "lead_time"
_AT_ONCE = np.timedelta64(0, "s")


class Average(Protocol):
    """What is averaged with trained weights."""

    def of(self, fitted: Aggregation, quantiles: xr.DataArray) -> xr.DataArray:
        """Dimensions of `quantiles` less `model`; NaN for cases without any model."""
        ...


@dataclass(frozen=True)
class OfQuantiles:
    """Quantiles, as weights are trained."""

    def of(self, fitted: Aggregation, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Average.of`."""
        return fitted.apply(quantiles)


@dataclass(frozen=True)
class OfDistributions:
    """Distributions: a linear pool with the weights, which are coarse and convex."""

    def of(self, fitted: Aggregation, quantiles: xr.DataArray) -> xr.DataArray:
        """See `Average.of`."""
        return LinearPool.weighted(fitted.weights(quantiles)).of(quantiles)


QUANTILES = OfQuantiles()
DISTRIBUTIONS = OfDistributions()


@dataclass(frozen=True)
class CrossAggregator:
    """A recipe of an aggregation that is calibrated by the dates that train it.

    Parameters
    ----------
    aggregator : Aggregator
        What is trained.
    folds : int
        Blocks of consecutive init times, each left out once.
    conformity : Conformity
        `ONE_SIDED` (default) or `SYMMETRIC`.
    average : Average
        `QUANTILES` (default) or `DISTRIBUTIONS`.
    """

    aggregator: Aggregator
    folds: int = 5
    conformity: Conformity = ONE_SIDED
    average: Average = QUANTILES

    def fit(
        self,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        key: Key,
        done: Callable[[], object] = lambda: None,
    ) -> CrossAggregation:
        """Train on past forecasts and their truth, and score each date by what was trained
        without it.

        Init times without any truth are in no fold. No truth is on both sides: what is valid
        between the first and the last valid time of the dates left out does not train meanwhile. A
        model that has no case in what is left is left out of that training.

        Parameters
        ----------
        quantiles, truth, key
            As of `Aggregator.fit`. Each `lead_time` is calibrated by itself, if there is one; all
            other cases are pooled.
        done : callable
            Called after each fold.

        Raises
        ------
        InputError
            As `Aggregator.fit`; if there are fewer init times than folds, or a level needs more
            cases than there are.
        """
        check_quantile_forecast(quantiles, ("model", "init_time"))
        if not (known := known_models(quantiles, truth)).all():
            names = quantiles["model"].values[~known].tolist()
            raise InputError(f"models {names} have no case to be fitted on: leave them out")
        dated = truth.notnull().any([dim for dim in truth.dims if dim != "init_time"]).values
        quantiles, truth = quantiles.isel(init_time=dated), truth.isel(init_time=dated)
        inits = quantiles["init_time"].values
        held = quantiles.isel(model=0, drop=True).transpose("init_time", ..., "quantile")
        held = held.astype(np.float32)
        fold, fits = np.zeros(inits.size, int), []
        for number, (fitting, out) in enumerate(folds(inits, self.folds)):
            try:
                fits.append(self._without(quantiles, truth, (fitting, out), key / "fold" / number))
            except InputError as error:
                first, last = np.datetime_as_string([inits[out].min(), inits[out].max()], "h")
                raise InputError(
                    f"fold {number + 1} of {self.folds}, without {first} to {last}: {error}"
                ) from error
            own = quantiles.isel(init_time=out).sel(model=fits[-1].models)
            held.values[out] = self.average.of(fits[-1], own).transpose(*held.dims).values
            fold[out] = number
            done()
        by = tuple(dim for dim in truth.dims if dim == _LEAD)
        conformal = CrossConformal.fit(
            held, truth, xr.DataArray(fold, {"init_time": inits}, "init_time"), self.conformity, by
        )
        return CrossAggregation(tuple(fits), conformal, self.average)

    def _without(
        self,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        sides: tuple[np.ndarray, np.ndarray],
        key: Key,
    ) -> Aggregation:
        """Trained on the first of two sides, positions of init times, without the second."""
        fitting, out = sides
        valid = truth["init_time"] + truth.coords.get(_LEAD, _AT_ONCE)
        block, others = valid.isel(init_time=out), valid.isel(init_time=fitting)
        apart = truth.isel(init_time=fitting).where((others < block.min()) | (others > block.max()))
        seen = quantiles.isel(init_time=fitting)
        known = known_models(seen, apart)
        if not known.any():
            raise InputError("no truth is left outside their valid times: add dates")
        return self.aggregator.fit(seen.isel(model=known), apart, key)


@dataclass(frozen=True)
class CrossAggregation:
    """Weights trained without each fold, and what they missed there.

    Attributes
    ----------
    fits : tuple of Aggregation
        Of each fold.
    conformal : CrossConformal
        By lead, if there are leads.
    average : Average
        What is averaged.
    """

    fits: tuple[Aggregation, ...]
    conformal: CrossConformal
    average: Average = QUANTILES

    @property
    def models(self) -> np.ndarray:
        """All that one of the fits knows."""
        return np.array(list(dict.fromkeys(m for fit in self.fits for m in fit.models.tolist())))

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """The combined, calibrated forecast: dimensions of `quantiles` less `model`; NaN for cases
        without any model that a fit knows.

        Raises
        ------
        InputError
            If models, levels or leads are not those fitted.
        """
        check_quantile_forecast(quantiles, ("model",))
        found, fitted = quantiles["model"].values.tolist(), self.models.tolist()
        if set(found) != set(fitted):
            raise InputError(f"aggregation was fitted for the models {fitted}, found {found}")
        parts = [
            self.average.of(fit, quantiles.sel(model=fit.models)).drop_vars(
                "model", errors="ignore"
            )
            for fit in self.fits
        ]
        joined = xr.concat(parts, "fold", coords="minimal", compat="override", join="override")
        calibrated = self.conformal.apply(joined)
        dims = [dim for dim in quantiles.dims if dim != "model"]
        return calibrated.transpose(*dims).assign_attrs(quantiles.attrs)

    def save(self, folder: Path) -> None:
        """Write to a new folder: weights of each fold as safetensors, scores as zarr."""
        folder.mkdir(parents=True)
        for number, fit in enumerate(self.fits):
            fit.save(_weights_of(folder, number))
        self.conformal.save(folder / "scores.zarr")

    @classmethod
    def load(cls, folder: Path, recipe: CrossAggregator) -> CrossAggregation:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            If there is none, or it is of another recipe.
        """
        conformal = CrossConformal.load(folder / "scores.zarr")
        if conformal.conformity != recipe.conformity:
            raise StoreError(
                f"{folder}: is {conformal.conformity.name}, expected {recipe.conformity.name}"
            )
        fits = [
            Aggregation.load(_weights_of(folder, number), recipe.aggregator)
            for number in range(recipe.folds)
        ]
        return cls(tuple(fits), conformal, recipe.average)


def _weights_of(folder: Path, fold: int) -> Path:
    return folder / f"fold_{fold + 1}.safetensors"
