"""Online calibration: quantiles corrected by how often those issued so far held the truth.

Nothing is assumed about the series: each level is moved up after truths above it and down after
truths below it, so that in the long run it is exceeded as often as it promises. A case is learned
from when its truth has become known, which for a long lead is long after it was issued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError, StoreError
from scoring.calibration.conformal import check_fitted
from scoring.calibration.isotonic import isotonic_regression
from scoring.calibration.quantile_forecast import check_alike, check_quantile_forecast
from scoring.labels import load, save
from scoring.layout import Layout

_NEVER = np.datetime64("1700-01-01", "ns")
_LEARNED = {"learned": ("lead_time",)}
_AT_ONCE = np.timedelta64(0, "ns")


class Method(Protocol):
    """What is kept of the past, and the shifts that follow from it.

    A state is arrays by name, with the dimensions that `dims` says; `group` and `case` stand for
    all cells that have a shift of their own and for all that share one.
    """

    dims: ClassVar[dict[str, tuple[str, ...]]]

    @property
    def name(self) -> str:
        """What every output says about it, with every setting."""
        ...

    def start(
        self, error: np.ndarray, levels: np.ndarray, init_times: np.ndarray
    ) -> dict[str, np.ndarray]:
        """State after past errors, (init_time, lead_time, group, case, quantile)."""
        ...

    def shifts(
        self, state: dict[str, np.ndarray], levels: np.ndarray, init_time: np.datetime64
    ) -> np.ndarray:
        """What to add to the quantiles of a new forecast, (lead_time, group, quantile)."""
        ...

    def learn(
        self,
        state: dict[str, np.ndarray],
        deficit: np.ndarray,
        error: np.ndarray,
        levels: np.ndarray,
        init_time: np.datetime64,
    ) -> dict[str, np.ndarray]:
        """State after one more init time.

        `deficit` is the level minus the share of truths not above the issued quantile,
        (lead_time, group, quantile), 0 where no truth is known; `error` is truth minus raw
        quantile, (lead_time, group, case, quantile), NaN where none is known.
        """
        ...


@dataclass(frozen=True)
class OnlineCalibration:
    """A calibration that learns: state in, state out; nothing else is remembered.

    Attributes
    ----------
    method : Method
        `tracking.QuantileTracking` or `adaptive.AdaptiveConformal`, beside this module.
    layout : Layout
        Which cells share a shift.
    arrays : dict of str to numpy.ndarray
        What the method keeps, and `learned`, the last init time learned of each lead.
    towards : tuple of str
        Groups that learn from their pool as well: a share of each step is the pool's.
    share : float
        That share, 0 (each group by itself) to 1 (all alike).
    """

    method: Method
    layout: Layout
    arrays: dict[str, np.ndarray]
    towards: tuple[str, ...] = ()
    share: float = 0.0

    @classmethod
    def start(
        cls,
        method: Method,
        quantiles: xr.DataArray,
        truth: xr.DataArray,
        pooled: Sequence[str] = (),
        towards: Sequence[str] = (),
        share: float = 0.0,
    ) -> OnlineCalibration:
        """Start from past cases, all known; from none if they have no `init_time`.

        Parameters
        ----------
        method : Method
            How to learn.
        quantiles : xarray.DataArray
            (init_time, quantile, lead_time, *cells), in any order.
        truth : xarray.DataArray
            The same less `quantile`; NaN where it is missing.
        pooled : sequence of str
            Dimensions of cells that share one shift; the others are groups.
        towards, share
            See the attributes.

        Raises
        ------
        InputError
            If a level needs more cases than there are, levels do not increase within (0, 1), or
            forecasts and truth are not of the same cases.
        """
        check_quantile_forecast(quantiles)
        cells = {dim: size for dim, size in truth.sizes.items() if dim not in _CASE}
        if missing := (set(pooled) | set(towards)) - set(cells):
            raise InputError(f"{sorted(missing)} are not among the cells' dimensions {[*cells]}")
        if set(pooled) & set(towards) or not 0 <= share <= 1:
            raise InputError(
                f"groups lean on their pool by a share of 0 to 1, found {share:g} of {towards}"
            )
        names = [dim for dim in cells if dim not in pooled]
        layout = Layout(
            {dim: cells[dim] for dim in names},
            {dim: cells[dim] for dim in pooled},
            {dim: quantiles[dim].values for dim in ("lead_time", "quantile")}
            | {dim: truth[dim].values for dim in names if dim in truth.coords},
        )
        error = _errors(layout, quantiles, truth)
        times = quantiles["init_time"].values.astype("datetime64[ns]")
        seen = np.isfinite(error[..., 0]).any(axis=(2, 3))
        last = np.where(seen, times[:, None], _NEVER).max(axis=0, initial=_NEVER)
        arrays = method.start(error, layout.levels, times) | {"learned": last}
        return cls(method, layout, arrays, tuple(towards), share)

    @property
    def state(self) -> xr.Dataset:
        """Everything that is remembered, labelled; attributes say what learned it and how."""
        dims = self.method.dims | _LEARNED
        attributes = {
            "method": self.method.name,
            "pooled": self.layout.pooled,
            "towards": list(self.towards),
            "share": self.share,
        }
        return xr.Dataset(
            {name: self.layout.labelled(array, dims[name]) for name, array in self.arrays.items()},
            attrs=attributes,
        )

    def apply(self, quantiles: xr.DataArray) -> xr.DataArray:
        """The quantiles of one new forecast, shifted and made to increase, as they are issued.

        Parameters
        ----------
        quantiles : xarray.DataArray
            (quantile, lead_time, *cells), in any order, with a scalar `init_time`.

        Raises
        ------
        InputError
            If the levels are not those learned, or too few cases are known.
        """
        return self.issue(quantiles, self.shifts(_time(quantiles)))

    def shifts(self, init_time: np.datetime64) -> xr.DataArray:
        """What `apply` adds to a forecast of this init time, (lead_time, *groups, quantile).

        Raises
        ------
        InputError
            If too few cases are known.
        """
        found = self.method.shifts(self.arrays, self.layout.levels, init_time)
        return self.layout.labelled(found, ("lead_time", "group", "quantile"))

    def issue(self, quantiles: xr.DataArray, shifts: xr.DataArray) -> xr.DataArray:
        """The quantiles of one forecast with these shifts, made to increase; see `apply`."""
        check_fitted(self.layout.coords, quantiles)
        added = shifts.values.reshape(len(shifts), self.layout.shape[0], 1, -1)
        issued = _ordered(self.layout.values(quantiles) + added)
        cells = (*self.layout.groups, *self.layout.pooled)
        ordered = quantiles.transpose("lead_time", *cells, "quantile")
        result = ordered.copy(data=issued.reshape(ordered.shape))
        return result.transpose(*quantiles.dims)

    def update(
        self, quantiles: xr.DataArray, issued: xr.DataArray, truth: xr.DataArray
    ) -> OnlineCalibration:
        """Learn from one past forecast what of its truth is known by now.

        Leads of which this or a later forecast was learned before are left out, so an update that
        is repeated changes nothing.

        Parameters
        ----------
        quantiles, issued : xarray.DataArray
            Before and after `apply`, (quantile, lead_time, *cells), with a scalar `init_time`.
        truth : xarray.DataArray
            The same less `quantile`; NaN where it is not known.
        """
        check_fitted(self.layout.coords, quantiles)
        values = (self.layout.values(array) for array in (quantiles, issued, truth))
        return self._learn(_time(quantiles), *values)

    def _issue(self, raw: np.ndarray, time: np.datetime64) -> np.ndarray:
        """(lead_time, group, case, quantile)"""
        shifts = self.method.shifts(self.arrays, self.layout.levels, time)
        return _ordered(raw + shifts[:, :, None])

    def _learn(
        self, time: np.datetime64, raw: np.ndarray, issued: np.ndarray, truth: np.ndarray
    ) -> OnlineCalibration:
        fresh = self.arrays["learned"] < time
        truth = np.where(fresh[:, None, None], truth, np.nan)[..., None]
        error = truth - raw
        known = np.isfinite(error[..., :1]) & ~np.isnan(issued[..., :1])
        if not known.any():
            return self
        cases = known.sum(axis=2)
        share = ((truth <= issued) & known).sum(axis=2) / np.maximum(cases, 1)
        deficit = np.where(cases > 0, self.layout.levels - share, np.nan)
        deficit = np.nan_to_num(self._shared(deficit))
        learnt = self.method.learn(self.arrays, deficit, error, self.layout.levels, time)
        last = np.where(known.any(axis=(1, 2, 3)), time, self.arrays["learned"])
        return replace(self, arrays=learnt | {"learned": last})

    def _shared(self, deficit: np.ndarray) -> np.ndarray:
        """Deficits of groups, in part those of their pool, (lead_time, group, quantile)."""
        if not self.towards:
            return deficit
        shape = (deficit.shape[0], *self.layout.groups.values(), deficit.shape[-1])
        axes = tuple(1 + [*self.layout.groups].index(dim) for dim in self.towards)
        known = np.isfinite(deficit).reshape(shape)
        filled = np.nan_to_num(deficit).reshape(shape)
        total, count = (part.sum(axis=axes, keepdims=True) for part in (filled, known))
        pool = total / np.maximum(count, 1)
        return ((1 - self.share) * filled + self.share * pool).reshape(deficit.shape)

    def save(self, path: Path) -> None:
        """Write to a new zarr store; what is loaded from it goes on bit for bit."""
        save(self.state, path)

    @classmethod
    def load(cls, path: Path, method: Method) -> OnlineCalibration:
        """Read from a zarr store.

        Raises
        ------
        StoreError
            If there is none, or it was learned by another method or with other settings.
        """
        return cls.from_state(load(path, "online calibration is", method.dims), method, str(path))

    @classmethod
    def from_state(
        cls, state: xr.Dataset, method: Method, where: str = "the state"
    ) -> OnlineCalibration:
        """From everything that is remembered.

        Raises
        ------
        StoreError
            If it was learned by another method or with other settings.
        """
        found, pooled = state.attrs["method"], state.attrs["pooled"]
        if found != method.name:
            raise StoreError(f"{where}: learned by {found!r}, expected {method.name!r}")
        groups = state[next(iter(method.dims))].dims[1:-1]
        layout = Layout(
            {str(dim): state.sizes[dim] for dim in groups},
            dict(pooled),
            {str(name): array.values for name, array in state.coords.items() if name != "past"},
        )
        sizes = dict(state.sizes) | dict(zip(("group", "case"), layout.shape, strict=True))
        arrays = {
            name: state[name].values.reshape([sizes[dim] for dim in dims])
            for name, dims in (method.dims | _LEARNED).items()
        }
        return cls(method, layout, arrays, tuple(state.attrs["towards"]), state.attrs["share"])


def calibrate_online(
    calibration: OnlineCalibration,
    quantiles: xr.DataArray,
    truth: xr.DataArray,
    latency: np.timedelta64 = _AT_ONCE,
) -> tuple[xr.DataArray, OnlineCalibration]:
    """Go through an archive as if in real time.

    Before each forecast is calibrated, all truths known by its init time are learned from: those
    whose init time plus lead time plus latency is not after it.

    Parameters
    ----------
    calibration : OnlineCalibration
        To start from.
    quantiles : xarray.DataArray
        (init_time, quantile, lead_time, *cells), in any order; init times ascending.
    truth : xarray.DataArray
        The same less `quantile`; NaN where it is missing.
    latency : numpy.timedelta64
        How long after its valid time a truth becomes known.

    Returns
    -------
    tuple
        The quantiles as issued, and the calibration after the last of them was issued.
    """
    times = quantiles["init_time"].values.astype("datetime64[ns]")
    if (np.diff(times) <= np.timedelta64(0)).any():
        raise InputError("online calibration needs init times that ascend")
    layout = calibration.layout
    check_fitted(layout.coords, quantiles)
    raw, known = layout.values(quantiles), layout.values(truth)
    known_at = times[:, None] + layout.coords["lead_time"] + latency
    issued = np.empty_like(raw)
    for index, time in enumerate(times):
        for past in range(index):
            # A forecast is first looked back at one init time after it was issued.
            fresh = known_at[past] <= time
            if past < index - 1:
                fresh &= known_at[past] > times[index - 1]
            if fresh.any():
                now = np.where(fresh[:, None, None], known[past], np.nan)
                calibration = calibration._learn(times[past], raw[past], issued[past], now)
        issued[index] = calibration._issue(raw[index], time)
    dims = ("init_time", "lead_time", *layout.groups, *layout.pooled, "quantile")
    ordered = quantiles.transpose(*dims)
    return ordered.copy(data=issued.reshape(ordered.shape)).transpose(*quantiles.dims), calibration


_CASE = ("init_time", "lead_time")


def _time(quantiles: xr.DataArray) -> np.datetime64:
    return quantiles["init_time"].values.astype("datetime64[ns]")


def _errors(layout: Layout, quantiles: xr.DataArray, truth: xr.DataArray) -> np.ndarray:
    """Truth minus quantile, (init_time, lead_time, group, case, quantile)."""
    check_alike(quantiles, truth)
    return layout.values(truth)[..., None] - layout.values(quantiles)


def _ordered(values: np.ndarray) -> np.ndarray:
    """Increasing along the last axis.

    Levels that cross are pooled, not sorted: sorted, a level would be judged by what another one
    had learned, and the two could drift apart without end.
    """
    crossed = (values[..., 1:] < values[..., :-1]).any(axis=-1)
    finite = np.isfinite(values).all(axis=-1)
    result = np.where(crossed[..., None], np.sort(values, axis=-1), values)
    pooled = crossed & finite
    if pooled.any():
        result[pooled] = isotonic_regression(values[pooled], np.ones(values.shape[-1]))
    return result
