"""Estimates that remember their init times: what tests and confidence intervals need.

A score averaged over init times is one number; how sure it is depends on how the init times
differ, and on how alike neighbours are. A `Sample` holds the number, the value of each init time,
and the number that any other choice of the same init times would have given.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pandas as pd
import xarray as xr

from data.errors import InputError
from scoring.score import Score
from scoring.sums import Sums, common_settings

INIT_TIME = "init_time"
_DRAW = "draw"
_MOST_VALUES = 2**22


@dataclass(frozen=True)
class Sample:
    """An estimate, and what each init time says about it.

    Attributes
    ----------
    estimate : xarray.DataArray
        Any dimensions but `init_time`; NaN where it cannot be had.
    init_time : pandas.DatetimeIndex
        Ascending.
    values : numpy.ndarray
        (init_time, cell), where a cell is a value of `estimate` in C order. For a mean the values
        themselves; for a function of means the jackknife's pseudo-values, n E - (n-1) E_-t with
        the estimate E and that without the init time, E_-t (Miller 1974,
        doi:10.1093/biomet/61.1.1). NaN where an init time has no say.
    resampled : callable
        Takes how often each init time is drawn, (draw, init_time), and positions of cells; gives
        the estimates of the draws, (draw, cell).
    """

    estimate: xr.DataArray
    init_time: pd.DatetimeIndex
    values: np.ndarray
    resampled: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions of init times that have a say and of the cells in which just they have."""
        present = np.isfinite(self.values)
        patterns, of_cell = np.unique(present, axis=1, return_inverse=True)
        for number, pattern in enumerate(patterns.T):
            if pattern.any():
                yield np.flatnonzero(pattern), np.flatnonzero(of_cell == number)

    @property
    def spacing(self) -> str:
        """What to say of init times that are not evenly spaced; nothing if they are."""
        gaps = np.unique(np.diff(self.init_time.values).astype("timedelta64[h]").astype(int))
        if gaps.size < 2:
            return ""
        return (
            f"init times are {gaps[0]} to {gaps[-1]} h apart; they are taken in order, as if "
            "evenly spaced"
        )


def of_mean(values: xr.DataArray) -> Sample:
    """Mean over init times of values that have one for each of them.

    Two experiments are compared by ``of_mean(a - b)``: xarray keeps their common init times.

    Parameters
    ----------
    values : xarray.DataArray
        `init_time` and any other dimensions; each value is tested by itself. NaN is left out.

    Raises
    ------
    InputError
        If there is no `init_time`, or one of them comes twice.
    """
    if INIT_TIME not in values.dims:
        raise InputError(f"{INIT_TIME} is not among the dimensions, found {values.dims}")
    times = _times(values.indexes.get(INIT_TIME))
    values = values.astype(float).transpose(INIT_TIME, ...).isel({INIT_TIME: times.argsort()})
    flat = _flat(values)
    present = np.isfinite(flat)
    filled, weight = np.where(present, flat, 0.0), present.astype(float)

    def resampled(counts: np.ndarray, cells: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (counts @ filled[:, cells]) / (counts @ weight[:, cells])

    mean = resampled(np.ones((1, times.size)), np.arange(flat.shape[1]))
    like = values.isel({INIT_TIME: 0}, drop=True)
    times = times.sort_values()
    return Sample(like.copy(data=mean.reshape(like.shape)), times, flat, resampled)


def of_score(score: Score, sums: Sums) -> Sample:
    """A score over init times, of sums that keep them.

    Raises
    ------
    InputError
        If a statistic was not summed, or the sums do not keep `init_time`.
    """
    return _of((score,), paired((score,), (sums,)), lambda one: one)


def of_difference(score: Score, sums: Sums, other: Sums, of_other: Score | None = None) -> Sample:
    """A score minus the other's, over the init times (and other labels) that both have.

    Parameters
    ----------
    score : Score
        Of `sums`, and of `other` too if it has no score of its own.
    sums, other : Sums
        Select one forecast first: ``sums.sel({"forecast": "ensemble"})``.
    of_other : Score, optional
        For example another estimator.

    Raises
    ------
    InputError
        If they have no label of some dimension in common, or a statistic was not summed.
    """
    scores = score, of_other or score
    return _of(scores, paired(scores, (sums, other)), lambda one, two: one - two)


def of_skill(
    score: Score, sums: Sums, reference: Sums, of_reference: Score | None = None
) -> Sample:
    """1 - score / score of the reference, over the init times that both have.

    Parameters and errors are those of `of_difference`.
    """
    scores = score, of_reference or score
    common = paired(scores, (sums, reference))
    return _of(scores, common, lambda one, two: 1.0 - one / two.where(two != 0))


def paired(scores: Sequence[Score], sums: Sequence[Sums]) -> tuple[Sums, ...]:
    """What the scores need of their sums, at labels that all have, and with weight only where
    all have some: what a paired comparison is made from.

    Parameters
    ----------
    scores : sequence of Score
    sums : sequence of Sums
        One for each score.

    Raises
    ------
    InputError
        If they have different settings, no label of some dimension in common, a statistic was not
        summed, or sums do not keep `init_time`.
    """
    common_settings(sums)
    needed = [_needed(score, one) for score, one in zip(scores, sums, strict=True)]
    first = [next(iter(one.weights.values())) for one in needed]
    for dim in first[0].dims:
        indexes = [weight.indexes[dim] for weight in first if dim in weight.indexes]
        if indexes and not reduce(pd.Index.intersection, indexes).size:
            found = " and ".join(_ends(index) for index in indexes)
            raise InputError(f"no {dim} is common to both: found {found}")
    parts = _aligned(needed)
    present = _present(parts, None)
    return tuple(
        replace(
            part,
            totals={key: total.where(present, 0.0) for key, total in part.totals.items()},
            weights={key: weight.where(present, 0.0) for key, weight in part.weights.items()},
        )
        for part in parts
    )


def _aligned(sums: Sequence[Sums]) -> list[Sums]:
    """The sums at the labels that all of their statistics have, init times in their order."""
    arrays = [array for one in sums for array in (*one.totals.values(), *one.weights.values())]
    found = (array.sortby(INIT_TIME) for array in xr.align(*arrays, join="inner"))
    return [
        replace(
            one,
            totals={key: next(found) for key in one.totals},
            weights={key: next(found) for key in one.weights},
        )
        for one in sums
    ]


def _of(
    scores: Sequence[Score], sums: Sequence[Sums], quantity: Callable[..., xr.DataArray]
) -> Sample:
    """A quantity of scores, of sums that hold just what these need, at the same labels."""
    times = _times(next(iter(sums[0].weights.values())).indexes[INIT_TIME])

    def drawn(counts: np.ndarray) -> xr.DataArray:
        """The quantity, (draw, ...), when init times count so often, (draw, init_time)."""
        draws = xr.DataArray(counts, {INIT_TIME: times}, (_DRAW, INIT_TIME))
        parts = [_reweighted(one, draws) for one in sums]
        values = [score.of(one, over=()) for score, one in zip(scores, parts, strict=True)]
        return quantity(*values).transpose(_DRAW, ...)

    estimate = drawn(np.ones((1, times.size))).isel({_DRAW: 0}, drop=True)

    def resampled(counts: np.ndarray, cells: np.ndarray) -> np.ndarray:
        step = max(1, _MOST_VALUES // max(1, estimate.size))
        pieces = [counts[start : start + step] for start in range(0, len(counts), step)]
        return np.concatenate([_flat(drawn(piece))[:, cells] for piece in pieces])

    present = _flat(_present(sums, estimate.dims).broadcast_like(estimate), estimate.dims)
    count = present.sum(axis=0)
    values = count * estimate.values.ravel() - (count - 1) * _flat(drawn(1 - np.eye(times.size)))
    return Sample(estimate, times, np.where(present, values, np.nan), resampled)


def _needed(score: Score, sums: Sums) -> Sums:
    """The sums of the score's statistics alone."""
    for key in (statistic.key for statistic in score.statistics):
        if key not in sums.totals:
            found = ", ".join(sums.keys)
            raise InputError(f"{score.name} needs the statistic {key!r}, found sums of {found}")
        if INIT_TIME not in sums.weights[key].dims:
            raise InputError(f"sums of {key} do not keep {INIT_TIME}: {sums.weights[key].dims}")
    return sums.only(statistic.key for statistic in score.statistics)


def _present(sums: Sequence[Sums], dims: Sequence[Hashable] | None) -> xr.DataArray:
    """Where all sums have weight, (init_time, ...): only dimensions that all weights have, and of
    these only `dims`, if they are given."""
    weights = [weight > 0 for one in sums for weight in one.weights.values()]
    shared = set.intersection(*(set(weight.dims) for weight in weights))
    if dims is not None:
        shared &= {INIT_TIME, *dims}
    reduced = [weight.all([dim for dim in weight.dims if dim not in shared]) for weight in weights]
    return reduce(operator.and_, reduced)


def _reweighted(sums: Sums, draws: xr.DataArray) -> Sums:
    """Sums in which init times count as often as `draws` says, (draw, init_time)."""

    def drawn(array: xr.DataArray) -> xr.DataArray:
        return xr.dot(draws, array, dim=INIT_TIME)

    return replace(
        sums,
        totals={key: drawn(total) for key, total in sums.totals.items()},
        weights={key: drawn(weight) for key, weight in sums.weights.items()},
    )


def _flat(array: xr.DataArray, dims: Sequence[Hashable] = ()) -> np.ndarray:
    """(first dimension, cell); the other dimensions in the order of `dims`, if it is given."""
    if dims:
        array = array.transpose(..., *dims)
    return array.values.reshape(len(array), -1)


def _times(index: pd.Index | None) -> pd.DatetimeIndex:
    """Init times, each of which comes once."""
    if not isinstance(index, pd.DatetimeIndex):
        raise InputError(f"{INIT_TIME} must have times as coordinate, found {index!r}")
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise InputError(f"{INIT_TIME} {twice} comes twice; tests need one value for each")
    return index


def _ends(index: pd.Index) -> str:
    """A few labels as text."""
    words = [str(label) for label in index]
    return ", ".join(words) if len(words) < 6 else f"{words[0]} to {words[-1]} ({len(words)})"
