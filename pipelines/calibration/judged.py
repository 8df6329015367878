"""What is judged: quantiles that some dates make of others, or those that a calibration wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError
from pipelines.calibration.cases import quantiles_of, read_members
from pipelines.calibration.folder import coordinates_of
from pipelines.calibration.given import LEVEL, open_input
from pipelines.calibration.methods import method_from
from pipelines.calibration.online import Online
from pipelines.calibration.store import PROVENANCE
from pipelines.verification import Verification
from scoring.calibration.conformal import ConformalCalibration, Conformity, Counting
from scoring.dates import Rule


class Calibrated(Protocol):
    """Calibrated quantiles of some dates of a forecast."""

    judged: np.ndarray
    """Positions of these dates among the forecast's init times."""

    @property
    def about(self) -> dict[str, str]:
        """Attributes that say how they came about; `note` is a sentence."""
        ...

    def quantiles(self, raw: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
        """Of the judged dates, (init_time, quantile, lead_time, *cells), float32; NaN where there
        are none.

        Parameters
        ----------
        raw : xarray.DataArray
            Of all dates of one channel at some leads, the same dimensions.
        truth : xarray.DataArray
            The same less `quantile`; NaN where missing.
        """
        ...


@dataclass(frozen=True)
class ByRule:
    """Conformal quantiles of each date by the dates that a rule lets fit.

    Attributes
    ----------
    judged : numpy.ndarray
        Positions of dates.
    rule : Rule
    area : xarray.DataArray
        Weights of cells.
    conformity : Conformity
    counting : Counting
    """

    judged: np.ndarray
    rule: Rule
    area: xr.DataArray
    conformity: Conformity
    counting: Counting

    @property
    def about(self) -> dict[str, str]:
        """See `Calibrated.about`."""
        return {
            "rule": self.rule.name,
            "conformity": self.conformity.name,
            "counting": self.counting.name,
            "note": f"Calibrated by {self.conformity.name}, by channel and lead, counting "
            f"{self.counting.name}: {self.rule.name}.",
        }

    def quantiles(self, raw: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
        """See `Calibrated.quantiles`; NaN where no case was known."""
        known = truth.notnull().any(self.area.dims).values
        result = raw.isel(init_time=self.judged).copy()
        for row, date in enumerate(self.judged):
            for fitting, leads in self._cases(raw, known, int(date)).items():
                if not fitting:
                    result[row, :, leads] = np.nan
                    continue
                place = {"init_time": list(fitting), "lead_time": leads}
                fitted = ConformalCalibration.fit(
                    raw.isel(place),
                    truth.isel(place),
                    ("init_time", *self.area.dims),
                    self.area,
                    self.conformity,
                    self.counting,
                )
                result[row, :, leads] = fitted.apply(raw.isel(init_time=date, lead_time=leads))
        return result

    def _cases(
        self, raw: xr.DataArray, known: np.ndarray, date: int
    ) -> dict[tuple[int, ...], list[int]]:
        """Positions of the leads of one date, by the dates that may fit them."""
        inits = raw.init_time.values
        cases: dict[tuple[int, ...], list[int]] = {}
        for lead, lead_time in enumerate(raw.lead_time.values):
            fitting = self.rule.fitting(inits, lead_time, date)
            cases.setdefault(tuple(fitting[known[fitting, lead]].tolist()), []).append(lead)
        return cases


@dataclass(frozen=True)
class Written:
    """Quantiles, or members, of stores that `calibrate apply` wrote.

    A date that the calibration was fitted on is not judged; of one that learns, none before the
    last that it had seen.

    Attributes
    ----------
    judged : numpy.ndarray
        Positions of dates.
    stores : tuple of xarray.Dataset
        As `open_input` gives them.
    names : tuple of str
        What errors and notes call them.
    channels : tuple of str
        Of the forecast, those that all stores have.
    missing : tuple of str
        The others.
    """

    judged: np.ndarray
    stores: tuple[xr.Dataset, ...]
    names: tuple[str, ...]
    channels: tuple[str, ...]
    missing: tuple[str, ...]

    @classmethod
    def open(cls, paths: Sequence[Path], pair: Verification) -> Written:
        """Those of the dates of a forecast.

        Raises
        ------
        InputError, StoreError
            If one cannot be opened, was not written by a calibration or does not fit the forecast,
            they have no channel in common, two have the same date, or no date is left to judge.
        """
        there, names = pair.forecast.init_time.values, tuple(map(str, paths))
        stores = []
        for name in names:
            store = open_input([name])
            _check_fits(store, pair, name)
            chosen = _judgeable(store, name) & np.isin(store.init_time.values, there)
            stores.append(store.isel(init_time=np.flatnonzero(chosen)))
        channels = tuple(one for one in pair.channels if all(one in store for store in stores))
        if not channels:
            raise InputError(
                f"{', '.join(names)}: no channel of {pair.where} is in all of them, expected some "
                f"of {', '.join(pair.channels)}"
            )
        times = np.concatenate([store.init_time.values for store in stores])
        different, count = np.unique(times, return_counts=True)
        if (count > 1).any():
            time = np.datetime_as_string(different[count > 1][0], "h")
            raise InputError(f"init time {time} is in two of {', '.join(names)}")
        if not different.size:
            raise InputError(
                f"{', '.join(names)}: no date is left to judge: those of {pair.where} that are not "
                "fitted on"
            )
        judged = np.flatnonzero(np.isin(there, different))
        missing = tuple(one for one in pair.channels if one not in channels)
        return cls(judged, tuple(stores), names, channels, missing)

    @property
    def about(self) -> dict[str, str]:
        """See `Calibrated.about`."""
        made = map(_provenance, self.stores, self.names)
        methods = sorted({one["method"]["method"] for one in made})
        note = (
            f"Calibrated by {', '.join(methods)}, on {self.judged.size} dates that were not fitted "
            "on."
        )
        if self.missing:
            note += f" Not calibrated, so not judged: {', '.join(self.missing)}."
        return {"stores": ", ".join(self.names), "method": ", ".join(methods), "note": note}

    @cached_property
    def levels(self) -> tuple[float, ...] | None:
        """Levels that all stores of quantiles have; None if all have members."""
        given = [store[LEVEL].values for store in self.stores if LEVEL in store.coords]
        if not given:
            return None
        return tuple(level for level in given[0].tolist() if all(_has(own, level) for own in given))

    def quantiles(self, raw: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
        """See `Calibrated.quantiles`."""
        name, levels = str(raw.name), tuple(raw["quantile"].values.tolist())
        result = xr.full_like(raw.isel(init_time=self.judged), np.nan)
        for store in self.stores:
            leads = np.flatnonzero(np.isin(store.lead_time.values, raw.lead_time.values))
            for init, time in enumerate(store.init_time.values):
                if not store.completed.values[init].any():
                    continue
                found = quantiles_of(read_members(store, name, init, leads), levels)
                row = int(np.flatnonzero(result.init_time.values == time)[0])
                result.values[row] = found.transpose(*result.dims[1:]).values
        return result


def _check_fits(store: xr.Dataset, pair: Verification, where: str) -> None:
    """Refuse other leads or cells than those of the forecast."""
    for name in (name for name in pair.channels if name in store):
        for dim in ("lead_time", *pair.cell_dims):
            ours = coordinates_of(pair.forecast[name], dim)
            if (theirs := coordinates_of(store[name], dim)) != ours:
                raise InputError(
                    f"{where}: {name} has {len(theirs)} values of {dim}, expected the forecast's "
                    f"{len(ours)}, the same ones"
                )


def _judgeable(store: xr.Dataset, where: str) -> np.ndarray:
    """Which dates the calibration was not fitted on, (init_time,)."""
    made = _provenance(store, where)
    fitted = np.array(made["fitted_on"], "datetime64[ns]")
    times = store.init_time.values
    if isinstance(method_from(made["method"], where), Online):
        return times >= fitted.max()
    return ~np.isin(times, fitted)


def _provenance(store: xr.Dataset, where: str) -> dict[str, Any]:
    if PROVENANCE not in store.attrs:
        raise InputError(f"{where}: was not written by `myriad calibrate apply`")
    return json.loads(store.attrs[PROVENANCE])


def _has(levels: np.ndarray, level: float) -> bool:
    return bool(np.isclose(levels, level).any())
