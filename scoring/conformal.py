"""Conformal calibration of quantile forecasts (split CQR).

Quantiles are shifted by what past cases say about them, so that intervals hold new truths as often
as they promise, whatever the forecast's errors look like, as long as the cases are exchangeable
(Romano, Patterson and Candes, 2019, doi:10.48550/arXiv.1905.03222).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError, StoreError
from scoring.quantiles import check_levels

_ROUNDING = 10


class Conformity(Protocol):
    """How the departure of truth from quantiles becomes shifts of the quantiles."""

    name: ClassVar[str]

    def shifts(self, error: np.ndarray, levels: np.ndarray, sample: Sample) -> np.ndarray:
        """Shift of each level, (group, level), from `error`, (group, case, level)."""
        ...


@dataclass(frozen=True)
class Sample:
    """How much the cases weigh, and for how many independent ones they stand.

    Attributes
    ----------
    weights : numpy.ndarray
        (case,), not negative.
    count : float
        n: a level alpha can be reached if alpha >= 1 / (n + 1).
    """

    weights: np.ndarray
    count: float

    def quantile(self, scores: np.ndarray, alpha: float) -> np.ndarray:
        """The ceil((n+1)(1-alpha))-th smallest score of each group, weights considered, (group,).

        The sample is completed by one score at infinity that weighs 1 / (n + 1). A NaN score is
        left out.

        Parameters
        ----------
        scores : numpy.ndarray
            (group, case)
        alpha : float
            How often a new score may be larger.

        Raises
        ------
        InputError
            If alpha < 1 / (n + 1); says how many cases are needed.
        """
        needed = ceil(round(1 / alpha - 1, _ROUNDING))
        if round(self.count, _ROUNDING) < needed:
            raise InputError(
                f"calibrating to a miss rate of {alpha:g} needs at least {needed} cases, found "
                f"{self.count:g}: add dates, pool more cells, or leave out the outer levels"
            )
        level = (1 - alpha) * (self.count + 1) / self.count
        complete = not np.isnan(scores).any()
        if complete and np.ptp(self.weights) == 0:
            place = min(ceil(round(level * scores.shape[1], 6)), scores.shape[1]) - 1
            return np.partition(scores, place, axis=1)[:, place]
        return self._weighted(scores, level)

    def _weighted(self, scores: np.ndarray, level: float) -> np.ndarray:
        order = np.argsort(scores, axis=1)
        ascending = np.take_along_axis(scores, order, axis=1)
        weights = np.where(np.isnan(ascending), 0.0, self.weights[order])
        total = weights.sum(axis=1, keepdims=True)
        if not (total > 0).all():
            raise InputError("calibration found a group without any case that has a truth")
        share = np.cumsum(weights, axis=1) / total
        reached = share >= min(level, 1.0) - 1e-9
        return np.take_along_axis(ascending, reached.argmax(axis=1)[:, None], axis=1)[:, 0]


@dataclass(frozen=True)
class Symmetric:
    """Both ends of an interval move by the same amount: E = max(q_lo - y, y - q_hi).

    The median stays where it is.
    """

    name: ClassVar[str] = "symmetric CQR"

    def shifts(self, error: np.ndarray, levels: np.ndarray, sample: Sample) -> np.ndarray:
        """(group, level)"""
        shifts = np.zeros((error.shape[0], levels.size))
        for low, high in pairs(levels):
            scores = np.maximum(-error[..., low], error[..., high])
            margin = sample.quantile(scores, round(2 * levels[low], _ROUNDING))
            shifts[:, low], shifts[:, high] = -margin, margin
        return shifts


@dataclass(frozen=True)
class OneSided:
    """Each quantile moves by itself: E = q - y below the median, y - q above; each end of an
    interval misses with its own probability, so a bias is taken out. The median moves by the
    median error."""

    name: ClassVar[str] = "one-sided CQR"

    def shifts(self, error: np.ndarray, levels: np.ndarray, sample: Sample) -> np.ndarray:
        """(group, level)"""
        shifts = np.zeros((error.shape[0], levels.size))
        for index, level in enumerate(levels):
            alpha = round(min(level, 1 - level), _ROUNDING)
            side = -1.0 if level < 0.5 else 1.0
            shifts[:, index] = side * sample.quantile(side * error[..., index], alpha)
        return shifts


SYMMETRIC = Symmetric()
ONE_SIDED = OneSided()


class Counting(Protocol):
    """For how many independent cases a pooled sample stands."""

    name: ClassVar[str]

    def count(self, dates: int, weights: np.ndarray) -> float:
        """n, from the number of dates and the (date x cell) weights of all cases."""
        ...


@dataclass(frozen=True)
class EachCase:
    """Every cell of every date is a case: (sum w)^2 / sum w^2 of them (Kish, 1965).

    Neighbouring cells are alike, so this promises coverage on average over cells and over dates
    like those pooled, not for one new date.
    """

    name: ClassVar[str] = "each cell of each date"

    def count(self, dates: int, weights: np.ndarray) -> float:
        """Effective number of cells times dates."""
        return float(weights.sum() ** 2 / (weights**2).sum())


@dataclass(frozen=True)
class EachDate:
    """A date is one case however many cells it has: coverage is promised for a random cell of a
    new date (Lee, Barber and Willett, 2023, doi:10.48550/arXiv.2306.06342)."""

    name: ClassVar[str] = "each date"

    def count(self, dates: int, weights: np.ndarray) -> float:
        """Number of dates."""
        return float(dates)


EACH_CASE = EachCase()
EACH_DATE = EachDate()


@dataclass(frozen=True)
class ConformalCalibration:
    """Shifts of quantiles, fitted on past cases.

    Attributes
    ----------
    shifts : xarray.DataArray
        (*groups, quantile), in the unit of the forecast; attributes name the method, the
        counting, and the number of `cases` and `dates`.
    """

    shifts: xr.DataArray

    @classmethod
    def fit(
        cls,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        over: Sequence[str],
        weights: xr.DataArray | None = None,
        conformity: Conformity = SYMMETRIC,
        counting: Counting = EACH_CASE,
    ) -> ConformalCalibration:
        """Fit on past forecasts and their truth.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Any dimensions with `quantile`, levels increasing.
        truth : xarray.DataArray
            The dimensions of `quantiles` less `quantile`.
        over : sequence of str
            Dimensions pooled into one sample, the first of them the dates; the others are groups.
        weights : xarray.DataArray, optional
            Of the pooled cases, for example area; equal by default.
        conformity : Conformity
            `SYMMETRIC` (default) or `ONE_SIDED`.
        counting : Counting
            `EACH_CASE` (default) or `EACH_DATE`.

        Raises
        ------
        InputError
            If a level needs more cases than there are, or levels come in no pairs.
        """
        levels = quantiles["quantile"].values
        check_levels(levels)
        groups = [dim for dim in truth.dims if dim not in over]
        with xr.set_options(arithmetic_join="exact"):
            error = (truth - quantiles).transpose(*groups, *over, "quantile")
        shape = [error.sizes[dim] for dim in groups]
        flat = error.values.reshape(int(np.prod(shape)), -1, levels.size)
        cases = xr.ones_like(truth.isel(dict.fromkeys(groups, 0), drop=True), dtype=float)
        pooled = cases if weights is None else cases * weights
        weight = pooled.transpose(*over).values.ravel()
        count = counting.count(truth.sizes[over[0]], weight[weight > 0])
        used = flat[:, weight > 0]
        sample = Sample(weight[weight > 0], count)
        shifts = conformity.shifts(used, levels, sample).reshape(*shape, levels.size)
        coordinates = {dim: error[dim] for dim in (*groups, "quantile") if dim in error.coords}
        attributes = {
            "conformity": conformity.name,
            "counting": counting.name,
            "cases": count,
            "dates": truth.sizes[over[0]],
        }
        return cls(xr.DataArray(shifts, coordinates, (*groups, "quantile"), attrs=attributes))

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """Quantiles shifted and sorted again; same dimensions, in the order of `quantiles`.

        Raises
        ------
        InputError
            If the levels are not those fitted.
        """
        if not np.array_equal(quantiles["quantile"], self.shifts["quantile"]):
            raise InputError(
                f"calibration was fitted for the levels {self.shifts['quantile'].values.tolist()}, "
                f"found {quantiles['quantile'].values.tolist()}"
            )
        with xr.set_options(arithmetic_join="exact"):
            shifted = (quantiles + self.shifts).transpose(*quantiles.dims)
        axis = shifted.get_axis_num("quantile")
        return shifted.copy(data=np.sort(shifted.values, axis=axis)).assign_attrs(quantiles.attrs)

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        dataset = self.shifts.rename("shifts").to_dataset()
        dataset.to_zarr(path, zarr_format=3, consolidated=False, mode="w-")

    @classmethod
    def load(cls, path: Path) -> ConformalCalibration:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none.
        """
        try:
            with xr.open_zarr(path, consolidated=False, decode_timedelta=True) as dataset:
                return cls(dataset["shifts"].load())
        except (FileNotFoundError, KeyError) as error:
            raise StoreError(f"{path}: no calibration is there: {error}") from error


def pairs(levels: np.ndarray) -> list[tuple[int, int]]:
    """Positions of the two levels of each central interval, the widest first.

    Raises
    ------
    InputError
        If a level other than 0.5 has no partner.
    """
    found = []
    for low in np.flatnonzero(levels < 0.5 - 1e-9):
        partner = np.flatnonzero(np.isclose(levels, 1 - levels[low], rtol=0, atol=1e-9))
        found += [(int(low), int(high)) for high in partner]
    lonely = levels.size - 2 * len(found) - np.count_nonzero(np.isclose(levels, 0.5))
    if lonely:
        raise InputError(f"levels do not come in pairs p and 1 - p: {levels.tolist()}")
    return found
