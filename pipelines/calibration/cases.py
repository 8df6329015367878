"""Past cases of one channel at a few leads: what a calibration is fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from data.errors import InputError
from data.grid import Grid
from pipelines.calibration.given import LEVEL, check_whole, given_quantiles
from pipelines.truths import Series
from pipelines.verification import Verification
from scoring.quantiles import Quantiles
from scoring.regions import REGIONS
from scoring.statistic import evaluate_arrays

# More cells than that say nothing new of a few parameters that all cells share.
_SAMPLE = 20_000


@dataclass(frozen=True)
class Cases:
    """Forecasts of some dates at some leads, and their truth; read when asked for.

    Attributes
    ----------
    pair : Verification
        Where they are.
    channel : str
    inits, leads : numpy.ndarray
        Positions.
    known : numpy.ndarray
        Whether the truth may be used, (init_time, lead_time) of these positions.
    truths : Series
        The channel's truth.
    weights : xarray.DataArray
        Area of the cells, (*cells).
    memory : int
        Bytes of forecast in memory at a time, about.
    """

    pair: Verification
    channel: str
    inits: np.ndarray
    leads: np.ndarray
    known: np.ndarray
    truths: Series
    weights: xr.DataArray
    memory: int

    @classmethod
    def of(
        cls, pair: Verification, name: str, inits: np.ndarray, known: np.ndarray, memory: int
    ) -> Cases:
        """Some dates of a channel at all leads.

        Raises
        ------
        InputError
            If the truth that may be used is missing (NaN) everywhere.
        """
        weights = pair.weights({"globe": REGIONS["globe"]}).isel(region=0, drop=True)
        leads = np.arange(pair.forecast.sizes["lead_time"])
        truths = pair.truths(name, memory)
        _check_any(truths, np.unique(pair.valid_times()[inits][known]))
        return cls(pair, name, inits, leads, known, truths, weights, memory)

    def windows(self) -> Iterator[Cases]:
        """A few leads at a time: all members of a date, or a few fields of every date, in
        memory."""
        field = 4 * self.weights.size
        each = field * max(2 * self.pair.forecast.sizes["number"], 12 * self.inits.size)
        count = int(max(1, self.memory // each))
        for start in range(0, self.leads.size, count):
            some = slice(start, start + count)
            yield replace(self, leads=self.leads[some], known=self.known[:, some])

    @property
    def grid(self) -> Grid | None:
        """The global grid; None on any other."""
        return self.pair.grid()

    @property
    def lead_time(self) -> xr.DataArray:
        """(lead_time,)"""
        return self.pair.forecast.lead_time.isel(lead_time=self.leads).reset_coords(drop=True)

    def dates(self) -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
        """One date after the other: its finished members, (number, lead_time, *cells), and the
        truth, (lead_time, *cells), NaN where it is not known."""
        for row, init in enumerate(self.inits):
            members = read_members(self.pair.forecast, self.channel, int(init), self.leads)
            truth = members.isel(number=0, drop=True).copy(deep=True)
            truth[:] = np.nan
            here = self.known[row]
            if here.any():
                valid = self.pair.valid_times()[init, self.leads[here]]
                truth.values[here] = self.truths.at(valid)
            yield members, truth

    def quantiles(self, levels: tuple[float, ...]) -> tuple[xr.DataArray, xr.DataArray]:
        """Quantiles, (init_time, quantile, lead_time, *cells), and truth, with `season`."""
        return _joined([(quantiles_of(one, levels), truth) for one, truth in self.dates()])

    def sample(self) -> tuple[xr.DataArray, xr.DataArray]:
        """Members, (init_time, number, lead_time, cell), and truth of a few cells, which are
        spread evenly over the area."""
        some = self.dates_of_some(max(1, _SAMPLE // max(1, self.inits.size)))
        return _joined([tuple(_bare(array) for array in arrays) for arrays in some])

    def dates_of_some(self, count: int) -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
        """As `dates`, of so many cells at most, spread evenly over the area: (..., cell)."""
        count = min(count, self.weights.size)
        share = np.cumsum(self.weights.values.ravel())
        wanted = (np.arange(count) + 0.5) / count * share[-1]
        place = np.searchsorted(share, wanted).clip(0, share.size - 1)
        for members, truth in self.dates():
            yield tuple(_at_places(array, self.weights.dims, place) for array in (members, truth))


def _check_any(truths: Series, times: np.ndarray) -> None:
    """Refuse truth without a value at these valid times; reads no further than the first."""
    fields = (truths.at(times[[place]]) for place in range(times.size))
    if not any(np.isfinite(field).any() for field in fields):
        raise InputError(
            f"{truths.truths.where}: has no truth of {truths.name}: every value is missing at the "
            f"{times.size} valid times that may be used"
        )


def _bare(array: xr.DataArray) -> xr.DataArray:
    """Without coordinates but the init time and those of its dimensions less `cell`."""
    kept = {"init_time", *array.dims}
    return array.drop_vars([name for name in array.coords if name not in kept])


def _at_places(array: xr.DataArray, dims: tuple[str, ...], place: np.ndarray) -> xr.DataArray:
    """Some cells, (..., cell), with their coordinates along it."""
    kept = [str(dim) for dim in array.dims if dim not in dims]
    values = array.transpose(*kept, *dims).values
    flat = values.reshape(*values.shape[: len(kept)], -1)[..., place]
    where = np.unravel_index(place, [array.sizes[dim] for dim in dims])
    at = {str(n): c.variable for n, c in array.coords.items() if not set(c.dims) & set(dims)}
    cells = {
        dim: ("cell", array[dim].values[own])
        for dim, own in zip(dims, where, strict=True)
        if dim in array.coords
    }
    return xr.DataArray(flat, at | cells, (*kept, "cell"), array.name, array.attrs)


def read_members(forecast: xr.Dataset, name: str, init: int, leads: np.ndarray) -> xr.DataArray:
    """The finished members of one date, (number, lead_time, *cells), in memory.

    `init_time` and `season` are scalar coordinates; coordinates along `number` stay.
    """
    numbers = np.flatnonzero(forecast.completed.values[init])
    span = slice(int(leads[0]), int(leads[-1]) + 1)
    found = forecast[name].isel(init_time=init, lead_time=span).load()
    if leads.size < found.sizes["lead_time"]:
        found = found.isel(lead_time=leads - leads[0])
    if numbers.size < found.sizes["number"]:
        found = found.isel(number=numbers)
    extra = [at for at in found.coords if found[at].dims == () and at != "init_time"]
    found = found.drop_vars([*extra, "valid_time", "completed"], errors="ignore")
    found = found.assign_coords(season=str(found.init_time.dt.season.values))
    return found.transpose("number", "lead_time", ...)


def quantiles_of(members: xr.DataArray, levels: tuple[float, ...]) -> xr.DataArray:
    """Quantiles of members, or those that stand in their place, (quantile, lead_time, *cells),
    float32."""
    like = members.isel(number=0, drop=True)
    if LEVEL in members.coords:
        values = given_quantiles(members, levels)
        check_whole(values, members, levels)
    else:
        values = quantile_values(members.values, levels)
    at = {name: like[name] for name in like.coords}
    return xr.DataArray(
        values, at | {"quantile": np.array(levels)}, ("quantile", *like.dims), like.name, like.attrs
    )


def quantile_values(members: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """(quantile, ...), float32, of (number, ...)."""
    statistic = Quantiles(levels)
    # Centred on the first member: quantiles do not depend on what they are centred on.
    found = evaluate_arrays((statistic,), members, members[0])[statistic]
    return np.moveaxis(found, -1, 0).astype(np.float32)


def _joined(parts: list[tuple[xr.DataArray, xr.DataArray]]) -> tuple[xr.DataArray, xr.DataArray]:
    """Arrays of single dates along `init_time`, with their `season`."""
    joined = []
    for arrays in zip(*parts, strict=True):
        bare = [array.drop_vars("season", errors="ignore") for array in arrays]
        one = xr.concat(bare, "init_time", coords="minimal", compat="override", join="outer")
        seasons = ("init_time", one.init_time.dt.season.values.astype(str))
        joined.append(one.transpose("init_time", ...).assign_coords(season=seasons))
    return joined[0], joined[1]
