"""CV+: conformal intervals that need no dates set aside.

Where the forecast was itself fitted on the past (a weighting of models, a bias correction), cases
that fitted it cannot calibrate it. CV+ fits it once without each fold, scores each case by the fit
that did not see it, and lets all fits speak on a new case (Barber, Candes, Ramdas and Tibshirani,
2021, doi:10.1214/20-AOS1965). With n exchangeable cases coverage is then at least
1 - 2 alpha - sqrt(2 / n), whatever the fits do, and 1 - alpha in practice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.calibration.conformal import check_fitted
from scoring.calibration.conformity import (
    ONE_SIDED,
    SYMMETRIC,
    Conformity,
    Margin,
    check_reachable,
    where,
)
from scoring.calibration.quantile_forecast import check_alike, check_quantile_forecast
from scoring.labels import load, save

_CONFORMITIES: dict[str, Conformity] = {one.name: one for one in (SYMMETRIC, ONE_SIDED)}
_ROUNDING = 1e-12  # of the largest number: candidates closer than that are the same


@dataclass(frozen=True)
class CrossConformal:
    """Scores of all cases, each by the fit without its fold.

    Attributes
    ----------
    error : xarray.DataArray
        Truth minus quantile, (*groups, case, quantile); NaN where a group has no such case.
    fold : numpy.ndarray
        Fold of each case, (case,), 0 to K - 1.
    conformity : Conformity
        `SYMMETRIC` or `ONE_SIDED`.
    """

    error: xr.DataArray
    fold: np.ndarray
    conformity: Conformity = SYMMETRIC

    @classmethod
    def fit(
        cls,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        fold: xr.DataArray,
        conformity: Conformity = SYMMETRIC,
        by: Sequence[str] = (),
    ) -> CrossConformal:
        """Score the cases.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Of each case by the fit that did not see its fold; any dimensions with `quantile`.
        truth : xarray.DataArray
            The same less `quantile`; NaN where it is missing.
        fold : xarray.DataArray
            Number of the fold, by some dimensions of `truth` (`scoring.dates.folds`).
        conformity : Conformity
            `SYMMETRIC` (default) or `ONE_SIDED`.
        by : sequence of str
            Dimensions of `truth` that are groups, each calibrated by itself: leads, say. All other
            cases are pooled; by default all are.

        Raises
        ------
        InputError
            If a level needs more cases than there are, levels do not increase within (0, 1) or come
            in no pairs, or forecasts, truth and folds are not of the same cases.
        """
        check_quantile_forecast(quantiles)
        check_alike(quantiles, truth)
        check_alike(truth, fold)
        pooled = [dim for dim in truth.dims if dim not in by]
        error = (truth - quantiles).transpose(*by, *pooled, "quantile")
        groups = [truth.sizes[dim] for dim in by]
        flat = error.values.reshape(*groups, -1, error.sizes["quantile"])
        first = truth.isel(dict.fromkeys(by, 0), drop=True)
        folds = fold.broadcast_like(first).transpose(*pooled).values.ravel()
        flat = np.where(np.isnan(flat).any(axis=-1, keepdims=True), np.nan, flat)
        known = ~np.isnan(flat[..., 0]).all(axis=tuple(range(len(groups))))
        at = {dim: error[dim] for dim in (*by, "quantile") if dim in error.coords}
        kept = xr.DataArray(flat[..., known, :], at, (*by, "case", "quantile"))
        calibration = cls(kept.drop_attrs(), folds[known].astype(int), conformity)
        calibration._check_reachable()
        return calibration

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """Quantiles of new cases; the dimensions of `quantiles` less `fold`, sorted.

        With n cases, the lower end of an interval is the floor(alpha (n+1))-th smallest of the
        q_lo of the fold of each case minus its score, the upper end the ceil((1-alpha)(n+1))-th
        smallest of q_hi plus the score. Levels that do not move are the mean over folds. Where a
        fold has no forecast (NaN), the mean of the others stands for it.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Any dimensions with `quantile`, `fold` and the groups: the new cases by each fit.

        Raises
        ------
        InputError
            If the levels, the number of folds, or a group are not those fitted.
        """
        check_fitted(self.error, quantiles)
        if quantiles.sizes["fold"] <= self.fold.max():
            raise InputError(
                f"cross-conformal calibration was fitted on {self.fold.max() + 1} folds, found "
                f"{quantiles.sizes['fold']}"
            )
        by = [str(dim) for dim in self.error.dims[:-2]]
        places = [_places(self.error, quantiles, dim) for dim in by]
        rest = [dim for dim in quantiles.dims if dim not in ("fold", "quantile", *by)]
        ordered = quantiles.transpose(*by, "fold", *rest, "quantile").astype(float)
        result = ordered.mean("fold")
        ordered = ordered.fillna(result).transpose(*ordered.dims)
        for group in np.ndindex(*map(len, places)):
            fitted = tuple(own[at] for own, at in zip(places, group, strict=True))
            self._move(self.error.values[fitted], ordered.values[group], result.values[group])
        result.values.sort(axis=-1)
        dims = [dim for dim in quantiles.dims if dim != "fold"]
        return result.transpose(*dims).assign_attrs(quantiles.attrs)

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        error = self.error.assign_attrs(conformity=self.conformity.name).rename("error")
        save(error.to_dataset().assign(fold=("case", self.fold)), path)

    @classmethod
    def load(cls, path: Path) -> CrossConformal:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none.
        """
        found = load(path, "cross-conformal calibration is", ["error", "fold"])
        error = found["error"]
        return cls(
            error.drop_attrs(), found["fold"].values, _CONFORMITIES[error.attrs["conformity"]]
        )

    def _check_reachable(self) -> None:
        by = [str(dim) for dim in self.error.dims[:-2]]
        count = np.isfinite(self.error.values[..., 0]).sum(axis=-1)
        fewest = int(count.argmin())
        for margin in self._margins(self.error.values.reshape(-1, self.error.sizes["quantile"])):
            check_reachable(margin.alpha, count.ravel()[fewest], where(self.error, by, fewest))

    def _margins(self, error: np.ndarray) -> Iterator[Margin]:
        """Of cases, (case, quantile)."""
        levels = self.error["quantile"].values
        return self.conformity.margins(lambda level: error[:, level].astype(float), levels)

    def _move(self, error: np.ndarray, values: np.ndarray, moved: np.ndarray) -> None:
        """Put the levels of new cases, (*rest, quantile), where the cases of a group, (case,
        quantile), and the fits, (fold, *rest, quantile), say."""
        known = np.isfinite(error[:, 0])
        fold, count = self.fold[known], int(known.sum())
        for margin in self._margins(error[known]):
            place = min(int(np.ceil(round((1 - margin.alpha) * (count + 1), 6))), count) - 1
            scores = [np.sort(margin.scores[fold == number]) for number in range(len(values))]
            for level, direction in margin.moved:
                ends = direction * values[..., level]
                found = _order_statistic(scores, ends.reshape(len(values), -1), place)
                moved[..., level] = direction * found.reshape(ends.shape[1:])


def _places(fitted: xr.DataArray, quantiles: xr.DataArray, dim: str) -> list[int]:
    """Where the groups of new cases are among those fitted."""
    known = fitted.indexes[dim]
    if dim not in quantiles.indexes or not quantiles.indexes[dim].isin(known).all():
        raise InputError(
            f"cross-conformal calibration was fitted for {dim} in {known.tolist()}, found "
            f"{quantiles.indexes[dim].tolist() if dim in quantiles.indexes else 'none'}"
        )
    return known.get_indexer(quantiles.indexes[dim]).tolist()


def _order_statistic(scores: Sequence[np.ndarray], shifts: np.ndarray, place: int) -> np.ndarray:
    """The (place + 1)-th smallest among the scores of all folds, each fold's plus its shift.

    It lies no farther from that of the scores alone than the shifts do from 0, so bisection from
    there counts a few times instead of adding and sorting cases times entries.

    Parameters
    ----------
    scores : sequence of numpy.ndarray
        Of each fold, ascending.
    shifts : numpy.ndarray
        (fold, entry)
    place : int
        From 0.

    Returns
    -------
    numpy.ndarray
        (entry,); NaN where a shift is.
    """
    pooled = np.sort(np.concatenate(scores))[place]
    tolerance = _ROUNDING * (np.abs(pooled) + np.abs(shifts).max(axis=0))
    low = pooled + shifts.min(axis=0) - 2 * tolerance
    high = pooled + shifts.max(axis=0) + 2 * tolerance
    below, within = _count(scores, shifts, low), _count(scores, shifts, high)
    left = np.flatnonzero((within - below > 1) & (high - low > tolerance))
    while left.size:
        middle = (low[left] + high[left]) / 2
        count = _count(scores, shifts[:, left], middle)
        reached = count > place
        above, under = left[reached], left[~reached]
        high[above], within[above] = middle[reached], count[reached]
        low[under], below[under] = middle[~reached], count[~reached]
        left = left[(within[left] - below[left] > 1) & (high[left] - low[left] > tolerance[left])]
    found = np.full(high.shape, -np.inf)
    for own, shift in zip(scores, shifts, strict=True):
        number = np.searchsorted(own, high - shift, side="right")
        last = np.concatenate([[-np.inf], own])[number] + shift
        found = np.maximum(found, last)
    return found


def _count(scores: Sequence[np.ndarray], shifts: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """How many scores, each fold's plus its shift, are not above a limit, (entry,)."""
    numbers = [
        np.searchsorted(own, limit - shift, side="right")
        for own, shift in zip(scores, shifts, strict=True)
    ]
    return np.sum(numbers, axis=0)
