"""Methods that fit a few parameters to members and make as many members again."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from data.channel import channel
from data.errors import InputError
from data.grid import Grid
from data.sphere import Sphere
from pipelines.calibration.by_lead import ByLead, Forecasts
from pipelines.calibration.cases import Cases
from pipelines.calibration.given import with_members
from pipelines.calibration.quantiles import NOT_NEGATIVE, possible
from scoring.calibration.coupling import couple, member_levels
from scoring.calibration.degree_by_degree import DegreeByDegree
from scoring.calibration.degree_moments import Moments, SpreadMoments, ZonalMoments
from scoring.calibration.emos import GAUSSIAN, TRUNCATED_GAUSSIAN, Emos, Family
from scoring.calibration.member_by_member import MemberByMember

_FEWEST = 10
_SPREAD_DATES = 24


class _OfMembers(ByLead):
    """What methods that fit a few parameters to members share."""

    output: ClassVar[str] = "number"
    method: str

    def open(self, forecast: Forecasts, channels: tuple[str, ...] | None) -> xr.Dataset:
        """See `Method.open`."""
        return with_members(super().open(forecast, channels), self.method)

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """See `Method.check`."""
        if dates.min() < _FEWEST:
            raise InputError(
                f"fitting {channel} needs at least {_FEWEST} init times with truth at every lead, "
                f"found {int(dates.min())} at one: add dates"
            )


class EmosCoupled(_OfMembers):
    """EMOS for each channel and lead, a Gaussian (truncated at zero for what is not negative);
    its quantiles in the rank order of the raw members (ECC-Q)."""

    method: Literal["emos"] = "emos"

    def fit_leads(self, cases: Cases) -> xr.Dataset:
        """See `ByLead.fit_leads`."""
        members, truth = cases.sample()
        fitted = Emos.fit(members, truth, ("init_time", "cell"), _family(cases.channel))
        return xr.Dataset({"parameters": fitted.parameters})

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        fitted = Emos(state["parameters"], _family(str(members.name)))
        levels = tuple(member_levels(members.sizes["number"]).tolist())
        return couple(members, fitted.quantiles(members, levels))


class StretchedMembers(_OfMembers):
    """Member-by-member calibration for each channel and lead."""

    method: Literal["member_by_member"] = "member_by_member"

    def fit_leads(self, cases: Cases) -> xr.Dataset:
        """See `ByLead.fit_leads`."""
        members, truth = cases.sample()
        fitted = MemberByMember.fit(members, truth, ("init_time", "cell"))
        return xr.Dataset({"parameters": fitted.parameters})

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        return possible(MemberByMember(state["parameters"]).apply(members))


class DegreeWise(_OfMembers):
    """Members calibrated at each angular degree and latitude, for each channel and lead, on a
    global grid; their power at any degree changes by about `power_change` of itself at most."""

    method: Literal["degree_by_degree"] = "degree_by_degree"
    power_change: float = Field(0.025, ge=0)

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """See `Method.check`."""
        super().check(channel, dates, cells)
        if set(cells) != {"latitude", "longitude"}:
            raise InputError(f"degree_by_degree needs a global grid, found {', '.join(cells)}")

    def fit_leads(self, cases: Cases) -> xr.Dataset:
        """See `ByLead.fit_leads`."""
        if cases.grid is None:
            raise InputError(f"{cases.pair.where}: degree_by_degree needs a global grid")
        sphere = _sphere(cases.grid)
        about = read_about(cases)
        total, count = None, cases.inits.size
        for row, (members, truth) in enumerate(cases.dates()):
            half = int(2 * row >= count)
            part = Moments.of(members.values, truth.values, about, half, sphere)
            total = part if total is None else total + part
        fitted = DegreeByDegree.from_moments(total, cases.lead_time, sphere, self.power_change)
        zonal = _zonal(cases, fitted)
        fitted = fitted.with_zonal(zonal)
        return fitted.with_spread(total, zonal, _spread(cases, fitted), self.power_change).state

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        grid = Grid.from_coordinates(members.latitude, members.longitude, "the forecast")
        return possible(DegreeByDegree.from_state(state, _sphere(grid)).apply(members))


def _zonal(cases: Cases, fitted: DegreeByDegree) -> ZonalMoments:
    """Errors of all dates, and the spread of some."""
    total, every = None, _step(cases)
    for row, (members, truth) in enumerate(cases.dates()):
        middle = members.values.mean(axis=0, dtype=np.float64)
        part = ZonalMoments.of_mean(fitted.mean(middle), truth.values)
        if row % every == 0:
            part += ZonalMoments.of_members(fitted.apply(members).values)
        total = part if total is None else total + part
    return total


def _spread(cases: Cases, fitted: DegreeByDegree) -> SpreadMoments:
    """What some dates lack yet."""
    total = None
    some = replace(cases, inits=cases.inits[:: _step(cases)], known=cases.known[:: _step(cases)])
    for members, truth in some.dates():
        calibrated = fitted.apply(members).values
        part = SpreadMoments.of(members.values, calibrated, truth.values, fitted.sphere)
        total = part if total is None else total + part
    return total


def _step(cases: Cases) -> int:
    """Every so many dates say enough of the members' spread."""
    return max(1, cases.inits.size // _SPREAD_DATES)


@lru_cache(maxsize=1)
def _sphere(grid: Grid) -> Sphere:
    """The transform of a grid; its tables take longer than their use."""
    return Sphere(grid)


def read_about(cases: Cases) -> np.ndarray:
    """A field near all others, (latitude, longitude): the first date's mean at the first lead."""
    members, _ = next(cases.dates())
    return members.isel(lead_time=0).mean("number", dtype=np.float64).values


def _family(name: str) -> Family:
    return TRUNCATED_GAUSSIAN if channel(name).standard_name in NOT_NEGATIVE else GAUSSIAN
