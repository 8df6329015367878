"""The channel table: every entry is consistent, and unknown names get a hint."""

import numpy as np
import pytest

from data.channel import LEVEL_LETTERS, SURFACE_NAMES, channel
from data.errors import InputError

NAMES = (*SURFACE_NAMES, *(f"{letter}500" for letter in LEVEL_LETTERS))


@pytest.mark.parametrize("name", NAMES)
def test_entry_is_consistent(name):
    one = channel(name)
    assert one.name == name
    assert one.minimum < one.maximum
    assert np.frexp(one.quantum)[0] == 0.5
    assert one.quantum < 1e-3 * (one.maximum - one.minimum)
    assert one.attributes["units"] == one.units
    assert one.attributes["standard_name"] == one.standard_name
    assert ("level" in one.attributes) == (one.level is not None)


def test_letter_and_number_is_a_pressure_level():
    z1 = channel("z1000")
    assert (z1.level, z1.units, z1.weatherbench_name) == (1000, "m2 s-2", "geopotential")
    assert channel("t850").long_name == "Temperature at 850 hPa"
    assert channel("u10").level == 10
    assert channel("u10m").level is None


@pytest.mark.parametrize(
    ("name", "near"), [("t2n", "t2m"), ("mslp", "msl"), ("z50000", "z500"), ("u10ms", "u10m")]
)
def test_unknown_name_gets_the_nearest_as_a_hint(name, near):
    with pytest.raises(InputError, match=f"channel '{name}' is unknown, did you mean '{near}'"):
        channel(name)


@pytest.mark.parametrize("name", ["", "z0", "z1101", "x500", "Z500", "z-5"])
def test_level_and_letter_must_exist(name):
    with pytest.raises(InputError, match="is unknown"):
        channel(name)
