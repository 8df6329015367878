"""Methods that learn from every forecast when its truth becomes known."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from pydantic import Field, model_validator

from data.errors import InputError
from pipelines.calibration.cases import Cases, quantiles_of, read_members
from pipelines.calibration.quantiles import OfQuantiles
from pipelines.truths import Series
from pipelines.verification import Verification
from scoring.calibration.adaptive import AdaptiveConformal
from scoring.calibration.conformity import check_reachable
from scoring.calibration.online import Method as Learning
from scoring.calibration.online import OnlineCalibration
from scoring.calibration.tracking import QuantileTracking
from scoring.dates import EQUAL, Recent


class Online(OfQuantiles):
    """What methods that learn share: `groups` are horizontal dimensions with shifts of their own,
    all other cells share one; `share` of each step of a group is its pool's. Truth becomes known
    `latency_hours` after its valid time."""

    output: ClassVar[str] = "quantile"
    groups: tuple[str, ...] = ()
    share: float = Field(0.0, ge=0, le=1)
    latency_hours: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _shares(self) -> Online:
        if self.share and not self.groups:
            raise ValueError("share: is of groups' steps, and there are no `groups`")
        return self

    @property
    def learning(self) -> Learning:
        """How shifts follow the misses."""
        raise NotImplementedError

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """See `pipelines.calibration.methods.Method`."""
        if unknown := set(self.groups) - set(cells):
            raise InputError(f"groups: {sorted(unknown)[0]!r} is none of {', '.join(cells)}")
        each = int(np.prod([size for dim, size in cells.items() if dim not in self.groups]))
        alpha = round(min(min(level, 1 - level) for level in self.levels), 10)
        check_reachable(alpha, int(dates.min()) * each, f" for {channel}")

    def fit_leads(self, cases: Cases) -> xr.Dataset:
        """The state after past cases, all known; no forecast is under way."""
        quantiles, truth = cases.quantiles(self.levels)
        pooled = [dim for dim in cases.weights.dims if dim not in self.groups]
        bare = (array.drop_vars("season") for array in (quantiles, truth))
        try:
            started = OnlineCalibration.start(self.learning, *bare, pooled, self.groups, self.share)
            # Some methods may start from too little, but could then issue nothing.
            started.shifts(truth["init_time"].values.max())
        except InputError as error:
            raise InputError(f"{cases.channel}: {error}") from error
        return _with_issued(started, {})

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """Quantiles as they were issued if the forecast is under way, else as they are now."""
        calibration, issued = self._unpacked(state)
        quantiles = quantiles_of(members, self.levels).drop_vars("season", errors="ignore")
        time = _time(members)
        shifts = issued[time] if time in issued else calibration.shifts(time)
        return calibration.issue(quantiles, shifts)

    def learned(
        self,
        state: xr.Dataset,
        pair: Verification,
        name: str,
        truths: Series,
        last: np.datetime64,
    ) -> xr.Dataset:
        """The state after all init times that are later than `last`, one after the other.

        Each forecast is issued first, then everything that was known at its init time is learned,
        as if `apply` and `update` had been called for each.
        """
        calibration, issued = self._unpacked(state)
        inits = pair.forecast.init_time.values.astype("datetime64[ns]")
        for now in (last, *inits[inits > last]):
            if now > last:
                issued[now] = calibration.shifts(now)
            for init, time in enumerate(inits):
                if time in issued and time <= now:
                    calibration = self._learned(
                        calibration, pair, name, truths, init, now, issued[time]
                    )
            done = calibration.arrays["learned"].min()
            issued = {time: shifts for time, shifts in issued.items() if time > done}
        return _with_issued(calibration, issued)

    def _learned(
        self,
        calibration: OnlineCalibration,
        pair: Verification,
        name: str,
        truths: Series,
        init: int,
        now: np.datetime64,
        shifts: xr.DataArray,
    ) -> OnlineCalibration:
        """After what is new of one past forecast."""
        valid = pair.valid_times()[init]
        latency = np.timedelta64(round(3600 * self.latency_hours), "s")
        fresh = calibration.arrays["learned"] < pair.forecast.init_time.values[init]
        leads = np.flatnonzero(pair.scored[name][init] & fresh & (valid + latency <= now))
        if not leads.size:
            return calibration
        members = read_members(pair.forecast, name, init, np.arange(leads[0], leads[-1] + 1))
        quantiles = quantiles_of(members, self.levels).drop_vars("season")
        quantiles = quantiles.reindex(lead_time=pair.forecast.lead_time.values)
        truth = quantiles.isel(quantile=0, drop=True).copy(deep=True)
        truth[:] = np.nan
        truth.values[leads] = truths.at(valid[leads])
        return calibration.update(quantiles, calibration.issue(quantiles, shifts), truth)

    def _unpacked(
        self, state: xr.Dataset
    ) -> tuple[OnlineCalibration, dict[np.datetime64, xr.DataArray]]:
        """The calibration, and the shifts of forecasts that are under way."""
        issued = {
            time: state["issued"].sel(under_way=time, drop=True)
            for time in state["under_way"].values
        }
        learnt = state.drop_dims("under_way")
        return OnlineCalibration.from_state(learnt, self.learning), issued


class Tracking(Online):
    """Quantile tracking, or conformal PI control if `integral` is not 0."""

    method: Literal["tracking"] = "tracking"
    rate: float = Field(0.1, gt=0)
    integral: float = Field(0.0, ge=0)
    saturation: float = Field(5.0, gt=0)
    memory: int = Field(30, ge=1)

    @property
    def learning(self) -> QuantileTracking:
        """The method with these settings."""
        return QuantileTracking(self.rate, self.integral, self.saturation, self.memory)


class Adaptive(Online):
    """Adaptive conformal inference; keeps past errors of every cell, so for sites and regions."""

    method: Literal["adaptive"] = "adaptive"
    rate: float = Field(0.02, gt=0)
    half_life_days: float | None = Field(None, gt=0)
    window: int = Field(1000, ge=1)
    reach: float = Field(1.0, gt=0)

    @property
    def learning(self) -> AdaptiveConformal:
        """The method with these settings."""
        weighting = EQUAL
        if self.half_life_days is not None:
            weighting = Recent(np.timedelta64(round(24 * self.half_life_days), "h"))
        return AdaptiveConformal(
            self.rate, weighting=weighting, window=self.window, reach=self.reach
        )


def _with_issued(
    calibration: OnlineCalibration, issued: dict[np.datetime64, xr.DataArray]
) -> xr.Dataset:
    """The state, and the shifts of forecasts that are under way."""
    layout = calibration.layout
    times = np.array(sorted(issued), "datetime64[ns]")
    shape = (layout.coords["lead_time"].size, layout.shape[0], layout.levels.size)
    names = layout.labelled(np.empty(shape), ("lead_time", "group", "quantile"))
    values = np.empty((times.size, *names.shape))
    for row, time in enumerate(times):
        values[row] = issued[time].transpose(*names.dims).values
    state = calibration.state.assign(issued=(("under_way", *names.dims), values))
    return state.assign_coords(under_way=times)


def _time(array: xr.DataArray) -> np.datetime64:
    return array["init_time"].values.astype("datetime64[ns]")[()]
