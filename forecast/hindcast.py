"""What a forecaster's own hindcasts say of it: errors and variance by lead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from data.key import Key
from data.state import State
from forecast.dataset import Archive
from forecast.forecaster import Forecaster, rollout


@dataclass(frozen=True)
class Hindcast:
    """Area means over many start dates, by lead (0 included) and channel, physical units.

    Attributes
    ----------
    rmse : numpy.ndarray
        (lead, channel): root-mean-square error.
    variance, truth_variance : numpy.ndarray
        (lead, channel): mean over dates of the area variance of one field.
    """

    rmse: np.ndarray
    variance: np.ndarray
    truth_variance: np.ndarray


def hindcast(forecaster: Forecaster, archive: Archive, starts: np.ndarray, steps: int) -> Hindcast:
    """Forecasts from rows `starts` of the archive, compared with its later rows.

    Parameters
    ----------
    forecaster : Forecaster
    archive : Archive
        With the forecaster's channels.
    starts : numpy.ndarray
        (case,): rows followed by `steps` consecutive ones.
    steps : int
        Length of the forecasts in timesteps.
    """
    weights = archive.grid.area_weights
    numbers = tuple(range(len(starts)))
    fields = torch.from_numpy(archive.fields[starts])
    state = State(fields, archive.channels, archive.grid, archive.times[starts[0]], numbers)
    rows = []
    for step, later in enumerate(rollout(forecaster, state, steps, Key(0) / "hindcast")):
        forecast = later.fields.numpy().astype(float)
        truth = archive.fields[starts + step].astype(float)
        error = ((forecast - truth) ** 2 * weights).sum((-2, -1)).mean(0)
        rows.append((error, _variance(forecast, weights), _variance(truth, weights)))
    error, variance, truth_variance = (np.array(column) for column in zip(*rows, strict=True))
    return Hindcast(np.sqrt(error), variance, truth_variance)


def _variance(fields: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area variance of (case, channel, latitude, longitude), averaged over cases."""
    mean = (fields * weights).sum((-2, -1), keepdims=True)
    return ((fields - mean) ** 2 * weights).sum((-2, -1)).mean(0)
