import numpy as np
import pytest

from scoring.calibration.degree_factors import Powers, factors, widening_for

SHARE = np.array([[0.9], [0.95]])
COST, NOISE = 0.02, 0.5


def some_powers(seed: int, low: float = 0.5, high: float = 3.0) -> Powers:
    rng = np.random.default_rng(seed)
    mean, variance = rng.uniform(0.5, 3, (2, 2, 100))
    truth = rng.uniform(low, high, (2, 100)) * (mean + variance) / 2
    cross = rng.uniform(0.1, 0.95, (2, 100)) * np.sqrt(truth * mean)
    return Powers(truth, mean, cross, variance, SHARE)


def power_after(powers: Powers, b: np.ndarray, t: np.ndarray, leak: float = 1.0) -> np.ndarray:
    return b**2 * powers.mean + powers.share * leak * t**2 * powers.variance


def by_search(truth, mean, cross, variance, share, change, widening, leak) -> tuple[float, float]:
    """b and t of one degree, by trying values of b one after the other."""
    raw = mean + share * variance
    low, high = (1 - change) * raw, (1 + change) * raw

    def error(b):
        return np.maximum(truth - 2 * b * cross + b**2 * mean, 0.0)

    def power(b):
        return b**2 * mean + share * leak * widening**2 * error(b)

    b = best = np.clip(cross / mean, 0.0, 2.0)
    if power(best) < low:
        tried = np.linspace(best, max(best, 1 + change), 20_001)
        enough = power(tried) >= low
        b = tried[enough.argmax()] if enough.any() else tried[-1]
    elif power(best) > high:
        tried = np.linspace(best, max(best - np.sqrt(COST * error(best) / mean), 0.0), 20_001)
        enough = power(tried) <= high
        b = tried[enough.argmax()] if enough.any() else tried[power(tried).argmin()]
        b = b if enough.any() else min(b, np.sqrt(1 + change))
    least, most = ((end - b**2 * mean) / (share * leak) for end in (low, high))
    spread = max(widening**2 * error(b), least if truth > NOISE * raw else 0.0)
    return b, np.clip(np.sqrt(max(min(spread, most), 0.0) / variance), 0.1, 3.0)


@pytest.mark.parametrize(("widening", "leak"), [(1.0, 1.0), (1.1, 0.95)])
@pytest.mark.parametrize("change", [0.03, 0.3, 1e9])
def test_factors_are_regression_within_the_power_that_is_allowed(change, widening, leak):
    powers = some_powers(8)
    slope, stretch = factors(powers, change, widening, leak)
    columns = (powers.truth, powers.mean, powers.cross, powers.variance, SHARE * np.ones((2, 100)))
    expected = np.array(
        [
            by_search(*numbers, change, widening, leak)
            for numbers in zip(*map(np.ravel, columns), strict=True)
        ]
    )
    np.testing.assert_allclose(slope.ravel(), expected[:, 0], atol=1e-4)
    np.testing.assert_allclose(stretch.ravel(), expected[:, 1], atol=3e-4)
    if change > 1:
        best = powers.cross / powers.mean
        inside = (best < 2) & (stretch < 3)
        np.testing.assert_allclose(slope[inside], best[inside])
        error = powers.truth - powers.cross * best
        variance = stretch**2 * powers.variance
        np.testing.assert_allclose(variance[inside], (widening**2 * error)[inside])


@pytest.mark.parametrize("leak", [1.0, 1.15])
def test_power_stays_within_what_is_allowed(leak):
    powers = some_powers(3, low=1.1)
    b, t = factors(powers, 0.05, 1.02, leak)
    raw = powers.mean + powers.share * powers.variance
    free = (t > 0.1) & (t < 3)
    assert free.mean() > 0.9
    change = power_after(powers, b, t, leak)[free] / raw[free] - 1
    assert abs(change).max() < 0.05 + 1e-9


def test_room_for_spread_costs_little_and_the_mean_is_damped_before_members_are_held_back():
    powers = some_powers(5, low=2.0, high=2.2)
    raw = powers.mean + powers.share * powers.variance
    b, t = factors(powers, 0.05)
    best = powers.cross / powers.mean
    assert (powers.error(b) <= (1 + COST) * powers.error(best) + 1e-12)[b < best].mean() > 0.9
    full = np.isclose(t**2 * powers.variance, powers.error(b))
    excess = power_after(powers, best, np.sqrt(powers.error(best) / powers.variance)) > 1.05 * raw
    assert (full & excess).sum() > 5


@pytest.mark.parametrize("growth", [0.97, 1.0, 1.04])
def test_degrees_that_must_not_change_leave_their_variance_to_the_others(growth):
    powers = some_powers(6, low=1.8, high=2.2)
    leak = np.random.default_rng(7).uniform(0.8, 1.2, (2, 100))
    before = (leak * factors(powers, 0.05)[1] ** 2 * powers.variance).sum(axis=1)
    widening = widening_for(np.full((2, 1), growth), powers, 0.05, leak)
    after = (leak * factors(powers, 0.05, widening, leak)[1] ** 2 * powers.variance).sum(axis=1)
    np.testing.assert_allclose(after, growth**2 * before, rtol=1e-6)
    held_back = widening_for(np.full((2, 1), growth), powers, 0.05, np.ones((2, 100)))
    assert ((held_back - growth) * (growth - 1) >= -1e-6).all()
    free = widening_for(np.full((2, 1), growth), powers, np.inf, leak)
    np.testing.assert_allclose(free, growth, rtol=1e-6)
