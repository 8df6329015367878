"""Keys: draws depend on the address alone, and different addresses are independent."""

import numpy as np
import pytest

from data.key import Key


def test_equal_addresses_give_equal_draws_however_they_were_built():
    time = np.datetime64("2001-01-01T00", "h")
    one = Key(7) / "noise" / 3 / time
    other = Key(7, ("noise", 3, "2001-01-01T00:00:00"))
    assert one == other
    assert np.array_equal(one.normal((5,)), other.normal((5,)))
    assert np.array_equal(one.normal((5,)), one.normal((5,)))
    assert Key(7) / np.int64(3) == Key(7) / 3


def test_units_of_time_do_not_change_the_address():
    for unit in ("D", "h", "s", "ns"):
        assert Key(1) / np.datetime64("2001-01-01", unit) == Key(1) / "2001-01-01T00:00:00"


OTHERS = [
    Key(8) / "noise" / 3,
    Key(7) / "noise" / 4,
    Key(7) / "noise" / "3",
    Key(7) / "noise3",
    Key(7) / 3 / "noise",
    Key(7) / "noise" / 3 / 0,
    Key(7) / "noise" / -3,
    Key(7),
]


@pytest.mark.parametrize("other", OTHERS, ids=repr)
def test_other_addresses_give_uncorrelated_draws(other):
    count = 20_000
    draws = (Key(7) / "noise" / 3).normal((count,)), other.normal((count,))
    assert abs(np.mean(draws[0] * draws[1])) < 4 / np.sqrt(count)


def test_neighbouring_members_and_steps_do_not_collide():
    """With seed + step, member 0 at step 1 would draw what member 1 draws at step 0."""
    firsts = {
        float((Key(seed) / member / step).normal((1,))[0])
        for seed in range(6)
        for member in range(6)
        for step in range(6)
    }
    assert len(firsts) == 6**3


def test_draws_are_standard_normal_in_single_precision():
    draws = Key(1).normal((100_000,))
    assert draws.dtype == np.float32
    assert draws.mean() == pytest.approx(0, abs=0.015)
    assert draws.std() == pytest.approx(1, abs=0.01)


def test_longer_draws_start_with_the_shorter_ones():
    assert np.array_equal(Key(2).normal((4, 3)).ravel()[:6], Key(2).normal((6,)))


def test_first_draws_are_pinned():
    """A change of these numbers changes every archived ensemble: say so in the changelog."""
    draws = (Key(7) / "noise" / 3).normal((3,))
    assert draws.tolist() == pytest.approx([0.05718807, 0.95324224, -0.09358837], abs=1e-6)
