"""Methods that shift quantiles, once and for all, and members with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from pydantic import Field, field_validator

from data.channel import channel
from data.errors import InputError
from pipelines.calibration.by_lead import ByLead, Forecasts
from pipelines.calibration.cases import Cases, quantiles_of
from pipelines.calibration.given import LEVEL, check_given_levels, origin, with_members
from pipelines.calibration.tables import is_table, open_model_tables
from pipelines.truths import listed
from scoring.calibration.conformal import (
    EACH_CASE,
    EACH_DATE,
    ONE_SIDED,
    SYMMETRIC,
    ConformalCalibration,
    Shrinkage,
)
from scoring.calibration.conformity import check_reachable
from scoring.calibration.coupling import map_members
from scoring.dates import Recent, date_weights
from scoring.quantiles import STANDARD_LEVELS, check_levels
from scoring.regions import REGIONS

_LABELS = ("season", "region")
# What cannot be negative, by standard name.
NOT_NEGATIVE = (
    "wind_speed",
    "specific_humidity",
    "precipitation_amount",
    "atmosphere_mass_content_of_water_vapor",
)


class OfQuantiles(ByLead):
    """What methods that make quantiles share; `cells` are the columns of places in tables."""

    levels: tuple[float, ...] = STANDARD_LEVELS
    cells: tuple[str, ...] = ("location",)

    @field_validator("levels")
    @classmethod
    def _increasing(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        try:
            check_levels(levels)
        except InputError as error:
            raise ValueError(str(error)) from None
        return levels

    def open(self, forecast: Forecasts, channels: tuple[str, ...] | None) -> xr.Dataset:
        """See `pipelines.calibration.methods.Method.open`."""
        paths = [] if isinstance(forecast, Mapping) else listed(forecast)
        if paths and all(map(is_table, paths)):
            dataset = open_model_tables({"": paths}, self.cells, channels)
            if len(found := np.unique(dataset["model"])) > 1:
                raise InputError(
                    f"this method calibrates one forecast, found {len(found)} models in tables "
                    f"({', '.join(found)}): `aggregation` makes one of them"
                )
        else:
            dataset = super().open(forecast, channels)
        if LEVEL in dataset.coords:
            check_given_levels(dataset[LEVEL].values, self.levels, origin(dataset))
        return dataset


class Conformal(OfQuantiles):
    """Split conformal quantiles (CQR), for each channel and lead.

    `groups` are further groups: a horizontal dimension such as `latitude` or `site`, `season`, and
    `region`, the tropics and what lies on either side of them; with `shrinkage`, for so many cases
    the pool of all of them counts in each. With `half_life_days`, dates count the less the older
    they are than the last one.
    """

    method: Literal["conformal"] = "conformal"
    output: ClassVar[str] = "quantile"
    sides: Literal["one", "both"] = "one"
    counting: Literal["cases", "dates"] = "cases"
    groups: tuple[str, ...] = ()
    shrinkage: float | None = Field(None, gt=0)
    half_life_days: float | None = Field(None, gt=0)

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """See `Method.check`."""
        known = (*cells, "season", *(["region"] if "latitude" in cells else []))
        if unknown := set(self.groups) - set(known):
            raise InputError(f"groups: {sorted(unknown)[0]!r} is none of {', '.join(known)}")
        apart = () if self.shrinkage else self.groups
        each = int(np.prod([size for dim, size in cells.items() if dim not in apart]))
        fewest = int(dates.min()) * (each if self.counting == "cases" else 1)
        alphas = [min(level, 1 - level) for level in self.levels]
        factor = 1 if self.sides == "one" else 2
        alpha = round(factor * min(a for a in alphas), 10)
        check_reachable(alpha, fewest, f" for {channel}")

    def fit_leads(self, cases: Cases) -> xr.Dataset:
        """See `ByLead.fit_leads`."""
        quantiles, truth = (self._labelled(one) for one in cases.quantiles(self.levels))
        groups = [dim for dim in truth.dims if dim in self.groups]
        pooled = tuple(dim for dim in cases.weights.dims if dim not in groups)
        # Within a group all cells weigh alike unless all of them are pooled.
        weights = cases.weights if not groups else xr.DataArray(1.0)
        if self.half_life_days is not None:
            recent = Recent(np.timedelta64(round(24 * self.half_life_days), "h"))
            last = truth.init_time.values.max()
            weights = weights * date_weights(recent, truth.init_time, last)
        fitted = ConformalCalibration.fit(
            quantiles,
            truth,
            ("init_time", *pooled),
            weights,
            ONE_SIDED if self.sides == "one" else SYMMETRIC,
            EACH_CASE if self.counting == "cases" else EACH_DATE,
            tuple(name for name in self.groups if name in _LABELS and name not in groups),
            Shrinkage(self.groups, self.shrinkage) if self.shrinkage and self.groups else None,
        )
        return xr.Dataset({"shifts": fitted.shifts.drop_attrs()})

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        quantiles = self._labelled(quantiles_of(members, self.levels))
        return ConformalCalibration(state["shifts"]).apply(quantiles)

    def _labelled(self, array: xr.DataArray) -> xr.DataArray:
        """With the region of every latitude, where it is asked for."""
        if "region" not in self.groups:
            return array
        latitude, names = array["latitude"].values, np.empty(array.sizes["latitude"], object)
        for name, region in REGIONS.items():
            if name != "globe":
                names[(region.south <= latitude) & (latitude <= region.north)] = name
        return array.assign_coords(region=("latitude", names.astype(str)))


class Mapped(Conformal):
    """Members moved by as much as the conformal quantiles at their ranks; ranks stay."""

    method: Literal["mapping"] = "mapping"
    output: ClassVar[str] = "number"

    def open(self, forecast: Forecasts, channels: tuple[str, ...] | None) -> xr.Dataset:
        """See `pipelines.calibration.methods.Method.open`."""
        return with_members(super().open(forecast, channels), self.method)

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """See `Method.apply`."""
        calibrated = super().apply(state, members)
        return possible(map_members(members, calibrated))


def possible(members: xr.DataArray) -> xr.DataArray:
    """Members of what cannot be negative are not."""
    if channel(str(members.name)).standard_name in NOT_NEGATIVE:
        return members.clip(0.0, keep_attrs=True)
    return members
