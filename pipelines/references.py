"""What a forecast will be judged by, checked before anything is forecast."""

from __future__ import annotations

import numpy as np

from data.errors import ConfigurationError, InputError
from pipelines.experiment import Experiment
from pipelines.plan import Plan
from pipelines.truths import Truths, open_climatology


def check_references(plan: Plan) -> None:
    """Refuse a truth or climatology, where one is named, that cannot judge this forecast.

    Truth may lie in the future: its times are not looked at.

    Raises
    ------
    InputError
        If one cannot be read, lacks a channel, or lies on another grid.
    """
    experiment, layout = plan.ensemble.experiment, plan.layout
    if experiment.climatology is not None:
        open_climatology(experiment.climatology, layout.channels, layout.grid, "the forecast")
    if experiment.truth is not None:
        truths = Truths.open(experiment.truth)
        for name in layout.channels:
            truths.times(name)
        for source in truths.sources:
            if source.grid != layout.grid:
                raise InputError(
                    f"{experiment.truth}: lies on the grid {source.grid}, the forecast on "
                    f"{layout.grid}"
                )


def check_truth_times(experiment: Experiment) -> None:
    """Refuse to forecast what is to be scored at once if there is no truth for it.

    Raises
    ------
    ConfigurationError
        If the experiment names no truth.
    InputError
        If it has no time between an init time and the end of its forecast.
    """
    if experiment.truth is None:
        raise ConfigurationError("truth: is needed to score; the experiment names none")
    times = np.concatenate([one.times for one in Truths.open(experiment.truth).sources])
    length = np.timedelta64(experiment.lead_time, "h")
    inits = experiment.init_times
    if not any(((start <= times) & (times <= start + length)).any() for start in inits):
        raise InputError(
            f"{experiment.truth}: has no time that is forecast, from {inits[0]} to "
            f"{inits[-1] + length}"
        )
