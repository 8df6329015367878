"""Conformal calibration of quantile forecasts (split CQR).

Quantiles are shifted by what past cases say about them, so that intervals hold new truths as often
as they promise, whatever the forecast's errors look like, as long as the cases are exchangeable
(Romano, Patterson and Candes, 2019, doi:10.48550/arXiv.1905.03222).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError
from scoring.calibration.conformity import (
    EACH_CASE,
    EACH_DATE,
    ONE_SIDED,
    SYMMETRIC,
    Conformity,
    Counting,
    check_reachable,
    conformal_quantile,
    where,
)
from scoring.calibration.quantile_forecast import check_alike, check_quantile_forecast
from scoring.labels import load, save

_ENTRIES = 2**18  # worked on at a time

__all__ = [
    "EACH_CASE",
    "EACH_DATE",
    "ONE_SIDED",
    "SYMMETRIC",
    "ConformalCalibration",
    "Conformity",
    "Counting",
    "Shrinkage",
]


@dataclass(frozen=True)
class Shrinkage:
    """Groups with few cases lean on the pool of all groups.

    The shift of a group with n cases is (n own + k pool) / (n + k); that of a group with too few
    cases for a level is the pool's. Coverage is then promised for the pool, not for each group.

    Parameters
    ----------
    dims : tuple of str
        Groups that are pooled, all in one unit: sites, regions, leads or labels, not channels.
    cases : float
        k, for how many cases the pool counts.
    """

    dims: tuple[str, ...]
    cases: float


@dataclass(frozen=True)
class ConformalCalibration:
    """Shifts of quantiles, fitted on past cases.

    Attributes
    ----------
    shifts : xarray.DataArray
        (*groups, quantile), in the unit of the forecast; attributes name the method, the
        counting, and the number of `cases` (of the group with the fewest) and `dates`.
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
        labels: Sequence[str] = (),
        shrinkage: Shrinkage | None = None,
    ) -> ConformalCalibration:
        """Fit on past forecasts and their truth.

        Parameters
        ----------
        quantiles : xarray.DataArray
            Any dimensions with `quantile`, levels increasing.
        truth : xarray.DataArray
            The dimensions of `quantiles` less `quantile`; NaN where it is missing.
        over : sequence of str
            Dimensions pooled into one sample, the first of them the dates; the others are groups.
        weights : xarray.DataArray, optional
            Of the pooled cases, by any of their dimensions: area, or recency (`scoring.dates`);
            equal by default.
        conformity : Conformity
            `SYMMETRIC` (default) or `ONE_SIDED`.
        counting : Counting
            `EACH_CASE` (default) or `EACH_DATE`.
        labels : sequence of str
            Coordinates of `truth` along one pooled dimension each (season, region) whose values
            are groups as well.
        shrinkage : Shrinkage, optional
            Towards a pool of groups; none by default.

        Raises
        ------
        InputError
            If a level needs more cases than there are, levels do not increase within (0, 1) or come
            in no pairs, or forecasts and truth are not of the same cases.
        """
        check_quantile_forecast(quantiles)
        check_alike(quantiles, truth)
        fit = _Fit(tuple(over), weights, conformity, counting)
        if shrinkage is None:
            shifts, cases = fit.by_label(quantiles, truth, tuple(labels), refuse=True)
        else:
            shifts, cases = fit.shrunk(quantiles, truth, tuple(labels), shrinkage)
        attributes = {
            "conformity": conformity.name,
            "counting": counting.name,
            "cases": float(cases.min()),
            "dates": truth.sizes[over[0]],
        }
        return cls(shifts.assign_attrs(attributes))

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """Quantiles shifted and sorted again; same dimensions, in the order of `quantiles`.

        Labels that were fitted are looked up in the coordinates of `quantiles`.

        Raises
        ------
        InputError
            If the levels, or a label, are not among those fitted.
        """
        check_fitted(self.shifts, quantiles)
        shifts = self.shifts.drop_attrs()
        for name in self.shifts.dims:
            if name not in quantiles.dims:
                shifts = _looked_up(shifts, quantiles, name)
        with xr.set_options(arithmetic_join="exact"):
            shifted = (quantiles + shifts).transpose(*quantiles.dims)
        axis = shifted.get_axis_num("quantile")
        return shifted.copy(data=np.sort(shifted.values, axis=axis)).assign_attrs(quantiles.attrs)

    def save(self, path: Path) -> None:
        """Write to a new zarr store."""
        save(self.shifts.rename("shifts").to_dataset(), path)

    @classmethod
    def load(cls, path: Path) -> ConformalCalibration:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none.
        """
        return cls(load(path, "calibration is", ["shifts"])["shifts"])


@dataclass(frozen=True)
class _Fit:
    """One fit: what is pooled and how."""

    over: tuple[str, ...]
    weights: xr.DataArray | None
    conformity: Conformity
    counting: Counting

    def by_label(
        self, quantiles: xr.DataArray, truth: xr.DataArray, labels: tuple[str, ...], refuse: bool
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Shifts, (*labels, *groups, quantile), and number of cases, (*labels, *groups)."""
        if not labels:
            return self.of_all(quantiles, truth, refuse)
        coordinate = _label(truth, labels[0], self.over)
        values = np.unique(coordinate.values)
        parts = []
        for value in values:
            place = {coordinate.dims[0]: np.flatnonzero(coordinate.values == value)}
            weights = self.weights
            if weights is not None and coordinate.dims[0] in weights.dims:
                weights = weights.isel(place)
            part = _Fit(self.over, weights, self.conformity, self.counting)
            chosen = quantiles.isel(place).drop_vars(labels[0], errors="ignore")
            parts.append(
                part.by_label(chosen, truth.isel(place).drop_vars(labels[0]), labels[1:], refuse)
            )
        dimension = xr.DataArray(values, dims=labels[0], name=labels[0])
        return tuple(xr.concat(each, dimension) for each in zip(*parts, strict=True))

    def shrunk(
        self,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        labels: tuple[str, ...],
        shrinkage: Shrinkage,
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """The same, of groups drawn towards their pool."""
        dims = [dim for dim in truth.dims if dim in shrinkage.dims]
        unknown = set(shrinkage.dims) - set(dims) - set(labels)
        if unknown or set(dims) & set(self.over):
            raise InputError(
                f"shrinkage is between groups, found {shrinkage.dims}; groups are "
                f"{tuple(dim for dim in truth.dims if dim not in self.over) + labels}"
            )
        own, cases = self.by_label(quantiles, truth, labels, refuse=False)
        pool = _Fit((*self.over, *dims), self.weights, self.conformity, self.counting)
        kept = tuple(label for label in labels if label not in shrinkage.dims)
        shared, _ = pool.by_label(quantiles, truth, kept, refuse=True)
        share = (cases / (cases + shrinkage.cases)).where(np.isfinite(own), 0.0)
        mixed = share * own.where(np.isfinite(own), 0.0) + (1 - share) * shared
        return mixed.transpose(*own.dims), cases

    def of_all(
        self, quantiles: xr.DataArray, truth: xr.DataArray, refuse: bool
    ) -> tuple[xr.DataArray, xr.DataArray]:
        """Shifts, (*groups, quantile), and number of cases, (*groups)."""
        groups = [str(dim) for dim in truth.dims if dim not in self.over]
        quantiles = quantiles.transpose(*truth.dims, "quantile")
        xr.align(quantiles, truth, join="exact", copy=False, exclude={"quantile"})
        order = [truth.get_axis_num(dim) for dim in (*groups, *self.over)]
        levels, weight = quantiles["quantile"].values, self._weights(truth)
        sizes = [truth.sizes[dim] for dim in groups]
        values = quantiles.values.transpose(*order, truth.ndim)
        known = truth.values.transpose(order)
        shifts, count, alphas = np.empty((*sizes, levels.size)), np.empty(sizes), set()
        for part in _parts(sizes, weight.size):
            shifts[part], count[part], here = self._of_part(
                values[part], known[part], weight, levels
            )
            alphas |= here
        if refuse:
            fewest = int(count.argmin())
            for alpha in sorted(alphas):
                check_reachable(alpha, count.ravel()[fewest], where(truth, groups, fewest))
        at = {dim: truth[dim] for dim in groups if dim in truth.coords}
        return (
            xr.DataArray(shifts, at | {"quantile": levels}, (*groups, "quantile")),
            xr.DataArray(count, at, groups),
        )

    def _of_part(
        self, values: np.ndarray, known: np.ndarray, weight: np.ndarray, levels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, set[float]]:
        """Shifts, (*group, quantile), number of cases, (*group), and how often each margin may be
        missed, of quantiles, (*group, *case, quantile), and truth, (*group, *case)."""
        shape = known.shape[: known.ndim - len(self.over)]
        used = weight.ravel() > 0

        def arrange(scores: np.ndarray) -> np.ndarray:
            flat = scores.reshape(int(np.prod(shape)), -1)
            return flat if used.all() else flat[:, used]

        first = known - values[..., 0]

        def error(level: int) -> np.ndarray:
            return known - values[..., level] if level else first

        count, alphas = self._count(weight, arrange(first), used), set()
        shifts = np.zeros((count.size, levels.size))
        for margin in self.conformity.margins(error, levels):
            found = conformal_quantile(
                arrange(margin.scores), weight.ravel()[used], count, margin.alpha
            )
            alphas.add(margin.alpha)
            for level, direction in margin.moved:
                shifts[:, level] = direction * found
        return shifts.reshape(*shape, -1), count.reshape(shape), alphas

    def _weights(self, truth: xr.DataArray) -> np.ndarray:
        """Of the pooled cases, (date, other)."""
        sizes = {dim: truth.sizes[dim] for dim in self.over}
        cases = xr.DataArray(
            np.ones(tuple(sizes.values())),
            {dim: truth[dim] for dim in self.over if dim in truth.coords},
            self.over,
        )
        pooled = cases if self.weights is None else (cases * self.weights).transpose(*self.over)
        if pooled.shape != cases.shape or not (pooled.values >= 0).all():
            raise InputError("weights of cases must be known and not negative, for every case")
        return pooled.values.reshape(truth.sizes[self.over[0]], -1)

    def _count(self, weights: np.ndarray, cases: np.ndarray, used: np.ndarray) -> np.ndarray:
        """n of each group; cases that a group has no truth for do not count, (group,)."""
        everything = np.broadcast_to(self.counting.count(weights), cases.shape[:1])
        missing = np.isnan(cases)
        if not missing.any():
            return np.array(everything)
        count = np.array(everything)
        for group in np.flatnonzero(missing.any(axis=1)):
            own = np.zeros(weights.size)
            own[np.flatnonzero(used)[~missing[group]]] = 1.0
            count[group] = self.counting.count(weights * own.reshape(weights.shape))
        return count


def check_fitted(fitted: xr.DataArray | Mapping[str, np.ndarray], quantiles: xr.DataArray) -> None:
    """Refuse other levels than those fitted.

    Raises
    ------
    InputError
        Naming both.
    """
    levels, found = np.asarray(fitted["quantile"]), quantiles["quantile"].values
    if not np.array_equal(found, levels):
        raise InputError(
            f"calibration was fitted for the levels {levels.tolist()}, found {found.tolist()}"
        )


def _parts(sizes: list[int], cases: int) -> Iterator[tuple[slice, ...]]:
    """Groups of these sizes, some at a time, so that their cases stay in cache."""
    if not sizes:
        yield ()
        return
    longest = int(np.argmax(sizes))
    step = max(1, _ENTRIES * sizes[longest] // (cases * int(np.prod(sizes))))
    for start in range(0, sizes[longest], step):
        yield (*(slice(None),) * longest, slice(start, start + step))


def _label(truth: xr.DataArray, name: str, over: tuple[str, ...]) -> xr.DataArray:
    if name not in truth.coords or len(truth[name].dims) != 1 or truth[name].dims[0] not in over:
        raise InputError(
            f"label {name!r} must be a coordinate of the truth along one of {over}, found "
            f"coordinates {sorted(str(coordinate) for coordinate in truth.coords)}"
        )
    return truth[name]


def _looked_up(shifts: xr.DataArray, quantiles: xr.DataArray, name: str) -> xr.DataArray:
    if name not in quantiles.coords:
        raise InputError(f"calibration was fitted by {name!r}, which the forecast does not have")
    wanted = quantiles[name]
    unknown = set(wanted.values.ravel().tolist()) - set(shifts[name].values.tolist())
    if unknown:
        raise InputError(
            f"calibration was fitted for {name} in {shifts[name].values.tolist()}, found "
            f"{sorted(unknown)}"
        )
    return shifts.sel({name: wanted.drop_vars(set(wanted.coords) - {name})}).drop_vars(name)
