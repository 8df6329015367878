"""Which past dates may calibrate which forecast, and how much each of them says about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr

from data.errors import InputError

_AT_ONCE = np.timedelta64(0, "ns")
_YEAR = np.timedelta64(31_556_952, "s")  # the mean year of the Gregorian calendar


class Rule(Protocol):
    """Separates the dates that fit from those that are judged."""

    @property
    def name(self) -> str:
        """What every output says about it."""
        ...

    def judged(self, init_times: np.ndarray) -> np.ndarray:
        """Positions of the init times that are calibrated and judged."""
        ...

    def fitting(self, init_times: np.ndarray, lead_time: np.timedelta64, judged: int) -> np.ndarray:
        """Positions of the init times that may fit the judged one's forecast for a lead."""
        ...


@dataclass(frozen=True)
class KnownBefore:
    """A case fits only if its truth was known when the judged forecast started:
    its init time plus lead time plus latency is not after the judged init time. As in real time.

    Parameters
    ----------
    dates : int
        The first `dates` init times only fit; each later one is judged.
    latency : numpy.timedelta64
        How long after its valid time a truth becomes known; at once by default.
    """

    dates: int
    latency: np.timedelta64 = _AT_ONCE

    @property
    def name(self) -> str:
        """With the number of dates."""
        return (
            f"truth known before the judged init time; the first {self.dates} init times only fit"
        )

    def judged(self, init_times: np.ndarray) -> np.ndarray:
        """Positions from `dates` on.

        Raises
        ------
        InputError
            If there are no more init times than that.
        """
        if init_times.size <= self.dates:
            raise InputError(
                f"calibration fits on the first {self.dates} init times and judges the others, "
                f"found only {init_times.size}"
            )
        return np.arange(self.dates, init_times.size)

    def fitting(self, init_times: np.ndarray, lead_time: np.timedelta64, judged: int) -> np.ndarray:
        """Positions of earlier init times whose truth was known."""
        known = init_times[:judged] + lead_time + self.latency <= init_times[judged]
        return np.flatnonzero(known)


@dataclass(frozen=True)
class LeaveDateOut:
    """All other init times fit, also later ones: for hindcasts with too few dates.

    Dates closer than the lead time share weather, so coverage looks a little better than it would
    in real time.
    """

    @property
    def name(self) -> str:
        """Its name."""
        return "leave one init time out (not available in real time)"

    def judged(self, init_times: np.ndarray) -> np.ndarray:
        """All.

        Raises
        ------
        InputError
            If there is only one.
        """
        if init_times.size < 2:
            raise InputError("calibration needs at least 2 init times, found 1")
        return np.arange(init_times.size)

    def fitting(self, init_times: np.ndarray, lead_time: np.timedelta64, judged: int) -> np.ndarray:
        """All but the judged one."""
        return np.flatnonzero(np.arange(init_times.size) != judged)


def choose_rule(init_times: np.ndarray, lead_times: np.ndarray) -> Rule:
    """`KnownBefore` with the fewest dates that leave every lead a known case, if at least a third
    of the dates is then judged; else `LeaveDateOut`."""
    longest = lead_times.max()
    enough = [
        dates
        for dates in range(1, init_times.size)
        if KnownBefore(dates).fitting(init_times, longest, dates).size
    ]
    if enough and init_times.size - enough[0] >= init_times.size / 3:
        return KnownBefore(enough[0])
    return LeaveDateOut()


class Weighting(Protocol):
    """How much past dates say about a new one."""

    @property
    def name(self) -> str:
        """What every output says about it."""
        ...

    def weights(self, init_times: np.ndarray, judged: np.datetime64) -> np.ndarray:
        """Weight of each init time, (init_time,), 0 to 1."""
        ...


@dataclass(frozen=True)
class Equal:
    """All past dates alike."""

    name: ClassVar[str] = "all dates alike"

    def weights(self, init_times: np.ndarray, judged: np.datetime64) -> np.ndarray:
        """(init_time,)"""
        return np.ones(init_times.size)


@dataclass(frozen=True)
class Recent:
    """0.5^(age / half life): what drifts is followed (Barber et al., 2023,
    doi:10.1214/23-AOS2276). Dates count as `scoring.calibration.conformity.effective_number` says.

    Parameters
    ----------
    half_life : numpy.timedelta64
        Age at which a date says half as much.
    """

    half_life: np.timedelta64

    @property
    def name(self) -> str:
        """With the half life."""
        return f"recent dates first, half life {_days(self.half_life):g} d"

    def weights(self, init_times: np.ndarray, judged: np.datetime64) -> np.ndarray:
        """(init_time,); dates after the judged one by their distance."""
        return 0.5 ** (np.abs(init_times - judged) / self.half_life)


@dataclass(frozen=True)
class SameSeason:
    """exp(-d^2 / (2 width^2)) with d the distance within the year, whatever the year.

    Parameters
    ----------
    width : numpy.timedelta64
        Standard deviation of the bell.
    """

    width: np.timedelta64

    @property
    def name(self) -> str:
        """With the width."""
        return f"dates of the same season first, within {_days(self.width):g} d"

    def weights(self, init_times: np.ndarray, judged: np.datetime64) -> np.ndarray:
        """(init_time,)"""
        years = (init_times - judged) / _YEAR
        distance = np.abs(years - np.round(years)) * (_YEAR / self.width)
        return np.exp(-(distance**2) / 2)


@dataclass(frozen=True)
class Blend:
    """A weighted mean of weightings: recent dates and those of the same season, say.

    Parameters
    ----------
    parts : tuple of (Weighting, float)
        Weightings and their shares, which need not sum to 1.
    """

    parts: tuple[tuple[Weighting, float], ...]

    @property
    def name(self) -> str:
        """With the shares."""
        return " and ".join(f"{share:g} x {part.name}" for part, share in self.parts)

    def weights(self, init_times: np.ndarray, judged: np.datetime64) -> np.ndarray:
        """(init_time,)"""
        total = sum(share for _, share in self.parts)
        return sum(share * part.weights(init_times, judged) for part, share in self.parts) / total


EQUAL = Equal()


def date_weights(
    weighting: Weighting, init_time: xr.DataArray, judged: np.datetime64
) -> xr.DataArray:
    """Weights of past dates, for `ConformalCalibration.fit`, (init_time,)."""
    return init_time.copy(data=weighting.weights(init_time.values, judged))


def folds(init_times: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of consecutive dates, each left out once: positions that fit, and those left out.

    No init time is on both sides, and equal init times stay together.

    Raises
    ------
    InputError
        If there are fewer different init times than folds.
    """
    different, of_each = np.unique(init_times, return_inverse=True)
    if not 2 <= count <= different.size:
        raise InputError(f"{count} folds need as many init times, found {different.size}")
    block = of_each * count // different.size
    for number in range(count):
        yield np.flatnonzero(block != number), np.flatnonzero(block == number)


def _days(time: np.timedelta64) -> float:
    return time / np.timedelta64(1, "D")
