"""The channel table: what each field is called, measured in, and bounded by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from math import log

from data.errors import InputError


@dataclass(frozen=True)
class Channel:
    """One field of the atmosphere on one level.

    Attributes
    ----------
    name : str
        Short name, also the variable's name in a store: ``z500``, ``t2m``.
    standard_name, units, long_name : str
        CF attributes.
    weatherbench_name : str
        Variable name in the WeatherBench 2 and ARCO archives.
    minimum, maximum : float
        Bounds outside which a value is a mistake (wrong units), in `units`.
    quantum : float
        Power of two to which a store rounds values, in `units`; far below any forecast error.
    level : int or None
        Pressure level in hPa; None at the surface.
    """

    name: str
    standard_name: str
    units: str
    long_name: str
    weatherbench_name: str
    minimum: float
    maximum: float
    quantum: float
    level: int | None = None

    @property
    def attributes(self) -> dict[str, str | int]:
        """CF attributes of the variable; `level` in hPa where there is one."""
        attributes: dict[str, str | int] = {
            "standard_name": self.standard_name,
            "units": self.units,
            "long_name": self.long_name,
        }
        return attributes if self.level is None else attributes | {"level": self.level}


# Geopotential is bounded about that of an isothermal atmosphere, closely enough to tell metres from
# m2 s-2 above 900 hPa.
_GRAVITY, _SCALE_HEIGHT, _SURFACE_PRESSURE = 9.80665, 7_000.0, 1013.25
# name: (standard_name, units, long_name, WeatherBench name, minimum, maximum, quantum)
_ON_LEVELS = {
    "u": ("eastward_wind", "m s-1", "U wind", "u_component_of_wind", -200, 200, 2**-6),
    "v": ("northward_wind", "m s-1", "V wind", "v_component_of_wind", -200, 200, 2**-6),
    "w": ("lagrangian_tendency_of_air_pressure", "Pa s-1", "Vertical velocity",
          "vertical_velocity", -50, 50, 2**-12),
    "t": ("air_temperature", "K", "Temperature", "temperature", 130, 360, 2**-6),
    "z": ("geopotential", "m2 s-2", "Geopotential", "geopotential", -5_000, 5_000, 1.0),
    "q": ("specific_humidity", "kg kg-1", "Specific humidity", "specific_humidity",
          -1e-3, 0.06, 2**-20),
}  # fmt: skip
_AT_SURFACE = {
    "u10m": ("eastward_wind", "m s-1", "10 m U wind", "10m_u_component_of_wind",
             -120, 120, 2**-6),
    "v10m": ("northward_wind", "m s-1", "10 m V wind", "10m_v_component_of_wind",
             -120, 120, 2**-6),
    "ws10m": ("wind_speed", "m s-1", "10 m wind speed", "10m_wind_speed", 0, 150, 2**-6),
    "t2m": ("air_temperature", "K", "2 m temperature", "2m_temperature", 170, 345, 2**-6),
    "d2m": ("dew_point_temperature", "K", "2 m dew point", "2m_dewpoint_temperature",
            150, 330, 2**-6),
    "msl": ("air_pressure_at_mean_sea_level", "Pa", "Mean sea level pressure",
            "mean_sea_level_pressure", 85_000, 110_000, 1.0),
    "sp": ("surface_air_pressure", "Pa", "Surface pressure", "surface_pressure",
           35_000, 112_000, 1.0),
    "sst": ("sea_surface_temperature", "K", "Sea surface temperature",
            "sea_surface_temperature", 265, 320, 2**-6),
    "tcwv": ("atmosphere_mass_content_of_water_vapor", "kg m-2", "Total column water vapour",
             "total_column_water_vapour", -1, 120, 2**-7),
    "tp06": ("precipitation_amount", "kg m-2", "6 h precipitation",
             "total_precipitation_6hr", -1e-3, 2_000, 2**-10),
}  # fmt: skip
SURFACE_NAMES = tuple(_AT_SURFACE)
LEVEL_LETTERS = tuple(_ON_LEVELS)
_LEVEL_NAME = re.compile(r"([a-z])(\d{1,4})")


def channel(name: str) -> Channel:
    """The channel of this name: ``t2m``, or a letter and a pressure level in hPa, ``z500``.

    Raises
    ------
    InputError
        If the name is unknown; the message names the nearest known one.
    """
    if name in _AT_SURFACE:
        return Channel(name, *_AT_SURFACE[name])
    match = _LEVEL_NAME.fullmatch(name)
    if match and match[1] in _ON_LEVELS and 1 <= int(match[2]) <= 1100:
        standard_name, units, long_name, archived, minimum, maximum, quantum = _ON_LEVELS[match[1]]
        level = int(match[2])
        if match[1] == "z":
            usual = _GRAVITY * _SCALE_HEIGHT * log(_SURFACE_PRESSURE / level)
            minimum, maximum = minimum + 0.75 * usual, maximum + 1.25 * usual
        named = f"{long_name} at {level} hPa"
        return Channel(
            name, standard_name, units, named, archived, minimum, maximum, quantum, level
        )
    known = [*_AT_SURFACE, *(f"{letter}500" for letter in _ON_LEVELS)]
    near = get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise InputError(
        f"channel {name!r} is unknown{hint} (a surface channel: {', '.join(_AT_SURFACE)}; or one "
        f"of {', '.join(_ON_LEVELS)} followed by a pressure level in hPa)"
    )


def is_channel(name: str) -> bool:
    """Whether a channel has this name."""
    try:
        channel(name)
    except InputError:
        return False
    return True
