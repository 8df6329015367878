"""Indices of the extreme: how far an ensemble has moved away from its climatology.

Both compare the members with quantiles of a climatology and do not look at the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from data.errors import InputError
from scoring.bisection import count_not_above
from scoring.identity import make_floats
from scoring.quantiles import LINEAR, Definition, quantile_deviations
from scoring.statistic import Statistic
from scoring.thresholds import SAME_LEVEL, Reference, check_reference
from scoring.tile import Tile


class Integral(Protocol):
    """How the integral over the climate's probabilities is taken: `EXACT` or `DISCRETE`."""

    def index(self, tile: Tile, climate: Reference) -> np.ndarray:
        """The index, (cell,)."""
        ...


@dataclass(frozen=True)
class Exact:
    """(4 / pi) mean_i arcsin(sqrt(p_i)) - 1, p_i the climate's probability of a value less than
    member i, linear between quantiles."""

    def index(self, tile: Tile, climate: Reference) -> np.ndarray:
        """(cell,)"""
        levels = np.array(climate.levels)
        quantiles = np.ascontiguousarray(climate.deviations(tile))
        members = tile.deviations
        # A quantile equal to a member is not below it.
        rank = count_not_above(quantiles, np.nextafter(members, -np.inf), levels.size)
        upper = np.clip(rank, 1, levels.size - 1)
        low = np.take_along_axis(quantiles, upper - 1, axis=1)
        step = np.take_along_axis(quantiles, upper, axis=1) - low
        share = np.clip((members - low) / np.where(step > 0, step, 1), 0, 1)
        share[rank == levels.size] = 1  # above all, also where the last two quantiles are equal
        probability = levels[upper - 1] + share * np.diff(levels)[upper - 1]
        return 4 / np.pi * np.arcsin(np.sqrt(probability)).mean(axis=1) - 1


@dataclass(frozen=True)
class Discrete:
    """The share of members at or below each quantile, linear between quantiles, integrated
    exactly; with 101 percentiles this is the ECMWF's discretisation."""

    def index(self, tile: Tile, climate: Reference) -> np.ndarray:
        """(cell,)"""
        levels = np.array(climate.levels)
        angle = np.diff(np.arccos(np.sqrt(levels)))
        root = np.diff(np.sqrt(levels * (1 - levels)))
        slope = ((1 - 2 * levels[:-1]) * angle + root) / np.diff(levels)
        weights = np.zeros(levels.size)
        weights[:-1] += 2 * angle - slope
        weights[1:] += slope
        share = tile.weighted_count(climate, weights) / tile.size
        return 2 / np.pi * (share - (angle + root).sum())


EXACT = Exact()
DISCRETE = Discrete()


@dataclass(frozen=True)
class ExtremeForecastIndex(Statistic):
    """EFI = (2 / pi) integral of (p - F(p)) / sqrt(p (1 - p)) dp, -1 to 1; F(p) is the share of
    members at or below the climate's p-quantile (Lalaurette, 2003, doi:10.1256/qj.02.152; Zsoter,
    2006, ECMWF Newsletter 107).

    Parameters
    ----------
    climate : Reference
        With levels from 0 to 1; the ECMWF takes 101.
    integral : Integral
        `EXACT` (default) or `DISCRETE`.

    Raises
    ------
    InputError
        If levels do not reach from 0 to 1.
    """

    climate: Reference
    integral: Integral = EXACT

    def __post_init__(self) -> None:
        check_reference(self.climate)
        if self.climate.levels[0] != 0 or self.climate.levels[-1] != 1:
            raise InputError(
                f"the extreme forecast index needs a climate from level 0 to level 1, found "
                f"{self.climate.levels[0]:g} to {self.climate.levels[-1]:g}"
            )

    @property
    def references(self) -> tuple[Reference, ...]:
        """The climate."""
        return (self.climate,)

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        index = self.integral.index(tile, self.climate)
        quantiles = tile.references[self.climate]
        # Sums of squares tell of missing quantiles without an array of flags.
        missing = np.isnan(np.vecdot(quantiles, quantiles))
        return np.where(missing, np.nan, index)


@dataclass(frozen=True)
class ShiftOfTails(Statistic):
    """SOT = (Q_f(p) - Q_c(q)) / (Q_c(q) - Q_c(p)), Q_f and Q_c quantiles of forecast and climate
    (Zsoter, 2006, ECMWF Newsletter 107): positive when the tail of the forecast reaches beyond
    the climate's. NaN where the climate has no tail. The ECMWF's archive holds it within +-10.

    Parameters
    ----------
    climate : Reference
        Has both levels: ``Reference("climate", (0.9, 0.99))``, or that of the index.
    level : float
        p: 0.9 (default), or 0.1 for the lower tail.
    tail : float
        q: 0.99 (default), or 0.01 for the lower tail.
    definition : Definition
        Of the forecast's quantile; `LINEAR` (default) as at the ECMWF.

    Raises
    ------
    InputError
        If the climate lacks one of the levels.
    """

    climate: Reference
    level: float = 0.9
    tail: float = 0.99
    definition: Definition = LINEAR
    minimum_members: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_reference(self.climate)
        make_floats(self, "level", "tail")
        for level in (self.level, self.tail):
            if not np.isclose(self.climate.levels, level, rtol=0, atol=SAME_LEVEL).any():
                raise InputError(
                    f"the shift of tails needs a climate with the levels {self.level:g} and "
                    f"{self.tail:g}, found {', '.join(f'{one:g}' for one in self.climate.levels)}"
                )

    @property
    def references(self) -> tuple[Reference, ...]:
        """The climate."""
        return (self.climate,)

    def of_tile(self, tile: Tile) -> np.ndarray:
        """(cell,)"""
        forecast = quantile_deviations(tile, np.array([self.level]), self.definition)[:, 0]
        levels = np.array(self.climate.levels)
        climate = self.climate.deviations(tile)
        start, end = (
            climate[:, np.abs(levels - level).argmin()] for level in (self.level, self.tail)
        )
        length = end - start
        return (forecast - end) / np.where(length == 0, np.nan, length)
