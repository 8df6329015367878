"""Scores of models beside each other and beside what is made of them, for the report."""

from __future__ import annotations

from math import ceil

import numpy as np
import xarray as xr

from data.key import Key
from pipelines.calibration.aggregated import FEWEST_DATES, JUDGED, Aggregated
from pipelines.calibration.by_lead import Forecasts
from pipelines.calibration.cases import Cases
from pipelines.truths import Paths
from pipelines.verification import Verification, VerificationSettings
from scoring.quantiles import quantile_score


def checkpoints_of(pair: Verification) -> Aggregated | None:
    """The aggregation of an ensemble's checkpoints; None with one of them, or with too few dates
    to train on and to judge."""
    forecast, method = pair.forecast, Aggregated()
    if "checkpoint" not in forecast.coords or np.unique(forecast["checkpoint"]).size < 2:
        return None
    for name in pair.channels:
        dated = np.flatnonzero(pair.scored[name].any(axis=1))
        if dated.size < FEWEST_DATES:
            return None
        judged = dated.size - ceil(JUDGED * dated.size)
        stops = judged - ceil(method.validation * judged)
        now = forecast.init_time.values[dated[stops]].astype("datetime64[s]")
        known = pair.valid_times()[dated[:stops]] <= now
        if not (known & pair.scored[name][dated[:stops]]).any():
            return None
    return method


def model_scores(
    forecast: Forecasts, truth: Paths, models: Aggregated, settings: VerificationSettings
) -> xr.DataArray:
    """Mean weighted interval score on the last quarter of the dates, by what was known before.

    Returns
    -------
    xarray.DataArray
        (channel, lead_time, combination): `aggregation`, the combinations that need no training,
        the best single model, and every model; on the cases that the mean of the models has. Its
        attribute `init_times` is how many there are, of the channel with the fewest.

    Raises
    ------
    InputError
        As `myriad calibrate fit` with these models.
    """
    pair = models.open_pair(forecast, truth, settings.channels or None).with_members(2)
    inits, found, dates = np.arange(pair.forecast.sizes["init_time"]), {}, []
    sizes = dict(zip(pair.cell_dims, pair.cells().shape, strict=True))
    for name in pair.channels:
        models.check(name, pair.scored[name].sum(axis=0), sizes)
    for name in pair.channels:
        cases = Cases.of(pair, name, inits, pair.scored[name], settings.memory)
        quantiles, observed = models.sampled(cases)
        key = Key(models.seed) / "aggregation" / name
        forecasts, observed = models.judged(quantiles, observed, key)
        usual = quantile_score(forecasts["mean"], observed).notnull()
        scores = [
            quantile_score(one, observed).where(usual).mean(["init_time", "cell"])
            for one in forecasts.values()
        ]
        dates.append(observed.sizes["init_time"])
        names = xr.DataArray(list(forecasts), dims="combination", name="combination")
        found[name] = xr.concat(scores, names, coords="minimal", compat="override")
    channels = xr.DataArray(list(found), dims="channel", name="channel")
    joined = xr.concat(found.values(), channels, coords="minimal", compat="override")
    joined = joined.reset_coords(drop=True).transpose("channel", "lead_time", "combination")
    return joined.assign_attrs(init_times=min(dates))
