"""Ways to calibrate a store: their settings, what they keep, and what they make of a forecast.

A method turns past cases of one channel into a state, and applies a state to the members of one
forecast. Quantile methods make quantiles of them, member methods make as many members again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import xarray as xr
import yaml
from pydantic import Field, TypeAdapter, ValidationError

from data.errors import ConfigurationError
from pipelines.calibration.aggregated import Aggregated, Weights
from pipelines.calibration.by_lead import Forecasts
from pipelines.calibration.cases import Cases
from pipelines.calibration.members import DegreeWise, EmosCoupled, StretchedMembers
from pipelines.calibration.online import Adaptive, Tracking
from pipelines.calibration.quantiles import Conformal, Mapped
from pipelines.configuration import explain_one
from pipelines.truths import Paths
from pipelines.verification import Verification

State = xr.Dataset | Weights


class Method(Protocol):
    """A way to calibrate."""

    method: str
    output: ClassVar[str]

    def check(self, channel: str, dates: np.ndarray, cells: dict[str, int]) -> None:
        """Refuse too few cases, before anything is read.

        Parameters
        ----------
        channel : str
        dates : numpy.ndarray
            Number of dates with truth at each lead, (lead_time,).
        cells : dict of str to int
            Sizes of the horizontal dimensions.

        Raises
        ------
        InputError
            Naming how many are needed.
        """
        ...

    def open(self, forecast: Forecasts, channels: tuple[str, ...] | None) -> xr.Dataset:
        """What it calibrates, (init_time, number, lead_time, *cells), lazily, with `completed`.

        Parameters
        ----------
        forecast : path, sequence of paths, or mapping of str to these
            One forecast, or several by their names.
        channels : tuple of str, optional
            Which must be there.

        Raises
        ------
        InputError, StoreError
            If it cannot be opened, or the method takes no such forecast.
        """
        ...

    def open_pair(
        self, forecast: Forecasts, truth: Paths, channels: tuple[str, ...] | None
    ) -> Verification:
        """The same with its truth, checked that they fit."""
        ...

    def fit(self, cases: Cases) -> State:
        """The state after past cases of all leads."""
        ...

    def at_leads(self, state: State, leads: np.ndarray) -> State:
        """The state of some leads, by position."""
        ...

    def apply(self, state: State, members: xr.DataArray) -> xr.DataArray:
        """(quantile or number, lead_time, *cells) of members, (number, lead_time, *cells)."""
        ...

    def summary(self, state: State) -> str:
        """What those who fit should see of the state of a channel; may be empty."""
        ...

    def write(self, state: State, path: Path) -> None:
        """Write a state into files whose names begin with that of `path`."""
        ...

    def read(self, path: Path) -> State:
        """Read what `write` wrote."""
        ...


AnyMethod = Annotated[
    Aggregated
    | Conformal
    | Mapped
    | Tracking
    | Adaptive
    | EmosCoupled
    | StretchedMembers
    | DegreeWise,
    Field(discriminator="method"),
]


def method_from(settings: dict[str, Any], where: str = "calibration") -> Method:
    """The method that settings name.

    Raises
    ------
    ConfigurationError
        If a key or a value is wrong.
    """
    try:
        return TypeAdapter(AnyMethod).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        problem = explain_one({**first, "loc": first["loc"][1:]})
        raise ConfigurationError(f"{where}: {problem}") from None


def read_method(path: Path) -> Method:
    """The method of a YAML file.

    Raises
    ------
    ConfigurationError
        If it is no YAML file of settings.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected keys and values, `method: conformal` say")
    return method_from(content, str(path))


def read_aggregation(path: Path) -> Aggregated:
    """The aggregation of a YAML file.

    Raises
    ------
    ConfigurationError
        If it is of another method.
    """
    method = read_method(path)
    if not isinstance(method, Aggregated):
        raise ConfigurationError(f"{path}: method: is {method.method}, expected aggregation")
    return method
