"""Adaptive conformal inference: conformal quantiles at levels that follow the misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from scoring.calibration.conformity import EACH_CASE, Counting, check_reachable, conformal_quantile
from scoring.calibration.isotonic import isotonic_regression
from scoring.dates import EQUAL, Weighting


@dataclass(frozen=True)
class AdaptiveConformal:
    """Adaptive conformal inference: p_t <- p_t + rate x (p - share not above), and the shift is the
    conformal quantile of past errors at p_t (Gibbs and Candes, 2021,
    doi:10.48550/arXiv.2106.00170).

    Over T cases whose truth comes at once the mean deficit is at most
    (max(p, 1 - p) + rate) / (rate T), whatever the series; with h cases under way it is at most
    (max(p, 1 - p) + (h + 1) rate) / (rate T). Where p_t leaves what the past cases can
    tell, a quantile is infinite, unless `reach` is finite. The state holds the past errors of
    every cell: for sites and regions rather than for globes.

    Parameters
    ----------
    rate : float
        gamma.
    weighting : Weighting
        How much past dates say (`scoring.dates`).
    counting : Counting
        For how many independent cases they stand.
    window : int
        Most past init times that are kept.
    reach : float
        Shifts are held within so many times the largest past error; infinity, for which the bound
        holds, by default.
    """

    rate: float = 0.02
    weighting: Weighting = EQUAL
    counting: Counting = EACH_CASE
    window: int = 1000
    reach: float = np.inf
    dims: ClassVar[dict[str, tuple[str, ...]]] = {
        "level": ("lead_time", "group", "quantile"),
        "errors": ("past", "lead_time", "group", "case", "quantile"),
        "past": ("past",),
    }

    @property
    def name(self) -> str:
        """With every setting."""
        return (
            f"adaptive conformal inference, rate {self.rate:g}, {self.weighting.name}, counting "
            f"{self.counting.name}, at most {self.window} dates, reach {self.reach:g}"
        )

    def start(
        self, error: np.ndarray, levels: np.ndarray, init_times: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Levels as they are, and the past errors."""
        level = np.broadcast_to(levels, (*error.shape[1:3], levels.size)).copy()
        return self._kept(level, error.astype(float), init_times)

    def shifts(
        self, state: dict[str, np.ndarray], levels: np.ndarray, init_time: np.datetime64
    ) -> np.ndarray:
        """(lead_time, group, quantile)

        Raises
        ------
        InputError
            If the past cases cannot reach a level; says how many are needed.
        """
        # Levels that have crossed are pooled, so that a higher level is never issued lower.
        wanted = isotonic_regression(state["level"], np.ones(levels.size))
        weight = self.weighting.weights(state["past"], init_time)
        shifts = np.empty(wanted.shape)
        for lead in range(wanted.shape[0]):
            errors = np.moveaxis(state["errors"][:, lead], 0, 1)
            shifts[lead] = self._of_lead(errors, weight, wanted[lead], levels)
        return shifts

    def _of_lead(
        self, errors: np.ndarray, weight: np.ndarray, wanted: np.ndarray, levels: np.ndarray
    ) -> np.ndarray:
        """(group, quantile) from errors, (group, past, case, quantile)."""
        known = np.isfinite(errors[..., 0])
        count = self.counting.count(known * weight[:, None])
        weights = np.repeat(weight, errors.shape[2])
        flat = errors.reshape(errors.shape[0], -1, levels.size)
        found = np.empty(wanted.shape)
        for place, nominal in enumerate(levels):
            check_reachable(min(nominal, 1 - nominal), count.min())
            side = -1.0 if nominal < 0.5 else 1.0
            alpha = wanted[:, place] if nominal < 0.5 else 1 - wanted[:, place]
            found[:, place] = side * conformal_quantile(
                side * flat[..., place], weights, count, alpha
            )
        if np.isfinite(self.reach):
            limit = self.reach * np.nanmax(np.abs(flat), axis=1)
            found = np.clip(found, -limit, limit)
        return found

    def learn(
        self,
        state: dict[str, np.ndarray],
        deficit: np.ndarray,
        error: np.ndarray,
        levels: np.ndarray,
        init_time: np.datetime64,
    ) -> dict[str, np.ndarray]:
        """See `scoring.calibration.online.Method`."""
        past, errors = state["past"], state["errors"]
        place = int(np.searchsorted(past, init_time))
        if place < past.size and past[place] == init_time:
            # Another lead of a forecast of which some are known already.
            errors = errors.copy()
            errors[place] = np.where(np.isnan(errors[place]), error, errors[place])
        else:
            past = np.insert(past, place, init_time)
            errors = np.insert(errors, place, error, axis=0)
        return self._kept(state["level"] + self.rate * deficit, errors, past)

    def _kept(
        self, level: np.ndarray, errors: np.ndarray, past: np.ndarray
    ) -> dict[str, np.ndarray]:
        kept = slice(-self.window, None)
        return {"level": level, "errors": errors[kept], "past": past[kept]}
