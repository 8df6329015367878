"""Adaptive conformal inference against its definition, number by number."""

import numpy as np
import pytest

from data.errors import InputError
from scoring.calibration.adaptive import AdaptiveConformal
from scoring.dates import Recent

LEVELS = np.array([0.2, 0.5, 0.8])
DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")
NOW = np.datetime64("2006-03-01", "ns")
AGES = np.array([40, 33, 12, 11, 10, 9, 7, 6, 4, 3, 2, 1])
PAST = NOW - AGES * DAY
LEADS, GROUPS, CASES = 2, 5, 4


def errors(dates: int = 12, seed: int = 0) -> np.ndarray:
    """(init_time, lead_time, group, case, quantile)"""
    draw = np.random.default_rng(seed)
    return 2 * draw.standard_normal((dates, LEADS, GROUPS, CASES, 1)) - LEVELS


def quantile_of(scores: np.ndarray, weights: np.ndarray, alpha: float) -> float:
    """The smallest score whose share of the weight, one score at infinity counted, is reached."""
    number = weights.sum() ** 2 / (weights**2).sum()
    order = np.argsort(scores)
    share = np.cumsum(weights[order]) / weights.sum()
    reached = share >= (1 - alpha) * (number + 1) / number - 1e-12
    return scores[order][reached][0] if reached.any() else np.inf


@pytest.mark.parametrize("half_life", [None, 9])
def test_shifts_are_conformal_quantiles_at_the_levels_of_the_state(half_life):
    weighting = AdaptiveConformal().weighting if half_life is None else Recent(half_life * DAY)
    method = AdaptiveConformal(0.1, weighting)
    past = errors()
    past[2, 0, 1, 0] = np.nan
    state = method.start(past, LEVELS, PAST)
    np.testing.assert_array_equal(state["level"], np.broadcast_to(LEVELS, (LEADS, GROUPS, 3)))
    state["level"][1] = [0.3, 0.45, 0.7]
    found = method.shifts(state, LEVELS, NOW)
    weight = np.ones(12) if half_life is None else 0.5 ** (AGES / half_life)
    for lead, group, place in np.ndindex(LEADS, GROUPS, 3):
        own, each = past[:, lead, group, :, place].ravel(), np.repeat(weight, CASES)
        own, each = own[np.isfinite(own)], each[np.isfinite(own)]
        level, side = state["level"][lead, group, place], -1 if LEVELS[place] < 0.5 else 1
        alpha = level if side < 0 else 1 - level
        assert found[lead, group, place] == side * quantile_of(side * own, each, alpha)


def test_learning_moves_levels_and_keeps_the_last_dates_in_order():
    method = AdaptiveConformal(0.1, window=12)
    state = method.start(errors(), LEVELS, PAST)
    deficit = np.linspace(-0.3, 0.3, LEADS * GROUPS * 3).reshape(LEADS, GROUPS, 3)
    first, second = errors(1, 1)[0], errors(1, 2)[0]
    partial = first.copy()
    partial[1] = np.nan
    after = method.learn(state, deficit, partial, LEVELS, NOW + DAY)
    np.testing.assert_allclose(after["level"], LEVELS + 0.1 * deficit)
    after = method.learn(after, 0 * deficit, second, LEVELS, NOW)
    # The second lead of the first forecast comes later, beside the first lead, which stays.
    late = 9 * first
    late[1] = first[1]
    before = after["errors"].copy()
    after = method.learn(after, 0 * deficit, late, LEVELS, NOW + DAY)
    assert after["past"].tolist() == [*PAST[2:].tolist(), NOW.item(), (NOW + DAY).item()]
    expected = np.concatenate([errors()[2:], second[None], first[None]])
    np.testing.assert_array_equal(after["errors"], expected)
    assert np.isnan(before[-1, 1]).all()


def test_levels_that_crossed_are_pooled():
    method = AdaptiveConformal()
    state = method.start(errors(), LEVELS, PAST)
    crossed, pooled = state["level"].copy(), state["level"].copy()
    crossed[0, 0], pooled[0, 0] = [0.2, 0.8, 0.6], [0.2, 0.7, 0.7]
    found, wanted = (
        method.shifts(state | {"level": one}, LEVELS, NOW) for one in (crossed, pooled)
    )
    np.testing.assert_array_equal(found, wanted)


def test_reach_holds_shifts_on_both_sides():
    method = AdaptiveConformal(reach=0.5)
    past = errors()
    state = method.start(past, LEVELS, PAST)
    state["level"][:] = [-0.1, 0.5, 1.1]
    found = method.shifts(state, LEVELS, NOW)
    limit = 0.5 * np.abs(past).max(axis=(0, 3))
    np.testing.assert_array_equal(found[..., 0], -limit[..., 0])
    np.testing.assert_array_equal(found[..., 2], limit[..., 2])
    free = AdaptiveConformal().shifts(state, LEVELS, NOW)
    assert (free[..., 0] == -np.inf).all()
    assert (free[..., 2] == np.inf).all()


def test_the_group_with_the_fewest_cases_decides_whether_a_level_can_be_had():
    past = errors()
    past[1:, 0, 1] = np.nan
    past[0, 0, 1, 0] = np.nan
    state = AdaptiveConformal().start(past, LEVELS, PAST)
    with pytest.raises(InputError, match=r"miss rate of 0\.2 needs at least 4 cases, found 3"):
        AdaptiveConformal().shifts(state, LEVELS, NOW)
