"""How sure a score is, and whether two forecasts differ by more than chance.

Init times are a sample of the weather, and neighbours are alike: tests that take them as
independent find differences where there are none. Both tests here take a `Sample` (see
`scoring.sample`), which has one value per init time, and test every value of its estimate by
itself; `false_discovery` then says which of many stand out together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import xarray as xr
from scipy.special import stdtr, stdtrit

from data.errors import InputError
from data.key import Key
from scoring.bootstrap import (
    automatic_block_length,
    lag_one_autocorrelation,
    stationary_positions,
)
from scoring.cosines import Weights, cosines, effective_dates, most, standard_error
from scoring.sample import Sample

FEW_DATES = 20  # fewer find at most a third of what the true variance finds in 80 of 100
_FEWEST = 10  # init times of which a block length can be told
_MOST_VALUES = 2**23
_ROUNDING = 1e-12  # of an estimate: draws that depart from it by less are the same


class Test(Protocol):
    """Gives an estimate its confidence interval and its p-value."""

    @property
    def name(self) -> str:
        """What every output says about it."""
        ...

    def of(self, sample: Sample, level: float = 0.95) -> xr.Dataset:
        """Variables with the dimensions of the estimate: `estimate`; `lower` and `upper`, the
        ends of the confidence interval; `standard_error`; `p_value` of the hypothesis that the
        true value is 0, two-sided; `dates`, how many init times there are; `autocorrelation`
        of neighbours; and `effective_dates`, how many independent init times would tell as much
        (see `scoring.cosines`). NaN with too few init times.

        Raises
        ------
        InputError
            If no value has enough init times.
        """
        ...


@dataclass(frozen=True)
class EqualWeightedCosine:
    """t-test with a long-run variance from the lowest cosines (Lazarus, Lewis, Stock and Watson
    2018, doi:10.1080/07350015.2018.1506926).

    With c_j = sqrt(2/T) sum_t y_t cos(pi j (t - 1/2) / T) of the T values in order, the mean has
    the standard error sqrt(mean c_j^2 / T), j = 1 ... B, and mean / error Student's t
    distribution with B degrees of freedom.

    Parameters
    ----------
    cosines : int, optional
        B; with T - 1 it is the t-test for independent values. By default as many as the
        autocorrelation of each series bears, at most 0.4 T^(2/3), and each c_j divided by its
        standard deviation, beside the mean's, in a first-order autoregression like the series:
        `Weights.adapted` of `scoring.cosines`.
    """

    cosines: int | None = None

    @property
    def name(self) -> str:
        """With the number of cosines."""
        number = "up to 0.4 T^(2/3) flattened" if self.cosines is None else f"{self.cosines}"
        return f"EWC t-test with {number} cosines (Lazarus et al. 2018)"

    def of(self, sample: Sample, level: float = 0.95) -> xr.Dataset:
        """See `Test.of`."""
        result = _Result(sample, level, self.name)
        for dates, cells in sample.parts():
            number = most(dates.size) if self.cosines is None else self.cosines
            if not 0 < number < dates.size:
                continue
            values = sample.values[np.ix_(dates, cells)]
            weights = self._weights(values)
            basis = cosines(dates.size, number)
            error = standard_error(values - values.mean(axis=0), basis, weights)
            ratio = _ratio(result.estimate[cells], error)
            p_value = 2 * stdtr(weights.degrees, -np.abs(ratio))
            result.put(cells, values, error, p_value, stdtrit(weights.degrees, (1 + level) / 2))
        fewest = 4 if self.cosines is None else self.cosines + 1
        return result.dataset(f"needs at least {fewest} init times")

    def _weights(self, values: np.ndarray) -> Weights:
        if self.cosines is None:
            return Weights.adapted(values)
        return Weights.equal(self.cosines, values.shape[1])


@dataclass(frozen=True)
class StationaryBootstrap:
    """Bootstrap-t over init times in blocks of random length (Politis and Romano 1994,
    doi:10.1080/01621459.1994.10476870), each draw with its own standard error.

    For functions of means, such as RMSE or a skill score, totals and weights are drawn and the
    function taken of their means. The distribution of |estimate of the draw - estimate| / error
    of the draw takes the place of Student's, with the errors of `EqualWeightedCosine` in both;
    that this works with few cosines is due to Goncalves and Vogelsang (2011, Econometric Theory
    27, 745-791). Draws are cut between blocks: their autoregression has the autocorrelation of
    the sample times 1 - 1 / block length. Percentiles of the draws themselves are far too narrow
    with 30 to 200 dates.

    Parameters
    ----------
    key : Key
        Where its draws come from.
    draws : int
        How many; the smallest p-value is 1 / (draws + 1).
    block_length : float, optional
        Mean block length; by default that of `automatic_block_length` for every value by itself,
        times n^(1/5 - 1/3), rounded up.
    """

    key: Key
    draws: int = 999
    block_length: float | None = None

    @property
    def name(self) -> str:
        """With the block length."""
        length = "automatic" if self.block_length is None else f"{self.block_length:g}"
        return f"stationary bootstrap-t with {self.draws} draws, block length {length}"

    def of(self, sample: Sample, level: float = 0.95) -> xr.Dataset:
        """See `Test.of`."""
        result = _Result(sample, level, self.name)
        for dates, cells in sample.parts():
            if dates.size < _FEWEST:
                continue
            lengths = self._lengths(sample.values[np.ix_(dates, cells)])
            for length in np.unique(lengths):
                self._put(result, dates, cells[lengths == length], float(length))
        return result.dataset(f"needs at least {_FEWEST} init times")

    def _lengths(self, values: np.ndarray) -> np.ndarray:
        """Block length of each cell."""
        if self.block_length is None:
            # The best blocks for a variance grow with n^(1/3), for a two-sided distribution with
            # n^(1/5) (Hall, Horowitz and Jing 1995, doi:10.1093/biomet/82.3.561).
            return np.ceil(automatic_block_length(values) * len(values) ** (1 / 5 - 1 / 3))
        return np.full(values.shape[1], self.block_length)

    def _put(self, result: _Result, dates: np.ndarray, cells: np.ndarray, length: float) -> None:
        """Test cells that have the same init times and the same block length."""
        sample = result.sample
        generator = (self.key / int(dates.size) / f"{length:g}").generator()
        positions = stationary_positions(dates.size, length, self.draws, generator)
        counts = np.zeros((self.draws, len(sample.values)))
        counts[:, dates] = _drawn(positions, np.ones((dates.size, 1)))[0]
        basis = cosines(dates.size, most(dates.size))
        drawn_basis = _drawn(positions, basis)
        rank = min(self.draws, int(np.ceil((self.draws + 1) * result.level)))
        step = max(1, _MOST_VALUES // drawn_basis[..., 0].size)
        for some in (cells[start : start + step] for start in range(0, cells.size, step)):
            values = sample.values[np.ix_(dates, some)]
            centred = values - values.mean(axis=0)
            weights = Weights.adapted(values)
            error = standard_error(centred, basis, weights)
            cut = np.clip(lag_one_autocorrelation(values), 0, None) * (1 - 1 / length)
            drawn_weights = weights.among(np.nan_to_num(cut), dates.size)
            estimate = result.estimate[some]
            departures = sample.resampled(counts, some) - estimate
            departures[np.abs(departures) < _ROUNDING * np.abs(estimate)] = 0.0
            drawn_error = standard_error(centred, drawn_basis, drawn_weights)
            ratios = np.abs(_ratio(departures, drawn_error))
            reached = np.abs(_ratio(estimate, error))
            p_value = (1 + (ratios >= reached).sum(axis=0)) / (self.draws + 1)
            width = np.partition(ratios, rank - 1, axis=0)[rank - 1]
            result.put(some, values, error, p_value, width)


def false_discovery(
    p_value: xr.DataArray, rate: float = 0.10, over: Sequence[str] | None = None
) -> xr.DataArray:
    """Which of many tests stand out, bool: at most a share `rate` of them by chance, on average.

    With the N p-values in order, those up to the largest p_(i) <= rate i / N (Benjamini and
    Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x). Fields are correlated in space, which
    makes this strict: twice the level is a fair rate, 0.10 for tests at 5 % (Wilks 2016,
    doi:10.1175/BAMS-D-15-00267.1). The field as a whole differs if any point stands out.

    Parameters
    ----------
    p_value : xarray.DataArray
        Any dimensions; NaN is no test.
    rate : float
        Share of false discoveries.
    over : sequence of str, optional
        Dimensions along which the tests count as one family; by default all.

    Raises
    ------
    InputError
        If the rate is not between 0 and 1, or a dimension is not there.
    """
    if not 0 < rate < 1:
        raise InputError(f"the false-discovery rate is {rate}, expected a share between 0 and 1")
    family = list(p_value.dims if over is None else over)
    absent = [dim for dim in family if dim not in p_value.dims]
    if absent:
        raise InputError(f"p-values have no dimension {absent[0]!r}, found {p_value.dims}")
    ordered = p_value.transpose(..., *family)
    shape = ordered.shape[: ordered.ndim - len(family)]
    rows = ordered.values.reshape(*shape, -1)
    tests = np.isfinite(rows).sum(axis=-1, keepdims=True)
    climbing = np.sort(rows, axis=-1)  # NaN comes last
    held = climbing <= rate * np.arange(1, rows.shape[-1] + 1) / np.maximum(tests, 1)
    threshold = np.where(held, climbing, -1.0).max(axis=-1, keepdims=True, initial=-1.0)
    found = ordered.copy(data=(rows <= threshold).reshape(ordered.shape))
    return found.transpose(*p_value.dims).assign_attrs(false_discovery_rate=rate)


@dataclass(frozen=True)
class _Result:
    """Arrays of cells that a test fills in."""

    sample: Sample
    level: float
    name: str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InputError(f"the confidence level is {self.level}, expected between 0 and 1")
        cells = self.sample.values.shape[1]
        names = ("lower", "upper", "standard_error", "p_value")
        names += ("autocorrelation", "effective_dates")
        self.arrays.update({name: np.full(cells, np.nan) for name in names})
        self.arrays["dates"] = np.isfinite(self.sample.values).sum(axis=0)

    @property
    def estimate(self) -> np.ndarray:
        """(cell,)"""
        return self.sample.estimate.values.ravel()

    def put(
        self,
        cells: np.ndarray,
        values: np.ndarray,
        error: np.ndarray,
        p_value: np.ndarray,
        width: np.ndarray | float,
    ) -> None:
        """Results of some cells; `width` is half the interval's in standard errors."""
        half = np.where(error > 0, width, 0.0) * error
        found = {
            "lower": self.estimate[cells] - half,
            "upper": self.estimate[cells] + half,
            "standard_error": error,
            "p_value": p_value,
            "autocorrelation": lag_one_autocorrelation(values),
            "effective_dates": effective_dates(values),
        }
        for name, array in found.items():
            self.arrays[name][cells] = array

    def dataset(self, needs: str) -> xr.Dataset:
        """The results; `needs` says what was missing if there are none."""
        if np.isnan(self.arrays["p_value"]).all():
            most = int(self.arrays["dates"].max(initial=0))
            raise InputError(f"the {self.name} {needs}, found {most} with a value")
        like = self.sample.estimate
        filled = {name: like.copy(data=a.reshape(like.shape)) for name, a in self.arrays.items()}
        variables = {"estimate": like, **filled}
        bare = {name: array.rename(name).drop_attrs() for name, array in variables.items()}
        attributes = {"test": self.name, "level": self.level}
        if self.sample.spacing:
            attributes["spacing"] = self.sample.spacing
        return xr.Dataset(bare, attrs=attributes)


def _drawn(positions: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Sums over times of a draw of a basis, by the position drawn, (basis, draw, position).

    A draw's coefficient of the basis is then the product of these with the series itself.
    """
    draws, size = positions.shape
    places = (np.arange(draws)[:, None] * size + positions).ravel()
    sums = [np.bincount(places, np.tile(row, draws), draws * size) for row in basis.T]
    return np.stack(sums).reshape(-1, draws, size)


def _ratio(estimate: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Estimate / error; 0 / 0 is 0, since what never differs does not differ."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(estimate == 0, 0.0, estimate / error)
