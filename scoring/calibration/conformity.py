"""What conformal calibration is made of: scores of past cases, and the quantile of them to add."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError

_ROUNDING = 10


@dataclass(frozen=True)
class Margin:
    """One quantity to add: the (1 - alpha)-quantile of the scores of past cases.

    Attributes
    ----------
    scores : numpy.ndarray
        Of each case, as `error` is given.
    alpha : float
        How often a new score may be larger.
    moved : tuple of (int, float)
        The levels that the margin moves, by position, and in which direction.
    """

    scores: np.ndarray
    alpha: float
    moved: tuple[tuple[int, float], ...]


class Conformity(Protocol):
    """How the departure of truth from quantiles becomes shifts of the quantiles."""

    name: ClassVar[str]

    def margins(self, error: Callable[[int], np.ndarray], levels: np.ndarray) -> Iterator[Margin]:
        """What to add, from truth minus the quantile of each level, by position."""
        ...


@dataclass(frozen=True)
class Symmetric:
    """Both ends of an interval move by the same amount: E = max(q_lo - y, y - q_hi).

    The median stays where it is.
    """

    name: ClassVar[str] = "symmetric CQR"

    def margins(self, error: Callable[[int], np.ndarray], levels: np.ndarray) -> Iterator[Margin]:
        """One for each interval, the widest first."""
        for low, high in pairs(levels):
            scores = np.negative(error(low))
            np.maximum(scores, error(high), out=scores)
            yield Margin(scores, round(2 * levels[low], _ROUNDING), ((low, -1.0), (high, 1.0)))


@dataclass(frozen=True)
class OneSided:
    """Each quantile moves by itself: E = q - y below the median, y - q above; each end of an
    interval misses with its own probability, so a bias is taken out and the tails may differ.
    The median moves by the median error."""

    name: ClassVar[str] = "one-sided CQR"

    def margins(self, error: Callable[[int], np.ndarray], levels: np.ndarray) -> Iterator[Margin]:
        """One for each level."""
        for index, level in enumerate(levels):
            alpha = round(min(level, 1 - level), _ROUNDING)
            side = -1.0 if level < 0.5 else 1.0
            scores = -error(index) if level < 0.5 else error(index)
            yield Margin(scores, alpha, ((index, side),))


SYMMETRIC = Symmetric()
ONE_SIDED = OneSided()


class Counting(Protocol):
    """For how many independent cases a pooled sample stands."""

    name: ClassVar[str]

    def count(self, weights: np.ndarray) -> np.ndarray:
        """n of each group, (...), from the weights of its cases, (..., date, other)."""
        ...


@dataclass(frozen=True)
class EachCase:
    """Every cell of every date is a case: (sum w)^2 / sum w^2 of them (Kish, 1965).

    Neighbouring cells are alike, so this promises coverage on average over cells and over dates
    like those pooled, not for one new date.
    """

    name: ClassVar[str] = "each cell of each date"

    def count(self, weights: np.ndarray) -> np.ndarray:
        """Effective number of cells times dates."""
        return effective_number(weights.reshape(*weights.shape[:-2], -1))


@dataclass(frozen=True)
class EachDate:
    """A date is one case however many cells it has: coverage is promised for a random cell of a
    new date (Lee, Barber and Willett, 2023, doi:10.48550/arXiv.2306.06342)."""

    name: ClassVar[str] = "each date"

    def count(self, weights: np.ndarray) -> np.ndarray:
        """Effective number of dates that have a case, by the largest weight in each."""
        return effective_number(weights.max(axis=-1))


EACH_CASE = EachCase()
EACH_DATE = EachDate()


def effective_number(weights: np.ndarray) -> np.ndarray:
    """(sum w)^2 / sum w^2 over the last axis (Kish, 1965): n for n equal weights; 0 of none."""
    squares = np.sum(np.square(weights, dtype=float), axis=-1)
    total = np.sum(weights, axis=-1, dtype=float)
    return np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)


def cases_needed(alpha: float) -> int:
    """Fewest cases n with which a miss rate can be had: alpha >= 1 / (n + 1)."""
    return ceil(round(1 / alpha - 1, _ROUNDING))


def check_reachable(alpha: float, count: float, where: str = "") -> None:
    """Refuse a level that so few cases cannot reach.

    Raises
    ------
    InputError
        If alpha < 1 / (count + 1); says how many cases are needed.
    """
    needed = cases_needed(alpha)
    if round(float(count), _ROUNDING) < needed:
        raise InputError(
            f"calibrating to a miss rate of {alpha:g} needs at least {needed} cases, found "
            f"{count:g}{where}: add dates, pool more cells, or leave out the outer levels"
        )


def where(array: xr.DataArray, groups: Sequence[str], index: int) -> str:
    """Which of the groups along some dimensions it is, as a message ends: `` for site 3``."""
    if not groups:
        return ""
    places = np.unravel_index(index, [array.sizes[dim] for dim in groups])
    names = [
        f"{dim} {_said(array[dim].values[at])}" for dim, at in zip(groups, places, strict=True)
    ]
    return f" for {', '.join(names)}"


def conformal_quantile(
    scores: np.ndarray, weights: np.ndarray, count: np.ndarray, alpha: np.ndarray | float
) -> np.ndarray:
    """The ceil((n+1)(1-alpha))-th smallest score of each group, weights considered, (group,).

    The sample is completed by one score at infinity that weighs 1 / (n + 1), so the result is
    infinity where alpha < 1 / (n + 1) (Romano, Patterson and Candes, 2019,
    doi:10.48550/arXiv.1905.03222), and minus infinity where alpha >= 1.

    Parameters
    ----------
    scores : numpy.ndarray
        (group, case); NaN is left out.
    weights : numpy.ndarray
        (case,), not negative.
    count : numpy.ndarray
        n of each group, (group,).
    alpha : numpy.ndarray or float
        How often a new score may be larger, (group,) or one for all.
    """
    count = np.broadcast_to(np.asarray(count, float), scores.shape[:1])
    alpha = np.broadcast_to(np.asarray(alpha, float), scores.shape[:1])
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(count > 0, (1 - alpha) * (count + 1) / count, np.inf)
    if _simple(scores, weights, level):
        place = max(ceil(round(level[0] * scores.shape[1], 6)), 1) - 1
        place = min(place, scores.shape[1] - 1)
        found = np.partition(scores, place, axis=1)[:, place].astype(float)
    else:
        found = _weighted_quantile(scores, weights, level)
    found[level > 1 + 1e-9] = np.inf
    found[alpha >= 1] = -np.inf
    return found


def _simple(scores: np.ndarray, weights: np.ndarray, level: np.ndarray) -> bool:
    """Whether every group takes the same order statistic of equal weights."""
    same = np.ptp(weights) == 0 and (level == level[0]).all() and np.isfinite(level[0])
    # One NaN makes the sum one, and a sum is cheaper than a mask.
    return bool(same) and not np.isnan(scores.sum(dtype=np.float64))


def _weighted_quantile(scores: np.ndarray, weights: np.ndarray, level: np.ndarray) -> np.ndarray:
    order = np.argsort(scores, axis=1)
    ascending = np.take_along_axis(scores, order, axis=1).astype(float)
    weight = np.where(np.isnan(ascending), 0.0, weights[order])
    total = weight.sum(axis=1, keepdims=True)
    share = np.cumsum(weight, axis=1) / np.where(total > 0, total, 1.0)
    reached = (share >= np.clip(level, 0.0, 1.0)[:, None] - 1e-9) & (weight > 0)
    # Rounding may leave the last share below 1: the last case that weighs anything is taken then.
    last = weight.shape[1] - 1 - (weight > 0)[:, ::-1].argmax(axis=1)
    place = np.where(reached.any(axis=1), reached.argmax(axis=1), last)
    found = np.take_along_axis(ascending, place[:, None], axis=1)[:, 0]
    return np.where(total[:, 0] > 0, found, np.inf)


def _said(label: object) -> str:
    """A label as a message has it; leads in hours."""
    if isinstance(label, np.timedelta64):
        return f"{label / np.timedelta64(1, 'h'):g} h"
    return str(label)


def pairs(levels: np.ndarray) -> list[tuple[int, int]]:
    """Positions of the two levels of each central interval, the widest first.

    Raises
    ------
    InputError
        If a level other than 0.5 has no partner.
    """
    found = []
    for low in np.flatnonzero(levels < 0.5 - 1e-9):
        partner = np.flatnonzero(np.isclose(levels, 1 - levels[low], rtol=0, atol=1e-9))
        found += [(int(low), int(high)) for high in partner]
    lonely = levels.size - 2 * len(found) - np.count_nonzero(np.isclose(levels, 0.5))
    if lonely:
        raise InputError(f"levels do not come in pairs p and 1 - p: {levels.tolist()}")
    return found
