"""Which past dates may calibrate which forecast: only what was known when it started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from data.errors import InputError


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
    its init time plus lead time is not after the judged init time. As in real time.

    Parameters
    ----------
    dates : int
        The first `dates` init times only fit; each later one is judged.
    """

    dates: int

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
        known = init_times[:judged] + lead_time <= init_times[judged]
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
