"""What is kept of members merges to the bit, and says what the members say."""

import numpy as np
import pytest

from data.key import Key
from scoring.crps import CRPS, FAIR, STRATIFIED
from scoring.kept import Kept, dependence, merge
from scoring.statistic import evaluate_arrays
from scoring.tile import Structure

NUMBERS = np.arange(31, dtype=np.int32)
PAIRS = np.array([-1, *np.repeat(np.arange(15), 2)])
GROUPS = np.array([0] * 11 + [1] * 10 + [2] * 10)


def members() -> np.ndarray:
    rng = (Key(4) / "kept").generator()
    values = np.rint(20_000 + 30 * rng.normal(size=(31, 50)) + 20 * GROUPS[:, None])
    values[2] = values[1] + 3
    return values.astype(np.int32)


def kept(values: np.ndarray, places: np.ndarray, bins: int = 512) -> Kept:
    return Kept.of(values[places], NUMBERS[places], PAIRS[places], bins, (20_010.0, 20_050.5))


@pytest.mark.parametrize("bins", [8, 512])
def test_parts_merge_to_the_same_bits_in_any_order(bins: int) -> None:
    values = members()
    values[20] = values[3]  # ties among the extremes
    whole = kept(values, np.arange(31), bins)
    parts = [kept(values, np.arange(*ends), bins) for ends in ((0, 5), (5, 15), (15, 31))]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        found = merge([merge([parts[order[0]], parts[order[1]]]), parts[order[2]]])
        for name in ("smallest_number", "largest_number", "total", "squares", "apart", "above"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
        np.testing.assert_array_equal(found.sketch.counts, whole.sketch.counts)


def test_moments_extremes_and_counts_are_those_of_the_members() -> None:
    values = members()
    values[7] = 20_010  # as high as a threshold is not above it
    whole = kept(values, np.arange(31))
    np.testing.assert_allclose(whole.mean, values.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(whole.variance, values.var(axis=0, ddof=1), rtol=1e-9)
    np.testing.assert_array_equal(whole.sketch.smallest, values.min(axis=0))
    np.testing.assert_array_equal(whole.smallest_number, values.argmin(axis=0))
    np.testing.assert_array_equal(whole.largest_number, values.argmax(axis=0))
    np.testing.assert_array_equal(whole.above[0], (values > 20_010).sum(axis=0))
    np.testing.assert_array_equal(whole.above[1], (values >= 20_051).sum(axis=0))


def test_a_single_member_and_equal_members_do_not_vary() -> None:
    values = members()
    assert (kept(values, np.array([4])).variance == 0).all()
    values[:] = 20_011 + np.arange(50)
    assert (kept(values, np.arange(31)).variance == 0).all()


def test_the_stratified_crps_is_that_of_the_members() -> None:
    values = members()
    truth = values.mean(axis=0) + 12.5
    parts = [kept(values, np.flatnonzero(group == GROUPS)) for group in range(3)]
    less = dependence(parts, [5, 5, 5])
    found = merge(parts).sketch.crps(truth) - less / 2
    wanted = CRPS(FAIR), CRPS(STRATIFIED)
    exact = evaluate_arrays(wanted, values, truth, structure=Structure(GROUPS, PAIRS))
    np.testing.assert_allclose(found, exact[wanted[1]], rtol=1e-10)
    assert np.abs(exact[wanted[0]] - exact[wanted[1]]).mean() > 1e-2


def test_a_checkpoint_of_one_pair_has_no_stratified_crps() -> None:
    values = members()
    assert dependence([kept(values, np.array([1, 2]))], [1]) is None
