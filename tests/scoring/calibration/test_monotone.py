import numpy as np
import pytest
import torch
import xarray as xr
from scipy import optimize

from data.errors import InputError
from data.key import Key
from scoring.calibration.isotonic import isotonic_regression
from scoring.calibration.monotone import (
    AS_IS,
    ISOTONIC,
    SORT,
    AdaptiveMargin,
    Crossing,
    FixedMargin,
    Isotonic,
    LevelMargin,
    in_order,
)

METHODS = (SORT, ISOTONIC, Isotonic(tuple(np.linspace(1, 3, 9))))
LEVELS = np.linspace(0.1, 0.9, 9)


def random_cases(count: int = 10_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Quantiles that cross, (case, level), truth, (case,), and weights of levels."""
    draw = Key(seed).generator()
    quantiles = np.sort(draw.normal(size=(count, 9)), axis=1) + draw.normal(size=(count, 9))
    return quantiles, draw.normal(size=count), draw.gamma(0.5, size=(count, 9)) + 1e-3


def weighted_score(quantiles: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    error = truth[:, None] - quantiles
    return (weights * np.maximum(LEVELS * error, (LEVELS - 1) * error)).sum(axis=1)


@pytest.mark.parametrize("method", [SORT, ISOTONIC])
def test_neither_worsens_a_score_of_equal_weights(method):
    quantiles, truth, _ = random_cases()
    before = weighted_score(quantiles, truth, np.ones(9))
    after = weighted_score(method.of_array(quantiles), truth, np.ones(9))
    assert (after <= before + 1e-12).all()
    assert (after < before - 1e-3).mean() > 0.5


def test_with_unequal_weights_sorting_worsens_some_scores_and_weighted_isotonic_none():
    quantiles, truth, weights = random_cases(2_000)
    before = weighted_score(quantiles, truth, weights)
    ordered = np.stack(
        [
            Isotonic(tuple(weight)).of_array(row)
            for row, weight in zip(quantiles, weights, strict=True)
        ]
    )
    assert (weighted_score(ordered, truth, weights) <= before + 1e-12).all()
    assert (weighted_score(SORT.of_array(quantiles), truth, weights) > before + 1e-9).mean() > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_the_result_increases_and_is_left_alone_afterwards(method):
    quantiles = random_cases(200)[0].astype(np.float32)
    ordered = method.of_array(quantiles)
    assert ordered.dtype == np.float32
    assert (np.diff(ordered, axis=1) >= 0).all()
    np.testing.assert_array_equal(method.of_array(ordered), ordered)


@pytest.mark.parametrize("method", METHODS)
def test_tensors_and_arrays_agree(method):
    quantiles = random_cases(200)[0]
    found = method.of_tensor(torch.from_numpy(quantiles))
    np.testing.assert_allclose(found.numpy(), method.of_array(quantiles), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_finite_differences(method):
    quantiles = torch.from_numpy(random_cases(5)[0]).requires_grad_()
    assert torch.autograd.gradcheck(method.of_tensor, (quantiles,))


def test_isotonic_is_that_of_scipy():
    quantiles = random_cases(50)[0]
    for weights in (np.ones(9), np.linspace(1, 3, 9)):
        found = Isotonic(tuple(weights)).of_array(quantiles)
        for row, fit in zip(quantiles, found, strict=True):
            expected = optimize.isotonic_regression(row, weights=weights).x
            np.testing.assert_allclose(fit, expected, atol=1e-12)


def test_many_series_at_a_time_are_each_that_of_scipy():
    draw = Key(4).generator()
    values = np.sort(draw.normal(size=(1500, 99)), axis=1)
    values[::3] += 0.02 * draw.normal(size=(500, 99))
    weights = draw.uniform(0.5, 2.0, 99)
    expected = [optimize.isotonic_regression(row, weights=weights).x for row in values]
    np.testing.assert_allclose(isotonic_regression(values, weights), expected, atol=1e-12)
    single = isotonic_regression(values, weights, out=np.empty(values.shape, np.float32))
    np.testing.assert_array_equal(single, isotonic_regression(values, weights).astype(np.float32))
    assert isotonic_regression(values, weights, out=values) is values
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_an_entry_without_weight_has_no_say_and_takes_the_fit_of_its_neighbour():
    draw = Key(5).generator()
    values, weights = draw.normal(size=(200, 9)), draw.uniform(0.5, 2.0, (200, 9))
    weights[draw.random(weights.shape) < 0.4] = 0.0
    weights[:5], weights[5, 3] = 0.0, 1.0
    values[(weights == 0) & (draw.random(weights.shape) < 0.5)] = np.nan
    values[6, 2], weights[6, 2] = np.nan, 1.0
    found = isotonic_regression(values, weights)
    for row, weight, fit in zip(values, weights, found, strict=True):
        used = np.flatnonzero(weight > 0)
        if not used.size or np.isnan(row[used]).any():
            assert np.isnan(fit).all()
            continue
        expected = optimize.isotonic_regression(row[used], weights=weight[used]).x
        left = np.searchsorted(used, np.arange(9), side="right") - 1
        np.testing.assert_allclose(fit, expected[np.maximum(left, 0)], atol=1e-12)
    assert np.isnan(found[:5]).all()
    assert np.isnan(found[6]).all()
    assert np.isfinite(found[7:]).any()


def test_series_of_very_different_size_do_not_disturb_each_other():
    quantiles = random_cases(300)[0]
    scale = 10.0 ** Key(1).generator().uniform(-8, 8, (300, 1))
    shift = 1e3 * Key(2).generator().normal(size=(300, 1))
    expected = ISOTONIC.of_array(quantiles)
    np.testing.assert_allclose(ISOTONIC.of_array(scale * quantiles), scale * expected, rtol=1e-10)
    np.testing.assert_allclose(ISOTONIC.of_array(quantiles + shift), expected + shift, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_cases_with_a_missing_level_are_missing_and_others_are_not(method):
    quantiles = random_cases(20)[0]
    quantiles[3, 4] = np.nan
    found = method.of_array(quantiles)
    assert np.isnan(found[3]).all()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()


def test_penalty_is_its_definition():
    quantiles, _, _ = random_cases(30)
    inputs = np.sort(Key(3).generator().normal(size=(30, 4, 9)), axis=2)
    inputs[:5, 1] = np.nan
    gaps = np.nanmean(inputs, axis=1)
    margins = {
        FixedMargin(0.2): lambda case, low, high: 0.2,
        LevelMargin(2.0): lambda case, low, high: 2.0 * (LEVELS[high] - LEVELS[low]),
        AdaptiveMargin(0.5): lambda case, low, high: 0.5 * (gaps[case, high] - gaps[case, low]),
    }
    for margin, size in margins.items():
        expected = sum(
            max(0.0, quantiles[case, low] - quantiles[case, high] + size(case, low, high))
            for case in range(30)
            for low in range(9)
            for high in range(low + 1, 9)
        )
        tensors = (torch.from_numpy(array) for array in (quantiles, LEVELS, inputs))
        found = Crossing(3.0, margin).of(*tensors)
        assert float(found) == pytest.approx(3.0 * expected / 30)


def test_penalty_is_zero_for_quantiles_far_enough_apart():
    levels = torch.from_numpy(LEVELS)
    assert float(Crossing(1.0, LevelMargin(2.0)).of(2.01 * levels[None], levels, levels)) == 0.0


def test_labelled_forecasts_keep_their_dimensions():
    values = random_cases(12)[0].reshape(3, 4, 9)
    forecast = xr.DataArray(
        values, {"quantile": LEVELS}, ("x", "y", "quantile"), attrs={"units": "K"}
    )
    found = in_order(forecast.transpose("quantile", "x", "y"))
    assert found.dims == ("quantile", "x", "y")
    assert found.attrs == {"units": "K"}
    expected = ISOTONIC.of_array(values)
    np.testing.assert_array_equal(found.transpose("x", "y", "quantile"), expected)
    xr.testing.assert_identical(in_order(forecast, AS_IS), forecast)


def test_wrong_weights_are_refused():
    with pytest.raises(InputError, match="must be positive"):
        Isotonic((1.0, 0.0))
    with pytest.raises(InputError, match="2 weights of levels were given for 9"):
        Isotonic((1.0, 2.0)).of_array(random_cases(2)[0])
