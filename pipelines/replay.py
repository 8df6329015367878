"""One member of an experiment, forecast again and alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from data.errors import ConfigurationError, StoreError
from pipelines.engine import unit_fields
from pipelines.experiment import Experiment
from pipelines.layout import coordinates, variable_attributes
from pipelines.plan import Plan, make_plan


def replay(
    experiment: Experiment, init_time: np.datetime64, number: int, output: Path
) -> xr.Dataset:
    """Forecast one member alone and write it as NetCDF; equals the stored member bit for bit.

    Returns
    -------
    xarray.Dataset
        One variable per channel, (lead_time, latitude, longitude).

    Raises
    ------
    ConfigurationError
        If the experiment has no such init time or member.
    StoreError
        If the output cannot be written.
    """
    if init_time not in experiment.init_times:
        raise ConfigurationError(
            f"init_times: {init_time} is not among {', '.join(map(str, experiment.init_times))}"
        )
    if not 0 <= number < experiment.members:
        raise ConfigurationError(f"members: {number} is not among 0 to {experiment.members - 1}")
    one = experiment.model_copy(update={"init_times": (init_time,)})
    draft = output.with_name(f"{output.name}.{os.getpid()}.partial")
    try:
        draft.touch()  # before the forecast, not after it
        dataset = member_dataset(make_plan(one, output), number)
        dataset.to_netcdf(draft)
        os.replace(draft, output)
    except OSError as error:
        raise StoreError(f"{output}: cannot be written: {error}") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return dataset


def member_dataset(plan: Plan, number: int) -> xr.Dataset:
    """One member from the plan's first init time, rounded as the store rounds."""
    torch.set_num_threads(1)
    layout, numbers = plan.layout, (number,)
    if plan.ensemble.micro_batch > 1:  # in the company in which it was forecast
        numbers = next(unit.numbers for unit in plan.units if number in unit.numbers)
    forecast = unit_fields(plan, layout.init_times[0], numbers)
    fields = forecast[numbers.index(number)]
    dataset = coordinates(layout).isel(init_time=0, number=number).drop_vars("completed")
    for index, name in enumerate(layout.channels):
        values = layout.rounded(name, fields[index])
        dimensions = ("lead_time", "latitude", "longitude")
        dataset[name] = (dimensions, values, variable_attributes(name, layout.lossless))
    return dataset.assign_attrs(layout.attributes)
