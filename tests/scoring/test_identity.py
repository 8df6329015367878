"""Names made of values: readable where short, and different wherever a value is."""

from dataclasses import dataclass

import numpy as np
import pytest

from data.errors import InputError
from scoring.crps import AlmostFair
from scoring.extremes import ShiftOfTails
from scoring.identity import key_of
from scoring.intervals import IntervalScore, QuantileScore, WeightedIntervalScore
from scoring.multivariate import EnergyScore, VariogramScore
from scoring.probability import Exceedance
from scoring.quantiles import IntervalHits, Quantiles
from scoring.rank import RankHistogram
from scoring.regions import Band, Box, Mask
from scoring.thresholds import Constants, Reference


@dataclass(frozen=True)
class Pair:
    """Two settings."""

    left: tuple[int, ...]
    right: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wrapped:
    """A setting that is a dataclass."""

    value: object


@dataclass(frozen=True)
class Texts:
    """Settings that are strings."""

    left: str
    right: str = ""


def test_a_short_name_is_made_of_class_and_fields():
    assert key_of(Exceedance(Constants((1.0, 2.5)))) == "exceedance_constants_values_1.0_2.5"
    assert key_of(Pair((1, 2), (3,))) == "pair_left_1_2_right_3"
    assert key_of(Wrapped("mean")) == "wrapped_value_mean"
    assert key_of(Wrapped("expected_error")) == "wrapped_value_expected_error"
    assert key_of(EnergyScore(("latitude", "cell"))) == "energy_score_over_latitude_cell_fair"


def test_a_long_name_ends_in_a_digest_of_all_of_it():
    longest, longer = Pair((1,) * 30), Pair((1,) * 31 + (2,))
    assert key_of(longest) == "pair_left_" + "1_" * 30 + "right_"
    assert len(key_of(longest)) == 76
    found = [key_of(Pair((1,) * 40 + (last,))) for last in range(100)]
    assert len({*found, key_of(longer)}) == 101
    assert all(name.startswith("pair_") and len(name) == 13 for name in found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Pair((1,), (2, 3)), Pair((1, 2), (3,))),  # the same values in other fields
        (Wrapped(Pair((1,))), Pair((1,))),
        (Wrapped(0.1), Wrapped(np.nextafter(0.1, 1).item())),
        (Wrapped(np.zeros((2, 3))), Wrapped(np.zeros((3, 2)))),
        (Wrapped(np.zeros(3)), Wrapped(np.array([0.0, 0.0, 1e-300]))),
        (Wrapped(None), Wrapped(0)),
        (EnergyScore(("a", "b")), EnergyScore(("a_b",))),
        (EnergyScore(("a_b", "c")), EnergyScore(("a", "b_c"))),
        (VariogramScore(("lead_time",)), VariogramScore(("lead", "time"))),
        (EnergyScore(("a", "b") * 40), EnergyScore(("a_b",) * 40)),
        (EnergyScore(("a_b",)), EnergyScore(("'a_b'",))),
        (EnergyScore(()), EnergyScore(("",))),
        (Texts("a_right_b", "c"), Texts("a", "b_right_c")),
        (Texts("a_right", "b"), Texts("a", "right_b")),
        (Wrapped((Pair((1,)), 2)), Wrapped((Pair((1,), (2,)),))),
        (Wrapped(((1, 2), (3,))), Wrapped(((1,), (2, 3)))),
    ],
)
def test_two_settings_never_share_a_name(one, other):
    assert key_of(one) != key_of(other)
    assert key_of(one) == key_of(one)


@pytest.mark.parametrize(
    "made",
    [
        Constants,
        lambda values: Reference("climate", values),
        Quantiles,
        IntervalHits,
        QuantileScore,
        IntervalScore,
        WeightedIntervalScore,
    ],
)
def test_equal_numbers_make_equal_names(made):
    one = made((0.25, 0.5))
    for values in ([0.25, 0.5], np.array([0.25, 0.5]), tuple(np.array([0.25, 0.5], np.float32))):
        assert made(values) == one
        assert key_of(made(values)) == key_of(one)


@pytest.mark.parametrize(
    ("made", "number"),
    [
        (lambda number: Constants((number,)), 1),
        (lambda number: Reference("climate", (0.5, number)), 1),
        (AlmostFair, 1),
        (lambda number: VariogramScore(power=number), 1),
        (lambda number: Band(number, 90), -20),
        (lambda number: Box(number, 10, number, 30), -10),
        (lambda number: ShiftOfTails(Reference("climate", (0.5, 1)), 0.5, number), 1),
    ],
)
def test_whole_numbers_are_named_as_floats_are(made, number):
    assert made(number) == made(float(number)) == made(np.float32(number))
    assert len({key_of(made(kind(number))) for kind in (int, float, np.float32, np.int64)}) == 1


def test_numbers_of_numpy_are_named_as_those_of_python():
    assert key_of(RankHistogram(np.int64(10))) == key_of(RankHistogram(10))
    assert key_of(Wrapped(np.float64(0.1))) == key_of(Wrapped(0.1))
    assert key_of(Pair(tuple(np.arange(2)))) == key_of(Pair((0, 1)))


def test_thresholds_are_a_tuple():
    with pytest.raises(InputError, match=r"finite numbers, a tuple, found 1\.0"):
        Constants(1.0)


def test_an_array_is_named_by_its_values_whatever_their_type():
    values = np.arange(6).reshape(2, 3)
    assert key_of(values) == key_of(values.astype(np.float32)) != key_of(values + 1)


@pytest.mark.parametrize(
    "made",
    [
        lambda zero: Constants((zero, 1.0)),
        lambda zero: Band(zero, 90),
        lambda zero: Wrapped(zero),
        lambda zero: Wrapped((np.float32(zero),)),
        lambda zero: Mask(np.array([[zero, 1.0]])),
    ],
)
def test_the_sign_of_zero_is_no_part_of_a_name(made):
    one, other = made(0.0), made(-0.0)
    assert one == other
    assert hash(one) == hash(other)
    assert key_of(one) == key_of(other)
