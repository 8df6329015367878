"""Sketches: the same whatever the order, exact where they can be, and within their bound."""

import numpy as np
import pytest

from data.errors import InputError
from data.key import Key
from scoring.crps import CRPS, FAIR
from scoring.quantiles import LINEAR, STANDARD_LEVELS, WEIBULL, Quantiles
from scoring.rank import Rank
from scoring.sketch import Sketch, merge
from scoring.statistic import evaluate_arrays

CELLS = 60
LEVELS = np.array(STANDARD_LEVELS)


def members(seed: int, count: int, spread: float = 300.0) -> np.ndarray:
    """(member, cell) int32: skewed, some cells narrow, one constant."""
    rng = (Key(seed) / "sketch").generator()
    scale = spread * np.exp(rng.normal(size=CELLS))
    values = -5_000 + scale * (rng.gamma(3.0, size=(count, CELLS)) - 3)
    values[:, 0] = 77
    return np.rint(values).astype(np.int32)


def truths(seed: int, forecast: np.ndarray) -> np.ndarray:
    """Beyond both ends, on members, and between."""
    rng = (Key(seed) / "truth").generator()
    truth = forecast[0] + rng.normal(size=CELLS) * forecast.std(axis=0)
    truth[:10] = forecast.min(axis=0)[:10] - 5.25
    truth[10:20] = forecast.max(axis=0)[10:20] + 3.5
    truth[20:30] = forecast[3, 20:30]
    return truth


def equal(left: Sketch, right: Sketch) -> bool:
    return left.members == right.members and all(
        np.array_equal(getattr(left, name), getattr(right, name))
        for name in ("counts", "smallest", "largest")
    )


@pytest.mark.parametrize("bins", [4, 37, 64, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_order_and_grouping_change_nothing(seed: int, bins: int) -> None:
    values = members(seed, 300)
    whole = Sketch.of(values, bins)
    rng = (Key(seed) / "order").generator()
    shuffled = values[rng.permutation(len(values))]
    cuts = np.sort(rng.choice(np.arange(1, 300), 6, replace=False))
    parts = [Sketch.of(part, bins) for part in np.split(shuffled, cuts)]
    assert equal(merge(parts), whole)
    nested = merge([merge([parts[4], parts[1]]), merge([parts[0]]), merge(parts[5:] + parts[2:4])])
    assert equal(nested, whole)


@pytest.mark.parametrize("definition", [WEIBULL, LINEAR])
def test_it_is_exact_where_a_bin_is_one_value(definition: object) -> None:
    values = members(1, 40, spread=3.0)
    sketch = Sketch.of(values, 4096)
    assert (sketch.resolution == 0).all()
    truth = truths(1, values)
    wanted = CRPS(FAIR), Quantiles(STANDARD_LEVELS, definition), Rank()
    exact = evaluate_arrays(wanted, values, truth)
    np.testing.assert_allclose(sketch.crps(truth), exact[wanted[0]], rtol=1e-12, atol=1e-9)
    found = sketch.quantiles(LEVELS, definition)
    np.testing.assert_allclose(found, exact[wanted[1]], rtol=1e-12)
    below, not_above = sketch.below(truth)
    np.testing.assert_allclose((below + not_above) / 2, exact[Rank()], rtol=1e-12)
    assert (sketch.crps_bound(truth) == 0).all()


@pytest.mark.parametrize("bins", [5, 16, 64])
@pytest.mark.parametrize("count", [2, 3, 20, 500])
@pytest.mark.parametrize("seed", range(4))
def test_quantiles_and_crps_keep_within_their_bounds(seed: int, count: int, bins: int) -> None:
    values = members(seed, count)
    sketch, truth = Sketch.of(values, bins), truths(seed, np.repeat(values, 2, axis=0))
    exact = evaluate_arrays((CRPS(FAIR), Quantiles(STANDARD_LEVELS)), values, truth)
    slack = 1e-9
    error = np.abs(sketch.crps(truth) - exact[CRPS(FAIR)])
    bound = sketch.crps_bound(truth)
    assert (error <= bound + slack).all()
    assert (bound <= sketch.resolution + slack).all()
    apart = np.abs(sketch.quantiles(LEVELS, WEIBULL) - exact[Quantiles(STANDARD_LEVELS)])
    assert (apart <= sketch.resolution[:, None] + slack).all()
    ends = sketch.quantiles((0.0, *LEVELS, 1.0), LINEAR)
    assert (ends >= sketch.smallest[:, None]).all()
    assert (ends <= sketch.largest[:, None]).all()
    extent = sketch.largest - sketch.smallest
    assert (sketch.resolution <= 2 * extent / (bins - 1)).all()


@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_off_by_no_more_than_the_members_of_one_bin(seed: int) -> None:
    values = members(seed, 200)
    sketch, truth = Sketch.of(values, 16), truths(seed, values)
    exact = (values < truth).sum(axis=0), (values <= truth).sum(axis=0)
    for found, counted in zip(sketch.below(truth), exact, strict=True):
        assert (np.abs(found - counted) <= sketch.counts.max(axis=1)).all()
    for far, count in ((-1e6, 0), (1e6, 200)):
        np.testing.assert_array_equal(sketch.below(np.full(CELLS, far)), count)
        assert (sketch.crps_bound(np.full(CELLS, far)) == sketch.resolution).all()


def test_members_evenly_spread_over_their_bins_have_their_own_scores() -> None:
    values = np.arange(1024, dtype=np.int32)[:, None] + np.zeros(6, np.int32)
    sketch = Sketch.of(values, 4)
    assert (sketch.resolution == 255).all()
    truth = np.array([-300.0, 10.0, 127.5, 256.0, 700.25, 1500.0])
    exact = np.abs(values - truth).mean(axis=0)
    np.testing.assert_allclose(sketch.absolute_error(truth), exact, atol=0.1)
    apart = np.abs(values[:, :1] - values[:, 0]).sum()
    np.testing.assert_allclose(sketch.difference_sum, apart, rtol=1e-3)


def test_what_it_says_is_far_better_than_its_bound() -> None:
    values = members(5, 2_000)
    sketch, truth = Sketch.of(values, 64), truths(5, values)
    exact = evaluate_arrays((CRPS(FAIR),), values, truth)[CRPS(FAIR)]
    error = np.abs(sketch.crps(truth) - exact)
    assert error[1:].mean() < 0.02 * sketch.crps_bound(truth)[1:].mean()


def test_too_few_bins_or_other_bins_are_refused() -> None:
    values = members(0, 5)
    with pytest.raises(InputError, match="4 bins and a member, found 3 and 5"):
        Sketch.of(values, 3)
    with pytest.raises(InputError, match=r"\[8, 16\] bins cannot merge"):
        merge([Sketch.of(values, 8), Sketch.of(values, 16)])
