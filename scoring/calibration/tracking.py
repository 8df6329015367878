"""Quantile tracking and conformal PI control: shifts that follow the misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scoring.calibration.conformity import ONE_SIDED, check_reachable, conformal_quantile

_STEEPEST = np.pi / 2 - 1e-3


@dataclass(frozen=True)
class QuantileTracking:
    """theta <- theta + rate x size x (p - share not above), for each level p, lead and group.

    With an integrator, K tan(S log(t+1) / (C (t+1))) x size of the summed deficits S is added
    (conformal PID: Angelopoulos, Candes and Tibshirani, 2023, doi:10.48550/arXiv.2307.16895).
    `size` is a running mean of |truth - quantile| of the level nearest the median, which makes the
    rate a number without unit. The state is as small as the groups, whatever the grid.

    Parameters
    ----------
    rate : float
        Learning rate.
    integral : float
        K; 0 is quantile tracking.
    saturation : float
        C: the larger, the gentler the integrator.
    memory : int
        Cases over which `size` is averaged.
    """

    rate: float = 0.1
    integral: float = 0.0
    saturation: float = 5.0
    memory: int = 30
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "theta": ("lead_time", "group", "quantile"),
        "total": ("lead_time", "group", "quantile"),
        "size": ("lead_time", "group"),
        "count": ("lead_time", "group"),
    }

    @property
    def name(self) -> str:
        """With every setting."""
        kind = "conformal PI" if self.integral else "quantile tracking"
        integrator = f", integral {self.integral:g}/{self.saturation:g}" if self.integral else ""
        return f"{kind}, rate {self.rate:g}{integrator}, size over {self.memory} cases"

    def start(
        self, error: np.ndarray, levels: np.ndarray, init_times: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Shifts of one-sided CQR on the past cases, each case counting; none without a past.

        Raises
        ------
        InputError
            If a level needs more cases than there are.
        """
        size = _size(error, levels)
        known = np.isfinite(size)
        total = known.sum(axis=(0, 3))
        shape = (*total.shape, levels.size)
        theta = np.zeros(shape)
        if error.shape[0]:
            flat = np.moveaxis(error, 0, 2).reshape(-1, error.shape[0] * error.shape[3], shape[-1])
            theta = _one_sided(flat, total.ravel(), levels).reshape(shape)
        sums = np.where(known, size, 0.0).sum(axis=(0, 3))
        with np.errstate(invalid="ignore"):
            mean = sums / np.where(total > 0, total, np.nan)
        return {
            "theta": theta,
            "total": np.zeros(shape),
            "size": mean,
            "count": known.any(axis=3).sum(axis=0),
        }

    def shifts(
        self, state: dict[str, np.ndarray], levels: np.ndarray, init_time: np.datetime64
    ) -> np.ndarray:
        """(lead_time, group, quantile)"""
        if not self.integral:
            return state["theta"]
        time = state["count"][..., None] + 1
        slope = state["total"] * np.log(time) / (self.saturation * time)
        push = self.integral * np.tan(np.clip(slope, -_STEEPEST, _STEEPEST))
        return state["theta"] + push * np.nan_to_num(state["size"])[..., None]

    def learn(
        self,
        state: dict[str, np.ndarray],
        deficit: np.ndarray,
        error: np.ndarray,
        levels: np.ndarray,
        init_time: np.datetime64,
    ) -> dict[str, np.ndarray]:
        """See `scoring.calibration.online.Method`."""
        apart = _size(error, levels)
        known = np.isfinite(apart)
        seen = known.any(axis=-1)
        found = np.where(known, apart, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
        count = state["count"] + seen
        before = np.where(np.isfinite(state["size"]), state["size"], found)
        step = 1 / np.clip(count, 1, self.memory)
        size = np.where(seen, before + step * (found - before), state["size"])
        move = self.rate * np.nan_to_num(size)[..., None] * deficit
        return {
            "theta": state["theta"] + move,
            "total": state["total"] + deficit,
            "size": size,
            "count": count,
        }


def _one_sided(error: np.ndarray, count: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """One-sided CQR, (group, quantile), of errors, (group, case, quantile)."""
    shifts = np.zeros((error.shape[0], levels.size))
    weights = np.ones(error.shape[1])
    for margin in ONE_SIDED.margins(lambda level: error[..., level], levels):
        check_reachable(margin.alpha, count.min())
        for level, direction in margin.moved:
            found = conformal_quantile(margin.scores, weights, count, margin.alpha)
            shifts[:, level] = direction * found
    return shifts


def _size(error: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.abs(error[..., int(np.abs(levels - 0.5).argmin())])
