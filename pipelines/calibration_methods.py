"""Ways to calibrate a store: their settings, what they keep, and what they make of a forecast.

A method turns past cases of one channel into a state, a dataset with a dimension `lead_time`, and
applies a state to the members of one forecast. Quantile methods make quantiles of them, member
methods make as many members again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import xarray as xr
import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from data.channel import channel
from data.errors import ConfigurationError, InputError
from data.grid import Grid
from data.sphere import Sphere
from pipelines.calibration_cases import Cases, quantiles_of
from pipelines.settings import Settings
from scoring.conformal import (
    EACH_CASE,
    EACH_DATE,
    ONE_SIDED,
    SYMMETRIC,
    ConformalCalibration,
    Shrinkage,
)
from scoring.conformity import check_reachable
from scoring.coupling import couple, map_members, member_levels
from scoring.degree_by_degree import DegreeByDegree
from scoring.degree_moments import Moments, ZonalMoments
from scoring.emos import GAUSSIAN, TRUNCATED_GAUSSIAN, Emos
from scoring.member_by_member import MemberByMember
from scoring.quantiles import STANDARD_LEVELS, check_levels

# What cannot be negative, by standard name.
_NOT_NEGATIVE = (
    "wind_speed",
    "specific_humidity",
    "precipitation_amount",
    "atmosphere_mass_content_of_water_vapor",
)
_FEWEST = 10
_ZONAL_DATES = 24


class Method(Protocol):
    """A way to calibrate."""

    method: str
    output: ClassVar[str]

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """Refuse too few cases, before anything is read.

        Parameters
        ----------
        channel : str
        dates : numpy.ndarray
            Number of dates with truth at each lead, (lead_time,).
        cells : dict of str to int
            Sizes of the horizontal dimensions.

        Raises
        ------
        InputError
            Naming how many are needed.
        """
        ...

    def fit(self, cases: Cases) -> xr.Dataset:
        """The state after past cases; parts of different leads join along `lead_time`."""
        ...

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """(quantile or number, lead_time, *cells) of members, (number, lead_time, *cells)."""
        ...


class _OfQuantiles(Settings):
    """What methods that shift quantiles share."""

    levels: tuple[float, ...] = STANDARD_LEVELS

    @field_validator("levels")
    @classmethod
    def _increasing(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        try:
            check_levels(levels)
        except InputError as error:
            raise ValueError(str(error)) from None
        return levels


class Conformal(_OfQuantiles):
    """Split conformal quantiles (CQR), for each channel and lead.

    `groups` are further groups: a horizontal dimension such as `latitude` or `site`, and `season`;
    with `shrinkage`, for so many cases the pool of all of them counts in each.
    """

    method: Literal["conformal"] = "conformal"
    output: ClassVar[str] = "quantile"
    sides: Literal["one", "both"] = "one"
    counting: Literal["cases", "dates"] = "cases"
    groups: tuple[str, ...] = ()
    shrinkage: float | None = Field(None, gt=0)

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """See `Method.check`."""
        unknown = set(self.groups) - set(cells) - {"season"}
        if unknown:
            raise InputError(
                f"groups: {sorted(unknown)[0]!r} is none of {', '.join((*cells, 'season'))}"
            )
        apart = () if self.shrinkage else self.groups
        each = int(np.prod([size for dim, size in cells.items() if dim not in apart]))
        fewest = int(dates.min()) * (each if self.counting == "cases" else 1)
        alphas = [min(level, 1 - level) for level in self.levels]
        factor = 1 if self.sides == "one" else 2
        alpha = round(factor * min(a for a in alphas), 10)
        check_reachable(alpha, fewest, f" for {channel}")

    def fit(self, cases: Cases) -> xr.Dataset:
        """See `Method.fit`."""
        quantiles, truth = cases.quantiles(self.levels)
        groups = [dim for dim in truth.dims if dim in self.groups]
        pooled = tuple(dim for dim in cases.weights.dims if dim not in groups)
        # Within a group all cells weigh alike unless all of them are pooled.
        weights = cases.weights if not groups else None
        fitted = ConformalCalibration.fit(
            quantiles,
            truth,
            ("init_time", *pooled),
            weights,
            ONE_SIDED if self.sides == "one" else SYMMETRIC,
            EACH_CASE if self.counting == "cases" else EACH_DATE,
            tuple(name for name in self.groups if name == "season"),
            Shrinkage(self.groups, self.shrinkage) if self.shrinkage and self.groups else None,
        )
        return xr.Dataset({"shifts": fitted.shifts.drop_attrs()})

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        quantiles = quantiles_of(members, self.levels)
        return ConformalCalibration(state["shifts"]).apply(quantiles)


class Mapped(Conformal):
    """Members moved by as much as the conformal quantiles at their ranks; ranks stay."""

    method: Literal["mapping"] = "mapping"
    output: ClassVar[str] = "number"

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        calibrated = super().apply(state, members)
        return _possible(map_members(members, calibrated.transpose(*calibrated.dims)))


class _OfMembers(Settings):
    """What methods that fit a few parameters to members share."""

    output: ClassVar[str] = "number"

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

    def fit(self, cases: Cases) -> xr.Dataset:
        """See `Method.fit`."""
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

    def fit(self, cases: Cases) -> xr.Dataset:
        """See `Method.fit`."""
        members, truth = cases.sample()
        fitted = MemberByMember.fit(members, truth, ("init_time", "cell"))
        return xr.Dataset({"parameters": fitted.parameters})

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        return _possible(MemberByMember(state["parameters"]).apply(members))


class DegreeWise(_OfMembers):
    """Members calibrated at each angular degree and latitude, for each channel and lead, on a
    global grid; their power at any degree changes by at most `power_change` of itself."""

    method: Literal["degree_by_degree"] = "degree_by_degree"
    power_change: float = Field(0.03, ge=0)

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """See `Method.check`."""
        super().check(channel, dates, cells)
        if set(cells) != {"latitude", "longitude"}:
            raise InputError(f"degree_by_degree needs a global grid, found {', '.join(cells)}")

    def fit(self, cases: Cases) -> xr.Dataset:
        """See `Method.fit`."""
        if cases.grid is None:
            raise InputError(f"{cases.pair.where}: degree_by_degree needs a global grid")
        sphere = Sphere(cases.grid)
        about = read_about(cases)
        total, count = None, cases.inits.size
        for row, (members, truth) in enumerate(cases.dates()):
            half = int(2 * row >= count)
            part = Moments.of(members.values, truth.values, about, half, sphere)
            total = part if total is None else total + part
        fitted = DegreeByDegree.from_moments(total, cases.lead_time, sphere, self.power_change)
        rest, every = None, max(1, count // _ZONAL_DATES)
        for row, (members, truth) in enumerate(cases.dates()):
            middle = members.values.mean(axis=0, dtype=np.float64)
            part = ZonalMoments.of_mean(fitted.mean(middle), truth.values)
            if row % every == 0:
                part += ZonalMoments.of_members(fitted.apply(members).values)
            rest = part if rest is None else rest + part
        return fitted.with_zonal(rest).state

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        grid = Grid.from_coordinates(members.latitude, members.longitude, "the forecast")
        return _possible(DegreeByDegree.from_state(state, Sphere(grid)).apply(members))


AnyMethod = Annotated[
    Conformal | Mapped | EmosCoupled | StretchedMembers | DegreeWise,
    Field(discriminator="method"),
]


def method_from(settings: dict[str, Any], where: str = "calibration") -> Method:
    """The method that settings name.

    Raises
    ------
    ConfigurationError
        If a key or a value is wrong.
    """
    try:
        return TypeAdapter(AnyMethod).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][1:]) or "method"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{where}: {key}: {message}") from None


def read_method(path: Path) -> Method:
    """The method of a YAML file.

    Raises
    ------
    ConfigurationError
        If it is no YAML file of settings.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected keys and values, `method: conformal` say")
    return method_from(content, str(path))


def read_about(cases: Cases) -> np.ndarray:
    """A field near all others, (latitude, longitude): the first date's mean at the first lead."""
    members, _ = next(cases.dates())
    return members.isel(lead_time=0).mean("number", dtype=np.float64).values


def _family(name: str) -> Any:
    return TRUNCATED_GAUSSIAN if channel(name).standard_name in _NOT_NEGATIVE else GAUSSIAN


def _possible(members: xr.DataArray) -> xr.DataArray:
    """Members of what cannot be negative are not."""
    if channel(str(members.name)).standard_name in _NOT_NEGATIVE:
        return members.clip(0.0, keep_attrs=True)
    return members
