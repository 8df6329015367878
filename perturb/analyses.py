"""Perturbations taken from analyses: an ensemble of them, or those of earlier hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from data.errors import ConfigurationError, InputError
from data.key import Key
from data.state import State
from perturb.member import Member
from perturb.perturbation import Perturbation


class Analyses(Protocol):
    """Where analyses come from; what of a source the perturbations need."""

    def analysis(self, time: np.datetime64) -> State:
        """The analysis, or the ensemble of analyses, at a time."""
        ...


@dataclass(frozen=True)
class EnsembleOfAnalyses(Perturbation):
    """Members of an ensemble of analyses, recentred on the control analysis.

    The increment of draw j is ``scale * (e_j - mean of all e)``. Without recentring the ensemble
    would be centred on its own mean, whose error is not that of the control: spread and skill
    would belong to different analyses.

    Parameters
    ----------
    analyses : Analyses
        Gives the whole ensemble at the init time, as a state of two or more members.
    scale : float
        Factor on the spread.
    reuse : int
        How many draws of one checkpoint may share an analysis. Above one only if members differ
        by something else as well (a forecaster's own noise, another perturbation).
    """

    analyses: Analyses
    scale: float = 1.0
    reuse: int = 1

    def increments(self, state: State, key: Key, members: Sequence[Member]) -> torch.Tensor:
        """Anomaly ``seed mod n`` of the n analyses; see `Perturbation.increments`.

        Raises
        ------
        ConfigurationError
            If there are more draws than analyses to take (`reuse`).
        InputError
            If there are fewer than two analyses, or they lie on another grid.
        """
        ensemble = self.analyses.analysis(state.valid_time).select(state.channels)
        count = len(ensemble.numbers)
        if count < 2 or ensemble.grid != state.grid:
            raise InputError(
                f"ensemble of analyses at {state.valid_time}: {count} members on {ensemble.grid}, "
                f"expected at least 2 on {state.grid}"
            )
        self.check_draws(count, 1 + max(member.seed for member in members))
        anomalies = _anomalies(ensemble.fields.to(state.fields.device)) * self.scale
        return anomalies[[member.seed % count for member in members]]

    def check_draws(self, count: int, draws: int) -> None:
        """Refuse more draws of one checkpoint than `count` analyses make.

        Raises
        ------
        ConfigurationError
            With both numbers.
        """
        if draws > count * self.reuse:
            lagged = isinstance(self.analyses, LaggedAnalyses)
            what, remedy = ("lagged", "count") if lagged else ("ensemble of", "reuse")
            raise ConfigurationError(
                f"{what} analyses: {count} analyses used {self.reuse} times make "
                f"{count * self.reuse} draws, but a checkpoint asks for {draws}; ask for fewer "
                f"members or raise {remedy}"
            )


@dataclass(frozen=True)
class LaggedAnalyses:
    """The present analysis and those before it, as one ensemble, for `EnsembleOfAnalyses`.

    Differences between successive analyses are larger than the error of any: a `scale` below one
    goes with them. Intervals of 24 h keep the daily cycle out.

    Parameters
    ----------
    analyses : Analyses
        Gives one analysis for each time.
    interval : numpy.timedelta64
        Time between successive analyses.
    count : int
        Number of analyses, the present one included.

    References
    ----------
    R. N. Hoffman and E. Kalnay (1983), doi:10.1111/j.1600-0870.1983.tb00189.x.
    """

    analyses: Analyses
    interval: np.timedelta64
    count: int

    def analysis(self, time: np.datetime64) -> State:
        """The analyses at `time` and before as members 0 (the present one), 1, ..."""
        states = [self.analyses.analysis(time - lag * self.interval) for lag in range(self.count)]
        fields = torch.cat([state.fields for state in states])
        return states[0].with_members(fields, tuple(range(self.count)))


def _anomalies(fields: torch.Tensor) -> torch.Tensor:
    """Deviations from the mean over the first axis, taken in float64, float32."""
    return (fields.double() - fields.double().mean(0)).float()
