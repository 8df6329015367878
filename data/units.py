"""Unit strings as files spell them, and the exact conversions into the channel table's units."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_STANDARD_GRAVITY = 9.80665  # m s-2, WMO: geopotential of one geopotential metre
_SPELLINGS = {
    "kelvin": "K", "k": "K", "degk": "K", "deg_k": "K",
    "c": "degC", "celsius": "degC", "deg_c": "degC", "degree_celsius": "degC",
    "degrees_celsius": "degC", "degc": "degC", "°c": "degC",
    "f": "degF", "degf": "degF", "fahrenheit": "degF",
    "pascal": "Pa", "pascals": "Pa", "pa": "Pa", "hectopascal": "hPa", "hpa": "hPa",
    "mb": "hPa", "mbar": "hPa", "millibar": "hPa", "millibars": "hPa", "kpa": "kPa",
    "m/s": "m s-1", "m s^-1": "m s-1", "meter/second": "m s-1", "metre/second": "m s-1",
    "kt": "knot", "kts": "knot", "knots": "knot", "km/h": "km h-1",
    "m2/s2": "m2 s-2", "j kg-1": "m2 s-2",
    "gpm": "m", "metre": "m", "meter": "m", "metres": "m", "meters": "m", "gpdam": "dam",
    "kg/kg": "kg kg-1", "g/kg": "g kg-1", "kg/m2": "kg m-2",
    "pa/s": "Pa s-1", "pa s-1": "Pa s-1", "hpa/s": "hPa s-1", "hpa s-1": "hPa s-1",
}  # fmt: skip
# (found, wanted): (scale, offset), wanted = scale * found + offset
_CONVERSIONS = {
    ("degC", "K"): (1.0, 273.15),
    ("degF", "K"): (5 / 9, 459.67 * 5 / 9),
    ("hPa", "Pa"): (100.0, 0.0),
    ("kPa", "Pa"): (1000.0, 0.0),
    ("knot", "m s-1"): (1852 / 3600, 0.0),
    ("km h-1", "m s-1"): (1 / 3.6, 0.0),
    ("m", "m2 s-2"): (_STANDARD_GRAVITY, 0.0),
    ("dam", "m2 s-2"): (10 * _STANDARD_GRAVITY, 0.0),
    ("g kg-1", "kg kg-1"): (1e-3, 0.0),
    ("1", "kg kg-1"): (1.0, 0.0),
    ("mm", "kg m-2"): (1.0, 0.0),  # of liquid water
    ("m", "kg m-2"): (1000.0, 0.0),
    ("hPa s-1", "Pa s-1"): (100.0, 0.0),
}


@dataclass(frozen=True)
class Conversion:
    """``wanted = scale * found + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Converted values, any shape, float32; computed in float64 unless nothing changes."""
        if self == Conversion():
            return np.asarray(values, np.float32)
        return (np.asarray(values, np.float64) * self.scale + self.offset).astype(np.float32)


def conversion(found: str | None, wanted: str) -> Conversion | None:
    """How to convert from the units a file states; None if no exact way is known.

    A file that states none is taken at its word that they are the wanted ones: the bounds of
    the channel are checked when values are read.
    """
    if found is None:
        return Conversion()
    spelled = _standard(found)
    if spelled == wanted:
        return Conversion()
    known = _CONVERSIONS.get((spelled, wanted))
    return None if known is None else Conversion(*known)


def same_units(one: str, other: str) -> bool:
    """Whether two spellings stand for the same units."""
    return _standard(one) == _standard(other)


def _standard(units: str) -> str:
    """One spelling per unit: ``m**2 s**-2``, ``m^2/s^2`` and ``m2 s-2`` are the same."""
    plain = re.sub(r"\*\*|\^", "", units.strip().replace("·", " ").replace(".", " "))
    plain = re.sub(r"\s+", " ", plain)
    return _SPELLINGS.get(plain.lower(), plain)
