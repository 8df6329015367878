"""Past cases of one channel at a few leads: what a calibration is fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from data.grid import Grid
from pipelines.truths import Series
from pipelines.verification import Verification
from scoring.quantiles import Quantiles
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
    """

    pair: Verification
    channel: str
    inits: np.ndarray
    leads: np.ndarray
    known: np.ndarray
    truths: Series
    weights: xr.DataArray

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
        count = int(np.clip(_SAMPLE // max(1, self.inits.size), 1, self.weights.size))
        share = np.cumsum(self.weights.values.ravel())
        wanted = (np.arange(count) + 0.5) / count * share[-1]
        place = np.searchsorted(share, wanted).clip(0, share.size - 1)
        dims = self.weights.dims
        parts = []
        for members, truth in self.dates():
            taken = []
            for array in (members, truth):
                flat = array.reset_coords(drop=True).drop_vars(dims, errors="ignore")
                flat = flat.transpose(..., *dims).values.reshape(*flat.shape[: -len(dims)], -1)
                names = [*(dim for dim in array.dims if dim not in dims), "cell"]
                at = {name: array[name].values for name in names[:-1]}
                taken.append(xr.DataArray(flat[..., place], at, names))
            init = members.init_time.values
            parts.append(tuple(one.assign_coords(init_time=init) for one in taken))
        return _joined(parts)


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
    """Quantiles of members, (quantile, lead_time, *cells), float32."""
    like, values = members.isel(number=0, drop=True), quantile_values(members.values, levels)
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
