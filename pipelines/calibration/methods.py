"""Ways to calibrate a store: their settings, what they keep, and what they make of a forecast.

A method turns past cases of one channel into a state, a dataset with a dimension `lead_time`, and
applies a state to the members of one forecast. Quantile methods make quantiles of them, member
methods make as many members again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import xarray as xr
import yaml
from pydantic import Field, TypeAdapter, ValidationError

from data.errors import ConfigurationError
from pipelines.calibration.cases import Cases
from pipelines.calibration.members import DegreeWise, EmosCoupled, StretchedMembers
from pipelines.calibration.online import Adaptive, Tracking
from pipelines.calibration.quantiles import Conformal, Mapped


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

    def fit(self, cases: Cases) -> xr.Dataset:
        """The state after past cases; parts of different leads join along `lead_time`."""
        ...

    def apply(self, state: xr.Dataset, members: xr.DataArray) -> xr.DataArray:
        """(quantile or number, lead_time, *cells) of members, (number, lead_time, *cells)."""
        ...


AnyMethod = Annotated[
    Conformal | Mapped | Tracking | Adaptive | EmosCoupled | StretchedMembers | DegreeWise,
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
        key = ".".join(str(part) for part in first["loc"][1:]) or "method"
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{where}: {key}: {message}") from None


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
