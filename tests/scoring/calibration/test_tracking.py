"""Quantile tracking and conformal PI control against their definitions, number by number."""

import numpy as np
import pytest

from data.errors import InputError
from scoring.calibration.tracking import QuantileTracking

LEVELS = np.array([0.2, 0.5, 0.8])
NOW = np.datetime64("2006-03-01", "ns")
PAST = NOW - np.arange(6, 0, -1) * np.timedelta64(1, "D")
LEADS, GROUPS, CASES = 2, 5, 4


def errors(dates: int, seed: int = 0) -> np.ndarray:
    """(init_time, lead_time, group, case, quantile), some of them not known."""
    draw = np.random.default_rng(seed)
    found = draw.standard_normal((dates, LEADS, GROUPS, CASES, 1)) * 3 - LEVELS
    found[draw.random(found.shape[:-1]) < 0.2] = np.nan
    return found


def test_start_is_one_sided_cqr_of_the_past_and_the_mean_size_of_errors():
    past = errors(6)
    state = QuantileTracking().start(past, LEVELS, PAST)
    for lead, group in np.ndindex(LEADS, GROUPS):
        own = past[:, lead, group].reshape(-1, LEVELS.size)
        own = own[np.isfinite(own[:, 0])]
        for place, level in enumerate(LEVELS):
            side = -1 if level < 0.5 else 1
            rank = int(np.ceil(round((len(own) + 1) * (1 - min(level, 1 - level)), 9)))
            expected = side * np.sort(side * own[:, place])[rank - 1]
            assert state["theta"][lead, group, place] == pytest.approx(expected)
        assert state["size"][lead, group] == pytest.approx(np.abs(own[:, 1]).mean())
        known = np.isfinite(past[:, lead, group, :, 1]).any(axis=1).sum()
        assert state["count"][lead, group] == known
    assert not state["total"].any()


def test_learning_is_its_definition():
    method = QuantileTracking(rate=0.3, integral=0.7, saturation=2.0, memory=8)
    state = method.start(errors(6), LEVELS, PAST)
    theta, total, size, count = (state[n].copy() for n in ("theta", "total", "size", "count"))
    draw = np.random.default_rng(5)
    for date in range(6):
        error = errors(1, seed=10 + date)[0]
        error[0, 0] = np.nan if date == 3 else error[0, 0]
        deficit = draw.uniform(-0.5, 0.5, (LEADS, GROUPS, LEVELS.size))
        deficit[np.isnan(error[..., 1]).all(axis=-1)] = 0.0
        state = method.learn(state, deficit, error, LEVELS, NOW)
        for at in np.ndindex(LEADS, GROUPS):
            own = np.abs(error[at][:, 1])
            own = own[np.isfinite(own)]
            if own.size:
                count[at] += 1
                size[at] += (own.mean() - size[at]) / min(count[at], 8)
            theta[at] += 0.3 * size[at] * deficit[at]
            total[at] += deficit[at]
            time = count[at] + 1
            push = 0.7 * size[at] * np.tan(total[at] * np.log(time) / (2.0 * time))
            np.testing.assert_allclose(method.shifts(state, LEVELS, NOW)[at], theta[at] + push)
        for name, expected in (("theta", theta), ("total", total), ("size", size)):
            np.testing.assert_allclose(state[name], expected)
        np.testing.assert_array_equal(state["count"], count)
    np.testing.assert_array_equal(QuantileTracking().shifts(state, LEVELS, NOW), state["theta"])


def test_the_integrator_stays_finite_and_on_its_side():
    method = QuantileTracking(integral=1.0, saturation=0.01)
    state = method.start(errors(6), LEVELS, PAST)
    steep = {side: state | {"total": np.full_like(state["total"], side)} for side in (-9.0, 9.0)}
    for side, one in steep.items():
        push = method.shifts(one, LEVELS, NOW) - one["theta"]
        # tan(pi / 2 - 0.001) = 1000, nearly.
        np.testing.assert_allclose(
            push, np.sign(side) * 1000 * one["size"][..., None] * np.ones(3), rtol=1e-5
        )


def test_the_size_starts_with_the_first_known_error():
    method = QuantileTracking(rate=0.5)
    state = method.start(errors(0), LEVELS, PAST[:0])
    assert np.isnan(state["size"]).all()
    assert not state["theta"].any()
    error = np.full((LEADS, GROUPS, CASES, 3), 2.0)
    error[1] = np.nan
    deficit = np.full((LEADS, GROUPS, 3), 0.1)
    deficit[1] = 0.0
    after = method.learn(state, deficit, error, LEVELS, NOW)
    np.testing.assert_array_equal(after["size"], [[2.0] * 5, [np.nan] * 5])
    np.testing.assert_array_equal(after["count"], [[1] * 5, [0] * 5])
    np.testing.assert_allclose(after["theta"][0], 0.1)
    assert not after["theta"][1].any()


def test_the_group_with_the_fewest_cases_decides_whether_a_level_can_be_had():
    past = errors(6)
    past[1:, 0, 1] = np.nan
    past[0, 0, 1] = [[1.0] * 3] * 2 + [[np.nan] * 3] * 2
    with pytest.raises(InputError, match=r"miss rate of 0\.2 needs at least 4 cases, found 2"):
        QuantileTracking().start(past, LEVELS, PAST)
