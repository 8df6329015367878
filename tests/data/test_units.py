"""Units: one spelling each, exact conversions, and none guessed."""

import numpy as np
import pytest

from data.units import Conversion, conversion


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("m s**-1", "m s-1"),
        ("m s^-1", "m s-1"),
        ("m/s", "m s-1"),
        ("m.s-1", "m s-1"),
        (" m  s-1 ", "m s-1"),
        ("m**2 s**-2", "m2 s-2"),
        ("m^2/s^2", "m2 s-2"),
        ("J kg**-1", "m2 s-2"),
        ("Kelvin", "K"),
        ("Pa s**-1", "Pa s-1"),
        ("kg kg**-1", "kg kg-1"),
        ("kg/kg", "kg kg-1"),
        ("kg m**-2", "kg m-2"),
        (None, "K"),
    ],
)
def test_spellings_of_the_same_unit_change_nothing(found, wanted):
    assert conversion(found, wanted) == Conversion()


@pytest.mark.parametrize(
    ("found", "wanted", "value", "expected"),
    [
        ("degC", "K", -40.0, 233.15),
        ("celsius", "K", 0.0, 273.15),
        ("degF", "K", -40.0, 233.15),
        ("hPa", "Pa", 1013.25, 101_325.0),
        ("millibars", "Pa", 1.0, 100.0),
        ("kPa", "Pa", 101.325, 101_325.0),
        ("gpm", "m2 s-2", 5_500.0, 53_936.575),
        ("m", "m2 s-2", 1.0, 9.80665),
        ("gpdam", "m2 s-2", 550.0, 53_936.575),
        ("knots", "m s-1", 3_600.0, 1_852.0),
        ("km/h", "m s-1", 36.0, 10.0),
        ("g kg**-1", "kg kg-1", 12.0, 0.012),
        ("mm", "kg m-2", 3.0, 3.0),
        ("m", "kg m-2", 0.003, 3.0),
    ],
)
def test_conversions_are_exact(found, wanted, value, expected):
    converted = conversion(found, wanted)(np.array([value]))
    assert converted.dtype == np.float32
    assert converted[0] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [("K", "Pa"), ("furlong", "m s-1"), ("", "K"), ("%", "kg kg-1"), ("kg m-2 s-1", "kg m-2")],
)
def test_nothing_is_guessed(found, wanted):
    assert conversion(found, wanted) is None
