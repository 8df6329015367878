"""`myriad calibrate fit | apply | update`: what past forecasts taught, kept and put to use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from data.errors import InputError
from pipelines.calibration.by_lead import Forecasts, all_paths
from pipelines.calibration.cases import Cases, read_members
from pipelines.calibration.folder import Calibration, check_folder, coordinates_of
from pipelines.calibration.methods import Method
from pipelines.calibration.online import Online
from pipelines.calibration.store import (
    PROVENANCE,
    check_output,
    fill_members,
    lay_out_quantiles,
    layout_alike,
)
from pipelines.labels import replace_whole
from pipelines.truths import Paths, cell_dims
from pipelines.verification import Verification, VerificationSettings

_TRUTH_BYTES = 2**26

Interval = tuple[np.datetime64 | None, np.datetime64 | None]


@dataclass(frozen=True)
class FitSettings(VerificationSettings):
    """What to fit on.

    Attributes
    ----------
    dates : tuple of (numpy.datetime64 or None, numpy.datetime64 or None)
        First and last init time of each period that may be used; None leaves an end open. All init
        times if empty.
    known_by : numpy.datetime64 or None
        Leave out truths of later valid times; None uses all truth that there is.
    """

    dates: tuple[Interval, ...] = ()
    known_by: np.datetime64 | None = None

    def chosen(self, init_times: np.ndarray) -> np.ndarray:
        """Positions of the init times that may be used."""
        if not self.dates:
            return np.arange(init_times.size)
        within = np.zeros(init_times.size, bool)
        for first, last in self.dates:
            own = np.ones(init_times.size, bool)
            own &= True if first is None else init_times >= first
            own &= True if last is None else init_times <= last
            within |= own
        return np.flatnonzero(within)


def fit(
    forecast: Forecasts,
    truth: Paths,
    folder: Path,
    method: Method,
    settings: FitSettings | None = None,
) -> Calibration:
    """Fit a calibration and write it into a folder; one that is there is replaced.

    Parameters
    ----------
    forecast : path, sequence of paths, or mapping of str to these
        A forecast store, or files of an ensemble on any grid; or several, by the names of models.
    truth : path or sequence of paths
        Files that hold the truth at the valid times.
    folder : pathlib.Path
        Where the calibration goes.
    method : Method
        How to calibrate.
    settings : FitSettings, optional
        What to fit on; everything by default.

    Raises
    ------
    InputError, StoreError
        If something does not fit, or a level needs more cases than there are; nothing is written.
    """
    check_folder(folder)
    return fitted(forecast, truth, method, settings or FitSettings()).save(folder)


def fitted(forecast: Forecasts, truth: Paths, method: Method, settings: FitSettings) -> Calibration:
    """The calibration that `fit` writes."""
    pair = method.open_pair(forecast, truth, settings.channels or None).with_members(2)
    inits = settings.chosen(pair.forecast.init_time.values)
    if not inits.size:
        raise InputError(f"{pair.where}: no init time lies within the dates to fit on")
    known = {name: _known(pair, name, inits, settings.known_by) for name in pair.channels}
    sizes = dict(zip(pair.cell_dims, pair.cells().shape, strict=True))
    for name in pair.channels:
        method.check(name, known[name].sum(axis=0), sizes)
    states = {
        name: method.fit(Cases.of(pair, name, inits, known[name], settings.memory))
        for name in pair.channels
    }
    first = pair.forecast[pair.channels[0]]
    return Calibration(
        method,
        pair.channels,
        pair.forecast.lead_time.values.astype("timedelta64[ns]"),
        {dim: coordinates_of(first, dim) for dim in pair.cell_dims},
        pair.forecast.init_time.values[inits].astype("datetime64[s]"),
        {name: known[name].sum(axis=0).tolist() for name in pair.channels},
        states,
    )


def apply(
    calibration: Calibration,
    forecast: Forecasts,
    output: Path,
    init_times: Sequence[np.datetime64] = (),
    memory: int = 2**28,
) -> Path:
    """Calibrate forecasts and write a store of quantiles, or of as many members.

    Parameters
    ----------
    calibration : Calibration
        What was fitted.
    forecast : path or sequence of paths
        Forecasts of the same leads and cells; only the calibration's channels are written.
    output : pathlib.Path
        The store to write; one that a calibration wrote is replaced, nothing else is.
    init_times : sequence of numpy.datetime64
        Which; all by default.
    memory : int
        Bytes of forecast in memory at a time, about.

    Raises
    ------
    InputError, StoreError
        If something does not fit, before any field is read.
    """
    paths = all_paths(forecast)
    where = ", ".join(map(str, paths))
    check_output(output, paths)
    dataset = calibration.method.open(forecast, calibration.channels)
    calibration.check_fits(dataset, where)
    dataset = _selected(dataset, init_times, where)
    run = _Application(calibration, dataset, memory)
    if calibration.method.output == "quantile":
        replace_whole(output, run.write_quantiles)
    else:
        layout = layout_alike(dataset, calibration.channels, run.provenance)
        replace_whole(
            output, lambda draft: fill_members(draft, layout, run.usable, run.members(draft))
        )
    return output


def update(
    calibration: Calibration, folder: Path, forecast: Forecasts, truth: Paths
) -> tuple[Calibration, bool]:
    """Take in what has become known since; a second update with nothing new changes nothing.

    A method that learns goes through the init times after the last one that it has seen: each is
    issued, then everything known at that time is learned. Any other method is fitted again, with
    the same settings, on the dates that it was fitted on and all later ones.

    Parameters
    ----------
    calibration : Calibration
        As it is in the folder.
    folder : pathlib.Path
        Where it is, and is replaced in one step.
    forecast, truth
        As of `fit`: a store that holds the old dates and the new ones.

    Returns
    -------
    tuple
        The calibration as it is now, and whether it has changed.

    Raises
    ------
    InputError, StoreError
        If something does not fit; the calibration stays as it was.
    """
    pair = calibration.method.open_pair(forecast, truth, calibration.channels).with_members(2)
    calibration.check_fits(pair.forecast, pair.where)
    there = pair.forecast.init_time.values.astype("datetime64[s]")
    if isinstance(calibration.method, Online):
        return _learned(calibration, calibration.method, folder, pair)
    if missing := sorted(set(calibration.init_times.tolist()) - set(there.tolist())):
        raise InputError(
            f"{pair.where}: init time {missing[0]:%Y-%m-%dT%H} is not in it, which the calibration "
            "was fitted on: an update needs the old dates beside the new ones"
        )
    later = there[there > calibration.init_times.max()]
    dates = tuple((time, time) for time in (*calibration.init_times, *later))
    settings = FitSettings(calibration.channels, dates=dates)
    inits = settings.chosen(pair.forecast.init_time.values)
    cases = {
        name: _known(pair, name, inits, None).sum(axis=0).tolist() for name in calibration.channels
    }
    if cases == calibration.cases:
        return calibration, False
    return fitted(forecast, truth, calibration.method, settings).save(folder), True


def _learned(
    calibration: Calibration, method: Online, folder: Path, pair: Verification
) -> tuple[Calibration, bool]:
    """After all init times that are later than the last one seen."""
    last = calibration.init_times.max().astype("datetime64[ns]")
    states = {
        name: method.learned(
            calibration.states[name], pair, name, pair.truths(name, _TRUTH_BYTES), last
        )
        for name in calibration.channels
    }
    there = pair.forecast.init_time.values.astype("datetime64[s]")
    later = there[there > calibration.init_times.max()]
    same = all(states[name].identical(calibration.states[name]) for name in states)
    if same and not later.size:
        return calibration, False
    seen = np.concatenate([calibration.init_times, later])
    return replace(calibration, states=states, init_times=seen).save(folder), True


@dataclass(frozen=True)
class _Application:
    """A calibration at work on a forecast."""

    calibration: Calibration
    forecast: xr.Dataset
    memory: int

    @property
    def provenance(self) -> str:
        """What the written store says of its calibration, as JSON."""
        times = np.datetime_as_string(self.calibration.init_times, "h")
        return json.dumps({
            "method": self.calibration.method.model_dump(mode="json"),
            "hash": self.calibration.hash,
            "fitted_on": times.tolist(),
            "raw": self.forecast.attrs.get("fingerprint", ""),
        })  # fmt: skip

    @property
    def usable(self) -> np.ndarray:
        """Members that can be calibrated, (init_time, number): at least two of a date."""
        completed = self.forecast.completed.values
        return completed & (completed.sum(axis=1, keepdims=True) > 1)

    def write_quantiles(self, path: Path) -> None:
        """A store of quantiles."""
        levels = self.calibration.method.levels
        group = lay_out_quantiles(
            path,
            self.forecast,
            self.calibration.channels,
            levels,
            {PROVENANCE: self.provenance},
        )
        for init in range(self.forecast.sizes["init_time"]):
            for name in self.calibration.channels:
                for leads, values in self._calibrated(init, name):
                    group[name][init, :, leads[0] : leads[-1] + 1] = values.values

    def members(self, path: Path) -> Iterator[np.ndarray]:
        """Of each date, (number, channel, lead_time, latitude, longitude), NaN where unfinished.

        They lie in a file beside the store, so that memory does not grow with them.
        """
        first = self.forecast[self.calibration.channels[0]]
        sizes = [first.sizes[dim] for dim in ("number", "lead_time", *cell_dims(first))]
        shape = (sizes[0], len(self.calibration.channels), *sizes[1:])
        scratch = path.with_name(f"{path.name}.members")
        try:
            for init, completed in enumerate(self.usable):
                fields = np.memmap(scratch, np.float32, "w+", shape=shape)
                fields[:] = np.nan
                for place, name in enumerate(self.calibration.channels):
                    for leads, values in self._calibrated(init, name):
                        span = slice(leads[0], leads[-1] + 1)
                        fields[np.flatnonzero(completed), place, span] = values.values
                yield fields
        finally:
            scratch.unlink(missing_ok=True)

    def _calibrated(self, init: int, name: str) -> Iterator[tuple[np.ndarray, xr.DataArray]]:
        """Leads, and what becomes of them."""
        state = self.calibration.states[name]
        if not self.usable[init].any():
            return
        sizes = self.forecast[name].sizes
        each = 8 * int(np.prod([sizes[dim] for dim in sizes if dim != "init_time"]))
        count = sizes["lead_time"]
        window = max(1, int(self.memory // (each // count)))
        for start in range(0, count, window):
            leads = np.arange(start, min(start + window, count))
            members = read_members(self.forecast, name, init, leads)
            method = self.calibration.method
            yield leads, method.apply(method.at_leads(state, leads), members)


def _known(
    pair: Verification, name: str, inits: np.ndarray, known_by: np.datetime64 | None
) -> np.ndarray:
    """Whether there is truth that may be used, (init_time, lead_time)."""
    known = pair.scored[name][inits]
    return known if known_by is None else known & (pair.valid_times()[inits] <= known_by)


def _selected(forecast: xr.Dataset, init_times: Sequence[np.datetime64], where: str) -> xr.Dataset:
    """The forecasts of some init times.

    Raises
    ------
    InputError
        If one of them is not there.
    """
    if not len(init_times):
        return forecast
    there = forecast.init_time.values.astype("datetime64[s]")
    wanted = np.unique(np.asarray(init_times, "datetime64[s]"))
    missing = wanted[~np.isin(wanted, there)]
    if missing.size:
        raise InputError(
            f"{where}: has no forecast of {missing[0]}, from {there[0]} to {there[-1]}"
        )
    return forecast.isel(init_time=np.flatnonzero(np.isin(there, wanted)))
