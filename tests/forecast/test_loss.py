"""Losses against their slow and textbook forms."""

import numpy as np
import pytest
import torch

from data.key import Key
from data.sphere import Sphere
from forecast.loss import (
    AlmostFairCRPS,
    AmplitudePreservingError,
    SquaredError,
    Sum,
    VarianceError,
)
from tests.forecast.conftest import GRID


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(Key(seed).normal((*shape, *GRID.shape)))


def area_mean(values: torch.Tensor) -> float:
    return float((values.double().numpy() * GRID.area_weights).sum((-2, -1)).mean())


def test_squared_error_is_the_area_mean_of_the_squared_difference():
    forecast, truth = draw(2, 3, 2), draw(3, 2, seed=1)
    expected = area_mean((forecast - truth) ** 2)
    assert float(SquaredError(GRID)(forecast, truth)) == pytest.approx(expected, rel=1e-5)


def test_amplitude_preserving_error_equals_brute_force():
    forecast, truth = draw(1, 2, 1), draw(2, 1, seed=1)
    sphere = Sphere(GRID, 5)
    total = 0.0
    for case in range(2):
        f, t = (sphere.analyse(x).numpy() for x in (forecast[0, case, 0], truth[case, 0]))
        for degree in range(6):
            weight = np.where(np.arange(6) == 0, 1, 2) / (4 * np.pi)
            power_f, power_t = ((np.abs(x[degree]) ** 2 * weight).sum() for x in (f, t))
            cross = ((f[degree] * t[degree].conj()).real * weight).sum()
            coherence = cross / np.sqrt(power_f * power_t)
            total += (np.sqrt(power_f) - np.sqrt(power_t)) ** 2
            total += 2 * max(power_f, power_t) * (1 - coherence)
    found = AmplitudePreservingError(GRID, 5)(forecast, truth)
    assert float(found) == pytest.approx(total / 2, rel=1e-4)


def test_amplitude_preserving_error_equals_the_squared_error_at_equal_amplitudes():
    sphere = Sphere(GRID, 5)
    truth = sphere.truncate(draw(2, 1))
    forecast = truth.roll(5, dims=-1)[None]
    squared = SquaredError(GRID)(forecast, truth)
    found = AmplitudePreservingError(GRID, 5)(forecast, truth)
    torch.testing.assert_close(found, squared, rtol=1e-4, atol=1e-5)


def test_amplitude_preserving_error_does_not_reward_smoothing():
    sphere = Sphere(GRID, 5)
    truth, other = sphere.truncate(draw(99, 1)), sphere.truncate(draw(99, 1, seed=1))
    power_t, power_o = (sphere.power(sphere.analyse(x)) for x in (truth, other))
    assert power_t.shape == power_o.shape
    degrees = sphere.analyse(other) * (power_t / power_o).sqrt()[..., None]
    other = sphere.synthesise(degrees)  # now with as much power as the truth in every degree
    forecast = (truth + other) / 2**0.5
    damped = 0.7 * forecast
    squared, preserving = SquaredError(GRID), AmplitudePreservingError(GRID, 5)
    assert squared(damped[None], truth) < squared(forecast[None], truth)
    assert preserving(damped[None], truth) > preserving(forecast[None], truth)


@pytest.mark.parametrize("members", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.95, 1.0])
def test_stable_form_of_the_almost_fair_crps_equals_the_textbook_form(members, alpha):
    forecast, truth = draw(members, 2, 2), draw(2, 2, seed=1)
    error = (forecast - truth).abs().mean(0)
    pairs = (forecast[:, None] - forecast[None]).abs().sum((0, 1))
    fair = error - pairs / (2 * members * (members - 1))
    standard = error - pairs / (2 * members**2)
    expected = area_mean(alpha * fair + (1 - alpha) * standard)
    found = AlmostFairCRPS(GRID, alpha)(forecast, truth)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_no_term_of_the_almost_fair_crps_is_negative():
    forecast, truth = draw(4, 2, 2), draw(2, 2, seed=1)
    assert (AlmostFairCRPS(GRID).terms(forecast, truth) >= 0).all()


def test_almost_fair_crps_needs_two_members():
    with pytest.raises(ValueError, match="2 or more members"):
        AlmostFairCRPS(GRID)(draw(1, 2, 2), draw(2, 2))


def test_gradients_are_finite_where_forecast_and_truth_agree():
    truth = draw(2, 2)
    for loss in (SquaredError(GRID), AmplitudePreservingError(GRID), AlmostFairCRPS(GRID)):
        forecast = truth.expand(2, -1, -1, -1, -1).clone().requires_grad_()
        loss(forecast, truth).backward()
        assert torch.isfinite(forecast.grad).all()


def test_variance_error_is_the_squared_relative_difference_of_eddy_variances():
    truth = draw(3, 2, seed=1)
    shifted = truth + draw(3, 2, seed=2).mean(-1, keepdim=True)
    assert float(VarianceError(GRID)(shifted[None], truth)) == pytest.approx(0, abs=1e-10)
    assert float(VarianceError(GRID)(truth.flip(-1)[None], truth)) == pytest.approx(0, abs=1e-10)
    eddies = (truth - truth.mean(-1, keepdim=True)).double().numpy()
    variance = (eddies**2 * GRID.area_weights).sum((-2, -1))
    factors = torch.tensor([2.0, 1.0, 1.0]).reshape(3, 1, 1, 1)
    relative = 3 * variance[0] / variance.sum(0)
    found = float(VarianceError(GRID)((factors * truth)[None], truth))
    assert found == pytest.approx((relative**2).mean(), rel=1e-4)


def test_sum_weighs_its_terms():
    forecast, truth = draw(2, 2, 2), draw(2, 2, seed=1)
    first, second = SquaredError(GRID), AlmostFairCRPS(GRID)
    found = Sum(((2.0, first), (0.5, second)))(forecast, truth)
    torch.testing.assert_close(found, 2 * first(forecast, truth) + 0.5 * second(forecast, truth))
